"""Where in its loops a trainer stands, and how to save from there so that resuming goes on exactly.

Lightning tells from its counters what was under way when a checkpoint was written. It goes on exactly from the end of a
training batch without validation, from the end of a validation and from the end of an epoch. The functions here set
the counters of other moments to the nearest of these, and those of a validation to those of the batch before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Trainer

from lit_gans.internals import combined_loader, count_batches, will_validate

__all__ = ("after_validation", "in_step", "settle")


def in_step(trainer: Trainer) -> bool:
    """Whether a batch was fetched and its training step has not ended."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return progress.ready > progress.processed


@contextmanager
def after_validation(trainer: Trainer) -> Iterator[None]:
    """For a checkpoint at the end of a validation: within this context, counters are as before it.

    Lightning then passes over a validation that is due where it resumes. From its own counters it does so only if the
    resumed run validates at the same steps, and else loses a batch.
    """
    _complete(trainer, -1)
    try:
        yield
    finally:
        _complete(trainer, 1)


def settle(trainer: Trainer) -> None:
    """Set the counters for a checkpoint that is written now, wherever a run was interrupted that ends with this."""
    loop = trainer.fit_loop.epoch_loop
    progress: Any = loop.batch_progress
    if in_step(trainer):
        _take_batch_back(trainer)
    if trainer.validating:
        _begin_validation(loop.val_loop.batch_progress)
    elif progress.current.completed < progress.current.processed:  # the hooks at the end of a batch are running
        if will_validate(trainer):
            _complete(trainer, 1)
            _begin_validation(loop.val_loop.batch_progress)
    elif progress.current.completed and not _at_end_of_epoch(trainer):
        _complete(trainer, -1)
        count_batches(trainer, -1)  # Lightning counts it when it ends that batch on resuming
    elif not progress.current.completed and will_validate(trainer):
        count_batches(trainer, -1)  # counted when a validation is passed over before the first batch of an epoch


def _complete(trainer: Trainer, batches: int) -> None:
    """Count so many batches as ended, besides those that have."""
    progress = trainer.fit_loop.epoch_loop.batch_progress
    progress.current.completed += batches
    progress.total.completed += batches


def _at_end_of_epoch(trainer: Trainer) -> bool:
    epoch: Any = trainer.fit_loop.epoch_progress.current
    return bool(epoch.processed > epoch.completed)


def _take_batch_back(trainer: Trainer) -> None:
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress
    for counts in (progress.current, progress.total):
        counts.ready = counts.started = counts.processed = counts.completed
    progress.is_last_batch = False
    loaders = combined_loader(trainer)
    for loader in [] if loaders is None else loaders.flattened:
        if hasattr(loader, "step_back"):
            loader.step_back()


def _begin_validation(progress: Any) -> None:
    """Lightning goes back to a validation whose first batch was begun and not ended; it would go on in its middle."""
    done = progress.total.completed - progress.current.completed
    progress.current.reset()
    progress.total.completed = progress.total.processed = done
    progress.total.ready = progress.total.started = done + 1
