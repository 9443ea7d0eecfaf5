"""CGAN: Mirza and Osindero 2014, "Conditional generative adversarial nets", arXiv:1411.1784."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("CGAN",)


class CGAN(GAN):
    r"""The GAN conditioned on labels through both networks.

    .. math::
        L_D = -E_{x, y} \log D(x|y) - E_{z, y} \log(1 - D(G(z|y)|y)), \qquad L_G = -E_{z, y} \log D(G(z|y)|y)

    Latents are uniform on the unit hypercube (section 4.1). The networks take labels: ``forward(z, y)`` and
    ``forward(x, y)``.

    Differs from the paper: Adam in place of SGD with decaying learning rate and growing momentum.

    When to use it: for few classes and small networks, where the label can simply be one more input.

    When not: for many classes or deep convolutional networks, in which a label among the inputs has little weight. Take
    ProjectionGAN.

    Family: labels and codes.

    Args:
        num_classes: Number of classes, 10 for the paper's MNIST.
        latent_dim: 100, section 4.1.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(needs_labels=True)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        num_classes: int,
        latent_dim: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, latent_dim=latent_dim, num_classes=num_classes, **kwargs)

    def draw_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Section 4.1: uniform on [0, 1), shape (n, latent_dim)."""
        return torch.rand(n, self.latent_dim, generator=rng, device=rng.device)
