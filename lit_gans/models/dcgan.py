"""DCGAN: Radford et al. 2016, "Unsupervised representation learning with deep convolutional GANs", arXiv:1511.06434."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.models.gan import GAN
from lit_gans.modules import initialise

__all__ = ("DCGAN",)


class DCGAN(GAN):
    r"""The GAN game between convolutional networks, with the initialisation and optimizer that made it stable.

    .. math::
        L_D = -E_{x \sim p_{data}} \log D(x) - E_{z} \log(1 - D(G(z))), \qquad L_G = -E_{z} \log D(G(z))

    Both networks given are initialised as in section 4: weights from N(0, 0.02²), gains of batch norm from N(1, 0.02²),
    biases zero; latents are uniform on [-1, 1]; Adam with learning rate 2e-4 and β₁ = 0.5. The paper's batch size is
    128. Put networks of the paper's shape into it: ``networks.DCGANGenerator`` and ``networks.DCGANDiscriminator``.

    Differs from the paper: none for those networks; the gains' initialisation, of which the paper is silent, follows
    its published code.

    When to use it: for convolutional networks up to 64 pixels, with an initialisation and rates that are well tried.

    When not: beyond 64 pixels, or in a long run on few images, where the discriminator wins; add ``R1`` then. Nor with
    networks that are trained already, which it initialises anew unless ``init_std`` is None.

    Family: architectures.

    Args:
        latent_dim: 100, figure 1.
        init_std: Standard deviation of the initial weights; None leaves the networks as they are given.
        **kwargs: All other arguments of ``GAN``.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int = 100,
        init_std: float | None = 0.02,
        **kwargs: Any,
    ) -> None:
        if init_std is not None:
            for network in (generator, discriminator):
                initialise(network, init_std)
        super().__init__(generator, discriminator, latent_dim=latent_dim, **kwargs)

    def draw_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Section 4 and figure 1: uniform on [-1, 1], shape (n, latent_dim)."""
        return torch.rand(n, self.latent_dim, generator=rng, device=rng.device) * 2 - 1
