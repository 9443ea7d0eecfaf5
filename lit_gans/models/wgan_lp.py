"""WGAN-LP: Petzka et al. 2018, "On the regularization of Wasserstein GANs", ICLR, arXiv:1709.08894."""

from dataclasses import replace

from lit_gans.functional import Batch, Terms, interpolate
from lit_gans.models.wgan_gp import WGANGP

__all__ = ("WGANLP",)


class WGANLP(WGANGP):
    r"""WGAN-GP with a one-sided penalty: the critic may be flatter than 1-Lipschitz, but not steeper.

    .. math::
        L_D = E_{z} D(G(z)) - E_{x \sim p_{data}} D(x)
            + λ \, E_{\hat x} \max(0, \|∇_{\hat x} D(\hat x)\|_2 - 1)^2, \qquad L_G = -E_{z} D(G(z))

    with :math:`\hat x` as in WGAN-GP.

    Differs from the paper: none; λ = 10 is WGAN-GP's, the paper shows that much larger ones do no harm. Arguments as of
    WGANGP.

    When to use it: as WGAN-GP, where results depend too much on the weight of its penalty.

    When not: where a step must be cheap, or with batch norm in the critic: it costs and asks what WGAN-GP does.

    Family: Wasserstein.
    """

    traits = replace(WGANGP.traits, slope_target=None)  # flatter is well, too

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 8; the interpolates take the labels of the real samples."""
        real_score = self.discriminate(real)
        fake_score = self.discriminate(fake)
        slope = self.slope(interpolate(real, fake, self.rng))
        penalty = self.gp_weight * (slope - 1).relu().square().mean()
        return {"real": -real_score.mean(), "fake": fake_score.mean(), "lipschitz_penalty": penalty}
