"""RaGAN: Jolicoeur-Martineau 2019, "The relativistic discriminator", ICLR, arXiv:1807.00734."""

import torch.nn.functional as F

from lit_gans.functional import Batch, Terms
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("RaGAN",)


class RaGAN(GAN):
    r"""The relativistic average GAN: is a sample more real than the other kind is on average?

    .. math::
        L_D = -E_{x} \log σ(C(x) - E_{z} C(G(z))) - E_{z} \log σ(E_{x} C(x) - C(G(z))), \qquad
        L_G = -E_{z} \log σ(C(G(z)) - E_{x} C(x)) - E_{x} \log σ(E_{z} C(G(z)) - C(x))

    The averages are those of the batches of all processes. The generator's loss reads real samples, too.

    Differs from the paper: the generator's turn reads the real samples of the discriminator's, where algorithm 1 draws
    others; its loss is that of independent batches either way.

    When to use it: with small batches or large images, on which GAN's discriminator is soon sure of everything.

    When not: where a batch must be worked through in parts, since each sample is compared with the mean of its batch;
    or where the logit of one image shall mean something by itself.

    Family: divergences.
    """

    traits = Traits(tells_by_sign=False, couples_samples=True)

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Section 4.4 with the standard GAN's functions."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {
            "real": F.softplus(self.joint(fake_logits).mean() - real_logits).mean(),
            "fake": F.softplus(fake_logits - self.joint(real_logits).mean()).mean(),
        }

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """The same with the roles exchanged; its gradient reaches the generator through both terms."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {
            "fake": F.softplus(self.joint(real_logits).mean() - fake_logits).mean(),
            "real": F.softplus(real_logits - self.joint(fake_logits).mean()).mean(),
        }
