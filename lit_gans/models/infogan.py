"""InfoGAN: Chen et al. 2016, "InfoGAN: interpretable representation learning", NeurIPS 29, arXiv:1606.03657."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.game.module import Player
from lit_gans.models.gan import GAN

__all__ = ("InfoGAN",)


class InfoGAN(GAN):
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

    When to use it: to find factors of the data without labels: classes, slant, width.

    When not: to draw classes that you have labels for. Codes find what varies most, in an order of their own, and other
    seeds find other factors. CGAN and ACGAN take labels.

    Family: labels and codes.

    Args:
        categorical: Number of values of each categorical code; one of 10 for MNIST, appendix C.1.
        continuous: Number of continuous codes; 2 for MNIST.
        info_weight: λ of the categorical codes, 1 in section 7.
        continuous_weight: λ of the continuous codes, smaller by section 6: 0.1.
        latent_dim: Of the noise without codes; 62, appendix C.1.
        g_lr: 1e-3, appendix C.
        **kwargs: All other arguments of ``GAN``, without ``num_classes``, as the codes take the place of labels.
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
        name = type(self).__name__
        if kwargs.get("num_classes") is not None:
            raise ValueError(f"{name} finds classes by itself, as codes: leave num_classes out")
        if any(values < 2 for values in categorical) or continuous < 0 or not (categorical or continuous):
            raise ValueError(
                f"{name} needs codes: categorical of at least 2 values each, or continuous of at least 1, got "
                f"{list(categorical)} and {continuous}"
            )
        kwargs["uniform_labels"] = True  # codes are drawn for each generated image
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

    def constrain(self, player: Player, terms: Terms | None = None) -> None:
        """After the generator's update, note L_I."""
        if player == "generator" and terms is not None:
            weights = {"categorical": self.info_weight, "continuous": self.continuous_weight}
            lost = [terms[name] / weight for name, weight in weights.items() if name in terms and weight]
            self.measured["mutual_information"] = self.entropy - torch.stack(lost).sum() if lost else torch.zeros(())

    @property
    def code_width(self) -> int:
        """Numbers that describe the codes of an image."""
        return sum(self.categorical) + self.continuous

    @property
    def head_width(self) -> int | None:
        """Scores, means and log standard deviations of the codes of an image."""
        return self.code_width + self.continuous

    @property
    def entropy(self) -> float:
        """H(c) in nats, the largest value of the mutual information."""
        return sum(map(math.log, self.categorical)) + self.continuous * math.log(2)

    def draw_labels(self, n: int, rng: torch.Generator) -> Tensor:
        """Codes of shape (n, code_width)."""
        device = rng.device
        one_hot = [
            F.one_hot(torch.randint(values, (n,), generator=rng, device=device), values).float()
            for values in self.categorical
        ]
        return torch.cat([*one_hot, torch.rand(n, self.continuous, generator=rng, device=device) * 2 - 1], dim=1)

    def set_codes(self, codes: Tensor, values: Sequence[float | None]) -> Tensor:
        """Drawn codes (n, code_width) with some of them as given.

        Args:
            codes: As ``draw_labels`` draws them.
            values: One for each code: the number of the category, counted from 0, of a categorical one, the value of a
                continuous one; None leaves what was drawn.

        Raises:
            ValueError: if these are not as many as there are codes, or there is no such category.
        """
        if len(values) != len(self.categorical) + self.continuous:
            told = f"{len(self.categorical)} categorical and {self.continuous} continuous"
            raise ValueError(f"{type(self).__name__} has {told} codes, got {len(values)} values")
        widths = [*self.categorical, *[1] * self.continuous]
        parts = list(codes.clone().split(widths, dim=1))
        for part, value, categories in zip(parts, values, [*self.categorical, *[0] * self.continuous], strict=True):
            if value is None:
                continue
            if not categories:
                part.fill_(value)
            elif value in range(categories):
                part.zero_()[:, int(value)] = 1
            else:
                raise ValueError(f"a categorical code must be in 0..{categories - 1}, got {value:g}")
        return torch.cat(parts, dim=1)

    def _given_labels(self, y: Any, n: int) -> Tensor:
        codes = torch.as_tensor(y, dtype=torch.float32).cpu()
        if codes.shape[-1:] != (self.code_width,) or codes.ndim > 2 or (codes.ndim == 2 and len(codes) != n):
            raise ValueError(
                f"y must be the codes of one image or of {n}, each of {self.code_width} numbers, got shape "
                f"{tuple(codes.shape)}"
            )
        return codes.expand(n, -1)

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator returns after ``augment``; codes are for it to guess, not to see."""
        return super().judge(x)


class WithCodes(nn.Module):
    """A generator of latents and codes, made of one of latents with the codes appended."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor, codes: Tensor) -> Tensor:
        """Latents (N, latent_dim) and codes (N, code_width) to images."""
        images: Tensor = self.network(torch.cat([z, codes.to(z.dtype)], dim=1))
        return images
