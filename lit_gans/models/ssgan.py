"""SSGAN: Chen et al. 2019, "Self-supervised GANs via auxiliary rotation loss", CVPR, arXiv:1811.11212."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms, as_batch
from lit_gans.game.arguments import not_negative
from lit_gans.models.sngan import SNGAN

__all__ = ("SSGAN",)


class SSGAN(SNGAN):
    r"""SNGAN whose discriminator also tells by which of four angles an image was rotated.

    .. math::
        L_D = L_D^{SN} - β \, E_{x \sim p_{data}, \, r} \log Q_D(R = r | x^r), \qquad
        L_G = L_G^{SN} - α \, E_{z, \, r} \log Q_D(R = r | G(z)^r)

    The discriminator learns rotations from real images, the generator makes images whose rotation can be told; they
    collaborate, and the discriminator does not forget. It answers (logits, rotation scores), as ours do with
    ``head=4``.

    Differs from the paper: each image is rotated by one angle that is drawn for it, where the published code rotates a
    part of the batch by all four.

    When to use it: without labels, where SNGAN's discriminator forgets; images must have an upright.

    When not: for images that look alike from all sides, such as textures, cells or views from above, whose rotation
    nobody can tell; nor for points.

    Family: labels and codes.

    Args:
        g_rotation: α, 0.2 in section 4.
        d_rotation: β, 1 in section 4.
        n_critic: 1; a later reproduction (Mimicry) takes 5 on CIFAR-10.
        **kwargs: All other arguments of ``SNGAN``.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        g_rotation: float = 0.2,
        d_rotation: float = 1.0,
        n_critic: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, n_critic=n_critic, **kwargs)
        not_negative(g_rotation=g_rotation, d_rotation=d_rotation)
        self.g_rotation, self.d_rotation = g_rotation, d_rotation

    @property
    def head_width(self) -> int | None:
        """A score for each of four angles."""
        return 4

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 4 with the hinge loss."""
        real_logits = self.discriminate(real)[0]
        fake_logits = self.discriminate(fake)[0]
        terms = {"real": F.relu(1 - real_logits).mean(), "fake": F.relu(1 + fake_logits).mean()}
        return {**terms, "rotation": self.d_rotation * self.rotation_loss(real)}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 3 with the hinge loss."""
        adversarial = -self.discriminate(fake)[0].mean()
        return {"adversarial": adversarial, "rotation": self.g_rotation * self.rotation_loss(fake)}

    def rotation_loss(self, batch: Batch) -> Tensor:
        """Cross entropy of the angle of square images (N, C, S, S), each rotated by its own."""
        x, y = as_batch(batch)
        if x.ndim != 4 or x.shape[2] != x.shape[3]:
            raise ValueError(f"SSGAN rotates square images (N, C, S, S), got {tuple(x.shape)}")
        turns = torch.randint(4, (len(x),), generator=self.rng, device=x.device)
        every = torch.arange(len(x), device=x.device)
        rotated = torch.stack([x, *(x.rot90(k, (2, 3)) for k in (1, 2, 3))])[turns, every]
        return F.cross_entropy(self.discriminate(Batch(rotated, y))[1], turns)
