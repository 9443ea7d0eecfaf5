"""Lightning's private names, all of them in this file: what to look at when a new version of Lightning breaks."""

from collections.abc import Iterable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.core.optimizer import do_nothing_closure
from lightning.pytorch.loops.utilities import _block_parallel_sync_behavior
from torch.optim import Optimizer

__all__ = (
    "HOOK_NAME",
    "accumulates",
    "averaging",
    "batches_done",
    "combined_loader",
    "count_batches",
    "ddp_arguments",
    "layer_sync",
    "logged_results",
    "logger_connector",
    "receive_sigterm",
    "set_layer_sync",
    "stays_on_cpu",
    "trainer_of",
    "training_source",
    "uncounted",
    "validation_source",
    "will_validate",
)

HOOK_NAME = "_current_fx_name"
"""The attribute of a module in which Lightning notes the running hook, some forty times a step."""


def trainer_of(module: LightningModule) -> Trainer | None:
    """The trainer that a module is attached to; None where ``module.trainer`` would raise."""
    return module._trainer


def batches_done(trainer: Trainer) -> int:
    """Number of training batches that are done: the step axis of the logs, counted after ``on_train_batch_end``."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def count_batches(trainer: Trainer, more: int) -> None:
    """Correct the number of batches that are done."""
    trainer.fit_loop.epoch_loop._batches_that_stepped += more


def accumulates(trainer: Trainer) -> bool:
    """Whether the trainer's own accumulation holds this batch's step back."""
    return trainer.fit_loop.epoch_loop._should_accumulate()


def will_validate(trainer: Trainer) -> bool:
    """Whether a validation follows the batch at hand."""
    fetcher = trainer.fit_loop._data_fetcher
    return fetcher is not None and trainer.fit_loop.epoch_loop._should_check_val_fx(fetcher)


def training_source(trainer: Trainer) -> Any:
    """Where training batches come from: ``instance`` is a data module, a loader or the model."""
    return trainer.fit_loop._data_source


def validation_source(trainer: Trainer) -> Any:
    """The same for held-out batches while training."""
    return trainer.fit_loop.epoch_loop.val_loop._data_source


def combined_loader(trainer: Trainer) -> Any:
    """The loaders of training in one; None before they are set up."""
    return trainer.fit_loop._combined_loader


def logged_results(trainer: Trainer) -> Iterable[Any]:
    """The metrics that this epoch's training steps have logged."""
    return trainer.fit_loop.epoch_loop._results.values()


def logger_connector(trainer: Trainer) -> Any:
    """What hands logged values to loggers and callbacks."""
    return trainer._logger_connector


def receive_sigterm(trainer: Trainer) -> None:
    """Have the trainer end as after a signal SIGTERM."""
    trainer._signal_connector.received_sigterm = True


def averaging(strategy: Any, average: bool) -> Any:
    """A context whose backward passes average gradients over processes, or, if not, only sum them up here."""
    return _block_parallel_sync_behavior(strategy, block=not average)


def uncounted(optimizer: Any) -> Any:
    """Lightning's wrapper of an optimizer, whose steps no longer count as global steps."""
    optimizer._on_before_step = optimizer._on_after_step = do_nothing_closure
    return optimizer


def stays_on_cpu(optimizer: Optimizer) -> None:
    """Have the steps of an optimizer of tensors on the CPU ask no longer whether a GPU records a graph.

    To import Lightning makes that question slow: it has torch look for the driver's library each time, which takes
    longer than a small optimizer's step.
    """
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
        if hasattr(optimizer, name):
            setattr(optimizer, name, _nothing)


def _nothing() -> None:
    """What there is to ask on a CPU."""


def layer_sync(strategy: Any) -> Any:
    """What synchronises batch norm over processes; None where nothing does."""
    return getattr(strategy, "_layer_sync", None)


def set_layer_sync(strategy: Any, sync: Any) -> None:
    """Have something else synchronise batch norm."""
    strategy._layer_sync = sync


def ddp_arguments(strategy: Any) -> dict[str, Any]:
    """Arguments with which a DDP strategy wraps the model."""
    arguments: dict[str, Any] = strategy._ddp_kwargs
    return arguments
