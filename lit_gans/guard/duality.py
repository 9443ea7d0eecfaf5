"""Duality gap: Grnarova et al. 2019, "A domain agnostic measure for monitoring and evaluating GANs", NeurIPS."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_gans.functional import Batch
from lit_gans.game.loop import Game
from lit_gans.guard.look import undisturbed

__all__ = ("duality_gap",)


def duality_gap(
    model: Game,
    batches: Sequence[tuple[Tensor, Tensor | None]],
    held_out: tuple[Tensor, Tensor | None],
    steps: int = 20,
) -> float:
    r"""How far both players are from an equilibrium, by how much each could still win against the other as it is.

    .. math:: DG(G, D) = \max_{D'} M(G, D') - \min_{G'} M(G', D)

    (equation 1), with M the value of the game, ``discriminator_loss`` negated, the paper's own penalty included,
    ``regularizers`` not. The worst-case players are copies, trained for ``steps`` steps of Adam with ``d_lr`` and
    ``g_lr`` from where the players stand (section 4). M is then taken on data that they were not trained on. The model,
    its buffers and all random numbers are left as they were. Zero at an equilibrium; without one it grows with
    ``steps``, so compare only equal numbers.

    Args:
        model: Its losses define the game.
        batches: Images and labels to train the worst-case players on, in turn.
        held_out: Images and labels to take the value on.
        steps: Updates of each worst-case player.
    """
    with undisturbed(model):
        worst_d = twin(model, discriminator=copy.deepcopy(model.discriminator))
        train(worst_d, worst_d.discriminator, model.lrs[0], batches, steps, sign=-1.0)
        worst_g = twin(model, generator=copy.deepcopy(model.generator))
        train(worst_g, worst_g.generator, model.lrs[1], batches, steps, sign=1.0)
        with torch.no_grad():
            return (value(worst_d, *held_out, seed=steps) - value(worst_g, *held_out, seed=steps)).item()


def twin(model: Game, **networks: nn.Module) -> Game:
    """The same model with another network; all else is shared."""
    other = copy.copy(model)
    other.__dict__["_modules"] = {**model._modules, **networks}
    return other


def value(model: Game, real: Tensor, y: Tensor | None, seed: int) -> Tensor:
    """M(G, D) on a batch, with noise of a given seed; differentiable in both players."""
    batch = Batch(real, y)
    inputs = model.inputs_of(batch, torch.Generator(real.device).manual_seed(seed))
    with torch.enable_grad():
        terms = model.discriminator_loss(batch, model.make(inputs))
    return -torch.stack(list(terms.values())).sum()


def train(
    model: Game,
    network: nn.Module,
    lr: float,
    batches: Sequence[tuple[Tensor, Tensor | None]],
    steps: int,
    sign: float,
) -> None:
    """Move a copy of a player so that the value falls (sign 1) or rises (sign -1)."""
    parameters = [parameter.requires_grad_() for parameter in network.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=model.betas)
    for step in range(steps):
        real, y = batches[step % len(batches)]
        gradients = torch.autograd.grad(sign * value(model, real, y, seed=step), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        if network is model.discriminator:
            model.constrain("discriminator")
