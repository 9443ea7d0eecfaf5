"""What the augmentations share."""

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ("Augmentation",)


class Augmentation(nn.Module):
    """Images → images, at random and differentiably; a subclass defines ``transform``.

    A subclass keeps its arguments in ``init_args``, from which a checkpoint builds it again. Random numbers are drawn
    for each image by itself, from the global generator of the images' device, which the training loop seeds.
    """

    init_args: dict[str, Any]

    def forward(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) → images of the same shape and type, computed in float32 at least.

        Raises:
            ValueError: if these are no images of floating point.
        """
        if x.ndim != 4 or not x.is_floating_point():
            given = f"shape {tuple(x.shape)}, {x.dtype}"
            raise ValueError(f"{type(self).__name__} takes images (N, C, H, W) of floating point, got {given}")
        with torch.autocast(x.device.type, enabled=False):
            return self.transform(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)

    def transform(self, x: Tensor) -> Tensor:
        """The same for images in float32 or float64."""
        raise NotImplementedError(f"{type(self).__name__} must define transform(x)")
