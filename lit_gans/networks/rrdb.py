"""ESRGAN's generator, with the names of weights by which the field's tools know it, and Real-ESRGAN's discriminator.

X. Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018,
arXiv:1809.00219, section 3.1.
X. Wang, L. Xie, C. Dong and Y. Shan, "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic
Data", ICCV Workshops 2021, arXiv:2107.10833, section 3.3 and figure 6.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_gans.networks.layers import ImageTranslator, Network
from lit_gans.networks.srresnet import start_small_


class DenseBlock(nn.Module):
    """Five convolutions, each of all that came before it; a fifth of the last is added to what came in (figure 4)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4 = (
            nn.Conv2d(width + k * growth, growth, 3, padding=1) for k in range(4)
        )
        self.conv5 = nn.Conv2d(width + 4 * growth, width, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.2)
        start_small_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Maps to maps of the same shape."""
        seen = [x]
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            seen.append(self.lrelu(conv(torch.cat(seen, 1))))
        residual: Tensor = self.conv5(torch.cat(seen, 1))
        return x + 0.2 * residual


class RRDB(nn.Module):
    """Residual in residual: three dense blocks, of which a fifth is added to what came in (figure 4)."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Maps to maps of the same shape."""
        residual: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return x + 0.2 * residual


class RRDBNet(ImageTranslator):
    """Images to images ``scale`` times as large (Wang et al. 2018, figure 4), ESRGAN's generator.

    A convolution, ``blocks`` blocks of residuals in residuals past which a skip connection goes, twice nearest
    neighbours and a convolution, two convolutions; no normalisation, no tanh, weights that start small. Always four
    times larger inside: for ``scale`` 2 and 1 the pixels of 2x2 and 4x4 squares become channels first (Real-ESRGAN),
    and sides must be multiples of 2 and 4.

    The weights have the names of the published ones (``conv_first``, ``body.0.rdb1.conv1`` ...), read and give values
    in [0, 1] as these, so that other people's tools open them (most know a ``growth`` of 32 only). Around them [-1, 1]
    is brought to [0, 1] and back. Nothing holds the answer within the range.

    Args:
        scale: 4 (the paper's), 2 or 1.
        channels: 1 for grey images, 3 for RGB.
        base_channels: Number of channels between the blocks.
        blocks: Number of blocks: 23, or 6 in the field's small networks.
        growth: Number of channels that each convolution of a dense block adds.

    Raises:
        ValueError: Another ``scale``; an image whose sides do not serve, with those that would.

    >>> RRDBNet(scale=2, base_channels=8, blocks=1, growth=4)(torch.zeros(1, 3, 6, 10)).shape
    torch.Size([1, 3, 12, 20])
    """

    def __init__(
        self, *, scale: int = 4, channels: int = 3, base_channels: int = 64, blocks: int = 23, growth: int = 32
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 4):
            raise ValueError(f"scale={scale} is not known to an RRDBNet; choose one of 1, 2, 4.")
        width = base_channels
        self.scale, self.in_channels, self.out_channels = scale, channels, channels
        self.stride = self.smallest = 4 // scale
        # First kernel 1, blocks 3 * 5 each, the convolution after them 1; three kernels at full size and one at half
        # reach into the second pixel at most. All that counts squares where pixels became channels.
        self.receptive_radius = (1 + 15 * blocks + 1 + 2) * self.stride
        self.overlap = min(self.receptive_radius, max(64, 32 * self.stride))  # measured: tests/models/test_tiling.py
        self.conv_first = nn.Conv2d(channels * self.stride**2, width, 3, padding=1)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.conv_body, self.conv_up1, self.conv_up2, self.conv_hr = (
            nn.Conv2d(width, width, 3, padding=1) for _ in range(4)
        )
        self.conv_last = nn.Conv2d(width, channels, 3, padding=1)
        self.lrelu = nn.LeakyReLU(0.2)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] to images ``(N, C, scale * H, scale * W)``, about in [-1, 1]."""
        self.check_sides(x)
        x = self.conv_first(F.pixel_unshuffle((x + 1) / 2, self.stride))
        x = x + self.conv_body(self.body(x))
        for conv in (self.conv_up1, self.conv_up2):
            x = self.lrelu(conv(F.interpolate(x, scale_factor=2)))
        images: Tensor = self.conv_last(self.lrelu(self.conv_hr(x)))
        return 2 * images - 1


class UNetDiscriminator(Network):
    """Images to a logit for each pixel: a U-Net with skip connections by addition (Wang et al. 2021, figure 6).

    A convolution, three with 4x4 kernels that halve the size and double the channels, three after bilinear
    interpolation that take it back, three at full size; leaky ReLU 0.2. Images may have any size from 8 pixels up.

    Args:
        channels: 1 for grey images, 3 for RGB.
        base_channels: Number of channels at full size.
        spectral: Whether all layers but the first and the last are normalised by their spectral norm, as in the paper.

    >>> UNetDiscriminator(base_channels=4)(torch.zeros(2, 3, 24, 17)).shape
    torch.Size([2, 1, 24, 17])
    """

    def __init__(self, *, channels: int = 3, base_channels: int = 64, spectral: bool = True) -> None:
        super().__init__()
        width = base_channels

        def conv(fan_in: int, fan_out: int, kernel_size: int = 3) -> nn.Module:
            layer = nn.Conv2d(width * fan_in, width * fan_out, kernel_size, kernel_size - 2, 1, bias=False)
            return spectral_norm(layer) if spectral else layer

        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.downs = nn.ModuleList(conv(2**k, 2 ** (k + 1), 4) for k in range(3))
        self.ups = nn.ModuleList(conv(2 ** (k + 1), 2**k) for k in reversed(range(3)))
        self.lrelu = nn.LeakyReLU(0.2)
        self.last = nn.Sequential(
            conv(1, 1), nn.LeakyReLU(0.2), conv(1, 1), nn.LeakyReLU(0.2), nn.Conv2d(width, 1, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` to logits ``(N, 1, H, W)``."""
        x = self.lrelu(self.first(x))
        skips = []
        for down in self.downs:
            skips.append(x)
            x = self.lrelu(down(x))
        for up in self.ups:
            skip = skips.pop()
            x = self.lrelu(up(F.interpolate(x, skip.shape[-2:], mode="bilinear"))) + skip
        logits: Tensor = self.last(x)
        return logits
