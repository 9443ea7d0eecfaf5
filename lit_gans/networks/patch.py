"""Discriminators that judge each patch of an image.

P. Isola, J.-Y. Zhu, T. Zhou and A. Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR
2017, arXiv:1611.07004, section 3.2.2 and 6.1.2.
R. Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv:1904.11486: ``antialias``.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from lit_gans.networks.layers import Blur, Network, free_norm


class PatchDiscriminator(Network):
    """Images, or sources and targets one upon another, to a map of logits, one for each patch (PatchGAN).

    C64-C128-C256-C512 with 4x4 kernels and leaky ReLU 0.2, then a convolution to one channel; the last two layers keep
    the size, those before halve it. A logit sees 16, 34, 70, 142, 286 pixels square at 1, 2, 3, 4, 5 ``layers``, and
    one pixel at none, where the kernels are 1x1 (PixelGAN, C64-C128). 256 pixels give 30x30 logits.

    Args:
        in_channels: Number of channels of image, or of source and image together.
        layers: Number of layers that halve the size (3 in the paper).
        base_channels: Number of channels of the first layer; they double up to eight times as many.
        norm: Normalisation from the second layer on: ``batch`` as in pix2pix, ``instance``, without scale and shift, as
            in CycleGAN, or ``null``.
        antialias: Whether layers blur by [1, 2, 1] before they drop every other pixel, as in CUT, in place of a stride.

    Raises:
        ValueError: A negative number of ``layers``; unknown ``norm``.

    >>> PatchDiscriminator(in_channels=6, base_channels=8)(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)).shape
    torch.Size([1, 1, 6, 6])
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        layers: int = 3,
        base_channels: int = 64,
        norm: Literal["batch", "instance"] | None = "batch",
        antialias: bool = False,
    ) -> None:
        super().__init__()
        if layers < 0:
            raise ValueError(f"layers of a PatchDiscriminator must be 0 (pixels) or more, got {layers}.")
        widths = [in_channels, *(base_channels * min(2**k, 8) for k in range(max(layers, 1) + 1))]
        kernel_size, padding = (4, 1) if layers else (1, 0)
        stack: list[nn.Module] = []
        for k, width in enumerate(widths[1:]):
            halves, first = k < layers, k == 0
            stride = 2 if halves and not antialias else 1
            bias = first or norm != "batch"  # batch normalisation has one of its own
            stack.append(nn.Conv2d(widths[k], width, kernel_size, stride, padding, bias=bias))
            stack += [*([] if first else [free_norm(norm, width)]), nn.LeakyReLU(0.2)]
            stack += [Blur()] if halves and antialias else []
        self.layers = nn.Sequential(*stack, nn.Conv2d(widths[-1], 1, kernel_size, 1, padding))

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """Images ``(N, C, H, W)``, and sources that are put before them, to logits ``(N, 1, h, w)``."""
        logits: Tensor = self.layers(x if source is None else torch.cat([source, x], 1))
        return logits
