"""The guard of one training run: what its callbacks measure once and share, and how they act as one."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer

from lit_gans.callbacks.guard.health import HealthLog
from lit_gans.callbacks.guard.players import Player, find_players, total_norm
from lit_gans.callbacks.guard.snapshots import (
    Snapshots,
    check_memory,
    check_replicated,
    first_not_finite,
    infinite_buffers,
)
from lit_gans.internals import batches_done, combined_loader

__all__ = ("Guard", "Reading", "Recovery", "TrainingDiverged")


class TrainingDiverged(RuntimeError):  # noqa: N818  # what happened, as StopIteration says it
    """Training was stopped, because what went wrong came back or was not to be recovered from.

    Attributes:
        good: Checkpoint of the last state known to be good.
        bad: Checkpoint of the state in which training was stopped.
    """

    def __init__(self, message: str, good: Path | None = None, bad: Path | None = None) -> None:
        super().__init__(message)
        self.good, self.bad = good, bad


@dataclass(frozen=True)
class Recovery:
    """How far recovery may go; the strictest of all callbacks holds.

    Args:
        snapshot_every: Steps between two snapshots.
        max_rollbacks: Within ``window`` steps; the next one stops training.
        window: In steps; a lowered learning rate stays for half of it, if nothing else happens.
        lr_factor: By which a rollback multiplies the learning rate of the player concerned.
        max_memory: Largest share of main memory that the snapshots of all processes of the machine may take.
        max_skips: Updates of a player that may be dropped in a row before more is done.
    """

    snapshot_every: int = 100
    max_rollbacks: int = 3
    window: int = 1000
    lr_factor: float = 0.5
    max_memory: float = 0.25
    max_skips: int = 60
    depth: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        for name in ("snapshot_every", "max_rollbacks", "window", "max_skips"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < (0 if name == "max_rollbacks" else 1):
                at_least = 0 if name == "max_rollbacks" else 1
                raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
        for name in ("lr_factor", "max_memory"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {value!r}")

    def strictest(self, other: "Recovery") -> "Recovery":
        """Both at once."""
        return Recovery(
            min(self.snapshot_every, other.snapshot_every),
            min(self.max_rollbacks, other.max_rollbacks),
            max(self.window, other.window),
            min(self.lr_factor, other.lr_factor),
            min(self.max_memory, other.max_memory),
            min(self.max_skips, other.max_skips),
        )


@dataclass
class Reading:
    """A player's gradients just before its step: averaged over ranks, unscaled, not yet clipped.

    Args:
        player: Whose they are.
        norm: Euclidean norm over all of them, a scalar that nobody has waited for.
        losses: Those that were differentiated since the last step, scalars.
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


@dataclass
class Request:
    """What is to be done at the end of the batch."""

    action: str
    player: str | None
    before: int
    message: str


class Guard:
    """One for each trainer; its callbacks tell it of hooks, the first that does counts.

    A step begins with ``begin`` and ends with ``settle``. Between the two, updates can be dropped or clipped, and one
    request to roll back or to stop can be made, which drops all further updates and is carried out by ``settle``.
    """

    _of: ClassVar[WeakKeyDictionary[Trainer, "Guard"]] = WeakKeyDictionary()

    def __init__(self, trainer: Trainer) -> None:
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)
        writes = not trainer.fast_dev_run  # type: ignore[attr-defined]
        self.log = HealthLog(self.folder if writes else None)
        self.recovery: Recovery | None = None
        self.snapshots = Snapshots()
        self.players: dict[int, Player] = {}
        self.step = self.batch = self.first_batch = 0
        self.keepers: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {}
        self.rollbacks: list[int] = []
        self.suspects: set[str] = set()  # detectors that have seen something, though not enough to act
        self._factors: dict[str, float] = {}  # by which players' learning rates are lowered for now
        self._anchors: dict[str, list[float]] = {}
        self._reading: dict[int, Reading] = {}
        self._losses: list[Tensor] = []
        self._buffers: dict[str, Tensor] = {}
        self._owners: list[tuple[str, torch.nn.Module]] = []
        self._dropped: set[str] = set()
        self._open = self._started = False
        self._request: Request | None = None
        self.rate_changes = 0
        self.meant: frozenset[str] = frozenset()  # buffers that hold infinity from the start
        self.streaks: dict[str, int] = {}  # updates of a player that were dropped in a row

    @classmethod
    def of(cls, trainer: Trainer) -> "Guard":
        """The guard of a trainer."""
        if trainer not in cls._of:
            cls._of[trainer] = cls(trainer)
        return cls._of[trainer]

    @classmethod
    def dismiss(cls, trainer: Trainer) -> None:
        """Free the memory; the next ``fit`` begins with another."""
        if (guard := cls._of.pop(trainer, None)) is not None:
            guard.snapshots.clear()
            guard._buffers.clear()
            guard.players.clear()
            guard._owners.clear()

    # what callbacks tell

    def require(self, trainer: Trainer, module: LightningModule, recovery: Recovery) -> None:
        """Prepare to recover.

        Raises:
            ValueError: if the strategy shards the state, or snapshots would not fit into memory.
        """
        check_replicated(trainer)
        self.recovery = recovery if self.recovery is None else self.recovery.strictest(recovery)
        processes = getattr(trainer.strategy, "num_processes", 1)
        check_memory(module, self.recovery.depth, self.recovery.max_memory, processes)

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """Before the first batch: find the players, take the first snapshot.

        Raises:
            ValueError: if weights are not finite to begin with.
        """
        if self._started:
            return
        self._started = True
        self.step = trainer.global_step
        self.batch = self.first_batch = batches_done(trainer)
        self._find_players(trainer, module)
        self.log.open(trainer)
        self.meant = infinite_buffers(module)
        if self.recovery is not None:
            if (name := first_not_finite(trainer, module, self.meant)) is not None:
                raise ValueError(
                    f"{name} holds NaN or infinity before training starts: mend the weights it begins with"
                )
            self._take(trainer, module, self.batch)

    def _find_players(self, trainer: Trainer, module: LightningModule) -> None:
        self.players = {id(player.optimizer): player for player in find_players(module, trainer.optimizers)}
        self._owners = [(path, part) for path, part in module.named_modules() if part._buffers]

    def _named_buffers(self) -> dict[str, Tensor]:
        """Buffers by name, without a walk through all modules at each step."""
        return {
            f"{path}.{name}".lstrip("."): buffer
            for path, part in self._owners
            for name, buffer in part._buffers.items()
            if buffer is not None
        }

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """A batch begins."""
        if self._open:
            return
        self._open, self.step = True, trainer.global_step
        self.batch = batches_done(trainer)
        self._losses.clear()
        self._reading.clear()
        if self.recovery is not None:
            buffers = self._named_buffers()
            if [x.shape for x in buffers.values()] == [x.shape for x in self._buffers.values()] and buffers:
                torch._foreach_copy_(list(self._buffers.values()), list(buffers.values()))
            else:
                self._buffers = {name: buffer.clone() for name, buffer in buffers.items()}
        if any(count_of(optimizer) != self._known(optimizer) for optimizer in trainer.optimizers):
            self._find_players(trainer, module)  # layers were added, and what is kept does not know them
            if self.recovery is not None:
                self.snapshots.clear()
                self._take(trainer, module, self.batch)

    def _known(self, optimizer: Optimizer) -> int | None:
        """How many parameters an optimizer moved when it was last looked at; None if it never was."""
        player = self.players.get(id(optimizer))
        return None if player is None else len(player.parameters)

    def _take(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        kept = {name: save() for name, (save, _) in self.keepers.items()}
        self.snapshots.take(trainer, module, step, {"factors": self._factors, "kept": kept})

    def hear(self, loss: Tensor) -> None:
        """A loss is about to be differentiated."""
        if not self._losses or self._losses[-1].data_ptr() != loss.data_ptr():  # else another callback has said so
            self._losses.append(loss.detach() if loss.numel() == 1 else loss.detach().sum())

    def forget(self) -> None:
        """Gradients have changed."""
        self._reading.clear()

    def reading(self, optimizer: Optimizer) -> Reading:
        """The gradients of an optimizer that is about to step, measured once however many ask."""
        key = id(optimizer)
        if key not in self._reading:
            player = self.players[key]
            norm = total_norm([gradient.detach() for gradient in player.gradients()])
            self._reading[key] = Reading(player, norm, list(self._losses))
            self._losses.clear()
        return self._reading[key]

    # what callbacks ask for

    def due(self, every: int) -> bool:
        """Whether this batch is an ``every``-th one."""
        return (self.batch + 1) % every == 0

    def due_soon(self, every: int) -> bool:
        """The same, or at most five batches before: a player may not have its turn in the very last."""
        return -(self.batch + 1) % every <= 5

    @property
    def stopped(self) -> bool:
        """Whether this step is given up already."""
        return self._request is not None

    def drop(self, optimizer: Optimizer) -> None:
        """The update that is about to be made is not made: an optimizer passes over parameters without gradients."""
        player = self.players[id(optimizer)]
        for parameter in player.parameters:
            parameter.grad = None
        self._dropped.add(player.name)

    def absent(self, optimizer: Optimizer) -> bool:
        """Whether another player has missed more than three turns in a row: nobody learns against one who is absent."""
        mine = self.players[id(optimizer)].name
        return any(count > 3 for name, count in self.streaks.items() if name != mine)

    def scale(self, optimizer: Optimizer, factor: float) -> None:
        """Multiply the gradients of the update that is about to be made."""
        gradients = [p.grad for p in self.players[id(optimizer)].parameters if p.grad is not None]
        if gradients:
            torch._foreach_mul_(gradients, factor)

    def request(self, action: str, player: str | None, since: int, message: str) -> None:
        """Roll back or stop at the end of this batch.

        Args:
            action: ``rollback`` or ``stop``.
            player: Whose learning rate is to be lowered; None for all.
            since: The batch at which all was still well.
            message: What happened.
        """
        if self._request is None or action == "stop":
            before = since if self._peaceful() else -1  # not twice to the same state, if there is an older one
            self._request = Request(action, player, before, message)

    def _peaceful(self) -> bool:
        """Whether nothing was rolled back lately."""
        assert self.recovery is not None
        return not any(self.batch - past < self.recovery.window for past in self.rollbacks)

    def may_roll_back(self) -> bool:
        """Whether one more rollback within the window is allowed."""
        assert self.recovery is not None
        return sum(self.batch - past < self.recovery.window for past in self.rollbacks) < self.recovery.max_rollbacks

    def settle(self, trainer: Trainer, module: LightningModule) -> None:
        """A batch ends: do what was asked for, or take a snapshot if it is time and all is well.

        Raises:
            TrainingDiverged: if training is to stop.
        """
        if not self._open and self._request is None:
            return  # another callback has done it, and nobody has asked for more since
        first, self._open = self._open, False
        for name, buffer in self._named_buffers().items() if self._dropped else ():
            owners = [p.name for p in self.players.values() if name.startswith(f"{p.name}.")]
            if name in self._buffers and (not owners or self._dropped & {*owners}):
                buffer.copy_(self._buffers[name])
        self._dropped.clear()
        request, self._request = self._request, None
        if request is not None:
            self._losses.clear()
            (self._stop if request.action == "stop" else self._roll_back)(trainer, module, request)
        elif first and self.recovery is not None:
            if self._factors and self.batch - self.rollbacks[-1] >= self.recovery.window // 2:
                self._put_rates_back(trainer)
            if self.snapshot_due and not self.suspects and first_not_finite(trainer, module, self.meant) is None:
                self._take(trainer, module, self.batch + 1)

    @property
    def snapshot_due(self) -> bool:
        """Whether a snapshot is to be taken after this batch."""
        return self.recovery is not None and (self.batch + 1 - self.first_batch) % self.recovery.snapshot_every == 0

    # recovery

    def _roll_back(self, trainer: Trainer, module: LightningModule, request: Request) -> None:
        """Another start from a good state: the same weights, other noise and data, a smaller learning rate."""
        assert self.recovery is not None
        wanted = {player.name: self._factors.get(player.name, 1.0) for player in self.players.values()}
        for name in [request.player] if request.player in wanted else wanted:
            wanted[name] *= self.recovery.lr_factor
        batch, note = self.snapshots.restore(trainer, module, request.before)
        self._factors = note["factors"]
        for name, (_, load) in self.keepers.items():
            load(note["kept"][name])
        for player in self.players.values():
            multiply_rate(trainer, player.optimizer, wanted[player.name] / self._factors.get(player.name, 1.0))
        self._factors = wanted
        self.rate_changes += 1
        self._anchors = {player.name: anchors(trainer, player.optimizer) for player in self.players.values()}
        self.rollbacks = [past for past in self.rollbacks if self.batch - past < self.recovery.window] + [self.batch]
        for loader in _loaders(trainer):
            loader.reorder()
        if hasattr(module, "seed_offset"):
            module.seed_offset += 1  # type: ignore[assignment, operator]
        rank_zero_info(f"step {self.step}: the state before batch {batch} was put back")

    def _put_rates_back(self, trainer: Trainer) -> None:
        """Half a window has passed in peace: rates are as before, unless somebody else has changed them since."""
        for player in self.players.values():
            factor = self._factors.get(player.name, 1.0)
            if factor != 1 and anchors(trainer, player.optimizer) == self._anchors.get(player.name):
                multiply_rate(trainer, player.optimizer, 1 / factor)
                rank_zero_info(f"step {self.step}: {player.name} has its learning rate back")
        self._factors, self._anchors = {}, {}
        self.rate_changes += 1

    def _stop(self, trainer: Trainer, module: LightningModule, request: Request) -> None:
        """Keep what is for the post-mortem, and what was good to go on from."""
        folder = self.folder / "checkpoints"
        bad, good = (folder / f"health-step={self.step:08d}-{which}.ckpt" for which in ("bad", "good"))
        stopped = f"{request.message} Training was stopped at step {self.step}."
        if self.log.path is None:  # a trial run, which writes nothing
            raise TrainingDiverged(stopped)
        trainer.save_checkpoint(bad)
        before, note = self.snapshots.restore(trainer, module, request.before)
        self.rollbacks, self._factors, self._anchors = [], note["factors"], {}
        trainer.save_checkpoint(good)
        raise TrainingDiverged(
            f"{stopped} The state before batch {before}, the last known to be good, is in {good}, that in which it was "
            f"stopped in {bad}.",
            good,
            bad,
        )

    # state

    def state(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "rollbacks": list(self.rollbacks),
            "streaks": dict(self.streaks),
            "factors": dict(self._factors),
            "anchors": {name: list(rates) for name, rates in self._anchors.items()},
            "log": self.log.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state`; every callback has saved the same."""
        self.rollbacks, self.streaks = list(state["rollbacks"]), dict(state["streaks"])
        self._factors, self._anchors = dict(state["factors"]), dict(state["anchors"])
        self.log.load(state["log"])


def _loaders(trainer: Trainer) -> list[Any]:
    """Loaders of the training data that can be told to take another order."""
    combined = combined_loader(trainer)
    return [] if combined is None else [loader for loader in combined.flattened if hasattr(loader, "reorder")]


def schedulers_of(trainer: Trainer, optimizer: Optimizer) -> list[Any]:
    """Schedulers that set an optimizer's learning rate, those within others included."""
    found = [config.scheduler for config in trainer.lr_scheduler_configs if config.scheduler.optimizer is optimizer]
    for scheduler in found:
        found.extend(getattr(scheduler, "_schedulers", ()))
    return found


def count_of(optimizer: Optimizer) -> int:
    """How many parameters an optimizer moves."""
    return sum(len(group["params"]) for group in optimizer.param_groups)


def anchors(trainer: Trainer, optimizer: Optimizer) -> list[float]:
    """What stays put as long as nobody changes it: the rates that schedules multiply, else those of the groups."""
    bases = [float(rate) for s in schedulers_of(trainer, optimizer) for rate in getattr(s, "base_lrs", ())]
    return bases or [float(group["lr"]) for group in optimizer.param_groups]


def multiply_rate(trainer: Trainer, optimizer: Optimizer, factor: float) -> None:
    """Multiply a learning rate, and with it all that its schedule will make of it."""
    for group in optimizer.param_groups:
        for name in ("lr", "initial_lr", "max_lr", "min_lr"):
            if name in group:
                group[name] = group[name] * factor
    for scheduler in schedulers_of(trainer, optimizer):
        for name in ("base_lrs", "max_lrs", "min_lrs", "_last_lr"):
            if (rates := getattr(scheduler, name, None)) is not None:
                setattr(scheduler, name, [rate * factor for rate in rates])
        if isinstance(least := getattr(scheduler, "eta_min", None), float | int):
            scheduler.eta_min = least * factor
