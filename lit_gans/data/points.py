"""Points of the plane around known centres, where collapse can be counted.

L. Metz et al., "Unrolled Generative Adversarial Networks", ICLR 2017, arXiv:1611.02163.
A. Srivastava et al., "VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning", NeurIPS 2017,
arXiv:1705.07761.
Z. Lin et al., "PacGAN: The Power of Two Samples in Generative Adversarial Networks", NeurIPS 2018, arXiv:1712.04086.
"""

import math
from typing import Literal, NamedTuple, TypeGuard, get_args

import numpy as np
import torch
from torch import Tensor

__all__ = ("TRAINING_POINTS", "ArrayPoints", "Mixture", "Plane", "draw_points", "is_plane", "mixture")

Plane = Literal["grid", "ring", "spiral"]

TRAINING_POINTS = 50_000
HELD_OUT_POINTS = 10_000


class Mixture(NamedTuple):
    """Equally weighted round Gaussians in the plane."""

    centers: Tensor
    """Where they are, float32 (M, 2)."""
    std: float
    """Standard deviation of each, in each direction."""


def is_plane(dataset: str) -> TypeGuard[Plane]:
    """Whether a data set is one of points."""
    return dataset in get_args(Plane)


def mixture(name: Plane) -> Mixture:
    """The mixture of that name, in the units of the literature.

    ``ring``: 8 Gaussians of standard deviation 0.02 on a circle of radius 2 (Metz et al. 2017, appendix A; half of all
    that is PacGAN's ring). ``grid``: 25 of standard deviation 0.05 at (-4 + 2i, -4 + 2j) (VEEGAN and PacGAN, section
    4.1). ``spiral``: 20 of standard deviation 0.05 along two turns of an Archimedean spiral that ends at radius 2, at
    nearly equal steps, ours.

    Example:
        >>> mixture("ring").centers[:3], mixture("ring").std
        (tensor([[2.0000, 0.0000],
                [1.4142, 1.4142],
                [0.0000, 2.0000]]), 0.02)
    """
    match name:
        case "ring":
            angle, radius, std = 2 * math.pi * torch.arange(8) / 8, torch.tensor(2.0), 0.02
        case "spiral":
            share = ((torch.arange(20) + 1) / 20).sqrt()  # the spiral's length grows with the square of its angle
            angle, radius, std = 4 * math.pi * share, 2 * share, 0.05
        case "grid":
            steps = torch.arange(-4.0, 5.0, 2.0)
            return Mixture(torch.cartesian_prod(steps, steps), 0.05)
    centers = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)
    return Mixture(torch.where(centers.abs() < 1e-6, 0.0, centers), std)


def draw_points(name: Plane, train: bool) -> tuple[Tensor, Tensor]:
    """The 50,000 training or 10,000 held-out points, float32 (N, 2), and the mode that each is of, int64 (N,).

    They depend on nothing but the arguments, and the modes take turns: the first k·M points hold k of each.

    Example:
        >>> points, modes = draw_points("grid", train=True)
        >>> points.shape, modes[:3].tolist(), modes.bincount().unique()
        (torch.Size([50000, 2]), [0, 1, 2], tensor([2000]))
    """
    centers, std = mixture(name)
    modes = torch.arange(TRAINING_POINTS if train else HELD_OUT_POINTS) % len(centers)
    noise = np.random.default_rng((get_args(Plane).index(name), int(train))).standard_normal((len(modes), 2))
    return centers[modes] + std * torch.from_numpy(noise.astype(np.float32)), modes


class ArrayPoints:
    """Points held in memory: a source whose samples are neither images nor scaled.

    Args:
        array: float32 (N, D).
        labels: The mode that each point is of, int64 (N,), or None.
    """

    ready = True

    def __init__(self, array: Tensor, labels: Tensor | None = None) -> None:
        self.array = array
        self.labels = labels
        self.shape = tuple(array.shape[1:])

    def __len__(self) -> int:
        return len(self.array)

    def images(self, indices: Tensor) -> Tensor:
        """The points at ``indices``, float32 (len(indices), D), under the name that all sources have for it."""
        return torch.from_numpy(self.array.numpy().take(indices.numpy(), axis=0))  # never waits for a thread pool

    def name(self, index: int) -> str:
        """The number of the point."""
        return f"#{index}"
