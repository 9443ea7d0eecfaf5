"""R3GAN: Huang et al. 2024, "The GAN is dead; long live the GAN! A modern baseline GAN", NeurIPS, arXiv:2501.05441."""

from typing import Any

import torch.nn.functional as F
from torch import nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("R3GAN",)


class R3GAN(GAN):
    r"""The relativistic pairing GAN with both zero-centred gradient penalties, which make it converge.

    .. math::
        L_D = E_{z, x} \log(1 + e^{D(G(z)) - D(x)}) + \tfrac{γ}{2} E_{x} \|∇_x D\|^2 + \tfrac{γ}{2} E_{z} \|∇_x D\|^2,
        \qquad L_G = E_{z, x} \log(1 + e^{D(x) - D(G(z))})

    Each real sample is paired with one generated sample. Its networks are ``networks.R3GANGenerator`` and
    ``networks.R3GANDiscriminator``; any others do.

    Differs from the paper: γ, the learning rates and Adam's β₂ stay as they are given unless they are scheduled; the
    paper anneals them by a cosine, as ``configs/r3gan/cifar10.yaml`` does. The generator's turn reads the real samples
    of the discriminator's, where the release draws others: its loss is a mean over pairs either way.

    When to use it: as the modern choice: a loss that converges in theory, with networks free of tricks.

    When not: where γ cannot be tried out: what is right differs between data sets by a factor of a thousand, and too
    small a γ lets the discriminator win. Two penalties make its updates slower than GAN's.

    Family: regularised.

    Args:
        gamma: γ of R1 and R2; 0.05 for CIFAR-10 at the beginning, 1 for stacked MNIST, 150 for FFHQ-256 (appendix).
        betas: The betas of Adam.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(double_backward=True, tells_by_sign=False, slope_target=0.0, slopes_at=("real", "fake"))

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        gamma: float = 0.05,
        betas: tuple[float, float] = (0.0, 0.99),
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, betas=betas, **kwargs)
        not_negative(gamma=gamma)
        self.gamma = gamma

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equations 2, 3 and 4."""
        real_logits, fake_logits = self.discriminate(real), self.discriminate(fake)
        r1 = self.slope(real).square().mean()
        r2 = self.slope(fake).square().mean()
        return {
            "relativistic": F.softplus(fake_logits - real_logits).mean(),
            "r1": self.gamma / 2 * r1,
            "r2": self.gamma / 2 * r2,
        }

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 2 with the roles exchanged."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"relativistic": F.softplus(real_logits - fake_logits).mean()}
