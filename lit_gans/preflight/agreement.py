"""Do all processes mean the same run? Asked once, before training."""

import os
from collections.abc import Mapping
from typing import Any

import lightning
import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.utilities.seed import isolate_rng

from lit_gans.internals import training_source, validation_source

__all__ = ("check_ranks_agree", "check_same_step", "flat")


def check_ranks_agree(model: Any, trainer: Trainer) -> None:
    """Compare what must be equal on all processes, and would otherwise end in a hang or in silent nonsense.

    Raises:
        ValueError: on every process; names what differs, with both values.
    """
    if trainer.world_size == 1:
        return
    everyone: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(everyone, description(model, trainer))
    first = everyone[0]
    for rank, other in enumerate(everyone):
        differs = [name for name in first | other if first.get(name) != other.get(name)]
        if differs:
            told = "; ".join(f"{name} is {first.get(name)!r} there, {other.get(name)!r} here" for name in differs[:4])
            raise ValueError(f"rank {rank} was started with something else than rank 0: {told}. Start all alike")


def check_same_step(step: int, world_size: int) -> None:
    """Compare the step of the checkpoints that the processes resume from.

    Raises:
        ValueError: on every process; names the steps.
    """
    if world_size == 1:
        return
    steps: list[Any] = [None] * world_size
    dist.all_gather_object(steps, step)
    if len(set(steps)) > 1:
        told = ", ".join(f"rank {rank}: {of_rank}" for rank, of_rank in enumerate(steps))
        raise ValueError(f"the processes found checkpoints of different steps ({told}): give all the same file")


def description(model: Any, trainer: Trainer) -> dict[str, Any]:
    """Plain values by name."""
    facts = {
        "resuming": trainer.ckpt_path is not None,
        "seed": os.environ.get("PL_GLOBAL_SEED"),
        "model": type(model).__qualname__,
        "parameters": [tuple(parameter.shape) for parameter in model.parameters()],
        **{f"model.{name}": repr(value) for name, value in flat(model.hparams).items()},
        "max_steps": trainer.max_steps,
        "max_epochs": trainer.max_epochs,
        "precision": trainer.precision,
        "val_check_interval": trainer.val_check_interval,
        "limit_train_batches": trainer.limit_train_batches,
        "callbacks": [type(callback).__name__ for callback in trainer.callbacks],  # type: ignore[attr-defined]
        "torch": torch.__version__,
        "lightning": lightning.__version__,
    }
    training, validation = training_source(trainer), validation_source(trainer)
    if training.is_defined():
        with isolate_rng():
            loader = training.dataloader()
        facts |= {"training images": size(getattr(loader, "dataset", None)), "training batches": size(loader)}
    if validation.is_defined():
        with isolate_rng():  # ranks may have other numbers of its batches, which are looked at each once
            facts["validation images"] = size(getattr(validation.dataloader(), "dataset", None))
    return facts


def size(data: Any) -> int | None:
    """Number of items, where there is one."""
    return len(data) if hasattr(data, "__len__") else None


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings and lists, with dotted names."""
    if isinstance(values, Mapping):
        items = list(values.items())
    elif isinstance(values, list):
        items = list(enumerate(values))
    else:
        return {prefix: values}
    found: dict[str, Any] = {} if items else {prefix: values}
    for name, value in items:
        found |= flat(value, f"{prefix}.{name}" if prefix else str(name))
    return found
