"""Residual networks of two papers, which differ in the generator's width and the discriminator's last pooling.

T. Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, arXiv:1802.05957, table 4.
I. Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv:1704.00028, appendix.
"""

import math
from typing import Literal

from torch import Tensor, nn

from lit_gans.networks.layers import (
    Activation,
    Answer,
    ConditionalNorm,
    Network,
    Norm,
    activation_layer,
    check_labels,
    factor_size,
    norm_layer,
    xavier,
)


def _conv3(fan_in: int, fan_out: int) -> nn.Conv2d:
    """A 3x3 convolution inside a residual branch, with the gain of a ReLU."""
    return xavier(nn.Conv2d(fan_in, fan_out, 3, padding=1), math.sqrt(2))


class UpBlock(nn.Module):
    """Pre-activation residual block that doubles the size by nearest neighbours, before its first convolution.

    Args:
        fan_in: Number of channels that come in.
        width: Number of channels that go out.
        norm: Normalisation before both activations.
        activation: Non-linearity.
        dropout: Share of values dropped before the second convolution.
        num_classes: Number of labels, each with its own scale and shift; ``None`` for an unconditional block.
    """

    def __init__(
        self,
        fan_in: int,
        width: int,
        norm: Norm | None,
        activation: Activation,
        dropout: float,
        num_classes: int | None,
    ) -> None:
        super().__init__()
        self.norm1, self.norm2 = (ConditionalNorm(norm, channels, num_classes) for channels in (fan_in, width))
        self.conv1 = nn.Sequential(activation_layer(activation), nn.Upsample(scale_factor=2), _conv3(fan_in, width))
        self.conv2 = nn.Sequential(activation_layer(activation), nn.Dropout(dropout), _conv3(width, width))
        self.shortcut = nn.Sequential(xavier(nn.Conv2d(fan_in, width, 1)), nn.Upsample(scale_factor=2))

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Maps ``(N, fan_in, H, W)`` and labels ``(N,)`` to maps ``(N, width, 2H, 2W)``."""
        residual: Tensor = self.conv2(self.norm2(self.conv1(self.norm1(x, y)), y))
        return residual + self.shortcut(x)


class DownBlock(nn.Module):
    """Pre-activation residual block that may halve the size by average pooling, after its second convolution.

    Args:
        fan_in: Number of channels that come in.
        width: Number of channels that go out.
        norm: Normalisation before both activations.
        activation: Non-linearity.
        dropout: Share of values dropped before the second convolution.
        down: Whether to halve the size.
        first: Whether the input is the image itself, which is neither normalised nor rectified (the papers' "optimized"
            block).
    """

    def __init__(
        self,
        fan_in: int,
        width: int,
        norm: Norm | None,
        activation: Activation,
        dropout: float,
        down: bool = True,
        first: bool = False,
    ) -> None:
        super().__init__()
        pool = nn.AvgPool2d(2) if down else nn.Identity()
        before = [] if first else [norm_layer(norm, fan_in), activation_layer(activation)]
        self.residual = nn.Sequential(
            *before,
            _conv3(fan_in, width),
            norm_layer(None if first else norm, width),
            activation_layer(activation),
            nn.Dropout(dropout),
            _conv3(width, width),
            pool,
        )
        learned = down or fan_in != width  # pooling and a 1x1 convolution commute: pooling first is the cheaper order
        self.shortcut = nn.Sequential(pool, xavier(nn.Conv2d(fan_in, width, 1))) if learned else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, fan_in, H, W)`` to maps ``(N, width, H, W)``, or ``(N, width, H/2, W/2)``."""
        residual: Tensor = self.residual(x)
        return residual + self.shortcut(x)


class ResNetGenerator(Network):
    """Latents to images through residual blocks, each doubling the size.

    The defaults are SNGAN's table 4 for CIFAR-10; ``width=128`` is WGAN-GP's. Conditional networks learn a scale and a
    shift per label in each normalisation (conditional batch norm, Dumoulin et al. 2017).

    Args:
        image_size: Height and width of the images: 8, 16, 32, 64, 128 ..., also 28, 48 and all 4-7 doubled.
        channels: 1 for grey images, 3 for RGB.
        latent_dim: Size of the latent vector.
        width: Number of channels of all blocks (256 in SNGAN, 128 in WGAN-GP).
        norm: Normalisation: ``batch``, ``layer``, ``group``, ``instance`` or ``null``.
        activation: Non-linearity of the blocks.
        dropout: Share of values dropped before each block's second convolution.
        num_classes: Number of labels of a conditional network.

    Raises:
        ValueError: An ``image_size`` that cannot be built; unknown ``norm`` or ``activation``; ``num_classes`` without
            a ``norm`` to carry the labels; labels missing, or given to an unconditional network.

    >>> import torch
    >>> ResNetGenerator(image_size=32, channels=3, width=16)(torch.randn(2, 128)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        image_size: int = 32,
        channels: int = 3,
        latent_dim: int = 128,
        width: int = 256,
        norm: Norm | None = "batch",
        activation: Activation = "relu",
        dropout: float = 0.0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        base, doublings = factor_size(image_size)
        self.num_classes = num_classes
        self.project = nn.Sequential(
            xavier(nn.Linear(latent_dim, width * base**2)), nn.Unflatten(1, (width, base, base))
        )
        self.blocks = nn.ModuleList(
            UpBlock(width, width, norm, activation, dropout, num_classes) for _ in range(doublings)
        )
        self.to_image = nn.Sequential(
            norm_layer(norm, width),
            activation_layer(activation),
            xavier(nn.Conv2d(width, channels, 3, padding=1)),
            nn.Tanh(),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to images ``(N, C, H, W)`` in [-1, 1]."""
        check_labels(y, self.num_classes)
        x: Tensor = self.project(z)
        for block in self.blocks:
            x = block(x, y)
        images: Tensor = self.to_image(x)
        return images


class ResNetDiscriminator(Network):
    """Images to logits through residual blocks.

    Blocks that halve the size (two at 32 pixels, in general down to 4-14 pixels) are followed by ``depth`` blocks that
    keep it and one global pooling. The defaults are SNGAN's table 4 for CIFAR-10, spectral norm apart, which is the
    model's affair; ``pool="mean"`` is WGAN-GP's. Conditional networks add the inner product of the features with an
    embedding of the label (projection, Miyato & Koyama 2018).

    Args:
        image_size: Height and width of the images: 8, 16, 32, 64, 128 ..., also 28, 48 and all 4-7 doubled.
        channels: 1 for grey images, 3 for RGB.
        width: Number of channels of all blocks.
        depth: Number of blocks that keep the size.
        pool: Global pooling before the last layer: ``sum`` (SNGAN) or ``mean`` (WGAN-GP).
        norm: Normalisation after the first block: ``null`` in both papers, ``layer`` where WGAN-GP wants one; also
            ``group``, ``instance``, ``batch``. Batch normalisation mixes samples, so gradient penalties want another.
        activation: Non-linearity of the blocks.
        dropout: Share of values dropped before each block's second convolution.
        num_classes: Number of labels of a conditional network.
        head: Size of a second answer, read from the same features by a linear layer: class scores of ACGAN, rotations
            of SSGAN, codes of InfoGAN, an embedding of ReACGAN; the network then returns ``Answer(logits, head)``.

    Raises:
        ValueError: An ``image_size`` that cannot be built; unknown ``norm``, ``activation`` or ``pool``; labels
            missing, or given to an unconditional network.

    >>> import torch
    >>> ResNetDiscriminator(image_size=32, channels=3, width=16)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        *,
        image_size: int = 32,
        channels: int = 3,
        width: int = 128,
        depth: int = 2,
        pool: Literal["mean", "sum"] = "sum",
        norm: Norm | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
        num_classes: int | None = None,
        head: int | None = None,
    ) -> None:
        super().__init__()
        if pool not in ("mean", "sum"):
            raise ValueError(f"pool={pool!r} is not known; choose mean or sum.")
        _, halvings = factor_size(image_size)
        downs = max(halvings - 1, min(halvings, 2))
        self.num_classes = num_classes
        self.pool = pool
        self.blocks = nn.Sequential(
            DownBlock(channels, width, norm, activation, dropout, first=True),
            *(DownBlock(width, width, norm, activation, dropout) for _ in range(downs - 1)),
            *(DownBlock(width, width, norm, activation, dropout, down=False) for _ in range(depth)),
            activation_layer(activation),
        )
        self.head = xavier(nn.Linear(width, 1))
        if num_classes:
            self.label = nn.Embedding(num_classes, width)
            nn.init.xavier_uniform_(self.label.weight)
        self.second_head = xavier(nn.Linear(width, head)) if head else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Answer:
        """Images ``(N, C, H, W)`` and labels ``(N,)`` to logits ``(N,)``, with ``head`` to an ``Answer``."""
        check_labels(y, self.num_classes)
        maps: Tensor = self.blocks(x)
        features = maps.sum((2, 3)) if self.pool == "sum" else maps.mean((2, 3))
        logits: Tensor = self.head(features).squeeze(1)
        if y is not None:
            logits = logits + (self.label(y) * features).sum(1)
        return logits if self.second_head is None else Answer(logits, self.second_head(features))
