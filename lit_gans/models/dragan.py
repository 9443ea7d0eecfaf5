"""DRAGAN: Kodali et al. 2017, "On convergence and stability of GANs", arXiv:1705.07215."""

from dataclasses import replace
from typing import Any

from torch import nn

from lit_gans.functional import Batch, Terms, perturb
from lit_gans.game.arguments import not_negative
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("DRAGAN",)


class DRAGAN(GAN):
    r"""The non-saturating GAN with a gradient penalty about the data.

    .. math::
        L_D = L_D^{GAN} + λ \, E_{x \sim p_{data}, \, δ} (\|∇_x D(x + δ)\|_2 - k)^2, \qquad L_G = -E_{z} \log D(G(z))

    Sharp gradients of the discriminator near real points lead to local equilibria and mode collapse; the penalty is
    taken at perturbed real points only.

    Differs from the paper: none; its published code draws δ from 0 to half the standard deviation of the batch, where
    the noise here is normal, :math:`δ \sim N(0, c I)` as in section 2.3, and takes Adam's values (1e-4, 0.5, 0.9).

    When to use it: where GAN collapses and n_critic = 1 should stay: cheaper than WGAN-GP, with DCGAN's networks.

    When not: with batch norm in the discriminator; or with data of another range than [-1, 1] unless ``noise`` is set
    for it. Slopes far from the data are not bounded.

    Family: regularised.

    Args:
        gp_weight: λ, 10 in section 2.3.
        slope: k, 1 in section 2.3.
        noise: √c, in the units of the data; 0.3 is about half the standard deviation of usual images in [-1, 1].
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(double_backward=True)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        gp_weight: float = 10.0,
        slope: float = 1.0,
        noise: float = 0.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, **kwargs)
        not_negative(gp_weight=gp_weight, slope=slope, noise=noise)
        self.gp_weight, self.noise, self.target = gp_weight, noise, slope
        self.traits = replace(self.traits, slope_target=slope)

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """GAN's terms and the penalty of section 2.3."""
        terms = super().discriminator_loss(real, fake)
        slope = self.slope(perturb(real, self.noise, self.rng))
        return {**terms, "gradient_penalty": self.gp_weight * (slope - self.target).square().mean()}
