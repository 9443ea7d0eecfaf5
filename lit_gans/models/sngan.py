"""SNGAN: Miyato et al. 2018, "Spectral normalization for generative adversarial networks", ICLR, arXiv:1802.05957."""

from typing import Any

import torch.nn.functional as F
from torch import nn

from lit_gans.functional import Batch, Terms
from lit_gans.models.gan import GAN
from lit_gans.modules import normalise_spectrally

__all__ = ("SNGAN",)


class SNGAN(GAN):
    r"""The GAN with a spectrally normalised discriminator and the hinge loss.

    .. math::
        L_D = E_{x \sim p_{data}} \max(0, 1 - D(x)) + E_{z} \max(0, 1 + D(G(z))), \qquad L_G = -E_{z} D(G(z))

    Every linear, convolutional and embedding layer of the discriminator given gets :math:`W / σ(W)`, σ its largest
    singular value, estimated by one power iteration a forward pass (algorithm 1). Defaults are those of the paper's
    residual networks (appendix B.4 and table 3).

    Differs from the paper: none.

    When to use it: for residual networks without labels: no penalty to pay for, hardly anything to tune.

    When not: on points of the plane or with small plain networks: the bound on the slope keeps them from separating
    modes. Nor together with a penalty that asks for another slope.

    Family: regularised.

    Args:
        n_critic: Discriminator updates per generator update; 5 in appendix B.4.
        betas: The betas of Adam: 0 and 0.9 in appendix B.4.
        n_power_iterations: Power iterations a forward pass; 1 in algorithm 1.
        **kwargs: All other arguments of ``GAN``.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        n_critic: int = 5,
        betas: tuple[float, float] = (0.0, 0.9),
        n_power_iterations: int = 1,
        **kwargs: Any,
    ) -> None:
        normalise_spectrally(discriminator, n_power_iterations)
        super().__init__(generator, discriminator, n_critic=n_critic, betas=betas, **kwargs)

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 16, negated."""
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": F.relu(1 - real_logits).mean(), "fake": F.relu(1 + fake_logits).mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 17."""
        return {"adversarial": -self.discriminate(fake).mean()}
