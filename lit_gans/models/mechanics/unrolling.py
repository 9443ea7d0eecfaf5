"""Steps of Adam that can be differentiated."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lit_gans.models.gan import GAN

__all__ = ("Moments", "adam_moments", "adam_step")

_EPS = 1e-8


class Moments(NamedTuple):
    """What Adam remembers of each parameter, and how it moves."""

    first: list[Tensor]
    second: list[Tensor]
    step: Tensor
    lr: float | Tensor
    betas: tuple[float, float]


def adam_moments(model: "GAN") -> Moments:
    """Those of the discriminator's optimizer; zero where it has made no step, or a model has no optimizer yet."""
    parameters = list(model.discriminator.parameters())
    zeros = [torch.zeros_like(p) for p in parameters]
    begin = torch.zeros((), device=parameters[0].device if parameters else None)
    optimizers = model.trainer.optimizers if model._trainer is not None else []
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
