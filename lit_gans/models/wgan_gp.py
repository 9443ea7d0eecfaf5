"""WGAN-GP: Gulrajani et al. 2017, "Improved training of Wasserstein GANs", NeurIPS 30, arXiv:1704.00028."""

from typing import Any

from torch import nn

from lit_gans.functional import Batch, Terms, interpolate
from lit_gans.game.arguments import not_negative
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("WGANGP",)


class WGANGP(GAN):
    r"""The Wasserstein GAN with gradient penalty (algorithm 1).

    .. math::
        L_D = E_{z} D(G(z)) - E_{x \sim p_{data}} D(x) + λ \, E_{\hat x} (\|∇_{\hat x} D(\hat x)\|_2 - 1)^2,
        \qquad L_G = -E_{z} D(G(z))

    with :math:`\hat x` uniform on the lines between pairs of real and generated samples. The critic must not mix the
    samples of a batch: layer, group or instance norm, or none (section 4).

    Differs from the paper: none.

    When to use it: where stability matters more than speed, with networks that nobody has tuned.

    When not: where a step must be cheap: there are five updates of the critic for one of the generator, each with a
    second derivative. Nor with batch norm in the critic, or in 16-mixed precision; bf16-mixed is fine.

    Family: Wasserstein.

    Args:
        gp_weight: λ, 10 in algorithm 1.
        n_critic: Critic updates per generator update; 5 in algorithm 1.
        g_lr: α of algorithm 1.
        d_lr: α of algorithm 1.
        betas: The betas of Adam: algorithm 1.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(double_backward=True, tells_by_sign=False, slope_target=1.0)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        gp_weight: float = 10.0,
        n_critic: int = 5,
        g_lr: float = 1e-4,
        d_lr: float = 1e-4,
        betas: tuple[float, float] = (0.0, 0.9),
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, n_critic=n_critic, g_lr=g_lr, d_lr=d_lr, betas=betas, **kwargs)
        not_negative(gp_weight=gp_weight)
        self.gp_weight = gp_weight

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 3; the interpolates take the labels of the real samples."""
        real_score = self.discriminate(real)
        fake_score = self.discriminate(fake)
        slope = self.slope(interpolate(real, fake, self.rng))
        penalty = self.gp_weight * (slope - 1).square().mean()
        return {"real": -real_score.mean(), "fake": fake_score.mean(), "gradient_penalty": penalty}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Algorithm 1, line 12."""
        return {"adversarial": -self.discriminate(fake).mean()}
