"""ProjectionGAN: Miyato and Koyama 2018, "cGANs with projection discriminator", ICLR, arXiv:1802.05637."""

from typing import Any

from torch import nn

from lit_gans.game.traits import Traits
from lit_gans.models.sngan import SNGAN

__all__ = ("ProjectionGAN",)


class ProjectionGAN(SNGAN):
    r"""SNGAN whose discriminator takes the inner product of its features with an embedding of the label.

    .. math::
        D(x, y) = v_y^T φ(x) + ψ(φ(x)), \qquad
        L_D = E_{x, y} \max(0, 1 - D(x, y)) + E_{z, y} \max(0, 1 + D(G(z, y), y)), \qquad L_G = -E_{z, y} D(G(z, y), y)

    The networks take labels: ``networks.ResNetGenerator`` conditions its batch norm on them, and
    ``networks.ResNetDiscriminator`` projects, when built with ``num_classes``. All layers of the discriminator, the
    embedding among them, are spectrally normalised.

    Differs from the paper: none.

    When to use it: for many classes and residual networks, without a classifier's bias towards easy samples.

    When not: with the default ``uniform_labels`` on classes of very different sizes: a rare label then gives generated
    images away. Nor where a classifier is wanted besides.

    Family: labels and codes.

    Args:
        num_classes: Number of classes of the data; labels are whole numbers from 0 up.
        uniform_labels: Labels of generated images are drawn uniformly, as in section 3, or taken from the batch.
        **kwargs: All other arguments of ``SNGAN``.
    """

    traits = Traits(needs_labels=True)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        num_classes: int,
        uniform_labels: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, num_classes=num_classes, uniform_labels=uniform_labels, **kwargs)
