"""GAN: Goodfellow et al. 2014, "Generative adversarial nets", arXiv:1406.2661."""

import torch.nn.functional as F

from lit_gans.functional import Batch, Terms
from lit_gans.game.loop import Game

__all__ = ("GAN",)


class GAN(Game):
    r"""The non-saturating GAN, and the root of all models: a paper is a subclass that says its two losses.

    .. math::
        L_D = -E_{x \sim p_{data}} \log D(x) - E_{z} \log(1 - D(G(z))), \qquad L_G = -E_{z} \log D(G(z))

    with :math:`D = σ(\text{logits})`. One batch is one training step: an update of the discriminator, then, at steps
    n_critic, 2·n_critic, ..., one of the generator, each with fresh noise.

    Differs from the paper: Adam in place of SGD with momentum; the generator's loss is the non-saturating one that
    section 3 recommends, from the first step on.

    When to use it: as the first thing to try on small data, and as the measure of all others.

    When not: in a long run on few images, or where no mode may be lost. Nothing holds the discriminator back: once it
    is certain, updates of the generator become noisy and samples lose variety. Add ``R1`` then, or take R3GAN.

    Family: divergences.

    Example:
        >>> from torch import nn
        >>> model = GAN(nn.Linear(4, 2), nn.Linear(2, 1), latent_dim=4)
        >>> model.sample(3, seed=0).shape
        torch.Size([3, 2])
    """

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 1, as terms to be minimised; they are summed, and each is logged as ``train/d_<term>``.

        Args:
            real: Images (N, C, H, W) of the batch, and their labels (N,), None for a model without.
            fake: As many generated images without gradient, and the labels that they were made for.
        """
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": F.softplus(-real_logits).mean(), "fake": F.softplus(fake_logits).mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Section 3, last paragraph; arguments as above, ``fake`` with gradient. Logged as ``train/g_<term>``."""
        return {"adversarial": F.softplus(-self.discriminate(fake)).mean()}
