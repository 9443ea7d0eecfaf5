"""HingeGAN: Lim and Ye 2017, "Geometric GAN", arXiv:1705.02894."""

import torch.nn.functional as F

from lit_gans.functional import Batch, Terms
from lit_gans.models.gan import GAN

__all__ = ("HingeGAN",)


class HingeGAN(GAN):
    r"""The GAN whose discriminator is a support vector machine: samples beyond the margin do not move it.

    .. math::
        L_D = E_{x \sim p_{data}} \max(0, 1 - D(x)) + E_{z} \max(0, 1 + D(G(z))), \qquad L_G = -E_{z} D(G(z))

    Differs from the paper: the optimizer is GAN's; the support vectors' weight C is 1, and no norm of the last layer is
    penalised.

    When to use it: as the plain loss of large residual networks, with spectral norm or a penalty beside it.

    When not: with nothing beside it. No sample beyond the margin moves the discriminator, and nothing bounds its slope.
    SNGAN is this loss with spectral norm.

    Family: divergences.
    """

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """The hinge loss of section 4 on both kinds of samples."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": F.relu(1 - real_logits).mean(), "fake": F.relu(1 + fake_logits).mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Generated samples move along the normal of the separating hyperplane."""
        return {"adversarial": -self.discriminate(fake).mean()}
