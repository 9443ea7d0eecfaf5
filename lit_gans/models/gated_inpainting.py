"""GatedInpainting: Yu et al. 2019, "Free-form image inpainting with gated convolution", arXiv:1806.03589."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.models.translation import Translation, pasted, source_of
from lit_gans.modules import normalise_spectrally

__all__ = ("GatedInpainting",)


class GatedInpainting(Translation):
    r"""Fills holes of any shape in two passes, a coarse and a fine one; each place of a map is judged by itself.

    .. math::
        L_D = E_x [1 - D(x, m)]_+ + E_x [1 + D(G(x), m)]_+, \qquad
        L_G = -λ E_x D(G(x), m) + \|G_c(x) - x\|_1 + \|G(x) - x\|_1

    A source is a picture and, as its last channel, the mask m, 1 in the hole: a ``PairedImageDataModule`` with the task
    ``mask``. Put ``networks.GatedGenerator`` and ``networks.SNPatchDiscriminator`` into it, whose every layer is
    normalised spectrally. The generator gives (coarse, fine) pictures, or one. ``translate`` gives known pixels back,
    bit for bit.

    Differs from the paper: no contextual attention in the second pass.

    When to use it: for free-form holes: scratches, text, objects that a user paints over.

    When not: for holes of half the picture or more, of which nothing around them tells what was there.

    Family: images to images.

    Args:
        l1_weight: Of both L1 terms, 1 in section 3.3.
        adversarial_weight: λ, 1 in section 3.3.
        g_lr, d_lr: 1e-4, the published code.
        betas: 0.5 and 0.999, the published code.
        **kwargs: All other arguments of ``Translation``.
    """

    content = ("coarse", "fine")
    takes_mask = True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        l1_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        g_lr: float = 1e-4,
        d_lr: float = 1e-4,
        betas: tuple[float, float] = (0.5, 0.999),
        **kwargs: Any,
    ) -> None:
        not_negative(l1_weight=l1_weight, adversarial_weight=adversarial_weight)
        super().__init__(generator, discriminator, g_lr=g_lr, d_lr=d_lr, betas=betas, **kwargs)
        normalise_spectrally(discriminator)
        self.l1_weight, self.adversarial_weight = l1_weight, adversarial_weight

    def make(self, inputs: Batch) -> Batch:
        """The fine picture; with its source goes, as further channels, the coarse one."""
        source = source_of(inputs)
        coarse, fine = stages(self.generate(source))
        return Batch(fine, torch.cat([source, coarse], 1))

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator says of pictures whose known part is that of the source, and of their mask."""
        assert y is not None
        source = y[:, : x.shape[1] + 1]
        return super().judge(pasted(x, source), source)

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Section 3.3: the hinge loss of each place of the map."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": F.relu(1 - real_logits).mean(), "fake": F.relu(1 + fake_logits).mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Section 3.3, and the L1 distances of both passes."""
        coarse = source_of(fake)[:, -real.x.shape[1] :]
        terms = {
            "coarse": self.l1_weight * F.l1_loss(coarse, real.x),
            "fine": self.l1_weight * F.l1_loss(fake.x, real.x),
        }
        if self.content_only:
            return terms
        return {"adversarial": -self.adversarial_weight * self.discriminate(fake).mean(), **terms}

    def picture(self, network: nn.Module, x: Tensor) -> Tensor:
        """The fine picture."""
        return stages(network(x))[1]


def stages(made: Any) -> tuple[Tensor, Tensor]:
    """The coarse and the fine picture; a generator of one pass gives one for both."""
    return (made, made) if isinstance(made, Tensor) else (made[0], made[1])
