"""SAGAN: Zhang et al. 2019, "Self-attention generative adversarial networks", ICML, arXiv:1805.08318."""

from typing import Any

from torch import nn

from lit_gans.models.hinge_gan import HingeGAN
from lit_gans.modules import normalise_spectrally

__all__ = ("SAGAN",)


class SAGAN(HingeGAN):
    r"""The hinge GAN between networks with self-attention, both spectrally normalised, with a learning rate each.

    .. math::
        L_D = E_{x, y} \max(0, 1 - D(x, y)) + E_{z, y} \max(0, 1 + D(G(z, y), y)), \qquad L_G = -E_{z, y} D(G(z, y), y)

    Every linear and convolutional layer of both networks gets :math:`W / σ(W)` (section 4.1), and the discriminator's
    embeddings; the generator's, gains and biases of its norms, stay as they are, as in the authors' code. The
    discriminator learns four times as fast, with one update for each of the generator (section 4.2). Attention is in
    the networks: ``networks.SAGANGenerator`` and ``networks.SAGANDiscriminator``.

    Differs from the paper: none; its published code leaves Adam's β₂ at 0.999.

    When to use it: for images whose distant parts must agree, by label or without, from 32 pixels up.

    When not: for points or very small images, where there is nothing far apart and the norm on both networks binds too
    much. Memory of the attention grows with the square of the number of positions.

    Family: architectures.

    Args:
        g_lr: 1e-4, section 4.2.
        d_lr: 4e-4, section 4.2.
        betas: The betas of Adam: 0 and 0.9, section 5.
        n_power_iterations: Power iterations a forward pass.
        **kwargs: All other arguments of ``GAN``.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        g_lr: float = 1e-4,
        d_lr: float = 4e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        n_power_iterations: int = 1,
        **kwargs: Any,
    ) -> None:
        normalise_spectrally(generator, n_power_iterations, embeddings=False)
        normalise_spectrally(discriminator, n_power_iterations)
        super().__init__(generator, discriminator, g_lr=g_lr, d_lr=d_lr, betas=betas, **kwargs)
