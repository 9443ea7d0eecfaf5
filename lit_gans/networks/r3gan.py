"""Residual networks of grouped convolutions without any normalisation.

Y. Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", NeurIPS 2024, arXiv:2501.05441, section 4
(configuration E).
"""

import math
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.networks.layers import FIR, Answer, ConcatLabel, Layer, Network, check_labels, count_doublings

_SLOPE = 0.2
_GAIN = math.sqrt(2 / (1 + _SLOPE**2))  # what a layer before the leaky ReLU needs to keep the variance


def _scaled(layer: Layer, gain: float = 1.0) -> Layer:
    """Normal weights of standard deviation gain / √fan_in, as He et al. 2015 start them."""
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain / math.sqrt(fan_in))
    return layer


def _conv(fan_in: int, fan_out: int, kernel_size: int = 1, groups: int = 1, gain: float = 1.0) -> nn.Conv2d:
    """A convolution that keeps the size and has no bias."""
    conv = nn.Conv2d(fan_in, fan_out, kernel_size, padding=kernel_size // 2, groups=groups, bias=False)
    return _scaled(conv, gain)


class BiasedActivation(nn.Module):
    """A bias for each channel, then leaky ReLU of slope 0.2.

    Args:
        width: Number of channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, width, H, W)`` to maps of the same shape."""
        return F.leaky_relu(x + self.bias[:, None, None], _SLOPE)


class ResidualBlock(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolution with an inverted bottleneck (figure 2c).

    Fix-up initialisation (Zhang et al. 2019): the last convolution is zero, so that the block is the identity at first,
    and the two before it are smaller by L^(-1/(2m-2)) for L blocks of m = 3 layers.

    Args:
        width: Number of channels that come in and go out.
        group_size: Number of channels in each group of the 3x3 convolution, or the next larger number that divides.
        expansion: How many times wider the block is inside.
        blocks: L, the number of residual blocks of the network.
    """

    def __init__(self, width: int, group_size: int, expansion: int, blocks: int) -> None:
        super().__init__()
        wide, gain = width * expansion, _GAIN * blocks ** (-1 / 4)
        groups = max(n for n in range(1, max(wide // group_size, 1) + 1) if wide % n == 0)
        self.residual = nn.Sequential(
            _conv(width, wide, gain=gain),
            BiasedActivation(wide),
            _conv(wide, wide, 3, groups, gain),
            BiasedActivation(wide),
            _conv(wide, width, gain=0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, width, H, W)`` to maps of the same shape."""
        residual: Tensor = self.residual(x)
        return x + residual


class Upsample(nn.Module):
    """Bilinear interpolation to twice the size."""

    def __init__(self) -> None:
        super().__init__()
        self.fir = FIR()

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to maps ``(N, C, 2H, 2W)``."""
        return self.fir.up(x)


class Downsample(nn.Module):
    """Bilinear interpolation to half the size."""

    def __init__(self) -> None:
        super().__init__()
        self.fir = FIR()

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, C, H, W)`` to maps ``(N, C, H/2, W/2)``."""
        return self.fir.down(x)


def _change(fan_in: int, fan_out: int) -> list[nn.Module]:
    """A 1x1 convolution, where it changes the number of channels."""
    return [] if fan_in == fan_out else [_conv(fan_in, fan_out)]


def _widths(image_size: int, width: int, full_width_up_to: int) -> list[int]:
    """Channels at 4, 8 ... ``image_size`` pixels: ``width`` up to a size, then half of them at each doubling."""
    kept = count_doublings(full_width_up_to)
    widths = [width >> max(k - kept, 0) for k in range(count_doublings(image_size) + 1)]
    if widths[-1] < 1:
        least = image_size // full_width_up_to
        raise ValueError(f"width={width} leaves no channel at {image_size} pixels; it must be {least} at least.")
    return widths


class R3GANGenerator(Network):
    """Latents to images through residual blocks without normalisation, styles or noise (configuration E).

    The latents and an embedding of the label scale the channels of a learned 4x4 basis. Each doubling of the size is a
    1x1 convolution, where the number of channels changes, a bilinear interpolation and ``depth`` residual blocks.

    Differs from the paper: the last convolution begins at a tenth of its size, so that images lie within [-1, 1] at
    first, as data do; in eval mode images are clamped to that range, in training nothing is. The resampling filter is
    [1, 3, 3, 1], as in the authors' release.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        latent_dim: Size of the latent vector.
        width: Largest number of channels: 768 in the paper for CIFAR-10 and FFHQ, 1536 for ImageNet.
        depth: Number of residual blocks at each size.
        expansion: How many times wider the blocks are inside.
        group_size: Number of channels in each group of the 3x3 convolutions; where it does not divide, the next larger
            number that does. 16 in the release for CIFAR-10 and FFHQ, 32 for ImageNet.
        full_width_up_to: Largest size, a power of two from 8 up, whose maps have ``width`` channels; from there on they
            halve at each doubling. 32 in the release, but 64 for ImageNet at 64 pixels.
        num_classes: Number of labels of a conditional network.
        embed_dim: Size of the label's embedding.

    Raises:
        ValueError: An ``image_size`` that cannot be built; a ``width`` that leaves no channel for it; labels missing,
            or given to an unconditional network.

    >>> import torch
    >>> R3GANGenerator(image_size=32, width=32, num_classes=10)(torch.randn(2, 64), torch.tensor([3, 7])).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        image_size: int = 32,
        channels: int = 3,
        latent_dim: int = 64,
        width: int = 768,
        depth: int = 2,
        expansion: int = 2,
        group_size: int = 16,
        full_width_up_to: int = 32,
        num_classes: int | None = None,
        embed_dim: int = 64,
    ) -> None:
        super().__init__()
        widths = _widths(image_size, width, full_width_up_to)
        self.label = ConcatLabel(latent_dim, num_classes, embed_dim)
        if num_classes:
            nn.init.normal_(self.label.embedding.weight, std=num_classes**-0.5)
        self.basis = nn.Parameter(torch.randn(width, 4, 4))
        self.modulate = _scaled(nn.Linear(self.label.width, width, bias=False))
        block = partial(ResidualBlock, group_size=group_size, expansion=expansion, blocks=depth * len(widths))
        stages: list[nn.Module] = [block(width) for _ in range(depth)]
        for fan_in, fan_out in pairwise(widths):
            stages += [*_change(fan_in, fan_out), Upsample(), *(block(fan_out) for _ in range(depth))]
        self.stages = nn.Sequential(*stages, _conv(widths[-1], channels, gain=0.1))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to images ``(N, C, H, W)``."""
        images: Tensor = self.stages(self.basis * self.modulate(self.label(z, y))[..., None, None])
        return images if self.training else images.clamp(-1, 1)


class R3GANDiscriminator(Network):
    """Images to logits through residual blocks, the generator's mirror image (configuration E).

    A 1x1 convolution makes the first maps; ``depth`` residual blocks, a bilinear interpolation and, where the number of
    channels changes, a 1x1 convolution halve the size down to 4x4, which a depthwise convolution of 4x4 reads.
    Conditional networks answer with the inner product of the features and an embedding of the label (projection).

    Differs from the paper: none; the resampling filter is [1, 3, 3, 1], as in the authors' release.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        width: Largest number of channels: 768 in the paper for CIFAR-10 and FFHQ, 1536 for ImageNet.
        depth: Number of residual blocks at each size.
        expansion: How many times wider the blocks are inside.
        group_size: Number of channels in each group of the 3x3 convolutions; where it does not divide, the next larger
            number that does. 16 in the release for CIFAR-10 and FFHQ, 32 for ImageNet.
        full_width_up_to: Largest size, a power of two from 8 up, whose maps have ``width`` channels; from there on they
            halve at each doubling. 32 in the release, but 64 for ImageNet at 64 pixels.
        num_classes: Number of labels of a conditional network.
        embed_dim: Size of the label's embedding.
        head: Size of a second answer, read from the same features by a linear layer: class scores of ACGAN, rotations
            of SSGAN, codes of InfoGAN, an embedding of ReACGAN; the network then returns ``Answer(logits, head)``.

    Raises:
        ValueError: An ``image_size`` that cannot be built; a ``width`` that leaves no channel for it; labels missing,
            or given to an unconditional network.

    >>> import torch
    >>> R3GANDiscriminator(image_size=32, width=32)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        *,
        image_size: int = 32,
        channels: int = 3,
        width: int = 768,
        depth: int = 2,
        expansion: int = 2,
        group_size: int = 16,
        full_width_up_to: int = 32,
        num_classes: int | None = None,
        embed_dim: int = 64,
        head: int | None = None,
    ) -> None:
        super().__init__()
        widths = _widths(image_size, width, full_width_up_to)[::-1]
        self.num_classes = num_classes
        block = partial(ResidualBlock, group_size=group_size, expansion=expansion, blocks=depth * len(widths))
        stages: list[nn.Module] = [_conv(channels, widths[0])]
        for fan_in, fan_out in pairwise(widths):
            stages += [*(block(fan_in) for _ in range(depth)), Downsample(), *_change(fan_in, fan_out)]
        read = _scaled(nn.Conv2d(width, width, 4, groups=width, bias=False))
        self.stages = nn.Sequential(*stages, *(block(width) for _ in range(depth)), read, nn.Flatten())
        self.out = _scaled(nn.Linear(width, embed_dim if num_classes else 1, bias=False))
        if num_classes:
            self.label = nn.Embedding(num_classes, embed_dim)
            # the release's gain 1 / √E: logits, sums of E products, begin as wide with any embedding
            nn.init.normal_(self.label.weight, std=(num_classes * embed_dim) ** -0.5)
        self.second_head = _scaled(nn.Linear(width, head, bias=False)) if head else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Answer:
        """Images ``(N, C, H, W)`` and labels ``(N,)`` to logits ``(N,)``, with ``head`` to an ``Answer``."""
        check_labels(y, self.num_classes)
        features = self.stages(x)
        answers: Tensor = self.out(features)
        logits = answers.squeeze(1) if y is None else (answers * self.label(y)).sum(1)
        return logits if self.second_head is None else Answer(logits, self.second_head(features))
