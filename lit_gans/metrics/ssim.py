r"""Structural similarity, as super-resolution and restoration report it.

.. math:: \mathrm{SSIM} = \operatorname{mean}
    \frac{(2 μ_x μ_t + C_1)(2 σ_{xt} + C_2)}{(μ_x^2 + μ_t^2 + C_1)(σ_x^2 + σ_t^2 + C_2)}

Z. Wang, A. Bovik, H. Sheikh and E. Simoncelli, "Image Quality Assessment: From Error Visibility to Structural
Similarity", IEEE Transactions on Image Processing 13, 2004, equation 13.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.metrics.pictures import PictureMetric

__all__ = ("SSIM", "ssim")

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(outputs: Tensor, targets: Tensor) -> Tensor:
    """Structural similarity of each picture (N,), float64 in [-1, 1]: the mean over its channels.

    Moments are those of a Gaussian window of 11x11 pixels with σ = 1.5, at all places where it is inside the picture.

    Args:
        outputs: (N, C, H, W), values 0..255.
        targets: The same.

    Raises:
        ValueError: if pictures are smaller than the window.

    Example:
        >>> picture = torch.arange(12.0).expand(1, 1, 12, 12)
        >>> ssim(picture, picture)
        tensor([1.], dtype=torch.float64)
    """
    if min(outputs.shape[2:]) < _WINDOW:
        raise ValueError(f"SSIM has a window of {_WINDOW} pixels, and pictures are {tuple(outputs.shape[2:])}")
    x, t = outputs.double(), targets.double()
    distance = torch.arange(_WINDOW, dtype=torch.float64, device=x.device) - _WINDOW // 2
    weights = (-distance.square() / (2 * _SIGMA**2)).exp()
    weights = weights / weights.sum()

    def window(maps: Tensor) -> Tensor:
        rows = F.conv2d(maps.flatten(0, 1)[:, None], weights.view(1, 1, -1, 1))
        return F.conv2d(rows, weights.view(1, 1, 1, -1)).view(*maps.shape[:2], -1)

    mean_x, mean_t = window(x), window(t)
    var_x, var_t = window(x * x) - mean_x**2, window(t * t) - mean_t**2
    covariance = window(x * t) - mean_x * mean_t
    similarity = (2 * mean_x * mean_t + _C1) * (2 * covariance + _C2)
    return (similarity / ((mean_x**2 + mean_t**2 + _C1) * (var_x + var_t + _C2))).mean((1, 2))


class SSIM(PictureMetric):
    """Structural similarity of each picture, averaged over pictures; higher is better, 1 for equal pictures.

    Takes the arguments of ``PictureMetric``; pictures, without the border, must have 11x11 pixels at least.

    Example:
        >>> metric = SSIM(channel="y")
        >>> pictures = torch.linspace(-1, 1, 3 * 256).view(1, 3, 16, 16)
        >>> metric.update(pictures, pictures)
        >>> metric.compute()
        tensor(1., dtype=torch.float64)
    """

    higher_is_better = True

    def measure(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The similarity of each picture."""
        return ssim(outputs, targets)
