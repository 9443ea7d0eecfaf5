"""DiffAugment: Zhao et al. 2020, "Differentiable augmentation for data-efficient GAN training", arXiv:2006.10738."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_gans.augment.augmentation import Augmentation
from lit_gans.errors import unknown

__all__ = ("DiffAugment",)

Policy = Literal["color", "cutout", "translation"]


class DiffAugment(Augmentation):
    """Shifts colours and places and cuts a hole, in all that the discriminator sees, real and generated alike.

    Each image has random numbers of its own. Color: brightness, saturation, contrast, in this order. Translation: by
    up to an eighth of the size either way, zeros flow in. Cutout: a square of half the size becomes zero; its centre is
    anywhere, so that it may stick out. Grey images have no saturation, which then changes nothing.

    Differs from the paper: none; ranges, and where the square may lie, are those of the published code.

    Args:
        policy: Which of color, translation and cutout, applied in the order given; all three where data are few.

    Raises:
        ValueError: if a policy is not known; names the nearest that is.

    Example:
        >>> augment = DiffAugment(policy=["translation", "cutout"])
        >>> augment(torch.ones(2, 3, 8, 8)).shape
        torch.Size([2, 3, 8, 8])
    """

    def __init__(self, policy: Sequence[Policy] = ("color", "translation", "cutout")) -> None:
        super().__init__()
        self.policy: tuple[str, ...] = tuple(policy.split(",") if isinstance(policy, str) else policy)
        for name in self.policy:
            if name not in _TRANSFORMATIONS:
                raise ValueError(unknown("policy", name, _TRANSFORMATIONS))

    def transform(self, x: Tensor) -> Tensor:
        """Section 3.2, one transformation after another."""
        for name in self.policy:
            x = _TRANSFORMATIONS[name](x)
        return x

    def extra_repr(self) -> str:
        """The policy, for printing."""
        return f"policy={self.policy}"


def adjust_color(x: Tensor) -> Tensor:
    """Brightness by [-0.5, 0.5], saturation times [0, 2], contrast times [0.5, 1.5], uniformly, per image."""
    brightness, saturation, contrast = torch.rand(3, len(x), 1, 1, 1, dtype=x.dtype, device=x.device)
    return shift_color(x, brightness - 0.5, saturation * 2, contrast + 0.5)


def shift_color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Add to all values, then stretch colours about the pixel's mean, then values about the image's.

    The first shifts both means, the second neither, so the three are one sum of the image and its means.

    Args:
        x: Images (N, C, H, W).
        brightness: Addend of shape (N, 1, 1, 1).
        saturation: Factor of the same shape.
        contrast: Factor of the same shape.
    """
    pixel = x.mean(1, keepdim=True)
    image = pixel.mean((2, 3), keepdim=True)
    rest = pixel * (contrast - contrast * saturation) + (image * (1 - contrast) + brightness)
    return torch.addcmul(rest, x, contrast * saturation)


def translate_randomly(x: Tensor) -> Tensor:
    """Whole pixels, uniform from minus to plus an eighth of the size."""
    height, width = ((size + 4) // 8 for size in x.shape[2:])
    down = torch.randint(-height, height + 1, (len(x),), device=x.device)
    right = torch.randint(-width, width + 1, (len(x),), device=x.device)
    return translate(x, down, right)


def translate(x: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Move each image by whole pixels; zeros flow in.

    Args:
        x: Images (N, C, H, W).
        down: Pixels down, integers of shape (N,).
        right: Pixels to the right, of the same shape.
    """
    height, width = x.shape[2:]
    rows = (torch.arange(height, device=x.device) - down[:, None])[:, :, None]
    columns = (torch.arange(width, device=x.device) - right[:, None])[:, None, :]
    outside = (rows < 0) | (rows >= height) | (columns < 0) | (columns >= width)
    source = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    moved = x.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, x.shape[1], -1))
    return moved.view_as(x).masked_fill(outside[:, None], 0)


def cut_randomly(x: Tensor) -> Tensor:
    """A hole of half the size, whose centre is uniform over the image, borders included."""
    holes = [((size + 1) // 2, size) for size in x.shape[2:]]
    top, left = (torch.randint(size + 1 - hole % 2, (len(x),), device=x.device) - hole // 2 for hole, size in holes)
    return cut(x, top, left)


def cut(x: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Set a rectangle of half the height and width of each image to zero.

    Args:
        x: Images (N, C, H, W).
        top: Its first row, integers of shape (N,); the part outside the image is lost.
        left: Its first column, of the same shape.
    """
    height, width = x.shape[2:]
    rows = torch.arange(height, device=x.device) - top[:, None]
    columns = torch.arange(width, device=x.device) - left[:, None]
    in_rows = (rows >= 0) & (rows < (height + 1) // 2)
    in_columns = (columns >= 0) & (columns < (width + 1) // 2)
    return x.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0)


_TRANSFORMATIONS = {"color": adjust_color, "translation": translate_randomly, "cutout": cut_randomly}
