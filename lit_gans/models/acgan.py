"""ACGAN: Odena et al. 2017, "Conditional image synthesis with auxiliary classifier GANs", ICML, arXiv:1610.09585."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("ACGAN",)


class ACGAN(GAN):
    r"""The conditional GAN whose discriminator guesses the class of what it sees.

    .. math::
        L_D = L_S + λ L_C, \qquad L_G = -E_{z, c} \log D(G(z, c)) + λ E_{z, c} [-\log P(c | G(z, c))], \qquad
        L_C = E_{x, c} [-\log P(c | x)] + E_{z, c} [-\log P(c | G(z, c))]

    with :math:`L_S` GAN's loss of the discriminator. The generator is ``forward(z, y)``; the discriminator
    ``forward(x)`` answers (logits, class scores), as ours do with ``head=num_classes``.

    Differs from the paper: the generator's loss of sources is the non-saturating one.

    When to use it: for classes that are easily told apart, if the discriminator should classify, too.

    When not: where variety within classes counts. The classifier rewards samples that are easy to classify, so that
    those of a class become much alike, the more so the more classes there are. ReACGAN and ProjectionGAN do not.

    Family: labels and codes.

    Args:
        num_classes: Number of classes of the data; labels are whole numbers from 0 up.
        class_weight: λ, 1 in equations 2 and 3.
        latent_dim: 100, appendix A.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(needs_labels=True, shows_labels=False)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        num_classes: int,
        class_weight: float = 1.0,
        latent_dim: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, latent_dim=latent_dim, num_classes=num_classes, **kwargs)
        not_negative(class_weight=class_weight)
        self.class_weight = class_weight

    @property
    def head_width(self) -> int | None:
        """A score for each class."""
        return self.num_classes

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equations 2 and 3, negated: sources and classes of real and of generated images."""
        assert real.y is not None
        assert fake.y is not None
        real_logits, real_scores = self.discriminate(real)
        fake_logits, fake_scores = self.discriminate(fake)
        return {
            "real": F.softplus(-real_logits).mean(),
            "fake": F.softplus(fake_logits).mean(),
            "real_class": self.class_weight * F.cross_entropy(real_scores, real.y),
            "fake_class": self.class_weight * F.cross_entropy(fake_scores, fake.y),
        }

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """L_C - L_S, negated, as far as the generator is part of it."""
        assert fake.y is not None
        logits, scores = self.discriminate(fake)
        fake_class = self.class_weight * F.cross_entropy(scores, fake.y)
        return {"adversarial": F.softplus(-logits).mean(), "fake_class": fake_class}

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Logits and class scores after ``augment``; labels are for the discriminator to guess, not to see."""
        return super().judge(x)
