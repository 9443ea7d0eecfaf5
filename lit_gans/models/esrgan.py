"""ESRGAN: Wang et al. 2018, "ESRGAN: enhanced super-resolution generative adversarial networks", arXiv:1809.00219."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.models.translation import Translation
from lit_gans.regularizers.perceptual import PerceptualLoss
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("ESRGAN",)


class ESRGAN(Translation):
    r"""Larger pictures from small ones, with a discriminator that compares, and features before their activation.

    .. math::
        L_D = -\frac{1}{2} E_y \log σ(C(y) - E_x C(G(x))) - \frac{1}{2} E_x \log(1 - σ(C(G(x)) - E_y C(y))), \\
        L_G = L_{percep} + λ L_G^{Ra} + η \|G(x) - y\|_1

    with :math:`L_G^{Ra}` the discriminator's loss with the roles exchanged (equation 2), and :math:`L_{percep}` the
    mean absolute difference of VGG19's features before the last activation. Put ``networks.RRDBNet`` and
    ``networks.SRDiscriminator`` into it; for Real-ESRGAN, ``networks.UNetDiscriminator``, and pairs made by a chain of
    tasks.

    Training has two stages (section 4.1). The first, ``content_only=True``, minimises the L1 distance of pixels alone.
    The second begins with its weights: ``fit ... --init_from CKPT``; it warns where it begins with none. Between both
    lie the weights of section 3.4: ``translate --alpha``.

    Differs from the paper: both players' losses are halved, and the generator is updated first, both as in its
    published code. In the generator's loss no gradient flows to the mean over real pictures, which it does not move.

    When to use it: for photographs that look sharp; with weights that other tools open.

    When not: where pixels must be right: take the first stage alone. RRDBNet is large: SRResNet is done in a tenth.

    Family: images to images.

    Args:
        adversarial_weight: λ, 5e-3 in section 4.1.
        pixel_weight: η, 1e-2 in section 4.1; 1 in the first stage.
        perceptual: The loss of features, which the first stage leaves out; None for that of the paper: VGG19's
            conv5_4 before its activation, L1, of weight 1.
        g_lr, d_lr: 1e-4, section 4.1; the first stage begins with 2e-4.
        betas: 0.9 and 0.99, the published code; section 4.1 has 0.9 and 0.999.
        regularizers: Add-ons besides ``perceptual``.
        **kwargs: All other arguments of ``Translation``.
    """

    traits = replace(Translation.traits, generator_first=True, tells_by_sign=False, couples_samples=True)
    content = ("pixel", "perceptual")
    shows_source = False
    two_stages = True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        adversarial_weight: float = 5e-3,
        pixel_weight: float | None = None,
        perceptual: PerceptualLoss | None = None,
        g_lr: float = 1e-4,
        d_lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        regularizers: Sequence[Regularizer] | None = None,
        content_only: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs |= {"g_lr": g_lr, "d_lr": d_lr, "betas": betas, "content_only": content_only}
        own = [] if content_only else [perceptual or PerceptualLoss()]
        super().__init__(generator, discriminator, regularizers=[*own, *(regularizers or ())], **kwargs)
        self.pixel_weight = (1.0 if content_only else 1e-2) if pixel_weight is None else pixel_weight
        not_negative(adversarial_weight=adversarial_weight, pixel_weight=self.pixel_weight)
        self.adversarial_weight = adversarial_weight

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 1, halved."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {
            "real": F.softplus(self.joint(fake_logits).mean() - real_logits).mean() / 2,
            "fake": F.softplus(fake_logits - self.joint(real_logits).mean()).mean() / 2,
        }

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equations 2 and 3; the loss of features is an add-on."""
        terms = {"pixel": self.pixel_weight * F.l1_loss(fake.x, real.x)} if self.pixel_weight else {}
        if self.content_only:
            return terms
        real_logits = self.discriminate(real).detach()
        fake_logits = self.discriminate(fake)
        told = F.softplus(self.joint(real_logits).mean() - fake_logits).mean()
        taken = F.softplus(real_logits - self.joint(fake_logits).mean()).mean()
        return {"adversarial": self.adversarial_weight * (told + taken) / 2, **terms}
