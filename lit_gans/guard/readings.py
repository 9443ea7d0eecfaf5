"""What is measured of an update before it is made: once, however many callbacks ask."""

import math
from dataclasses import dataclass

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_gans.guard.players import Player, find_players, total_norm

__all__ = ("Reading", "Readings")


@dataclass
class Reading:
    """A player's gradients just before its step: averaged over ranks, unscaled, not yet clipped.

    Args:
        player: The player that is about to step.
        norm: Euclidean norm over all its gradients, a scalar that nobody has waited for.
        losses: The losses that were differentiated since the last step, scalars.
    """

    player: Player
    norm: Tensor
    losses: list[Tensor]
    _values: tuple[float, float, bool] | None = None

    def values(self, trainer: Trainer) -> tuple[float, float, bool]:
        """Norm, sum of the losses, and whether all ranks have the same norm; waits for the device, and for the ranks.

        The norm is the largest of any rank. NaN or infinity on one rank is so on all.
        """
        if self._values is None:
            scalars, device = [self.norm, *self.losses], self.norm.device
            if device.type == "cpu":
                norm, *losses = [scalar.item() for scalar in scalars]
            else:  # one wait for all
                norm, *losses = torch.stack([scalar.to(device, torch.float32) for scalar in scalars]).tolist()
            self._values = _agree(trainer, device, norm, sum(losses))
        return self._values


def _agree(trainer: Trainer, device: torch.device, norm: float, loss: float) -> tuple[float, float, bool]:
    """The same numbers on all ranks; one small reduction, none with one process."""
    if trainer.world_size == 1:
        return norm, loss, True
    finite = norm if math.isfinite(norm) else 0.0
    flags = (math.isnan(norm), math.isinf(norm), math.isnan(loss), math.isinf(loss))
    mine = torch.tensor([finite, -finite, *flags], dtype=torch.float64, device=device)
    highest, lowest, *found = trainer.strategy.reduce(mine, reduce_op="max").tolist()
    norm = math.nan if found[0] else math.inf if found[1] else highest
    loss = math.nan if found[2] else math.inf if found[3] else 0.0
    return norm, loss, highest == -lowest


class Readings:
    """The readings of one step, and the players they are of."""

    def __init__(self) -> None:
        self.players: dict[int, Player] = {}
        self._losses: list[Tensor] = []
        self._known: dict[int, Reading] = {}

    def find_players(self, trainer: Trainer, module: LightningModule) -> None:
        """Look which parameters each optimizer moves."""
        self.players = {id(player.optimizer): player for player in find_players(module, trainer.optimizers)}

    def are_outdated(self, trainer: Trainer) -> bool:
        """Whether an optimizer moves other parameters than when the players were found."""
        counts = {key: len(player.parameters) for key, player in self.players.items()}
        now = {id(o): sum(len(group["params"]) for group in o.param_groups) for o in trainer.optimizers}
        return counts != now

    def begin(self) -> None:
        """A step begins: nothing is known of it."""
        self._losses.clear()
        self._known.clear()

    def add_loss(self, loss: Tensor) -> None:
        """A loss is about to be differentiated."""
        self._losses.append(loss.detach() if loss.numel() == 1 else loss.detach().sum())

    def forget_gradients(self) -> None:
        """Gradients have changed, so that what was measured of them no longer holds."""
        self._known.clear()

    def forget_losses(self) -> None:
        """The losses so far were of updates that are not made."""
        self._losses.clear()

    def of(self, optimizer: Optimizer) -> Reading:
        """The gradients of an optimizer that is about to step."""
        key = id(optimizer)
        if key not in self._known:
            player = self.players[key]
            norm = total_norm([gradient.detach() for gradient in player.gradients()])
            self._known[key] = Reading(player, norm, list(self._losses))
            self._losses.clear()
        return self._known[key]
