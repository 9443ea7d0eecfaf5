"""The U-Net of pix2pix: an encoder and a decoder with a skip connection at each size.

P. Isola, J.-Y. Zhu, T. Zhou and A. Efros, "Image-to-Image Translation with Conditional Adversarial Networks", CVPR
2017, arXiv:1611.07004, section 6.1.1.
O. Ronneberger, P. Fischer and T. Brox, "U-Net", MICCAI 2015, arXiv:1505.04597: skip connections by concatenation.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from lit_gans.networks.layers import ImageTranslator, Upsample, free_norm, up_layer


class UNetGenerator(ImageTranslator):
    """Images to images of the same size through a bottleneck, past which the maps of each size are handed over.

    ``depth`` convolutions halve the size, C64-C128-C256-C512-... (leaky ReLU 0.2), and as many layers double it again
    (ReLU), each of which also reads the encoder's map of its size. The outermost layers and the bottleneck have no
    normalisation. Dropout, the paper's only noise, is in the first three layers of the decoder, as far as these are as
    wide as the bottleneck: in three from depth 7 on, in two, one, none at depth 6, 5, 4.

    Args:
        in_channels: Number of channels of the source.
        out_channels: Number of channels of the target.
        depth: Number of halvings (8 in the paper); both sides of an image must be multiples of ``2**depth``.
        base_channels: Number of channels of the first layer; they double up to eight times as many.
        norm: Normalisation: ``batch`` as in the paper, or ``instance``, without scale and shift.
        dropout: Share of values dropped, in training.
        upsample: How sizes double: ``transpose`` (4x4, as in the paper), ``nearest`` or ``pixel_shuffle``.

    Raises:
        ValueError: A ``depth`` below 2; unknown ``norm`` or ``upsample``; an image that cannot be halved so often, with
            the depth that would do.

    >>> UNetGenerator(depth=4, base_channels=8)(torch.zeros(2, 3, 48, 32)).shape
    torch.Size([2, 3, 48, 32])
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        depth: int = 8,
        base_channels: int = 64,
        norm: Literal["batch", "instance"] = "batch",
        dropout: float = 0.5,
        upsample: Upsample = "transpose",
    ) -> None:
        super().__init__()
        if depth < 2:
            raise ValueError(f"depth of a U-Net must be at least 2, got {depth}.")
        if norm not in ("batch", "instance"):
            raise ValueError(f"norm={norm!r} is not known to a U-Net; choose batch or instance.")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.depth, self.stride, self.smallest = depth, 2**depth, 2**depth
        # A transposed convolution reads half a pixel of the coarser map more on one side and a whole one on the other,
        # hence 1 + 2 + 4 + ... = 2^d - 1 and twice as much in all; a kernel of the encoder as much the other way round.
        # Pixel shuffle reads one and a half or one.
        self.receptive_radius = (4 if upsample == "pixel_shuffle" else 3) * (2**depth - 1)
        widths = [base_channels * min(2**level, 8) for level in range(depth)]
        bias = norm == "instance"  # batch normalisation has one of its own
        self.downs = nn.ModuleList([nn.Conv2d(in_channels, widths[0], 4, 2, 1, bias=bias)])
        for level in range(1, depth):
            down = [nn.LeakyReLU(0.2), nn.Conv2d(widths[level - 1], widths[level], 4, 2, 1, bias=bias)]
            self.downs.append(nn.Sequential(*down, *([free_norm(norm, widths[level])] if level < depth - 1 else [])))
        self.ups = nn.ModuleList()
        for level in reversed(range(depth)):
            fan_in = widths[level] if level == depth - 1 else 2 * widths[level]
            if level == 0:
                self.ups.append(nn.Sequential(nn.ReLU(), up_layer(upsample, fan_in, out_channels, 4), nn.Tanh()))
                break
            width = widths[level - 1]
            up = [nn.ReLU(), up_layer(upsample, fan_in, width, 4, bias), free_norm(norm, width)]
            noisy = dropout and len(self.ups) < 3 and width == widths[-1]
            self.ups.append(nn.Sequential(*up, *([nn.Dropout(dropout)] if noisy else [])))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, in_channels, H, W)`` to images ``(N, out_channels, H, W)`` in [-1, 1]."""
        self.check_sides(x)
        skips: list[Tensor] = []
        for down in self.downs:
            x = down(x)
            skips.append(x)
        x = skips.pop()
        for up in self.ups:
            x = up(x)
            if skips:
                x = torch.cat([skips.pop(), x], 1)
        return x

    def check_sides(self, x: Tensor) -> None:
        """Checks that both sides can be halved ``depth`` times.

        Raises:
            ValueError: They cannot; the message names the depth that would do, and the size to pad to.
        """
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride or not height * width:
            fits = max(k for k in range(16) if height % 2**k == width % 2**k == 0)
            near = "x".join(str(max(-(-side // self.stride), 1) * self.stride) for side in (height, width))
            deep = f"depth={fits} would fit" if fits > 1 else "no depth would fit"
            raise ValueError(
                f"A U-Net of depth={self.depth} halves both sides {self.depth} times, which {height}x{width} pixels do "
                f"not allow: {deep}; or pad the images to {near}."
            )
