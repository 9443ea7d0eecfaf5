"""BEGAN: Berthelot et al. 2017, "BEGAN: boundary equilibrium generative adversarial networks", arXiv:1703.10717."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import not_negative
from lit_gans.game.module import Player
from lit_gans.game.traits import Traits
from lit_gans.models.ebgan import reconstruction
from lit_gans.models.gan import GAN

__all__ = ("BEGAN",)


class BEGAN(GAN):
    r"""Autoencoder and generator, balanced by proportional control (section 3.4).

    .. math::
        L_D = L(x) - k_t L(G(z_D)), \qquad L_G = L(G(z_G)), \qquad
        k_{t+1} = k_t + λ_k (γ L(x) - L(G(z_G))), \qquad L(v) = |v - D(v)|

    k, in [0, 1], is logged as ``train/k`` beside ``train/m_global``, L(x) + |γ L(x) - L(G(z_G))| (section 3.4.1).
    Latents are uniform on [-1, 1]. The discriminator is an autoencoder, for example ``networks.BEGANAutoencoder``.

    Differs from the paper: the learning rate stays, where the paper halves it when m_global stalls. Of Adam's betas it
    says nothing; they are those of all models here.

    When to use it: for smooth faces with one knob between variety and sharpness, and a measure of convergence.

    When not: where variety counts. The balance favours smooth images that are much alike, and whole classes can stay
    away.

    Family: energy.

    Args:
        gamma: γ, the diversity ratio E L(G(z)) / E L(x) aimed at; 0.5 in section 4.
        k_lr: λ_k, 0.001 in section 3.4.
        latent_dim: 64, section 3.5.
        g_lr, d_lr: 1e-4, section 4.1.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(tells_by_sign=False)
    k: Tensor
    _real_loss: Tensor  # of the update of the discriminator before

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        gamma: float = 0.5,
        k_lr: float = 1e-3,
        latent_dim: int = 64,
        g_lr: float = 1e-4,
        d_lr: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, latent_dim=latent_dim, g_lr=g_lr, d_lr=d_lr, **kwargs)
        not_negative(gamma=gamma, k_lr=k_lr)
        self.gamma, self.k_lr = gamma, k_lr
        self.register_buffer("k", torch.zeros(()))

    def draw_latents(self, n: int, rng: torch.Generator) -> Tensor:
        """Section 3.1: uniform on [-1, 1], shape (n, latent_dim)."""
        return torch.rand(n, self.latent_dim, generator=rng, device=rng.device) * 2 - 1

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Section 3.4, first line."""
        fake_loss = self.discriminate(fake)
        return {"real": self.discriminate(real).mean(), "fake": -self.k * fake_loss.mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Section 3.4, second line."""
        return {"adversarial": self.discriminate(fake).mean()}

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Equation 1: reconstruction losses (N,), the mean over pixels."""
        x = x if self.augment is None else self.augment(x)
        answer = self.discriminator(x) if y is None else self.discriminator(x, y)
        return (reconstruction(self, answer, x)[0] - x).abs().flatten(1).mean(1)

    def constrain(self, player: Player, terms: Terms | None = None) -> None:
        """After the generator's update, section 3.4, third line, with the losses of all processes."""
        if terms is None:
            return
        if player == "discriminator":
            self._real_loss = self.mean_of_ranks(terms["real"])
        else:
            gap = self.gamma * self._real_loss - self.mean_of_ranks(terms["adversarial"])
            self.k.add_(self.k_lr * gap).clamp_(0, 1)
            self.measured |= {"k": self.k, "m_global": self._real_loss + gap.abs()}
