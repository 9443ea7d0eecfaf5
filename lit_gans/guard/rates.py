"""Learning rates and the schedules that set them."""

from typing import Any

from lightning import Trainer
from torch.optim import Optimizer

__all__ = ("anchors", "multiply_rate", "schedulers_of")


def schedulers_of(trainer: Trainer, optimizer: Optimizer) -> list[Any]:
    """Schedulers that set an optimizer's learning rate, those within others included."""
    found = [config.scheduler for config in trainer.lr_scheduler_configs if config.scheduler.optimizer is optimizer]
    for scheduler in found:
        found.extend(getattr(scheduler, "_schedulers", ()))
    return found


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
