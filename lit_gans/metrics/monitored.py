"""Metrics that callbacks watch: is one there, what is it, and which is better?"""

from typing import Any

from lightning import Callback, Trainer

from lit_gans.errors import nearest
from lit_gans.metrics.evaluation import HIGHER_IS_BETTER

__all__ = ("check_logged", "higher_is_better", "read")


def check_logged(trainer: Trainer, callback: Callback, key: str, hint: str = "") -> None:
    """See that a metric is there.

    Raises:
        ValueError: naming it and the nearest that is there, and what else may help.
    """
    known = [str(name) for name in trainer.callback_metrics]
    if key not in known:
        raise ValueError(
            f"{type(callback).__name__} monitors {key!r}, which nobody logs: {nearest(key, sorted(known))}{hint}"
        )


def read(trainer: Trainer, key: str) -> float:
    """The mean over all ranks, on all ranks."""
    value: Any = trainer.callback_metrics[key].detach().clone()
    return float(trainer.strategy.reduce(value, reduce_op="mean"))


def higher_is_better(key: str) -> bool:
    """By the name, of metrics of this library."""
    return key.rpartition("/")[2] in HIGHER_IS_BETTER
