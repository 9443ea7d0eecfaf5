"""Numbers of a model that change while it learns: weights of penalties, Adam's betas, the strength of augmentation."""

import math
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

from torch import Tensor

__all__ = ("Schedule", "check_schedules", "follow_schedules")

_BETAS = ("beta1", "beta2")


@dataclass(frozen=True)
class Schedule:
    """Takes a number from one value to another over training steps, and leaves it there.

    A function of the step alone: there is no state, and a resumed run goes on with it exactly. Learning rates have
    schedulers of torch's, ``g_scheduler`` and ``d_scheduler``.

    Args:
        of: What changes: a number of the model by its name, such as ``gamma``, ``gp_weight`` or ``ema_kimg``; of its
            parts with a dot, such as ``augment.p`` (which then no longer adapts) or ``regularizers.0.weight``;
            ``beta1`` or ``beta2`` of both players' optimizers.
        start: Its value at the first step.
        end: Its value from step ``steps`` on.
        steps: Training steps from one to the other.
        shape: ``cosine``, half a wave that begins and ends flat, or ``linear``.

    Raises:
        ValueError: if ``steps`` is not at least 1, or the shape is no such name.

    Example:
        >>> fall = Schedule("gamma", start=0.05, end=0.005, steps=1000)
        >>> [round(fall.at(step), 4) for step in (0, 500, 1000, 2000)]
        [0.05, 0.0275, 0.005, 0.005]
    """

    of: str
    start: float
    end: float
    steps: int
    shape: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Schedule of {self.of}: steps must be at least 1, got {self.steps}")
        if self.shape not in ("cosine", "linear"):
            raise ValueError(f"Schedule of {self.of}: shape={self.shape!r} is not known; choose cosine or linear")

    def at(self, step: int) -> float:
        """The value at a training step, counted from 0."""
        share = min(step / self.steps, 1.0)
        rest = (1 + math.cos(math.pi * share)) / 2 if self.shape == "cosine" else 1 - share
        return self.end + (self.start - self.end) * rest


def check_schedules(model: Any) -> None:
    """Refuse schedules of what is no number of the model.

    Raises:
        ValueError: naming it, and the numbers that there are.
    """
    for schedule in model.schedules:
        if schedule.of in _BETAS:
            continue
        owner, name = _owner(model, schedule.of)
        if not _is_number(getattr(owner, name, None)):
            known = ", ".join(sorted(n for n, v in vars(model).items() if _is_number(v) and not n.startswith("_")))
            raise ValueError(
                f"schedules: {schedule.of!r} is no number of {type(model).__name__}; there are {known}, numbers of its "
                f"parts such as augment.p, and {' and '.join(_BETAS)} of the optimizers"
            )
    names = [schedule.of for schedule in model.schedules]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"schedules: there are two of {twice!r}: leave one out")


def follow_schedules(model: Any, step: int) -> None:
    """Set all that is scheduled to its value at a training step; logged as ``train/<name>``, dots as underscores."""
    for schedule in model.schedules:
        value = schedule.at(step)
        if schedule.of in _BETAS:
            _set_beta(model, _BETAS.index(schedule.of), value)
        else:
            owner, name = _owner(model, schedule.of)
            number = getattr(owner, name)
            if isinstance(number, Tensor):
                number.fill_(value)
            else:
                setattr(owner, name, value)
        model.scheduled[schedule.of.replace(".", "_")] = value


def _set_beta(model: Any, index: int, value: float) -> None:
    for optimizer in model.trainer.optimizers:
        for group in optimizer.param_groups:
            if "betas" not in group:
                raise ValueError(f"schedules: {type(optimizer).__name__} has no betas")
            betas = list(group["betas"])
            betas[index] = value
            group["betas"] = tuple(betas)


def _owner(model: Any, path: str) -> tuple[Any, str]:
    """The object that has the number, and the name it has there."""
    *parts, name = path.split(".")
    return reduce(lambda owner, part: getattr(owner, part, None), parts, model), name


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.ndim == 0 and value.is_floating_point()
    return isinstance(value, (int, float)) and not isinstance(value, bool)
