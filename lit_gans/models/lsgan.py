"""LSGAN: Mao et al. 2017, "Least squares generative adversarial networks", ICCV, arXiv:1611.04076."""

from typing import Any

from torch import nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("LSGAN",)


class LSGAN(GAN):
    r"""The GAN with least squares in place of logarithms.

    .. math::
        L_D = \tfrac12 E_{x \sim p_{data}} (D(x) - b)^2 + \tfrac12 E_{z} (D(G(z)) - a)^2,
        \qquad L_G = \tfrac12 E_{z} (D(G(z)) - c)^2

    Samples on the right side of the boundary but far from it still move. The discriminator ends without a sigmoid.

    Differs from the paper: the learning rate is that of DCGAN for all data; the paper's differs between data sets.

    When to use it: where the discriminator wins so clearly that logarithms saturate; a safe, cheap replacement of GAN.

    When not: in a long run on few images. The squared error grows without bound, so that a few odd samples can rule an
    update, and nothing bounds the discriminator's slope; add ``R1`` then.

    Family: divergences.

    Args:
        a: Target of generated samples in the discriminator's loss; 0 in equation 9.
        b: Target of real samples; 1 in equation 9.
        c: Target of generated samples in the generator's loss; 1 in equation 9.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(tells_by_sign=False)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        a: float = 0.0,
        b: float = 1.0,
        c: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, **kwargs)
        if a == b:
            raise ValueError(f"a and b must differ, or the discriminator has nothing to tell apart; got {a} for both")
        self.a, self.b, self.c = a, b, c

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 2, first line."""
        real_score = self.discriminate(real)
        fake_score = self.discriminate(fake)
        return {"real": (real_score - self.b).square().mean() / 2, "fake": (fake_score - self.a).square().mean() / 2}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 2, second line."""
        score = self.discriminate(fake)
        return {"adversarial": (score - self.c).square().mean() / 2}
