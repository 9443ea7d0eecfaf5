"""Metrics that compare each picture with its target, and what they have in common."""

import hashlib
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_gans.functional import to_uint8, to_y

__all__ = ("L1", "Channel", "PictureMetric", "absolute_error")

Channel = Literal["rgb", "y"]


class PictureMetric(Metric):
    """A ``torchmetrics.Metric`` with one value for each pair of output and target, and their mean.

    Both are rounded to uint8 before they are compared, as if they had been saved. Sums are float64 and keep their
    precision, so that the result depends neither on the number of processes nor on the batches.

    Args:
        channel: ``rgb`` for all channels; ``y`` for the luma of BT.601 in 16..235, not rounded, of RGB pictures, while
            grey ones are taken as they are.
        crop: Width of the border that is left out; super-resolution leaves out as many pixels as its scale.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``channel`` or ``crop`` is none of these; in ``update``, if the pictures cannot be compared; in
            ``compute``, if there are none.
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    n: Tensor

    def __init__(self, channel: Channel = "rgb", crop: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if channel not in ("rgb", "y"):
            raise ValueError(f"channel must be rgb or y, got {channel!r}")
        if crop < 0:
            raise ValueError(f"crop must be 0 or more pixels, got {crop}")
        self.channel, self.crop = channel, crop
        looks = int(hashlib.sha256(f"{type(self).__name__} {channel} {crop}".encode()).hexdigest()[:15], 16)
        self.add_state("looks", torch.tensor(looks), dist_reduce_fx="max")  # a MetricCollection merges equal states
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("n", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Add pictures.

        Args:
            outputs: (N, 1 or 3, H, W), floating point in [-1, 1], beyond which they are clamped, or uint8.
            targets: What they should be, of the same shape, floating point in [-1, 1] or uint8.

        Raises:
            ValueError: if shapes differ, there are no pixels left, or values are not finite or out of range.
        """
        if outputs.shape != targets.shape or outputs.ndim != 4:
            raise ValueError(
                f"outputs and targets must be pictures (N, C, H, W) of one shape, got {tuple(outputs.shape)} and "
                f"{tuple(targets.shape)}"
            )
        if outputs.shape[1] not in (1, 3):
            raise ValueError(f"pictures must be grey (1 channel) or RGB (3), got {outputs.shape[1]} channels")
        if min(outputs.shape[2:]) <= 2 * self.crop:
            raise ValueError(f"pictures of shape {tuple(outputs.shape)} have nothing left without {self.crop} pixels")
        self.add(*(self.view(pictures, name) for pictures, name in ((outputs, "outputs"), (targets, "targets"))))
        self.n += len(outputs)

    def view(self, pictures: Tensor, name: str) -> Tensor:
        """What is compared of the pictures: float64 in 0..255, one or three channels, without the border."""
        if pictures.is_floating_point():
            if not pictures.isfinite().all():
                raise ValueError(f"{name} have NaN or infinite values: whatever made them has diverged")
            if name == "targets" and pictures.numel() and pictures.abs().max() > 1.01:
                low, high = float(pictures.min()), float(pictures.max())
                raise ValueError(f"targets must be in [-1, 1], got [{low:.3g}, {high:.3g}]")
            pictures = to_uint8(pictures)
        elif pictures.dtype != torch.uint8:
            raise ValueError(f"{name} must be floating point in [-1, 1] or uint8, got {pictures.dtype}")
        c = self.crop
        seen = pictures[..., c : pictures.shape[-2] - c, c : pictures.shape[-1] - c].to(self.device)
        return to_y(seen) if self.channel == "y" and seen.shape[1] == 3 else seen.double()

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the values of the pictures to the sum."""
        self.total += self.measure(outputs, targets).sum()

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The value of each picture (N,), float64, of pictures (N, C, H, W) in 0..255, float64."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """The mean over pictures, a float64 scalar."""
        if not self.n:
            raise ValueError(f"{type(self).__name__} has no pictures yet: update(outputs, targets) adds them")
        return self.total / self.n

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> "PictureMetric":
        """Follow to another device, but to no other precision."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(fn(torch.empty(0, dtype=torch.int64, device=tensor.device)).device)

        return super()._apply(move, *args)  # type: ignore[return-value]


def absolute_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute difference of each picture (N,), in units of the range of a pixel, so that 1 is black from white.

    Args:
        outputs: (N, C, H, W), values 0..255.
        targets: The same.
    """
    return (outputs.double() - targets.double()).abs().mean((1, 2, 3)) / 255


class L1(PictureMetric):
    """Mean absolute error of pictures whose pixels are in [0, 1]; lower is better.

    Takes the arguments of ``PictureMetric``.

    Example:
        >>> error = L1()
        >>> error.update(torch.full((1, 3, 4, 4), -1.0), torch.full((1, 3, 4, 4), -0.6))
        >>> error.compute()
        tensor(0.2000, dtype=torch.float64)
    """

    higher_is_better = False

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean absolute difference of each picture, 0..1."""
        return absolute_error(outputs, targets)
