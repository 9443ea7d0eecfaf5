"""Where in its loops a trainer stands, and how to save from there so that resuming goes on exactly.

Lightning tells from its counters what was under way when a checkpoint was written. It goes on exactly from the end of a
training batch without validation, from the end of a validation and from the end of an epoch. The functions here set
the counters of other moments to the nearest of these.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Trainer

__all__ = ("after_validation", "in_step", "settle", "validation_due")


def validation_due(trainer: Trainer) -> bool:
    """At the end of a training batch: whether a validation follows it."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    return fetcher is not None and loop._should_check_val_fx(fetcher)


def in_step(trainer: Trainer) -> bool:
    """Whether a batch was fetched and its training step has not ended."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return progress.ready > progress.processed


@contextmanager
def after_validation(trainer: Trainer) -> Iterator[None]:
    """For a checkpoint at the end of a validation.

    Lightning skips that validation on resuming if it is due then. One that was made because training stops is not:
    for it the counters stand, within this context, as at the end of the training batch.
    """
    stops, trainer.should_stop = trainer.should_stop, False
    skipped = validation_due(trainer)
    trainer.should_stop = stops
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    for counts in (progress.current, progress.total):
        counts.completed -= not skipped
    try:
        yield
    finally:
        for counts in (progress.current, progress.total):
            counts.completed += not skipped


def settle(trainer: Trainer) -> None:
    """Set the counters for a checkpoint that is written now, wherever a run was interrupted that ends with this."""
    loop = trainer.fit_loop.epoch_loop
    progress: Any = loop.batch_progress
    if in_step(trainer):
        _take_batch_back(trainer)
    if trainer.validating:
        _begin_validation(loop.val_loop.batch_progress)
    elif progress.current.completed < progress.current.processed:  # the hooks at the end of a batch are running
        if validation_due(trainer):
            progress.increment_completed()
            _begin_validation(loop.val_loop.batch_progress)
    elif not _at_end_of_epoch(trainer) and validation_due(trainer):
        loop._batches_that_stepped -= 1  # the validation was made; Lightning counts this batch when it skips it


def _at_end_of_epoch(trainer: Trainer) -> bool:
    epoch: Any = trainer.fit_loop.epoch_progress.current
    return bool(epoch.processed > epoch.completed)


def _take_batch_back(trainer: Trainer) -> None:
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    for counts in (progress.current, progress.total):
        counts.ready = counts.started = counts.processed = counts.completed
    progress.is_last_batch = False
    loaders = trainer.fit_loop._combined_loader
    for loader in [] if loaders is None else loaders.flattened:
        if hasattr(loader, "step_back"):
            loader.step_back()


def _begin_validation(progress: Any) -> None:
    """Lightning goes back to a validation whose first batch was begun and not ended; it would go on in its middle."""
    done = progress.total.completed - progress.current.completed
    progress.current.reset()
    progress.total.completed = progress.total.processed = done
    progress.total.ready = progress.total.started = done + 1
