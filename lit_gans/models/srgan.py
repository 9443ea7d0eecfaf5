"""SRGAN: Ledig et al. 2017, "Photo-realistic single image super-resolution using a GAN", arXiv:1609.04802."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.models.translation import Translation
from lit_gans.regularizers.perceptual import PerceptualLoss
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("SRGAN",)


class SRGAN(Translation):
    r"""Larger pictures from small ones, near the target in the features of a classifier, and not told from real ones.

    .. math::
        L_D = -E_y \log D(y) - E_x \log(1 - D(G(x))), \qquad
        L_G = \frac{1}{N} \|φ(y) - φ(G(x))\|_2^2 - 10^{-3} E_x \log D(G(x))

    with x the small picture, y the large one and φ features of VGG19. Put ``networks.SRResNet`` and
    ``networks.SRDiscriminator`` into it.

    Training has two stages (section 3.2). The first, ``content_only=True``, minimises the mean squared error of pixels
    alone: SRResNet. The second begins with its weights: ``fit ... --init_from CKPT``; it warns where it begins with
    none.

    Differs from the paper: none. Of the order of updates and of Adam's β₂ it says nothing; the discriminator is first,
    and β₂ is 0.999.

    When to use it: for pictures that look sharp, at the price of details that were not there.

    When not: where pixels must be right, as in measurements: take the first stage alone. ESRGAN is sharper.

    Family: images to images.

    Args:
        adversarial_weight: 1e-3, equation 3.
        pixel_weight: Of the mean squared error of pixels, equation 4; 0 in the second stage, 1 in the first.
        perceptual: The loss of features, which the first stage leaves out; None for that of the paper: VGG19's
            φ_{5,4} after its activation, scaled by 1/12.75 (section 3.2), that is 0.006 times the squared error.
        g_lr, d_lr: 1e-4, section 3.2.
        betas: β₁ is 0.9, section 3.2.
        regularizers: Add-ons besides ``perceptual``.
        **kwargs: All other arguments of ``Translation``.
    """

    content = ("pixel", "perceptual")
    shows_source = False
    two_stages = True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        adversarial_weight: float = 1e-3,
        pixel_weight: float | None = None,
        perceptual: PerceptualLoss | None = None,
        g_lr: float = 1e-4,
        d_lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        regularizers: Sequence[Regularizer] | None = None,
        content_only: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs |= {"g_lr": g_lr, "d_lr": d_lr, "betas": betas, "content_only": content_only}
        paper = PerceptualLoss(weights=(12.75**-2,), norm="l2", before_activation=False)
        own = [] if content_only else [perceptual or paper]
        super().__init__(generator, discriminator, regularizers=[*own, *(regularizers or ())], **kwargs)
        self.pixel_weight = float(content_only) if pixel_weight is None else pixel_weight
        not_negative(adversarial_weight=adversarial_weight, pixel_weight=self.pixel_weight)
        self.adversarial_weight = adversarial_weight

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 2."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": F.softplus(-real_logits).mean(), "fake": F.softplus(fake_logits).mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equations 3, 4 and 6; that of features, equation 5, is an add-on."""
        terms = {"pixel": self.pixel_weight * F.mse_loss(fake.x, real.x)} if self.pixel_weight else {}
        if self.content_only:
            return terms
        return {"adversarial": self.adversarial_weight * F.softplus(-self.discriminate(fake)).mean(), **terms}
