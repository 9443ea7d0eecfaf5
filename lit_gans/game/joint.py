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
    if (world := _processes()) == 1:
        return x
    mine = dist.get_rank()
    joint: Tensor = all_reduce(torch.stack([x if rank == mine else torch.zeros_like(x) for rank in range(world)]))
    return joint.flatten(0, 1)


def mean_gradient(gradient: Tensor) -> Tensor:
    """The mean over processes of a gradient that is itself differentiated; itself in one process."""
    if (world := _processes()) == 1:
        return gradient
    mean: Tensor = all_reduce(gradient) / world
    return mean


def _processes() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
