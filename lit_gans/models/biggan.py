"""BigGAN: Brock et al. 2019, "Large scale GAN training for high fidelity natural image synthesis", arXiv:1809.11096."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms, off_diagonal_gram
from lit_gans.game.arguments import not_negative
from lit_gans.models.hinge_gan import HingeGAN
from lit_gans.modules import normalise_spectrally

__all__ = ("BigGAN", "truncated_normal")


class BigGAN(HingeGAN):
    r"""The hinge GAN at scale: large batches, orthogonal regularisation, an averaged generator, truncated latents.

    .. math::
        L_D = E_{x, y} \max(0, 1 - D(x, y)) + E_{z, y} \max(0, 1 + D(G(z, y), y)), \qquad
        L_G = -E_{z, y} D(G(z, y), y) + β \sum_W \|W^T W ⊙ (1 - I)\|_F^2

    Both networks are spectrally normalised, but for the generator's embeddings, as in the authors' code. Its networks,
    with a shared embedding and latents that enter at every block, are ``networks.BigGANGenerator`` and
    ``networks.BigGANDiscriminator``. The batch is 2048 in the paper, from all devices, with their batch norm
    synchronised.

    ``sample(n, truncation=t)`` draws latents from a normal truncated to [-t, t]: less variety, more fidelity.
    Truncation wants batch statistics that fit; ``standing_statistics`` gathers them.

    Differs from the paper: none. The authors' code writes the gradient of β/2 times the sum: at the same β it is half
    as strong as equation 3, which is what stands here.

    When to use it: for many classes, large batches and several GPUs.

    When not: with small batches or few images: its numbers are those of batches of 2048. The paper reports that
    training collapses in the end, so keep the best checkpoint and not only the last.

    Family: architectures.

    Args:
        orthogonal: β, 1e-4 in section 3.1.
        n_critic: 2, appendix C.
        latent_dim: 120 for 128 pixels, appendix B.
        g_lr, d_lr: 5e-5 and 2e-4, appendix C.
        betas: The betas of Adam: 0 and 0.999, appendix C.
        ema_decay: Decay of the averaged generator; 0.9999, appendix C.
        **kwargs: All other arguments of ``GAN``.
    """

    truncates = True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        orthogonal: float = 1e-4,
        n_critic: int = 2,
        latent_dim: int = 120,
        g_lr: float = 5e-5,
        d_lr: float = 2e-4,
        betas: tuple[float, float] = (0.0, 0.999),
        ema_decay: float | None = 0.9999,
        **kwargs: Any,
    ) -> None:
        normalise_spectrally(generator, embeddings=False)
        normalise_spectrally(discriminator)
        kwargs |= {"n_critic": n_critic, "latent_dim": latent_dim, "g_lr": g_lr, "d_lr": d_lr, "betas": betas}
        super().__init__(generator, discriminator, ema_decay=ema_decay, **kwargs)
        not_negative(orthogonal=orthogonal)
        self.orthogonal = orthogonal

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """The hinge loss and equation 3."""
        terms = super().generator_loss(real, fake)
        return {**terms, "orthogonal": self.orthogonal * off_diagonal_gram(self.generator)}

    def render(self, network: nn.Module, z: Tensor, y: Tensor | None, truncation: float | None = None) -> Tensor:
        """Images of latents folded into [-truncation, truncation], which then are truncated normal."""
        return super().render(network, z if truncation is None else truncated_normal(z, truncation), y)


def truncated_normal(z: Tensor, bound: float) -> Tensor:
    """Standard normal values → values of the normal distribution truncated to [-bound, bound], in the same order."""
    if not bound > 0:
        raise ValueError(f"truncation must be above 0, got {bound}")
    normal = torch.distributions.Normal(0.0, 1.0)
    edge = normal.cdf(torch.tensor(bound, dtype=torch.float64))
    inside = 1 - edge + normal.cdf(z.double()) * (2 * edge - 1).to(z.device)
    return normal.icdf(inside).clamp(-bound, bound).to(z.dtype)
