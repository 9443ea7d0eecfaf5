"""WGAN: Arjovsky et al. 2017, "Wasserstein generative adversarial networks", ICML, arXiv:1701.07875."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, RMSprop

from lit_gans.functional import Batch, Terms
from lit_gans.game.module import Player
from lit_gans.game.traits import Traits
from lit_gans.models.gan import GAN

__all__ = ("WGAN",)


class WGAN(GAN):
    r"""The Wasserstein GAN with weight clipping (algorithm 1).

    .. math::
        L_D = E_{z} f_w(G(z)) - E_{x \sim p_{data}} f_w(x), \quad w \in [-c, c], \qquad L_G = -E_{z} f_w(G(z))

    Differs from the paper: none. A critic should end without a sigmoid and have no momentum-based optimizer.

    When to use it: to see the distance fall while training, or to learn why the penalty replaced the clipping.

    When not: for the best images. Clipping makes the critic too simple a function, and gradients that shrink or grow
    from layer to layer with c (Gulrajani et al. 2017, section 3). WGANGP learns faster and better.

    Family: Wasserstein.

    Args:
        clip: c, bound of the critic's weights after each of its updates; 0.01 in algorithm 1.
        n_critic: Critic updates per generator update; 5 in algorithm 1.
        g_lr: α of algorithm 1.
        d_lr: α of algorithm 1.
        **kwargs: All other arguments of ``GAN``.
    """

    traits = Traits(tells_by_sign=False)

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        clip: float = 0.01,
        n_critic: int = 5,
        g_lr: float = 5e-5,
        d_lr: float = 5e-5,
        **kwargs: Any,
    ) -> None:
        if not clip > 0:
            raise ValueError(f"clip must be above 0, got {clip}")
        super().__init__(generator, discriminator, n_critic=n_critic, g_lr=g_lr, d_lr=d_lr, **kwargs)
        self.clip, self.traits = clip, replace(self.traits, weight_bound=clip)

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 2, negated: its maximum over w estimates the Wasserstein distance."""
        real_score = self.discriminate(real)
        fake_score = self.discriminate(fake)
        return {"real": -real_score.mean(), "fake": fake_score.mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 3, as the value whose gradient it is."""
        return {"adversarial": -self.discriminate(fake).mean()}

    def default_optimizer(self, parameters: Iterable[nn.Parameter], lr: float) -> Optimizer:
        """Algorithm 1, lines 6 and 11: RMSProp."""
        return RMSprop(parameters, lr=lr)

    @torch.no_grad()
    def constrain(self, player: Player, terms: Terms | None = None) -> None:
        """After the critic's update, algorithm 1, line 7: its weights back into [-c, c]."""
        if player == "discriminator":
            for parameter in self.discriminator.parameters():
                parameter.clamp_(-self.clip, self.clip)
