"""One guard for each trainer: it acts on what detectors find."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.optim import Optimizer

from lit_gans.guard.health import Finding, HealthLog
from lit_gans.guard.players import Player
from lit_gans.guard.rates import anchors, multiply_rate
from lit_gans.guard.readings import Reading, Readings
from lit_gans.guard.snapshots import (
    Buffers,
    Snapshots,
    check_memory,
    check_replicated,
    first_not_finite,
    infinite_buffers,
)
from lit_gans.internals import accumulates, batches_done, combined_loader

__all__ = ("Guard", "Member", "Request", "TrainingDiverged")

_MARGIN = 50  # steps; what made a player miss turn after turn may have begun that long before
_DID = {
    "warn": "Nothing was done.",
    "skip": "This update was dropped.",
    "clip": "The gradients were scaled down to their usual norm.",
    "rollback": "Training goes on from an earlier state.",
    "stop": "Training stops.",
}


class TrainingDiverged(RuntimeError):  # noqa: N818  # what happened, as StopIteration says it
    """Training was stopped, because what went wrong came back or was not to be recovered from.

    Attributes:
        good: Checkpoint of the last state known to be good.
        bad: Checkpoint of the state in which training was stopped.
    """

    def __init__(self, message: str, good: Path | None = None, bad: Path | None = None) -> None:
        super().__init__(message)
        self.good, self.bad = good, bad


class Member(Protocol):
    """What the guard asks of a detector."""

    @property
    def acts(self) -> bool:
        """Whether it may ask for more than a warning, so that snapshots are needed."""

    @property
    def suspects(self) -> bool:
        """Whether something looks wrong, though not enough to act: no snapshot is taken then."""

    def remember(self) -> Any:
        """What it knows, as plain values that a snapshot keeps."""

    def recall(self, state: Any) -> None:
        """Restore, after a rollback, what ``remember`` returned."""

    def rates_changed(self) -> None:
        """The guard has changed learning rates."""


@dataclass(frozen=True)
class Request:
    """What is to be done at the end of the batch.

    Args:
        action: ``rollback`` or ``stop``.
        player: Name of the player whose learning rate is to be lowered; None for all.
        before: The batch at which all was still well; -1 for the oldest state there is.
        message: What happened, in a sentence.
    """

    action: str
    player: str | None
    before: int
    message: str


class Guard(Callback):
    """Recovers from what detectors find; holds all limits of recovery.

    You need not add a guard: the first detector does. Add one yourself to set other limits than the defaults. Wherever
    it is given, it is moved behind the last detector, so that it acts when all have looked, and before a checkpoint is
    written. Place other callbacks behind the detectors: one between two of them sees a state that may be given up.

    Within a step an update can be dropped (``skip``) or scaled down (``clip``). At the end of the step the guard goes
    back to a snapshot (``rollback``), or stops. A snapshot holds weights, buffers, averages, both optimizers, schedules
    and loss scale in main memory. After a rollback the step counter and the position in the data are kept, but noise
    and the order of the data are drawn from a new seed, and the learning rate of the player concerned is multiplied by
    ``lr_factor``, until half of ``window`` steps have passed in peace. To stop means to save the last good and the
    present state beside the other checkpoints, and to raise ``TrainingDiverged``.

    Everything goes to ``health.jsonl`` in the run's folder, to the loggers as ``health/*``, and to a summary at the
    end. All ranks decide on the same, reduced numbers. A healthy run is not changed in a single bit.

    Args:
        snapshot_every: Steps between two snapshots, of which two are kept.
        max_rollbacks: Rollbacks within ``window`` steps; instead of one more, training stops.
        window: Steps within which rollbacks are counted.
        lr_factor: Factor, in (0, 1], by which a rollback multiplies the learning rate of the player concerned.
        max_memory: Largest share of main memory, in (0, 1], that the snapshots of all processes of a machine may take.
        max_skips: Updates of a player that may be dropped in a row; instead of one more, a rollback is made.
        interval: Steps within which the same warning is given once.

    Raises:
        ValueError: a number out of range; at the start, weights that are not finite, a strategy that shards the state,
            snapshots that would not fit.
        TrainingDiverged: while training, if it has to stop.

    Example:
        >>> from lightning import Trainer
        >>> from lit_gans import ExplosionDetector
        >>> callbacks = [ExplosionDetector(), Guard(max_rollbacks=1)]
        >>> trainer = Trainer(callbacks=callbacks, accelerator="cpu", logger=False)
    """

    depth = 2

    def __init__(
        self,
        snapshot_every: int = 100,
        max_rollbacks: int = 3,
        window: int = 1000,
        lr_factor: float = 0.5,
        max_memory: float = 0.25,
        max_skips: int = 60,
        interval: int = 1000,
    ) -> None:
        whole = {"snapshot_every": snapshot_every, "window": window, "max_skips": max_skips, "interval": interval}
        for name, value in {**whole, "max_rollbacks": max_rollbacks}.items():
            least = 0 if name == "max_rollbacks" else 1
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
        for name, share in {"lr_factor": lr_factor, "max_memory": max_memory}.items():
            if not 0 < share <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {share!r}")
        self._made = False  # by a detector
        self.snapshot_every, self.max_rollbacks, self.window = snapshot_every, max_rollbacks, window
        self.lr_factor, self.max_memory, self.max_skips, self.interval = lr_factor, max_memory, max_skips, interval
        self._forget()

    def _forget(self) -> None:
        """Nothing is known of any run."""
        self.members: dict[str, Member] = {}
        self.recovers = False
        self.health = HealthLog()
        self.snapshots = Snapshots(self.depth)
        self.readings = Readings()
        self.rollbacks: list[int] = []  # batches after which there was one
        self.streaks: dict[str, int] = {}  # updates of a player that were dropped in a row
        self.meant: frozenset[str] = frozenset()  # buffers that hold infinity from the start
        self.step = self.batch = self._first_batch = 0
        self._factors: dict[str, float] = {}  # by which players' learning rates are lowered for now
        self._lowered = 0  # the batch since which they are
        self._anchors: dict[str, list[float]] = {}
        self._buffers = Buffers()
        self._dropped: set[str] = set()
        self._request: Request | None = None
        self._open = self._over = False

    # members

    @staticmethod
    def of(trainer: Trainer, callback: Callback) -> "Guard":
        """The guard of a trainer, which is made if there is none, and stands behind ``callback``."""
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        found = [other for other in callbacks if isinstance(other, Guard)]
        if len(found) > 1:
            raise ValueError(f"{' and '.join(type(guard).__name__ for guard in found)} are guards: give one")
        guard = found[0] if found else Guard()
        guard._made |= not found
        if guard._over:
            guard._forget()
        others = [other for other in callbacks if other is not guard]
        place = sum(not isinstance(other, Checkpoint) for other in others)  # Lightning has these at the end
        if callback in others:
            place = others.index(callback) + 1
        if guard not in callbacks[place:]:
            trainer.callbacks = [*others[:place], guard, *others[place:]]  # type: ignore[attr-defined]
        return guard

    def admit(self, name: str, member: Member, trainer: Trainer, module: LightningModule) -> None:
        """Take a detector in; prepare to recover, if it may ask for that.

        Raises:
            ValueError: if the strategy shards the state, or snapshots would not fit into memory.
        """
        self.members[name] = member
        if member.acts and not self.recovers:
            self.recovers = True
            check_replicated(trainer)
            check_memory(module, self.depth, self.max_memory, getattr(trainer.strategy, "num_processes", 1))

    # the hooks of a run

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin anew, if this guard was that of another run."""
        if self._over:
            self._forget()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the players, take the first snapshot.

        Raises:
            ValueError: if weights are not finite to begin with.
        """
        self.folder = Path(trainer.log_dir or trainer.default_root_dir)
        self.step = trainer.global_step
        self.batch = self._first_batch = batches_done(trainer)
        self._find_players(trainer, pl_module)
        if self._factors:
            self._lower_rates_again(trainer)
        if not self.members and not self._made:
            rank_zero_warn("Guard acts on what detectors find, and there are none: add ExplosionDetector or another")
        self.health.open(trainer, None if trainer.fast_dev_run else self.folder)  # type: ignore[attr-defined]
        self.meant = infinite_buffers(pl_module)
        if self.recovers:
            if (name := first_not_finite(trainer, pl_module, self.meant)) is not None:
                raise ValueError(
                    f"{name} holds NaN or infinity before training starts: mend the weights it begins with"
                )
            self._take(trainer, pl_module, self.batch)

    def _find_players(self, trainer: Trainer, module: LightningModule) -> None:
        self.readings.find_players(trainer, module)
        self._buffers.find(module)

    def _take(self, trainer: Trainer, module: LightningModule, step: int) -> None:
        kept = {name: member.remember() for name, member in self.members.items()}
        self.snapshots.take(trainer, module, step, {"factors": self._factors, "kept": kept})

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the step; copy the buffers, which an update that is dropped must not change."""
        if self._open:  # a further batch of the trainer's own accumulation
            return
        self._open, self.step, self.batch = True, trainer.global_step, batches_done(trainer)
        self.readings.begin()
        if self.recovers:
            self._buffers.copy()
        if self.readings.are_outdated(trainer):
            self._find_players(trainer, pl_module)  # layers were added, and what is kept does not know them
            if self.recovers:
                self.snapshots.clear()
                self._take(trainer, pl_module, self.batch)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note the loss."""
        self.readings.add_loss(loss)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was measured of the gradients no longer holds."""
        self.readings.forget_gradients()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do what was asked for, or take a snapshot if it is time and all is well.

        Raises:
            TrainingDiverged: if training is to stop.
        """
        if accumulates(trainer):
            return
        self._open = False
        if self._dropped:
            self._buffers.put_back(self._dropped, [player.name for player in self.players])
            self._dropped.clear()
        if self._request is not None:
            self._carry_out(trainer, pl_module)
        elif self.recovers:
            if self._factors and self.batch - self._lowered >= self.window // 2:
                self._put_rates_back(trainer)
            suspected = any(member.suspects for member in self.members.values())
            if self.snapshot_due and not suspected and first_not_finite(trainer, pl_module, self.meant) is None:
                self._take(trainer, pl_module, self.batch + 1)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what was asked for while validating."""
        if self._request is not None:
            self._carry_out(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what there was."""
        if self.members:
            self.health.summarise(self.batch + 1 - self._first_batch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Free the memory; ``teardown`` is not called then."""
        self._free()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the memory; the next ``fit`` begins anew."""
        self._free()

    def _free(self) -> None:
        self.snapshots.clear()
        self._buffers.clear()
        self.readings = Readings()
        self._over = True

    # what members ask

    @property
    def players(self) -> list[Player]:
        """The players, in the order of their optimizers."""
        return list(self.readings.players.values())

    def reading(self, optimizer: Optimizer) -> Reading:
        """The gradients of an optimizer that is about to step."""
        return self.readings.of(optimizer)

    def is_due(self, every: int) -> bool:
        """Whether this batch is an ``every``-th one."""
        return (self.batch + 1) % every == 0

    def is_due_soon(self, every: int) -> bool:
        """The same, or at most five batches before: a player may not have its turn in the very last."""
        return -(self.batch + 1) % every <= 5

    @property
    def gave_up(self) -> bool:
        """Whether this step is given up: a rollback or a stop follows, and no further update is made."""
        return self._request is not None

    @property
    def snapshot_due(self) -> bool:
        """Whether a snapshot is to be taken after this batch."""
        return self.recovers and (self.batch + 1 - self._first_batch) % self.snapshot_every == 0

    def passes_over(self, optimizer: Optimizer) -> bool:
        """Whether an update is not to be made, whatever its gradients; if so, it is dropped.

        The step is given up, or another player has missed more than three turns in a row: nobody learns against one who
        is absent.
        """
        mine = self.readings.players[id(optimizer)].name
        if self.gave_up or any(count > 3 for name, count in self.streaks.items() if name != mine):
            self._drop(optimizer)
            return True
        return False

    def let_pass(self, player: str) -> None:
        """An update is made as it is: the player misses no turn."""
        self.streaks.pop(player, None)

    # acting

    def act(
        self,
        trainer: Trainer,
        module: LightningModule,
        finding: Finding,
        action: str,
        optimizer: Optimizer | None = None,
    ) -> str:
        """Act on a finding, write it down, and tell of it.

        Where an action cannot help, the next does: ``clip`` becomes ``skip`` where no usual norm is known, ``skip``
        becomes ``rollback`` where weights are not finite or too many updates were dropped in a row, ``rollback``
        becomes ``stop`` where too many were made.

        Args:
            trainer: The trainer, whose optimizers and state are acted on.
            module: The module it trains.
            finding: What a detector has found.
            action: What is wished to be done.
            optimizer: The optimizer that is about to step, where it was found there.

        Returns:
            The action taken.
        """
        action, since, because = self._escalate(trainer, module, finding, action)
        message = self._describe(finding, action, because)
        if optimizer is not None:
            if action in ("skip", "rollback", "stop"):
                self._drop(optimizer)
            elif action == "clip" and finding.usual is not None:
                self._scale(optimizer, finding.usual / finding.value)
        if action in ("rollback", "stop"):
            self._ask_for(action, finding.player, since, message)
        tells = self.health.is_due(finding.kind, finding.player, action, self.batch, self.interval)
        if tells or action != "warn":
            self.health.record(trainer, finding.event(self.step, action, message), tells and action != "stop")
        return action

    def _escalate(
        self, trainer: Trainer, module: LightningModule, finding: Finding, action: str
    ) -> tuple[str, int, str]:
        """The action that can help, the batch at which all was still well, and why it is another than was wished."""
        since, because = self.batch - finding.age, ""
        if action == "clip" and (finding.kind not in ("spike", "rise") or finding.usual is None):
            action = "skip"
        if action == "skip":
            streak = self.streaks[str(finding.player)] = self.streaks.get(str(finding.player), 0) + 1
            broken = first_not_finite(trainer, module, self.meant) if finding.kind in ("nan", "inf") else None
            if broken is not None:
                action, because = "rollback", f" (dropping updates does not mend {broken})"
            elif streak > self.max_skips:
                action, because = "rollback", f" ({self.max_skips} updates in a row were dropped)"
                since -= streak + _MARGIN
        if action == "rollback" and self._lately() >= self.max_rollbacks:
            action = "stop"
            because = f" (max_rollbacks={self.max_rollbacks} within {self.window} steps are used up)"
        return action, since, because

    def _lately(self) -> int:
        """Number of rollbacks within the window."""
        return sum(self.batch - past < self.window for past in self.rollbacks)

    def _describe(self, finding: Finding, action: str, because: str) -> str:
        """The whole in a sentence or three."""
        where = f" in {finding.player}" if finding.player else ""
        first = f" (first in {finding.tensor})" if finding.tensor else ""
        usual = "" if finding.usual is None else f", usually {finding.usual:.3g}"
        return (
            f"step {self.step}: {finding.kind.replace('_', ' ')}{where}: {finding.quantity} is "
            f"{finding.value:.3g}{usual}{first}. {_DID[action].removesuffix('.')}{because}. {finding.advice}"
        )

    def _drop(self, optimizer: Optimizer) -> None:
        """The update that is about to be made is not made: an optimizer passes over parameters without gradients."""
        player = self.readings.players[id(optimizer)]
        for parameter in player.parameters:
            parameter.grad = None
        self._dropped.add(player.name)

    def _scale(self, optimizer: Optimizer, factor: float) -> None:
        """Multiply the gradients of the update that is about to be made."""
        parameters = self.readings.players[id(optimizer)].parameters
        if gradients := [parameter.grad for parameter in parameters if parameter.grad is not None]:
            torch._foreach_mul_(gradients, factor)

    def _ask_for(self, action: str, player: str | None, since: int, message: str) -> None:
        """Roll back or stop at the end of this batch; the first to ask is heard, and who wants to stop."""
        self.streaks.clear()
        if self._request is None or action == "stop":
            before = -1 if self._lately() else since  # not twice to the same state, if there is an older one
            self._request = Request(action, player, before, message)

    def _carry_out(self, trainer: Trainer, module: LightningModule) -> None:
        assert self._request is not None
        request, self._request = self._request, None
        self.readings.forget_losses()
        (self._stop if request.action == "stop" else self._roll_back)(trainer, module, request)

    def _roll_back(self, trainer: Trainer, module: LightningModule, request: Request) -> None:
        """Another start from a good state: the same weights, other noise and data, a smaller learning rate."""
        wanted = {player.name: self._factors.get(player.name, 1.0) for player in self.players}
        for name in [request.player] if request.player in wanted else wanted:
            wanted[name] *= self.lr_factor
        batch, note = self.snapshots.restore(trainer, module, request.before)
        self._factors = note["factors"]
        for name, member in self.members.items():
            member.recall(note["kept"][name])
        for player in self.players:
            multiply_rate(trainer, player.optimizer, wanted[player.name] / self._factors.get(player.name, 1.0))
        self._factors, self._lowered = wanted, self.batch
        self._take_anchors(trainer)
        self._tell_of_rates()
        self.rollbacks = [past for past in self.rollbacks if self.batch - past < self.window] + [self.batch]
        for loader in _loaders(trainer):
            loader.reorder()
        if hasattr(module, "seed_offset"):
            module.seed_offset += 1  # type: ignore[assignment, operator]
        rank_zero_info(f"step {self.step}: the state before batch {batch} was put back")

    def _take_anchors(self, trainer: Trainer) -> None:
        self._anchors = {player.name: anchors(trainer, player.optimizer) for player in self.players}

    def _lower_rates_again(self, trainer: Trainer) -> None:
        """Where a run goes on with the rates of its config, those that the guard had lowered are lowered anew."""
        for player in self.players:
            factor = self._factors.get(player.name, 1.0)
            if factor != 1 and anchors(trainer, player.optimizer) != self._anchors.get(player.name):
                multiply_rate(trainer, player.optimizer, factor)
        self._take_anchors(trainer)

    def _put_rates_back(self, trainer: Trainer) -> None:
        """Half a window has passed in peace: rates are as before, unless somebody else has changed them since."""
        for player in self.players:
            factor = self._factors.get(player.name, 1.0)
            if factor != 1 and anchors(trainer, player.optimizer) == self._anchors.get(player.name):
                multiply_rate(trainer, player.optimizer, 1 / factor)
                rank_zero_info(f"step {self.step}: {player.name} has its learning rate back")
        self._factors, self._anchors = {}, {}
        self._tell_of_rates()

    def _tell_of_rates(self) -> None:
        for member in self.members.values():
            member.rates_changed()

    def _stop(self, trainer: Trainer, module: LightningModule, request: Request) -> None:
        """Keep what is for the post-mortem, and what was good to go on from."""
        folder = self.folder / "checkpoints"
        bad, good = (folder / f"health-step={self.step:08d}-{which}.ckpt" for which in ("bad", "good"))
        stopped = f"{request.message} Training was stopped at step {self.step}."
        if self.health.path is None:  # a trial run, which writes nothing
            raise TrainingDiverged(stopped)
        trainer.save_checkpoint(bad)
        before, note = self.snapshots.restore(trainer, module, request.before)
        self.rollbacks, self._factors, self._lowered = [], note["factors"], self.batch
        self._take_anchors(trainer)
        trainer.save_checkpoint(good)
        raise TrainingDiverged(
            f"{stopped} The state before batch {before}, the last known to be good, is in {good}, that in which it was "
            f"stopped in {bad}.",
            good,
            bad,
        )

    # state

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "rollbacks": list(self.rollbacks),
            "streaks": dict(self.streaks),
            "factors": dict(self._factors),
            "lowered": self._lowered,
            "anchors": {name: list(rates) for name, rates in self._anchors.items()},
            "log": self.health.state(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rollbacks, self.streaks = list(state_dict["rollbacks"]), dict(state_dict["streaks"])
        self._factors, self._anchors = dict(state_dict["factors"]), dict(state_dict["anchors"])
        self._lowered = state_dict.get("lowered", max(self.rollbacks, default=0))
        self.health.load(state_dict["log"])


def _loaders(trainer: Trainer) -> list[Any]:
    """Loaders of the training data that can be told to take another order."""
    combined = combined_loader(trainer)
    return [] if combined is None else [loader for loader in combined.flattened if hasattr(loader, "reorder")]
