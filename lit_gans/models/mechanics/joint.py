"""Batches of all processes as one, for losses that compare the samples of a batch."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce  # the differentiable one

__all__ = ("joint_batch", "mean_gradient")


def joint_batch(x: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks; ``x`` itself in one process.

    Gradients flow back to the process that a row comes from. With the mean of each process's loss over its own rows,
    their average, which DDP takes, is that of the joint batch.

    Args:
        x: Shape (N, ...), the same on all processes.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    rows = torch.zeros(dist.get_world_size(), *x.shape, dtype=x.dtype, device=x.device)
    mask = torch.zeros(dist.get_world_size(), *[1] * x.ndim, dtype=x.dtype, device=x.device)
    mask[dist.get_rank()] = 1
    joint: Tensor = all_reduce(rows + mask * x)
    return joint.flatten(0, 1)


def mean_gradient(gradient: Tensor) -> Tensor:
    """The mean over processes of a gradient that is itself differentiated; itself in one process."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return gradient
    mean: Tensor = all_reduce(gradient) / dist.get_world_size()
    return mean
