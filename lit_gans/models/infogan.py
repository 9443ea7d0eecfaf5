"""InfoGAN: Chen et al. 2016, "InfoGAN: interpretable representation learning", NeurIPS 29, arXiv:1606.03657."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms
from lit_gans.models.gan import GAN, Closure
from lit_gans.models.mechanics.arguments import not_negative
from lit_gans.models.mechanics.base import Player
from lit_gans.models.mechanics.codes import CodedModule, WithCodes

__all__ = ("InfoGAN",)


class InfoGAN(CodedModule, GAN):
    r"""The GAN whose generated images tell the codes they were made from.

    .. math::
        L_D = L_D^{GAN} - λ L_I, \qquad L_G = -E_{z, c} \log D(G(z, c)) - λ L_I, \qquad
        L_I = E_{z, c} \log Q(c | G(z, c)) + H(c) \le I(c; G(z, c))

    Codes c are one-hot vectors of the categorical ones, then the continuous ones, uniform on [-1, 1]; they stand in for
    labels: ``model(z, c)``, ``model.sample(n, y=c)``. The generator is ``forward(z)`` of the latents with the codes
    appended, latent_dim + sum(categorical) + continuous wide. The discriminator ``forward(x)`` answers (logits, Q): Q
    has the scores of each categorical code, then the means and the log standard deviations of the continuous ones, as
    ours do with ``head=sum(categorical) + 2 * continuous``. ``train/mutual_information`` is :math:`L_I`, in nats.

    Differs from the paper: none; its code draws uniform noise, weighs continuous codes by 1 and fixes their deviation.

    Args:
        categorical: Number of values of each categorical code; one of 10 for MNIST, appendix C.1.
        continuous: Number of continuous codes; 2 for MNIST.
        info_weight: λ of the categorical codes, 1 in section 7.
        continuous_weight: λ of the continuous codes, smaller by section 6: 0.1.
        latent_dim: Of the noise without codes; 62, appendix C.1.
        g_lr: 1e-3, appendix C.
        **kwargs: As of GAN; without ``num_classes``, as the codes take the place of labels.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        categorical: Sequence[int] = (10,),
        continuous: int = 2,
        info_weight: float = 1.0,
        continuous_weight: float = 0.1,
        latent_dim: int = 62,
        g_lr: float = 1e-3,
        **kwargs: Any,
    ) -> None:
        kwargs = self.check_codes(categorical, continuous, kwargs)
        super().__init__(WithCodes(generator), discriminator, latent_dim=latent_dim, g_lr=g_lr, **kwargs)
        self.categorical, self.continuous = tuple(categorical), continuous
        not_negative(info_weight=info_weight, continuous_weight=continuous_weight)
        self.info_weight, self.continuous_weight = info_weight, continuous_weight

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 6: Q is trained with the discriminator, on generated images alone."""
        real_logits, (fake_logits, q) = self.discriminate(real)[0], self.discriminate(fake)
        terms = {"real": F.softplus(-real_logits).mean(), "fake": F.softplus(fake_logits).mean()}
        return terms | self.information(q, fake.y)

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 6, the generator's share."""
        logits, q = self.discriminate(fake)
        return {"adversarial": F.softplus(-logits).mean()} | self.information(q, fake.y)

    def information(self, q: Tensor, codes: Tensor | None) -> dict[str, Tensor]:
        """-λ E log Q(c|x), equation 5 without the constant H(c): cross entropy, and the normal density's logarithm."""
        assert codes is not None
        terms, widths = dict[str, Tensor](), (*self.categorical, self.continuous)
        *scores, mean, log_std = q.split([*widths, self.continuous], dim=1)
        *one_hot, values = codes.split(widths, dim=1)
        if self.categorical:
            parts = [F.cross_entropy(s, c) for s, c in zip(scores, one_hot, strict=True)]
            terms["categorical"] = self.info_weight * torch.stack(parts).sum()
        if self.continuous:
            squares = ((values - mean) * torch.exp(-log_std)).square() / 2
            density = squares + log_std + math.log(2 * math.pi) / 2
            terms["continuous"] = self.continuous_weight * density.sum(1).mean()
        return terms

    def update(self, player: Player, *closures: Closure) -> dict[str, Tensor]:
        """After the generator's update, note L_I."""
        terms = super().update(player, *closures)
        if player == "generator":
            weights = {"categorical": self.info_weight, "continuous": self.continuous_weight}
            lost = [terms[name] / weight for name, weight in weights.items() if name in terms and weight]
            self.measured["mutual_information"] = self.entropy - torch.stack(lost).sum() if lost else torch.zeros(())
        return terms
