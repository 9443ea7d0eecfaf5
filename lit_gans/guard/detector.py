"""What the guard's callbacks have in common."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer

from lit_gans.errors import unknown
from lit_gans.guard.guard import Guard
from lit_gans.guard.health import Finding

__all__ = ("ACTIONS", "Detector", "Observer")

ACTIONS = ("warn", "skip", "clip", "rollback", "stop")  # in rising order


class Observer(Callback):
    """A callback that shares what it measures of gradients with others of its kind in the same trainer."""

    guard: Guard

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the trainer's guard."""
        self.guard = Guard.of(trainer, self)


class Detector(Observer):
    """A callback that finds what goes wrong, and has the guard act.

    Args:
        action: What to do about all kinds, or about each: ``{"nan": "rollback", "rise": "warn"}``; kinds left out get
            the default.

    Raises:
        ValueError: an unknown kind, an unknown action, or one that is not possible here.
    """

    kinds: ClassVar[Mapping[str, str]] = {}
    """What can be found → what is done about it by default."""
    possible: ClassVar[tuple[str, ...]] = ACTIONS

    def __init__(self, action: str | Mapping[str, str]) -> None:
        self.actions = self._actions(action)

    def _actions(self, action: str | Mapping[str, str]) -> dict[str, str]:
        if not isinstance(action, str | Mapping):
            raise ValueError(f"{type(self).__name__}: action is a word, or a mapping of kinds to words, got {action!r}")
        given = dict.fromkeys(self.kinds, action) if isinstance(action, str) else {**self.kinds, **action}
        for kind, name in given.items():
            if kind not in self.kinds:
                raise ValueError(f"{type(self).__name__}: {unknown('kind', kind, self.kinds)}")
            if name not in ACTIONS:
                raise ValueError(f"{type(self).__name__}: {unknown('action', name, self.possible)}")
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

    @property
    def suspects(self) -> bool:
        """Whether something looks wrong, though not enough to act."""
        return False

    def remember(self) -> Any:
        """What is known of the run so far, as plain values; None if a rollback changes nothing about it."""
        return None

    def recall(self, state: Any) -> None:
        """Go on from what was known when the snapshot was taken to which the guard went back."""

    def rates_changed(self) -> None:
        """The guard has changed learning rates."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the trainer's guard; see that recovery is possible where it is asked for."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.guard.admit(self.state_key, self, trainer, pl_module)

    def respond(
        self, trainer: Trainer, module: LightningModule, finding: Finding, optimizer: Optimizer | None = None
    ) -> str:
        """Have the guard act on a finding, and return the action taken; see :meth:`Guard.act`."""
        finding = replace(finding, detector=type(self).__name__)
        return self.guard.act(trainer, module, finding, self.actions[finding.kind], optimizer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint; older ones hold what the guard knew beside each detector's own."""
        if "guard" in state_dict:
            self.guard.load_state_dict(state_dict["guard"])
