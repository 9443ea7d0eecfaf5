"""Networks that enlarge images, and the discriminator that judges them.

C. Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", CVPR 2017,
arXiv:1609.04802, section 2.1 and figure 4.
X. Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCV Workshops 2018,
arXiv:1809.00219: ``MSRResNet`` is the SRResNet without batch normalisation of its authors' toolbox, BasicSR.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.networks.layers import ImageTranslator, Network


def enlargements(scale: int) -> list[int]:
    """Writes a scale as the factors that layers of pixel shuffle enlarge by.

    Raises:
        ValueError: The scale is neither a power of two up to 8 nor 3.

    >>> enlargements(3), enlargements(8)
    ([3], [2, 2, 2])
    """
    known = {2: [2], 3: [3], 4: [2, 2], 8: [2, 2, 2]}
    if scale not in known:
        raise ValueError(f"scale={scale} is not known; choose one of {', '.join(map(str, known))}.")
    return known[scale]


def start_small_(network: nn.Module, factor: float = 0.1) -> None:
    """Draws the weights of convolutions as He et al. 2015 do, times ``factor``, with zero biases, in place.

    Wang et al. 2018, section 3.1: a smaller start makes deep networks without batch normalisation easier to train.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            module.weight.data.mul_(factor)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class SRBlock(nn.Module):
    """Convolution, batch norm, PReLU, convolution, batch norm, added to what came in (figure 4)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps to maps of the same shape."""
        residual: Tensor = self.residual(x)
        return x + residual


class SRResNet(ImageTranslator):
    """Images to images ``scale`` times as large (Ledig et al. 2017, figure 4).

    A 9x9 convolution, ``blocks`` residual blocks with batch normalisation and a skip connection past all of them,
    layers of pixel shuffle, a 9x9 convolution and a tanh. As in the paper the network reads values in [0, 1] and
    answers in [-1, 1]; the input, in [-1, 1] as everywhere here, is brought to [0, 1] inside. Images may have any size.

    Args:
        scale: 2, 3, 4 (the paper's) or 8.
        channels: 1 for grey images, 3 for RGB.
        base_channels: Number of channels of all layers.
        blocks: Number of residual blocks.

    Raises:
        ValueError: Another ``scale``.

    >>> import torch
    >>> SRResNet(scale=2, base_channels=8, blocks=2)(torch.zeros(1, 3, 7, 5)).shape
    torch.Size([1, 3, 14, 10])
    """

    def __init__(self, *, scale: int = 4, channels: int = 3, base_channels: int = 64, blocks: int = 16) -> None:
        super().__init__()
        width = base_channels
        self.scale, self.in_channels, self.out_channels = scale, channels, channels
        # Of input pixels: first kernel 4, blocks 2 each, the convolution after them 1; what comes after the enlargement
        # reaches into the third pixel at most (9x9: 4 of the finest, each layer that enlarges: 1 before it).
        self.receptive_radius = 4 + 2 * blocks + 1 + 3
        self.first = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(
            *(SRBlock(width) for _ in range(blocks)),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.up = nn.Sequential()
        for factor in enlargements(scale):
            self.up.extend([nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor), nn.PReLU()])
        self.last = nn.Sequential(nn.Conv2d(width, channels, 9, padding=4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` to images ``(N, C, scale * H, scale * W)``, both in [-1, 1]."""
        features = self.first((x + 1) / 2)
        images: Tensor = self.last(self.up(features + self.body(features)))
        return images


class PlainBlock(nn.Module):
    """Two convolutions with a ReLU between them, added to what came in; the weights start small."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Maps to maps of the same shape."""
        residual: Tensor = self.conv2(self.relu(self.conv1(x)))
        return x + residual


class MSRResNet(ImageTranslator):
    """Images to images ``scale`` times as large, as a correction to bilinear interpolation, without normalisation.

    BasicSR's SRResNet: convolutions of 3x3, leaky ReLU 0.1, no norm and no tanh, so that a batch's other images and
    tiles make no difference. Outside [-1, 1] as everywhere here, inside [0, 1]; nothing holds the answer within the
    range, and an untrained network answers with about the interpolated input. Images may have any size.

    Args:
        scale: 2, 3, 4 or 8.
        channels: 1 for grey images, 3 for RGB.
        base_channels: Number of channels of all layers.
        blocks: Number of residual blocks.

    Raises:
        ValueError: Another ``scale``.

    >>> import torch
    >>> MSRResNet(scale=3, base_channels=8, blocks=2)(torch.zeros(1, 3, 7, 5)).shape
    torch.Size([1, 3, 21, 15])
    """

    def __init__(self, *, scale: int = 4, channels: int = 3, base_channels: int = 64, blocks: int = 16) -> None:
        super().__init__()
        width = base_channels
        self.scale, self.in_channels, self.out_channels = scale, channels, channels
        # Of input pixels: first kernel 1, blocks 2 each; two kernels at full size and one before each enlargement reach
        # into the second pixel at most.
        self.receptive_radius = 1 + 2 * blocks + 2
        self.conv_first = nn.Conv2d(channels, width, 3, padding=1)
        self.body = nn.Sequential(*(PlainBlock(width) for _ in range(blocks)))
        self.up = nn.Sequential()
        for factor in enlargements(scale):
            self.up.extend([nn.Conv2d(width, width * factor**2, 3, padding=1), nn.PixelShuffle(factor)])
            self.up.append(nn.LeakyReLU(0.1))
        self.conv_hr, self.conv_last = (nn.Conv2d(width, fan_out, 3, padding=1) for fan_out in (width, channels))
        self.lrelu = nn.LeakyReLU(0.1)
        start_small_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` in [-1, 1] to images ``(N, C, scale * H, scale * W)``, about in [-1, 1]."""
        x = (x + 1) / 2
        features = self.up(self.body(self.lrelu(self.conv_first(x))))
        residual: Tensor = self.conv_last(self.lrelu(self.conv_hr(features)))
        return 2 * (residual + F.interpolate(x, scale_factor=self.scale, mode="bilinear")) - 1


class SRDiscriminator(Network):
    """Images of any size to logits (Ledig et al. 2017, figure 4).

    Eight 3x3 convolutions of 64 to 512 channels, every other one with stride 2, batch normalisation but for the first,
    leaky ReLU 0.2; a dense layer of 1024 and one of 1 read the maps, which have 6x6 values in the paper, whose images
    have 96 pixels. Maps of another size are averaged, or repeated, to 6x6 first, so that any crop serves.

    Args:
        channels: 1 for grey images, 3 for RGB.
        base_channels: Number of channels of the first layer.

    >>> import torch
    >>> SRDiscriminator(base_channels=4)(torch.zeros(2, 3, 40, 96)).shape
    torch.Size([2])
    """

    def __init__(self, *, channels: int = 3, base_channels: int = 64) -> None:
        super().__init__()
        widths = [base_channels * factor for factor in (1, 1, 2, 2, 4, 4, 8, 8)]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1), nn.LeakyReLU(0.2)]
        for k in range(1, 8):
            layers += [nn.Conv2d(widths[k - 1], widths[k], 3, 1 + k % 2, 1, bias=False), nn.BatchNorm2d(widths[k])]
            layers += [nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(6),
            nn.Flatten(),
            nn.Linear(widths[-1] * 36, 16 * base_channels),
            nn.LeakyReLU(0.2),
            nn.Linear(16 * base_channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, C, H, W)`` to logits ``(N,)``."""
        logits: Tensor = self.head(self.features(x)).squeeze(1)
        return logits
