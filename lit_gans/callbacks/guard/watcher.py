"""What the guard's callbacks have in common."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_gans.callbacks.guard.core import Guard, Recovery
from lit_gans.callbacks.guard.health import Event
from lit_gans.callbacks.guard.snapshots import first_not_finite
from lit_gans.internals import accumulates

__all__ = ("ACTIONS", "Detector", "Finding", "Watcher", "nearest")

_MARGIN = 50  # steps; what made a player miss turn after turn may have begun that long before
ACTIONS = ("warn", "skip", "clip", "rollback", "stop")  # in rising order


def nearest(kind: str, name: object, known: Iterable[str]) -> str:
    """One sentence on a name that does not exist, with the nearest that does."""
    known = list(known)
    near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    return f"there is no {kind} {name!r}: " + (f"did you mean {near[0]!r}?" if near else f"one of {', '.join(known)}")


class Watcher(Callback):
    """A callback that shares what it measures with others of its kind in the same trainer."""

    guard: Guard

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the trainer's guard."""
        if stage == "fit":
            self.guard = Guard.of(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the players."""
        self.guard.start(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the step."""
        self.guard.begin(trainer, pl_module)

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Note the loss."""
        self.guard.hear(loss)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was measured no longer holds."""
        self.guard.forget()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Do what was decided in this step."""
        if self.steps_now(trainer):
            self.guard.settle(trainer, pl_module)

    @staticmethod
    def steps_now(trainer: Trainer) -> bool:
        """Whether this batch ends a step; the first ones of an accumulation do not."""
        return not accumulates(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Free the memory; ``teardown`` is not called then."""
        Guard.dismiss(trainer)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Free the memory."""
        Guard.dismiss(trainer)


@dataclass(frozen=True)
class Finding:
    """What a detector has found.

    Args:
        kind: One of the detector's kinds.
        player: Name of the network concerned; None where it is neither alone.
        value: Measured.
        usual: The same as it was before; None where nothing is usual.
        quantity: What was measured, in words.
        advice: What to try.
        tensor: The first parameter concerned.
        age: For how many steps it may have gone on unseen.
    """

    kind: str
    player: str | None
    value: float
    usual: float | None
    quantity: str
    advice: str
    tensor: str | None = None
    age: int = 0


class Detector(Watcher):
    """A callback that finds what goes wrong, and acts.

    Args:
        action: What to do about all kinds, or about each: ``{"nan": "rollback", "rise": "warn"}``; kinds left out get
            the default.
        interval: Steps within which the same warning is given once.
        recovery: How far recovery may go.
    """

    kinds: ClassVar[Mapping[str, str]] = {}
    """What can be found → what is done about it by default."""
    possible: ClassVar[tuple[str, ...]] = ACTIONS

    def __init__(self, action: str | Mapping[str, str], interval: int, recovery: Recovery) -> None:
        self.actions = self._actions(action)
        if interval < 1:
            raise ValueError(f"interval must be at least 1, got {interval}")
        self.interval, self.recovery = interval, recovery

    def _actions(self, action: str | Mapping[str, str]) -> dict[str, str]:
        if not isinstance(action, str | Mapping):
            raise ValueError(f"{type(self).__name__}: action is a word, or a mapping of kinds to words, got {action!r}")
        given = dict.fromkeys(self.kinds, action) if isinstance(action, str) else {**self.kinds, **action}
        for kind, name in given.items():
            if kind not in self.kinds:
                raise ValueError(f"{type(self).__name__}: {nearest('kind', kind, self.kinds)}")
            if name not in ACTIONS:
                raise ValueError(f"{type(self).__name__}: {nearest('action', name, self.possible)}")
            if name not in self.possible:
                raise ValueError(
                    f"{type(self).__name__}: action {name!r} concerns a single update, and what is found here goes on "
                    f"over many: use {', '.join(self.possible)}"
                )
        return given

    @property
    def acts(self) -> bool:
        """Whether anything more than a warning may happen."""
        return any(action != "warn" for action in self.actions.values())

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the trainer's guard; see that recovery is possible where it is asked for."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.acts:
            self.guard.require(trainer, pl_module, self.recovery)

    def respond(
        self, trainer: Trainer, module: LightningModule, finding: Finding, optimizer: Optimizer | None = None
    ) -> str:
        """Act on a finding, write it down, and tell of it.

        Args:
            trainer: The trainer.
            module: What it trains.
            finding: What was found.
            optimizer: The one that is about to step, where it was found there.

        Returns:
            The action taken.
        """
        guard, player, since = self.guard, finding.player, self.guard.batch - finding.age
        action, because = self.actions[finding.kind], ""
        if action == "clip" and not self._clippable(finding):
            action = "skip"
        if action == "skip":
            streak = guard.streaks[str(player)] = guard.streaks.get(str(player), 0) + 1
            if (
                finding.kind in ("nan", "inf")
                and (tensor := first_not_finite(trainer, module, guard.meant)) is not None
            ):
                action, because = "rollback", f" (dropping updates does not mend {tensor})"
            elif streak > self.recovery.max_skips:
                action, because = "rollback", f" ({self.recovery.max_skips} updates in a row were dropped)"
                since -= streak + _MARGIN
        if action == "rollback" and not guard.may_roll_back():
            action = "stop"
            because = f" (max_rollbacks={self.recovery.max_rollbacks} within {self.recovery.window} steps are used up)"
        message = self.describe(finding, action, because)
        if optimizer is not None and action in ("skip", "rollback", "stop"):
            guard.drop(optimizer)
        if action == "clip" and optimizer is not None and finding.usual is not None:
            guard.scale(optimizer, finding.usual / finding.value)
        if action in ("rollback", "stop"):
            guard.request(action, player, since, message)
            guard.streaks.clear()
        told = guard.log.due(finding.kind, player, action, guard.batch, self.interval)
        if told or action != "warn":
            event = Event(
                guard.step,
                finding.kind,
                player,
                finding.value,
                finding.usual,
                action,
                finding.quantity,
                finding.tensor,
                type(self).__name__,
                message,
            )
            guard.log.record(trainer, event, told and action != "stop")
        return action

    def _clippable(self, finding: Finding) -> bool:
        return finding.kind in ("spike", "rise") and finding.usual is not None

    def describe(self, finding: Finding, action: str, because: str) -> str:
        """The whole in a sentence or three."""
        where = f" in {finding.player}" if finding.player else ""
        first = f" (first in {finding.tensor})" if finding.tensor else ""
        usual = "" if finding.usual is None else f", usually {finding.usual:.3g}"
        did = {
            "warn": "Nothing was done.",
            "skip": "This update was dropped.",
            "clip": "The gradients were scaled down to their usual norm.",
            "rollback": "Training goes on from an earlier state.",
            "stop": "Training stops.",
        }[action]
        return (
            f"step {self.guard.step}: {finding.kind.replace('_', ' ')}{where}: {finding.quantity} is "
            f"{finding.value:.3g}{usual}{first}. {did.removesuffix('.')}{because}. {finding.advice}"
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what there was, once for all detectors."""
        self.guard.log.summarise(self.guard.batch + 1 - self.guard.first_batch)

    def state_dict(self) -> dict[str, Any]:
        """What the guard knows, and this detector of it."""
        return {"guard": self.guard.state()} if hasattr(self, "guard") else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        if state_dict:
            self.guard.load(state_dict["guard"])
