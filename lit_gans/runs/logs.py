"""Logs without gap or overlap: each checkpoint knows how far they had come."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_warn

from lit_gans.files import aside
from lit_gans.internals import batches_done, logger_connector

__all__ = ("LogPosition",)

LINES, EVENTS = ("metrics.csv", "health.jsonl"), "events.out.tfevents.*"


class LogPosition(Callback):
    """Notes in each checkpoint how long the logs in a folder are, and what of this step is not yet in them.

    On resuming, training begins with taking out of the logs what came after the checkpoint, and adding what the
    checkpoint came before.

    Args:
        folder: The folder of the run, with its ``metrics.csv``, ``health.jsonl`` and TensorBoard's event files.
        position: ``logs`` of the checkpoint that the run in this folder goes on from, if it does.
    """

    def __init__(self, folder: Path, position: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self._position = position or None
        self._found = list(logs(folder)) if position else []

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write out what the loggers hold back, and measure."""
        if not trainer.is_global_zero:
            return
        position: dict[str, Any] = {"lengths": {}, "pending": pending(trainer)}
        for logger in trainer.loggers:
            try:
                logger.save()
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.flush()
            except OSError as error:
                rank_zero_warn(f"{type(logger).__name__} could not write: {error}")
            if isinstance(logger, WandbLogger):
                position["wandb"] = logger.version
        for path in logs(self.folder):
            position["lengths"][path.name] = lines(path) if path.name in LINES else path.stat().st_size
        checkpoint["logs"] = position

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the logs end where the checkpoint stands: now, since nothing refuses the run any more."""
        position, self._position = self._position, None
        if position is None or not trainer.is_global_zero:
            return
        for path in self._found:
            length = position["lengths"].get(path.name, 0)
            if not length:
                path.unlink()
            elif path.name in LINES:
                keep_lines(path, length)
            else:
                os.truncate(path, min(length, path.stat().st_size))
        if pending := position["pending"]:
            for logger in trainer.loggers:
                logger.log_metrics(pending["metrics"], step=pending["step"])


def pending(trainer: Trainer) -> dict[str, Any] | None:
    """Within the hooks at the end of a batch: its metrics, which are logged only after them."""
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    connector = logger_connector(trainer)
    if trainer.validating or progress.completed == progress.processed or not connector.should_update_logs:
        return None
    metrics = {name: float(value) for name, value in connector.metrics["log"].items()}
    step = batches_done(trainer)
    return {"step": step, "metrics": metrics | {"epoch": trainer.current_epoch}} if metrics else None


def logs(folder: Path) -> Iterator[Path]:
    """The files of a run that grow."""
    yield from (path for name in LINES if (path := folder / name).is_file())
    yield from folder.glob(EVENTS)


def lines(path: Path) -> int:
    """How many there are."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def keep_lines(path: Path, count: int) -> None:
    """Keep the first ``count``; the file is there, in one state or the other, at every moment."""
    with aside(path) as partial, path.open("rb") as file, partial.open("wb") as kept:
        kept.writelines(line for _, line in zip(range(count), file, strict=False))
