"""UnrolledGAN: Metz et al. 2017, "Unrolled generative adversarial networks", ICLR, arXiv:1611.02163."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lit_gans.models.gan import GAN
from lit_gans.models.mechanics.arguments import not_negative
from lit_gans.models.mechanics.joint import mean_gradient

__all__ = ("UnrolledGAN",)


class UnrolledGAN(GAN):
    r"""The GAN whose generator plays against the discriminator of k steps ahead, and is differentiated through them.

    .. math::
        θ_D^{i+1} = θ_D^i - η \, ∇_{θ_D} L_D(θ_G, θ_D^i), \qquad L_G = -E_{z} \log D(G(z); θ_D^k)

    with :math:`L_D` GAN's loss of the discriminator.
    k = 0 is GAN. The steps ahead are taken on the batch of the generator's update, and forgotten.

    Differs from the paper: the steps ahead are those of gradient descent, equation 7, with a rate of their own; the
    published code takes steps of Adam.

    Args:
        steps: k; 5 and 10 in section 3.
        unroll_lr: η.
        g_lr, d_lr: 1e-3 and 1e-4, appendix A.
        **kwargs: As of GAN.
    """

    double_backward = True
    couples_samples = True  # a batch in parts would look ahead on each part
    _ahead: dict[str, Tensor] | None = None

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        steps: int = 5,
        unroll_lr: float = 0.1,
        g_lr: float = 1e-3,
        d_lr: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, g_lr=g_lr, d_lr=d_lr, **kwargs)
        not_negative(steps=steps, unroll_lr=unroll_lr)
        self.steps, self.unroll_lr = steps, unroll_lr

    def generator_loss(
        self, real: Tensor, fake: Tensor, y: Tensor | None, y_fake: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Equations 7 to 10, with GAN's loss of the generator."""
        try:
            for _ in range(self.steps):
                self.look_ahead(real, fake, y, y_fake)
            return super().generator_loss(real, fake, y, y_fake)
        finally:
            self._ahead = None

    def look_ahead(self, real: Tensor, fake: Tensor, y: Tensor | None, y_fake: Tensor | None) -> None:
        """Move the discriminator that ``discriminate`` asks by one step, with a graph back to ``fake``."""
        if self._ahead is None:
            self._ahead = {name: p.detach().requires_grad_() for name, p in self.discriminator.named_parameters()}
            self._ahead |= {name: buffer.clone() for name, buffer in self.discriminator.named_buffers()}
        moving = {name: value for name, value in self._ahead.items() if value.requires_grad}
        with torch.enable_grad():
            loss = torch.stack(list(self.discriminator_loss(real, fake, y, y_fake).values())).sum()
            gradients = torch.autograd.grad(loss, list(moving.values()), create_graph=True)
        for (name, value), gradient in zip(moving.items(), gradients, strict=True):
            share = gradient if self.turn is None else mean_gradient(gradient)
            self._ahead[name] = value - self.unroll_lr * share

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator returns after ``augment``; that of steps ahead within the generator's loss."""
        if self._ahead is None:
            return super().discriminate(x, y)
        x = x if self.augment is None else self.augment(x)
        return functional_call(self.discriminator, self._ahead, (x,) if y is None else (x, y))
