"""Metrics that callbacks watch: is one there, and what is it?"""

from typing import Any

from lightning import Callback, Trainer

from lit_gans.errors import nearest

__all__ = ("check_logged", "read")


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
