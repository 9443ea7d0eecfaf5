"""A stop rule for games, whose losses say nothing of quality."""

import math
import re
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from lit_gans.internals import batches_done
from lit_gans.metrics.evaluation import higher_is_better
from lit_gans.metrics.monitored import check_logged, read

__all__ = ("StopOnPlateau",)


class StopOnPlateau(Callback):
    """Ends training when a metric has not become better for long, and keeps the best state.

    A look is a validation; for metrics called ``balance/...`` or ``train/...`` it is every ``every_n_steps``-th batch,
    and whoever logs those must come first in the list of callbacks. Training ends at the first look at which the best
    is both ``looks`` looks and ``patience`` steps old. Works with any LightningModule; all ranks decide on the mean of
    their values.

    Args:
        monitor: Key of the metric.
        mode: ``min`` if lower is better, ``max`` if higher; None for losses and metrics of this library.
        looks: Looks without a better value, at least 1.
        patience: Training steps without an improvement that must have passed, too.
        min_delta: By how much a value must be better to count, at least 0.
        every_n_steps: Steps between two looks at a metric that is no validation's.
        dirpath: Folder of ``plateau-best.ckpt``; ``checkpoints`` in the run's folder if left out. No file is written if
            the trainer has a ``ModelCheckpoint`` that keeps the best by the same metric.

    Raises:
        ValueError: a number out of range; no ``mode`` for a metric that is not known; after the first look, if nobody
            logs ``monitor``.

    Example:
        >>> StopOnPlateau("val/fid", looks=5, patience=20_000).mode
        'min'
    """

    def __init__(
        self,
        monitor: str,
        mode: str | None = None,
        looks: int = 5,
        patience: int = 0,
        min_delta: float = 0.0,
        every_n_steps: int = 100,
        dirpath: str | None = None,
    ) -> None:
        if mode not in (None, "min", "max"):
            raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
        for name, value, least in (("looks", looks, 1), ("patience", patience, 0), ("every_n_steps", every_n_steps, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        if not min_delta >= 0:
            raise ValueError(f"min_delta must not be negative, got {min_delta}")
        self.monitor, self.looks, self.patience, self.min_delta = monitor, looks, patience, min_delta
        higher = higher_is_better(monitor)
        if mode is None and higher is None and not re.search("loss|gap", monitor.rpartition("/")[2]):
            raise ValueError(f"StopOnPlateau does not know which {monitor} is better: give mode='min' or 'max'")
        self.mode = mode or ("max" if higher else "min")
        self.in_validation = not monitor.startswith(("balance/", "train/"))
        self.every_n_steps, self.dirpath = every_n_steps, dirpath
        self._forget()

    def _forget(self) -> None:
        """Begin anew."""
        self.best, self.best_step, self.worse, self.kept = math.nan, 0, 0, ""

    @property
    def state_key(self) -> str:
        """Several in one trainer are told apart by what they watch."""
        return self._generate_state_key(monitor=self.monitor, mode=self.mode)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder, which takes all ranks, and whoever else keeps the best."""
        if stage != "fit":
            return
        self._forget()
        folder = Path(self.dirpath or Path(trainer.log_dir or trainer.default_root_dir, "checkpoints"))
        kept = any(isinstance(c, ModelCheckpoint) and c.monitor == self.monitor for c in trainer.checkpoint_callbacks)
        writes = not kept and not trainer.fast_dev_run  # type: ignore[attr-defined]
        self.path = folder / "plateau-best.ckpt" if writes else None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at a validation's metric."""
        if self.in_validation and not trainer.sanity_checking and trainer.state.fn == "fit":
            self._look(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Look at a metric of training."""
        batches = batches_done(trainer) + 1
        if not self.in_validation and batches % self.every_n_steps == 0:
            self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        hint = "" if self.in_validation else ", or list this callback after the one that logs it"
        check_logged(trainer, self, self.monitor, hint)
        value = read(trainer, self.monitor)
        sign = 1 if self.mode == "min" else -1
        now = batches_done(trainer) + 1  # counted after both hooks
        if not math.isnan(value) and (math.isnan(self.best) or sign * (self.best - value) > self.min_delta):
            self.best, self.best_step, self.worse = value, now, 0
            if self.path is not None:
                self.kept = str(self.path)
                trainer.save_checkpoint(self.path)
            return
        self.worse += 1
        if self.worse >= self.looks and now - self.best_step >= self.patience:
            trainer.should_stop = True
            where = f", which is in {self.kept}" if self.kept else ""
            rank_zero_info(
                f"step {now}: {self.monitor} has not become better for {self.worse} looks than "
                f"{self.best:.5g} at step {self.best_step}{where}; training ends"
            )

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse, "kept": self.kept}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with it."""
        self.best, self.best_step, self.worse = state_dict["best"], state_dict["best_step"], state_dict["worse"]
        self.kept = state_dict["kept"]
