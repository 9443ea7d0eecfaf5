r"""Peak signal-to-noise ratio, as super-resolution and restoration report it.

.. math:: \mathrm{PSNR} = 10 \log_{10} \frac{255^2}{\operatorname{mean}(x - t)^2}
"""

import warnings
from typing import Any

import torch
from torch import Tensor

from lit_gans.metrics.pictures import Channel, PictureMetric

__all__ = ("PSNR", "psnr")


def psnr(outputs: Tensor, targets: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture (N,), in dB, infinite where a picture equals its target.

    Args:
        outputs: (N, C, H, W), values 0..255.
        targets: The same.

    Example:
        >>> psnr(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 25.5))
        tensor([20.], dtype=torch.float64)
    """
    return 10 * torch.log10(255**2 / (outputs.double() - targets.double()).square().mean((1, 2, 3)))


class PSNR(PictureMetric):
    """Peak signal-to-noise ratio in dB of each picture, averaged over pictures; higher is better.

    The squared error is averaged over a picture, not over a batch, and both are rounded to uint8 first. A picture that
    equals its target has an infinite value, and so has the mean then, as in the field's own code; ``compute`` warns how
    many there are, and says what the others have. ``identical`` is their number.

    Args:
        channel: ``rgb``, or ``y`` for the luma of BT.601 in 16..235, by which most papers on super-resolution report.
        crop: Width of the border that is left out, the scale in super-resolution.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: if ``channel`` or ``crop`` is none of these; in ``update``, if the pictures cannot be compared; in
            ``compute``, if there are none.

    Example:
        >>> metric = PSNR()
        >>> metric.update(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2))
        >>> metric.compute()
        tensor(20.1720, dtype=torch.float64)
    """

    higher_is_better = True
    identical: Tensor

    def __init__(self, channel: Channel = "rgb", crop: int = 0, **kwargs: Any) -> None:
        super().__init__(channel, crop, **kwargs)
        self.add_state("identical", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add the finite values to the sum, and count the others."""
        values = psnr(outputs, targets)
        self.total += values[values.isfinite()].sum()
        self.identical += values.isinf().sum()

    def compute(self) -> Tensor:
        """The mean over pictures in dB, a float64 scalar; infinite if any picture equals its target."""
        mean = super().compute()
        if not self.identical:
            return mean
        n, same = int(self.n), int(self.identical)
        others = f"; that of the others is {float(self.total / (n - same)):.2f} dB" if same < n else ""
        warnings.warn(f"{same} of {n} pictures equal their targets, so the mean PSNR is infinite{others}", stacklevel=2)
        return torch.full_like(mean, torch.inf)
