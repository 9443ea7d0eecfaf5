"""Small fully connected networks for points, on which collapse can be counted.

L. Metz, B. Poole, D. Pfau and J. Sohl-Dickstein, "Unrolled Generative Adversarial Networks", ICLR 2017,
arXiv:1611.02163; the authors' notebook is at github.com/poolio/unrolled_gan.
Z. Lin, A. Khetan, G. Fanti and S. Oh, "PacGAN: The Power of Two Samples in Generative Adversarial Networks", NeurIPS
2018, arXiv:1712.04086; code at github.com/fjxmlzn/PacGAN.
"""

from torch import Tensor, nn

from lit_gans.networks.autoencoder import Autoencoder
from lit_gans.networks.layers import Activation, Answer, ConcatLabel, Network, Norm, answer_of
from lit_gans.networks.mlp import hidden_layers


class PointGenerator(Network):
    """Latents to points through fully connected layers (Metz et al. 2017, appendix A).

    Two hidden layers of 128 ReLU units, and no non-linearity at the end: points have no range. Conditional networks
    append an embedding of the label to the latents.

    Args:
        latent_dim: Size of the latent vector (256 in the notebook of Metz et al.; PacGAN takes 2).
        width: Units of each hidden layer (PacGAN: 400).
        depth: Number of hidden layers (PacGAN: 4).
        points: Coordinates of a point.
        norm: Normalisation of the hidden layers: ``batch`` (PacGAN), ``layer``, ``group`` or ``null``.
        activation: Non-linearity of the hidden layers.
        num_classes: Number of labels of a conditional network.
        embed_dim: Size of the label's embedding.

    Raises:
        ValueError: Unknown ``norm`` or ``activation``; labels missing, or given to an unconditional network.

    >>> import torch
    >>> PointGenerator()(torch.randn(3, 256)).shape
    torch.Size([3, 2])
    """

    def __init__(
        self,
        *,
        latent_dim: int = 256,
        width: int = 128,
        depth: int = 2,
        points: int = 2,
        norm: Norm | None = None,
        activation: Activation = "relu",
        num_classes: int | None = None,
        embed_dim: int = 50,
    ) -> None:
        super().__init__()
        self.label = ConcatLabel(latent_dim, num_classes, embed_dim)
        sizes = [self.label.width] + depth * [width]
        self.layers = nn.Sequential(*hidden_layers(sizes, norm, activation, 0.0), nn.Linear(sizes[-1], points))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to points ``(N, 2)``."""
        points: Tensor = self.layers(self.label(z, y))
        return points


class PointDiscriminator(Network):
    """Points, alone or in packs, to logits through fully connected layers (Metz et al. 2017).

    Two hidden layers of 128 units, as in the authors' notebook, with the ReLU of the paper's appendix A. Conditional
    networks append an embedding of the label to the coordinates.

    Args:
        width: Units of each hidden layer (PacGAN: 200).
        depth: Number of hidden layers (PacGAN: 3).
        pack: Points judged together, the m of PacGAN, which come as ``(N, 2 m)``.
        points: Coordinates of a point.
        norm: Normalisation of the hidden layers: ``batch``, ``layer``, ``group`` or ``null``.
        activation: Non-linearity of the hidden layers (PacGAN's maxout of five pieces is not among them).
        num_classes: Number of labels of a conditional network.
        embed_dim: Size of the label's embedding.
        head: Size of a second answer, read from the same features by a linear layer; the network then returns
            ``Answer(logits, head)``.

    Raises:
        ValueError: Unknown ``norm`` or ``activation``; labels missing, or given to an unconditional network.

    >>> import torch
    >>> PointDiscriminator(pack=2)(torch.randn(3, 4)).shape
    torch.Size([3])
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 2,
        pack: int = 1,
        points: int = 2,
        norm: Norm | None = None,
        activation: Activation = "relu",
        num_classes: int | None = None,
        embed_dim: int = 50,
        head: int | None = None,
    ) -> None:
        super().__init__()
        self.label = ConcatLabel(pack * points, num_classes, embed_dim)
        sizes = [self.label.width] + depth * [width]
        self.layers = nn.Sequential(*hidden_layers(sizes, norm, activation, 0.0), nn.Linear(sizes[-1], 1))
        self.second_head = nn.Linear(sizes[-1], head) if head else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Answer:
        """Points ``(N, 2 m)`` and labels ``(N,)`` to logits ``(N,)``, with ``head`` to an ``Answer``."""
        return answer_of(self.layers, self.second_head, self.label(x, y))


class PointAutoencoder(Autoencoder):
    """Points to codes and back, for the papers whose critic is an autoencoder (EBGAN, BEGAN).

    No paper has one for points; the hidden layers are those of the other two networks. A code smaller than the point
    makes it impossible to give back everything unchanged, without which such a critic learns nothing.

    Args:
        width: Units of each hidden layer.
        depth: Number of hidden layers of the encoder, and of the decoder.
        code_dim: Size of the code, which is a linear function of the last hidden layer.
        points: Coordinates of a point.
        norm: Normalisation of the hidden layers: ``batch``, ``layer``, ``group`` or ``null``.
        activation: Non-linearity of the hidden layers.

    Raises:
        ValueError: Unknown ``norm`` or ``activation``.

    >>> import torch
    >>> point, code = PointAutoencoder()(torch.randn(3, 2))
    >>> point.shape, code.shape
    (torch.Size([3, 2]), torch.Size([3, 1]))
    """

    def __init__(
        self,
        *,
        width: int = 128,
        depth: int = 2,
        code_dim: int = 1,
        points: int = 2,
        norm: Norm | None = None,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        hidden = depth * [width]
        self.encoder = nn.Sequential(
            *hidden_layers([points, *hidden], norm, activation, 0.0), nn.Linear(width if depth else points, code_dim)
        )
        self.decoder = PointGenerator(
            latent_dim=code_dim, width=width, depth=depth, points=points, norm=norm, activation=activation
        )
