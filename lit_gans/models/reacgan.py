"""ReACGAN: Kang et al. 2021, "Rebooting ACGAN: auxiliary classifier GANs with stable training", arXiv:2111.01118."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.game.traits import Traits
from lit_gans.models.hinge_gan import HingeGAN
from lit_gans.modules import normalise_spectrally

__all__ = ("ReACGAN", "d2d_cross_entropy")


class ReACGAN(HingeGAN):
    r"""The hinge GAN with a classifier that compares samples on a sphere, and leaves the easy ones alone.

    .. math::
        L = L^{hinge} - λ \frac1N \sum_i \log \frac{e^{[f_i^T v_{y_i} - m_p]_- / τ}}
            {e^{[f_i^T v_{y_i} - m_p]_- / τ} + \sum_{j: y_j \ne y_i} e^{[f_i^T f_j - m_n]_+ / τ}}

    with f the embeddings of real images for :math:`L_D`, of generated ones for :math:`L_G`, and v the classes' proxies,
    of norm 1 (D2D-CE, equation 6). The generator is ``forward(z, y)``; the discriminator ``forward(x)`` is given the
    proxies and answers (logits, embedding): ``head=embed_dim``. All layers but G's embeddings get spectral norm.

    Differs from the paper: none; :math:`m_n = 1 - m_p`, as in its code, which shifts the negatives by their maximum.

    When to use it: for many classes where ACGAN's training breaks down and relations between samples should count.

    When not: with small batches, or in parts of them: what a sample is compared with are the other samples of its
    batch. Margin and temperature have to be found for the data.

    Family: labels and codes.

    Args:
        num_classes: Number of classes of the data; labels are whole numbers from 0 up.
        embed_dim: Width of the embedding; 512 in appendix.
        weight: λ.
        margin: m_p, 0.98 in section 4.
        temperature: τ, 0.5 for CIFAR-10.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(needs_labels=True, couples_samples=True, shows_labels=False)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        num_classes: int,
        embed_dim: int = 512,
        weight: float = 0.5,
        margin: float = 0.98,
        temperature: float = 0.5,
        betas: tuple[float, float] = (0.5, 0.999),
        **kwargs: Any,
    ) -> None:
        not_negative(weight=weight, margin=margin, temperature=temperature)
        with_proxies = WithProxies(discriminator, num_classes, embed_dim)
        normalise_spectrally(generator, embeddings=False)
        normalise_spectrally(with_proxies)
        super().__init__(generator, with_proxies, num_classes=num_classes, betas=betas, **kwargs)
        self.embed_dim, self.weight, self.margin, self.temperature = embed_dim, weight, margin, temperature

    @property
    def head_width(self) -> int | None:
        """Width of the embedding."""
        return self.embed_dim

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 7: the classes of real images."""
        real_logits, embedding = self.discriminate(real)
        fake_logits = self.discriminate(fake)[0]
        terms = {"real": F.relu(1 - real_logits).mean(), "fake": F.relu(1 + fake_logits).mean()}
        return {**terms, "class": self.class_loss(embedding, real.y)}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 8: the classes of generated images."""
        logits, embedding = self.discriminate(fake)
        return {"adversarial": -logits.mean(), "class": self.class_loss(embedding, fake.y)}

    def class_loss(self, embedding: Tensor, y: Tensor | None) -> Tensor:
        """Equation 6 for samples of all processes, weighted."""
        assert y is not None
        unit, proxies = F.normalize(embedding.float(), dim=1), F.normalize(self.discriminator.proxies(y).float(), dim=1)  # type: ignore[operator]
        others, labels = self.joint(unit), self.joint(y)
        return self.weight * d2d_cross_entropy(unit, proxies, y, others, labels, self.margin, self.temperature)

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """Logits and embeddings after ``augment``; the discriminator is to guess labels, not to see them."""
        return super().judge(x)


def d2d_cross_entropy(
    f: Tensor, v: Tensor, y: Tensor, others: Tensor, labels: Tensor, margin: float, temperature: float
) -> Tensor:
    """Equation 6: embeddings f and proxies v (N, D) of norm 1 with labels y (N,), against all embeddings and labels."""
    positive = ((f * v).sum(1) - margin).clamp(max=0) / temperature
    negative = (f @ others.T - (1 - margin)).clamp(min=0) / temperature
    negative = negative.masked_fill(y[:, None] == labels[None], -torch.inf)
    return (torch.logsumexp(torch.cat([positive[:, None], negative], dim=1), dim=1) - positive).mean()


class WithProxies(nn.Module):
    """A discriminator and an embedding of each class, learnt with it.

    Raises:
        ValueError: if there are no classes.
    """

    def __init__(self, network: nn.Module, num_classes: int | None, embed_dim: int) -> None:
        super().__init__()
        if num_classes is None:
            raise ValueError("proxies are of classes, and there are none: give num_classes, and data that has labels")
        self.network, self.proxies = network, nn.Embedding(num_classes, embed_dim)

    def forward(self, *inputs: Tensor) -> Any:
        """What the network answers."""
        return self.network(*inputs)
