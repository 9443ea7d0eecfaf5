"""What the augmentations share."""

import torch
from torch import Tensor

from lit_gans.recorded import Recorded

__all__ = ("Augmentation",)


class Augmentation(Recorded):
    """Images → images, at random and differentiably; a subclass defines ``transform``.

    Random numbers are drawn for each image by itself, from the global generator of the images' device, which the
    training loop seeds.
    """

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
