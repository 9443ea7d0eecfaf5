"""Autoencoders that judge images by how well they reconstruct them, and the generator that goes with one of them.

J. Zhao, M. Mathieu and Y. LeCun, "Energy-based Generative Adversarial Network", ICLR 2017, arXiv:1609.03126.
D. Berthelot, T. Schumm and L. Metz, "BEGAN: Boundary Equilibrium Generative Adversarial Networks", 2017,
arXiv:1703.10717.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from lit_gans.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from lit_gans.networks.layers import Activation, ConcatLabel, Network, Norm, count_doublings, factor_size
from lit_gans.networks.mlp import MLPGenerator, hidden_layers


class Reconstruction(NamedTuple):
    """What an autoencoder returns.

    Attributes:
        image: The image as it comes back, of the shape of the one given.
        code: What lay between encoder and decoder, ``(N, code_dim)``.
    """

    image: Tensor
    code: Tensor


class Autoencoder(Network):
    """An encoder and a decoder; a subclass builds them."""

    encoder: nn.Module
    decoder: nn.Module

    def forward(self, x: Tensor) -> Reconstruction:
        """Images ``(N, C, H, W)``, or points, to what the decoder makes of their codes, and the codes."""
        code = self.encoder(x)
        return Reconstruction(self.decoder(code), code)


class MLPAutoencoder(Autoencoder):
    """Images to codes and back, into [-1, 1], through fully connected layers (EBGAN, section 3.1).

    Args:
        image_size: Height and width of the images, any number of pixels.
        channels: 1 for grey images, 3 for RGB.
        widths: Sizes of the encoder's hidden layers; the decoder has them in reverse order.
        code_dim: Size of the code, which is a linear function of the last hidden layer.
        norm: Normalisation of the hidden layers: ``batch``, ``layer``, ``group`` or ``null``.
        activation: Non-linearity of the hidden layers.
        dropout: Share of hidden units dropped in training.

    Raises:
        ValueError: Unknown ``norm`` or ``activation``.

    >>> import torch
    >>> image, code = MLPAutoencoder(image_size=28, channels=1, code_dim=32)(torch.randn(2, 1, 28, 28))
    >>> image.shape, code.shape
    (torch.Size([2, 1, 28, 28]), torch.Size([2, 32]))
    """

    def __init__(
        self,
        *,
        image_size: int = 28,
        channels: int = 1,
        widths: Sequence[int] = (512, 256),
        code_dim: int = 64,
        norm: Norm | None = None,
        activation: Activation = "leaky_relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        sizes = [channels * image_size**2, *widths]
        self.encoder = nn.Sequential(
            nn.Flatten(), *hidden_layers(sizes, norm, activation, dropout), nn.Linear(sizes[-1], code_dim)
        )
        self.decoder = MLPGenerator(
            image_size=image_size,
            channels=channels,
            latent_dim=code_dim,
            widths=widths[::-1],
            norm=norm,
            activation=activation,
            dropout=dropout,
        )


class DCGANAutoencoder(Autoencoder):
    """Images to codes and back through strided convolutions (EBGAN, appendix: 4x4, stride 2, 64, 128 ... channels).

    Images come back in [-1, 1]. The encoder is ``DCGANDiscriminator`` with ``code_dim`` answers in place of one, the
    decoder ``DCGANGenerator``.
    Differs from the paper: the code is a vector behind a linear layer instead of a map, so that the pulling-away term
    sees the same thing at all image sizes.

    Args:
        image_size: Height and width of the images: 8, 16, 32, 64, 128 ..., also 28, 48 and all 4-7 doubled.
        channels: 1 for grey images, 3 for RGB.
        width: Number of channels after the first convolution; each halving of the size doubles them.
        code_dim: Size of the code.
        kernel_size: Side of the kernels.
        norm: Normalisation of the hidden layers: ``batch``, ``layer``, ``group``, ``instance`` or ``null``.
        activation: Non-linearity of the hidden layers.
        dropout: Share of hidden values dropped in training.

    Raises:
        ValueError: An ``image_size`` that cannot be built; unknown ``norm`` or ``activation``.

    >>> import torch
    >>> image, code = DCGANAutoencoder(image_size=32, channels=3, code_dim=100)(torch.randn(2, 3, 32, 32))
    >>> image.shape, code.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 100]))
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        channels: int = 3,
        width: int = 64,
        code_dim: int = 100,
        kernel_size: int = 4,
        norm: Norm | None = "batch",
        activation: Activation = "leaky_relu",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        encoder = DCGANDiscriminator(
            image_size=image_size,
            channels=channels,
            width=width,
            kernel_size=kernel_size,
            norm=norm,
            activation=activation,
            dropout=dropout,
        ).layers
        base, halvings = factor_size(image_size)
        self.encoder = nn.Sequential(*encoder[:-1], nn.Linear((width << halvings - 1) * base**2, code_dim))
        self.decoder = DCGANGenerator(
            image_size=image_size,
            channels=channels,
            latent_dim=code_dim,
            width=width,
            kernel_size=kernel_size,
            norm=norm,
            activation=activation,
            dropout=dropout,
        )


def _conv_elu(fan_in: int, fan_out: int, stride: int = 1) -> list[nn.Module]:
    """A 3x3 convolution and its exponential linear unit."""
    return [nn.Conv2d(fan_in, fan_out, 3, stride, padding=1), nn.ELU()]


def _decoder(doublings: int, channels: int, latent_dim: int, width: int) -> nn.Sequential:
    """BEGAN's figure 1, left: a linear layer to 8x8, then pairs of convolutions with upsampling between the pairs."""
    layers: list[nn.Module] = [nn.Linear(latent_dim, width * 8**2), nn.Unflatten(1, (width, 8, 8))]
    layers += [*_conv_elu(width, width), *_conv_elu(width, width)]
    for _ in range(doublings):
        layers += [nn.Upsample(scale_factor=2), *_conv_elu(width, width), *_conv_elu(width, width)]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))


class BEGANGenerator(Network):
    """Latents to images through nearest-neighbour upsampling and pairs of 3x3 convolutions (BEGAN, figure 1).

    It has the architecture of ``BEGANAutoencoder``'s decoder, not its weights. Differs from the paper: a tanh keeps the
    images in [-1, 1], where the paper's last convolution has no non-linearity, and there are no skip connections, the
    paper's option. Conditional networks append an embedding of the label to the latents.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        latent_dim: Size of the latent vector, which the paper draws uniformly from [-1, 1].
        width: The paper's n, the number of channels of all convolutions (128 at 128 pixels, 64 for fewer).
        num_classes: Number of labels of a conditional network.
        embed_dim: Size of the label's embedding.

    Raises:
        ValueError: An ``image_size`` that cannot be built; labels missing, or given to an unconditional network.

    >>> import torch
    >>> BEGANGenerator(image_size=32, channels=3, width=16)(torch.rand(2, 64) * 2 - 1).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        image_size: int = 64,
        channels: int = 3,
        latent_dim: int = 64,
        width: int = 64,
        num_classes: int | None = None,
        embed_dim: int = 50,
    ) -> None:
        super().__init__()
        self.label = ConcatLabel(latent_dim, num_classes, embed_dim)
        self.decoder = _decoder(count_doublings(image_size) - 1, channels, self.label.width, width)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to images ``(N, C, H, W)`` in [-1, 1]."""
        images: Tensor = self.decoder(self.label(z, y)).tanh()
        return images


class BEGANAutoencoder(Autoencoder):
    """Images to codes and back, the critic of BEGAN (figure 1).

    In the encoder pairs of 3x3 convolutions, the second with stride 2, halve the size until 8x8 pixels are left, and
    each halving adds ``width`` channels; the decoder is the generator's. The linear layers to and from the code have no
    non-linearity, and neither has the last convolution: reconstructions are not bounded. Differs from the paper: no
    skip connections, the paper's option; 17.0 million parameters, generator included, at 128 pixels and ``width=128``
    where the paper counts 17.3 (its figure leaves a convolution or two open).

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        code_dim: The paper's Nh, the size of the code.
        width: The paper's n, the number of channels at full size (128 at 128 pixels, 64 for fewer).

    Raises:
        ValueError: An ``image_size`` that cannot be built.

    >>> import torch
    >>> image, code = BEGANAutoencoder(image_size=32, channels=3, width=16)(torch.randn(2, 3, 32, 32))
    >>> image.shape, code.shape
    (torch.Size([2, 3, 32, 32]), torch.Size([2, 64]))
    """

    def __init__(self, *, image_size: int = 64, channels: int = 3, code_dim: int = 64, width: int = 64) -> None:
        super().__init__()
        halvings = count_doublings(image_size) - 1
        layers = _conv_elu(channels, width)
        for level in range(1, halvings + 1):
            wide = level * width
            layers += [*_conv_elu(wide, wide), *_conv_elu(wide, wide + width, stride=2)]
        self.encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear((halvings + 1) * width * 8**2, code_dim))
        self.decoder = _decoder(halvings, channels, code_dim, width)
