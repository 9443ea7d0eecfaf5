"""Fully connected layers.

I. J. Goodfellow et al., "Generative Adversarial Nets", NeurIPS 2014, arXiv:1406.2661.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lit_gans.networks.layers import (
    Activation,
    Answer,
    ConcatLabel,
    Network,
    Norm,
    activation_layer,
    answer_of,
    norm_layer,
)


def hidden_layers(widths: Sequence[int], norm: Norm | None, activation: Activation, dropout: float) -> list[nn.Module]:
    """Linear, normalisation, activation and dropout for each pair of neighbouring widths."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), norm_layer(norm, fan_out, flat=True), activation_layer(activation)]
        layers += [nn.Dropout(dropout)] if dropout else []
    return layers


class MLPGenerator(Network):
    """Latents to images through fully connected layers.

    Conditional on labels as in Mirza & Osindero 2014: an embedding of the label is appended to the latents.

    Args:
        image_size: Height and width of the images, any number of pixels.
        channels: 1 for grey images, 3 for RGB.
        latent_dim: Size of the latent vector.
        widths: Sizes of the hidden layers (two of 1200 in the MNIST code of the 2014 paper).
        norm: Normalisation of the hidden layers: ``batch``, ``layer``, ``group`` or ``null``.
        activation: Non-linearity of the hidden layers.
        dropout: Share of hidden units dropped in training.
        num_classes: Number of labels of a conditional network.
        embed_dim: Size of the label's embedding.

    Raises:
        ValueError: Unknown ``norm`` or ``activation``; labels missing, or given to an unconditional network.

    >>> import torch
    >>> MLPGenerator(image_size=28, channels=1, latent_dim=128)(torch.randn(2, 128)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        *,
        image_size: int = 28,
        channels: int = 1,
        latent_dim: int = 128,
        widths: Sequence[int] = (1200, 1200),
        norm: Norm | None = None,
        activation: Activation = "relu",
        dropout: float = 0.0,
        num_classes: int | None = None,
        embed_dim: int = 50,
    ) -> None:
        super().__init__()
        self.label = ConcatLabel(latent_dim, num_classes, embed_dim)
        sizes = [self.label.width, *widths]
        self.layers = nn.Sequential(
            *hidden_layers(sizes, norm, activation, dropout),
            nn.Linear(sizes[-1], channels * image_size**2),
            nn.Tanh(),
            nn.Unflatten(1, (channels, image_size, image_size)),
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to images ``(N, C, H, W)`` in [-1, 1]."""
        images: Tensor = self.layers(self.label(z, y))
        return images


class MLPDiscriminator(Network):
    """Images to logits through fully connected layers.

    Conditional on labels as in Mirza & Osindero 2014: an embedding of the label is appended to the pixels. The paper's
    maxout units (240 of five pieces, so 1200 products) are leaky ReLUs here.

    Args:
        image_size: Height and width of the images, any number of pixels.
        channels: 1 for grey images, 3 for RGB.
        widths: Sizes of the hidden layers.
        norm: Normalisation of the hidden layers: ``batch``, ``layer``, ``group`` or ``null``.
        activation: Non-linearity of the hidden layers.
        dropout: Share of hidden units dropped in training.
        num_classes: Number of labels of a conditional network.
        embed_dim: Size of the label's embedding (50 in the 2014 paper on conditional GANs).
        head: Size of a second answer, read from the same features by a linear layer: class scores of ACGAN, rotations
            of SSGAN, codes of InfoGAN, an embedding of ReACGAN; the network then returns ``Answer(logits, head)``.

    Raises:
        ValueError: Unknown ``norm`` or ``activation``; labels missing, or given to an unconditional network.

    >>> import torch
    >>> MLPDiscriminator(image_size=28, channels=1)(torch.randn(2, 1, 28, 28)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        *,
        image_size: int = 28,
        channels: int = 1,
        widths: Sequence[int] = (1200, 1200),
        norm: Norm | None = None,
        activation: Activation = "leaky_relu",
        dropout: float = 0.0,
        num_classes: int | None = None,
        embed_dim: int = 50,
        head: int | None = None,
    ) -> None:
        super().__init__()
        self.label = ConcatLabel(channels * image_size**2, num_classes, embed_dim)
        sizes = [self.label.width, *widths]
        self.layers = nn.Sequential(*hidden_layers(sizes, norm, activation, dropout), nn.Linear(sizes[-1], 1))
        self.second_head = nn.Linear(sizes[-1], head) if head else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Answer:
        """Images ``(N, C, H, W)`` and labels ``(N,)`` to logits ``(N,)``, with ``head`` to an ``Answer``."""
        return answer_of(self.layers, self.second_head, self.label(x.flatten(1), y))
