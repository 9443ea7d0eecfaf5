"""UnrolledGAN: Metz et al. 2017, "Unrolled generative adversarial networks", ICLR, arXiv:1611.02163."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import at_least
from lit_gans.game.compiling import eagerly
from lit_gans.game.traits import Traits
from lit_gans.internals import trainer_of
from lit_gans.models.gan import GAN

__all__ = ("UnrolledGAN",)


_EPS = 1e-8


class Moments(NamedTuple):
    """What Adam remembers of each parameter, and how it moves."""

    first: list[Tensor]
    second: list[Tensor]
    step: Tensor
    lr: float | Tensor
    betas: tuple[float, float]


class UnrolledGAN(GAN):
    r"""The GAN whose generator plays against the discriminator of k steps ahead, and is differentiated through them.

    .. math::
        θ_D^{i+1} = θ_D^i - \text{Adam}(∇_{θ_D} L_D(θ_G, θ_D^i)), \qquad L_G = -L_D(θ_G, θ_D^k)

    with :math:`L_D` GAN's loss of the discriminator. The steps ahead are those of the discriminator's Adam on the batch
    of the generator's update, and are forgotten. k = 0 is the game of equation 1, MinimaxGAN. Differs from the paper:
    none; steps ahead are of Adam, as in its experiments, and read the real samples of the discriminator's turn.

    When to use it: against mode collapse on small data, where k steps ahead can be paid for.

    When not: with large networks. An update of the generator holds the graphs of k updates of the discriminator, so
    that time and memory grow with k. The discriminator's optimizer cannot be exchanged.

    Family: against collapse.

    Args:
        steps: k; 5 and 10 in section 3.
        g_lr, d_lr: 1e-3 and 1e-4, appendix A.
        **kwargs: All other arguments of ``GAN``, without ``d_optimizer``, whose steps could not be differentiated.
    """

    traits = Traits(double_backward=True, couples_samples=True)  # a batch in parts would look ahead on each part
    _ahead: dict[str, Tensor] | None = None

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        steps: int = 5,
        g_lr: float = 1e-3,
        d_lr: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("d_optimizer") is not None:
            raise ValueError("UnrolledGAN is differentiated through the steps of its own Adam: leave d_optimizer out")
        super().__init__(generator, discriminator, g_lr=g_lr, d_lr=d_lr, **kwargs)
        at_least(0, steps=steps)
        self.steps = steps

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equations 7 to 10: what the discriminator of k steps ahead loses, the generator wins."""
        moments = adam_moments(self)
        try:
            for _ in range(self.steps):
                moments = self.look_ahead(moments, real, fake)
            return {name: -term for name, term in self.discriminator_loss(real, fake).items()}
        finally:
            self._ahead = None

    def look_ahead(self, moments: Moments, real: Batch, fake: Batch) -> Moments:
        """Move the discriminator that ``judge`` asks by one step, with a graph back to the generated images."""
        if self._ahead is None:
            self._ahead = {name: p.detach().requires_grad_() for name, p in self.discriminator.named_parameters()}
            self._ahead |= {name: buffer.clone() for name, buffer in self.discriminator.named_buffers()}
        moving = {name: value for name, value in self._ahead.items() if value.requires_grad}
        with torch.enable_grad():
            loss = torch.stack(list(self.discriminator_loss(real, fake).values())).sum()
            gradients = torch.autograd.grad(loss, list(moving.values()), create_graph=True)
        moved, moments = adam_step(list(moving.values()), [self.joint_mean(g) for g in gradients], moments)
        self._ahead |= zip(moving, moved, strict=True)
        return moments

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator returns after ``augment``; that of steps ahead within the generator's loss."""
        if self._ahead is None:
            return super().judge(x, y)
        x = x if self.augment is None else self.augment(x)
        with eagerly(self.discriminator, told="while the generator is differentiated through its steps"):
            return functional_call(self.discriminator, self._ahead, (x,) if y is None else (x, y))


def adam_moments(model: GAN) -> Moments:
    """Those of the discriminator's optimizer; zero where it has made no step, or a model has no optimizer yet."""
    parameters = list(model.discriminator.parameters())
    zeros = [torch.zeros_like(p) for p in parameters]
    begin = torch.zeros((), device=parameters[0].device if parameters else None)
    optimizers = model.trainer.optimizers if trainer_of(model) is not None else []
    if not optimizers or "betas" not in optimizers[0].param_groups[0]:  # a foreign module's
        return Moments(zeros, zeros, begin, model.lrs[0], model.betas)
    group, state = optimizers[0].param_groups[0], optimizers[0].state
    known = [state.get(p, {}) for p in parameters]
    first = [memory.get("exp_avg", zero) for memory, zero in zip(known, zeros, strict=True)]
    second = [memory.get("exp_avg_sq", zero) for memory, zero in zip(known, zeros, strict=True)]
    step = next((memory["step"] for memory in known if "step" in memory), begin)
    return Moments(first, second, step.to(begin.device), group["lr"], group["betas"])


def adam_step(parameters: list[Tensor], gradients: list[Tensor], moments: Moments) -> tuple[list[Tensor], Moments]:
    """Where Adam (Kingma and Ba 2015, algorithm 1) moves parameters, as a function of their gradients.

    Differs from it: ε is added under the root, so that the step has a derivative where all gradients were zero.
    """
    first_decay, second_decay = moments.betas
    first = [m.lerp(g, 1 - first_decay) for m, g in zip(moments.first, gradients, strict=True)]
    second = [v * second_decay + (1 - second_decay) * g * g for v, g in zip(moments.second, gradients, strict=True)]
    step = moments.step + 1
    rate, root = moments.lr / (1 - first_decay**step), (1 - second_decay**step).sqrt()
    moved = [
        p - rate * m / ((v + _EPS**2).sqrt() / root + _EPS) for p, m, v in zip(parameters, first, second, strict=True)
    ]
    return moved, Moments(first, second, step, moments.lr, moments.betas)
