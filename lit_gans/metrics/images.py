"""What a metric takes for images: uint8 NCHW, grey or RGB."""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ("RESIZES", "check_images", "convert_channels", "resize", "resize_matrix")

RESIZES = ("tf1", "bilinear", "pil-bilinear", "pil-bicubic")
"""Ways to resize: TensorFlow 1's bilinear (the original FID), torch's bilinear, and Pillow's, which blur before
shrinking (``pil-bilinear``: StudioGAN's "friendly"; ``pil-bicubic``: Clean-FID)."""

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow has it


def check_images(images: Tensor) -> None:
    """Refuse what is not uint8 (N, 1 or 3, H, W).

    Raises:
        ValueError: naming what was found, and the remedy.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images must be a torch.Tensor, got {type(images).__name__}")
    if images.is_floating_point():
        raise ValueError(f"images must be uint8, got {images.dtype} {_range(images)}")
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 in 0..255, got {images.dtype}: convert them first")
    if images.ndim != 4 or images.shape[1] not in (1, 3) or 0 in images.shape[2:]:
        raise ValueError(f"images must be (N, C, H, W) with C = 1 (grey) or 3 (RGB), got shape {tuple(images.shape)}")


def _range(images: Tensor) -> str:
    """What the values of floating-point images suggest to do."""
    if not images.numel():
        return "without any values"
    if not images.isfinite().all():
        return "with NaN or infinite values: whatever made them has diverged"
    low, high = float(images.min()), float(images.max())
    found = f"in [{low:.3g}, {high:.3g}]"
    if low >= -1.01 and high <= 1.01:
        return f"{found}: from [-1, 1] lit_gans.functional.to_uint8 converts them, from [0, 1] (x * 255).round().byte()"
    return f"{found}, which is neither [0, 1] nor [-1, 1]: bring them to [-1, 1], then lit_gans.functional.to_uint8"


def convert_channels(images: Tensor, channels: int) -> Tensor:
    """Floating-point images (N, C, H, W) with the channels asked for: grey is repeated, RGB becomes its luma."""
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, 3, -1, -1)
    return (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def resize(images: Tensor, size: int, method: str) -> Tensor:
    """Resize to ``size`` × ``size``, of whatever shape they were.

    All the methods are linear in rows and in columns, hence two matrix products.

    Args:
        images: Floating point (N, C, H, W), values 0..255.
        size: Height and width of the result.
        method: One of ``RESIZES``.
    """
    if images.shape[2:] == (size, size):
        return images
    rows, columns = (resize_matrix(method, n, size).to(images.device) for n in images.shape[2:])
    return (rows @ (images @ columns.T)).clamp(0, 255)


@functools.lru_cache(maxsize=64)
def resize_matrix(method: str, n: int, size: int) -> Tensor:
    """The weights of n points in each of ``size`` points, float32 (size, n).

    Example:
        >>> resize_matrix("tf1", 2, 4)
        tensor([[1.0000, 0.0000],
                [0.5000, 0.5000],
                [0.0000, 1.0000],
                [0.0000, 1.0000]])
    """
    if method != "tf1":
        mode = "bicubic" if method == "pil-bicubic" else "bilinear"
        return F.interpolate(
            torch.eye(n, dtype=torch.float32)[None, None], (size, n), mode=mode, antialias=method != "bilinear"
        )[0, 0]
    position = torch.arange(size) * torch.tensor(n / size, dtype=torch.float32)  # corners aligned at the left alone
    low = position.long()
    part = (position - low).unsqueeze(1)
    eye = torch.eye(n, dtype=torch.float32)
    return eye[low] * (1 - part) + eye[(low + 1).clamp_max(n - 1)] * part
