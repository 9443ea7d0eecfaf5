"""Strided convolutions.

A. Radford, L. Metz and S. Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", ICLR 2016, arXiv:1511.06434.
"""

import torch
from torch import Tensor, nn

from lit_gans.networks.layers import (
    Activation,
    Answer,
    ConcatLabel,
    Network,
    Norm,
    activation_layer,
    answer_of,
    check_labels,
    factor_size,
    norm_layer,
)


def _finish(width: int, norm: Norm | None, activation: Activation, dropout: float) -> list[nn.Module]:
    """What follows a convolution: normalisation, activation, dropout."""
    return [norm_layer(norm, width), activation_layer(activation), *([nn.Dropout(dropout)] if dropout else [])]


def _needs_bias(norm: Norm | None) -> bool:
    """A bias before a norm that subtracts each channel's mean would do nothing."""
    return norm not in ("batch", "instance")


class DCGANGenerator(Network):
    """Latents to images through strided transposed convolutions (section 3, figure 1).

    A linear layer makes maps of 4-7 pixels, and each layer after it doubles the size and halves the width; the last has
    no normalisation. ``width=128, kernel_size=5`` is the paper's figure 1; the defaults are those of the authors' Torch
    release. Conditional networks append an embedding of the label to the latents.

    Args:
        image_size: Height and width of the images: 8, 16, 32, 64, 128 ..., also 28, 48 and all 4-7 doubled.
        channels: 1 for grey images, 3 for RGB.
        latent_dim: Size of the latent vector.
        width: Number of channels before the last layer; each halving of the size before it doubles them.
        kernel_size: Side of the kernels; an even one draws no checkerboard.
        norm: Normalisation of the hidden layers: ``batch``, ``layer``, ``group``, ``instance`` or ``null``.
        activation: Non-linearity of the hidden layers.
        dropout: Share of hidden values dropped in training.
        num_classes: Number of labels of a conditional network.
        embed_dim: Size of the label's embedding.

    Raises:
        ValueError: An ``image_size`` that cannot be built; unknown ``norm`` or ``activation``; labels missing, or given
            to an unconditional network.

    >>> import torch
    >>> DCGANGenerator(image_size=64, channels=3, latent_dim=100)(torch.randn(2, 100)).shape
    torch.Size([2, 3, 64, 64])
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 100,
        width: int = 64,
        kernel_size: int = 4,
        norm: Norm | None = "batch",
        activation: Activation = "relu",
        dropout: float = 0.0,
        num_classes: int | None = None,
        embed_dim: int = 50,
    ) -> None:
        super().__init__()
        base, doublings = factor_size(image_size)
        padding, odd = (kernel_size - 1) // 2, kernel_size % 2
        bias = _needs_bias(norm)
        wide = width << (doublings - 1)
        self.label = ConcatLabel(latent_dim, num_classes, embed_dim)
        self.project = nn.Sequential(
            nn.Linear(self.label.width, wide * base**2, bias=bias), nn.Unflatten(1, (wide, base, base))
        )
        layers = _finish(wide, norm, activation, dropout)
        while wide > width:
            layers += [nn.ConvTranspose2d(wide, wide // 2, kernel_size, 2, padding, odd, bias=bias)]
            layers += _finish(wide := wide // 2, norm, activation, dropout)
        self.layers = nn.Sequential(
            *layers, nn.ConvTranspose2d(width, channels, kernel_size, 2, padding, odd), nn.Tanh()
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to images ``(N, C, H, W)`` in [-1, 1]."""
        images: Tensor = self.layers(self.project(self.label(z, y)))
        return images


class DCGANDiscriminator(Network):
    """Images to logits through strided convolutions (section 3).

    Each convolution halves the size and doubles the width, the first without normalisation; a linear layer reads the
    flattened maps of 4-7 pixels. Conditional networks see a learned map of the label as one more input channel.

    Args:
        image_size: Height and width of the images: 8, 16, 32, 64, 128 ..., also 28, 48 and all 4-7 doubled.
        channels: 1 for grey images, 3 for RGB.
        width: Number of channels after the first convolution.
        kernel_size: Side of the kernels (4 in the authors' Torch release, 5 in the paper's figures).
        norm: Normalisation from the second convolution on: ``batch``, ``layer``, ``group``, ``instance`` or ``null``.
            Batch normalisation mixes samples, so gradient penalties want another.
        activation: Non-linearity after each layer but the last.
        dropout: Share of hidden values dropped in training.
        num_classes: Number of labels of a conditional network.
        head: Size of a second answer, read from the same features by a linear layer: class scores of ACGAN, rotations
            of SSGAN, codes of InfoGAN, an embedding of ReACGAN; the network then returns ``Answer(logits, head)``.

    Raises:
        ValueError: An ``image_size`` that cannot be built; unknown ``norm`` or ``activation``; labels missing, or given
            to an unconditional network.

    >>> import torch
    >>> DCGANDiscriminator(image_size=64, channels=3)(torch.randn(2, 3, 64, 64)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        channels: int = 3,
        width: int = 64,
        kernel_size: int = 4,
        norm: Norm | None = "batch",
        activation: Activation = "leaky_relu",
        dropout: float = 0.0,
        num_classes: int | None = None,
        head: int | None = None,
    ) -> None:
        super().__init__()
        base, halvings = factor_size(image_size)
        padding = (kernel_size - 1) // 2
        self.num_classes = num_classes
        if num_classes:
            self.label_map = nn.Sequential(
                nn.Embedding(num_classes, image_size**2), nn.Unflatten(1, (1, image_size, image_size))
            )
        layers: list[nn.Module] = [nn.Conv2d(channels + bool(num_classes), width, kernel_size, 2, padding)]
        layers += _finish(width, None, activation, dropout)
        for _ in range(halvings - 1):
            layers += [nn.Conv2d(width, 2 * width, kernel_size, 2, padding, bias=_needs_bias(norm))]
            layers += _finish(width := 2 * width, norm, activation, dropout)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * base**2, 1))
        self.second_head = nn.Linear(width * base**2, head) if head else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Answer:
        """Images ``(N, C, H, W)`` and labels ``(N,)`` to logits ``(N,)``, with ``head`` to an ``Answer``."""
        check_labels(y, self.num_classes)
        if y is not None:
            x = torch.cat([x, self.label_map(y)], dim=1)
        return answer_of(self.layers, self.second_head, x)
