"""Work that most steps are without: how often it is done, and how to have it done at a certain step."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lightning import Trainer

from lit_gans.callbacks import GenerativeMetrics
from lit_gans.commands.profiling.parts import key_of_callback

__all__ = ("NEVER", "Work", "whole_turns", "works_of")

NEVER = 2**40
"""A period that no run comes to the end of."""

PERIODS = ("every_n_steps", "snapshot_every", "_every_n_train_steps")
"""Attributes in which callbacks, ours and Lightning's, have the number of steps between two turns."""


@dataclass
class Work:
    """Work that is due at every so many steps.

    Args:
        name: What a reader sees.
        parts: The parts of a step that it is charged to.
        owner: Of these parts; None for all.
        period: Steps from one time to the next.
        places: Objects and their attributes that hold the period.
        at_end: Whether it is done once more at the end of training, unless the last step was its turn.
        repeats: How often it is done to measure it, the first time apart.
        follows: Whether it comes, at most, with each validation, and is measured with it.
    """

    name: str
    parts: tuple[str, ...]
    owner: str | None
    period: int
    places: list[tuple[Any, str]]
    at_end: bool = False
    repeats: int = 2
    follows: bool = False
    seconds: list[float] = field(default_factory=list)

    def rest(self) -> None:
        """Not to be done."""
        for place, name in self.places:
            setattr(place, name, NEVER)

    @contextmanager
    def due(self) -> Iterator[None]:
        """Within it, at every step."""
        for place, name in self.places:
            setattr(place, name, 1)
        try:
            yield
        finally:
            self.rest()

    def count(self, steps: int) -> int:
        """How often a run of so many steps does it, the end of training apart."""
        return max(0, -(-steps // self.period) - 1) if self.at_end else steps // self.period

    def cost(self, times: int) -> float:
        """Seconds that it takes to do it so often; the first time may take longer than the others."""
        if not times or not self.seconds:
            return 0.0
        first, *others = self.seconds
        later = sum(others) / len(others) if others else first
        return first + (times - 1) * later

    def charge(self, step: dict[Any, float], usual: dict[Any, float]) -> None:
        """Note what a step took longer in which it was done."""
        keys = [
            key for key in {*step, *usual} if key.part in self.parts and (self.owner is None or key.owner == self.owner)
        ]
        self.seconds.append(max(0.0, sum(step.get(key, 0.0) - usual.get(key, 0.0) for key in keys)))


def works_of(trainer: Trainer) -> list[Work]:
    """The occasional work of a run, validation last: what its callbacks do, and what Lightning does."""
    works = []
    if (every := trainer.log_every_n_steps) > 0 and trainer.loggers:  # type: ignore[attr-defined]
        parts = ("logging", "callbacks", "rest")  # norms of gradients, for one, are measured only to be logged
        works.append(Work("logging", parts, None, every, [(trainer, "log_every_n_steps")], repeats=5))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        key = key_of_callback(callback)
        if key is None or isinstance(callback, GenerativeMetrics):  # which measures in validation
            continue
        for name in PERIODS:
            period = getattr(callback, name, None)
            if type(period) is int and period > 0:
                at_end = key.part in ("samples", "checkpoints")
                works.append(Work(key.owner, (key.part,), key.owner, period, [(callback, name)], at_end))
    return works + validations_of(trainer)


def validations_of(trainer: Trainer) -> list[Work]:
    """Validation, and the checkpoints that follow it."""
    if not trainer.enable_validation:
        return []
    batches, by_epochs = trainer.val_check_batch, trainer.check_val_every_n_epoch
    if by_epochs is not None:  # so often within an epoch, at every n-th
        epoch = trainer.num_training_batches
        within = 1 if batches in (None, float("inf")) else max(1, int(epoch // batches))
        batches = epoch * by_epochs / within
    if batches is None or batches == float("inf"):
        batches = trainer.num_training_batches
    if batches == float("inf"):
        return []
    period = max(1, round(batches))
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    last = any(isinstance(callback, GenerativeMetrics) for callback in callbacks)  # which measures the last state, too
    found = [Work("validation", ("validation",), None, period, [(trainer, "val_check_batch")], at_end=last)]
    for callback in callbacks:
        if getattr(callback, "monitor", None) is not None and hasattr(callback, "best_model_path"):
            name = type(callback).__name__
            found.append(Work(name, ("checkpoints",), name, period, [], at_end=last, follows=True))
    return found


def whole_turns(steps: int, turn: int) -> int:
    """The least multiple of a turn that is not below a number of steps."""
    return -(-steps // turn) * turn
