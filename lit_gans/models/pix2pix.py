"""Pix2Pix: Isola et al. 2017, "Image-to-image translation with conditional adversarial networks", arXiv:1611.07004."""

from typing import Any, Literal

import torch.nn.functional as F
from torch import nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.models.translation import Translation

__all__ = ("Pix2Pix",)


class Pix2Pix(Translation):
    r"""A picture from a picture, learned from pairs: the discriminator sees both, the generator stays near its target.

    .. math::
        L_D = -\frac{1}{2} E_{x, y} \log D(x, y) - \frac{1}{2} E_{x} \log(1 - D(x, G(x))), \qquad
        L_G = -E_{x} \log D(x, G(x)) + λ E_{x, y} \|y - G(x)\|_1

    with x the source and y the target. Put ``networks.UNetGenerator`` and ``networks.PatchDiscriminator`` into it, the
    latter with as many ``in_channels`` as source and target have together.

    Differs from the paper: none. Noise comes from dropout alone, when pictures are made for use, too: section 3.3.

    When to use it: with pairs of pictures that line up: edges and photographs, grey and colour, a scene and its mask.

    When not: without pairs (CycleGAN, CUT), or where source and target are displaced against each other, which the L1
    term turns into blur.

    Family: images to images.

    Args:
        l1_weight: λ, 100 in section 3.3 and 4.
        test_mode: "train", section 3.3: dropout, and statistics of the picture at hand, when pictures are made.
        init_std: 0.02, section 6.2.
        **kwargs: All other arguments of ``Translation``.
    """

    content = ("l1",)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        l1_weight: float = 100.0,
        test_mode: Literal["eval", "train"] = "train",
        init_std: float | None = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, test_mode=test_mode, init_std=init_std, **kwargs)
        not_negative(l1_weight=l1_weight)
        self.l1_weight = l1_weight

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 1, divided by 2 (section 3.3) to slow the discriminator down."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": F.softplus(-real_logits).mean() / 2, "fake": F.softplus(fake_logits).mean() / 2}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 4."""
        terms = {"l1": self.l1_weight * F.l1_loss(fake.x, real.x)}
        return terms if self.content_only else {"adversarial": F.softplus(-self.discriminate(fake)).mean(), **terms}
