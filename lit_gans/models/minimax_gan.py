"""MinimaxGAN: Goodfellow et al. 2014, "Generative adversarial nets", arXiv:1406.2661, equation 1 as it stands."""

import torch.nn.functional as F

from lit_gans.functional import Batch, Terms
from lit_gans.models.gan import GAN

__all__ = ("MinimaxGAN",)


class MinimaxGAN(GAN):
    r"""The saturating GAN, whose generator minimises what the discriminator maximises.

    .. math::
        \min_G \max_D \; E_{x \sim p_{data}} \log D(x) + E_{z} \log(1 - D(G(z)))

    Once the discriminator tells samples apart with certainty, the generator's gradient vanishes as D(G(z)) does: of
    interest to study the game, not to draw images.

    Differs from the paper: Adam in place of SGD with momentum.

    When to use it: to study the game, above all how the generator's gradient vanishes.

    When not: to draw images. As soon as the discriminator tells samples apart, the generator stops learning; GAN does
    not have this fault.

    Family: divergences.
    """

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 1, the generator's share: log(1 - σ(l)) = -softplus(l)."""
        return {"adversarial": -F.softplus(self.discriminate(fake)).mean()}
