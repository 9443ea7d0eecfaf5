"""What a run leaves behind: its resolved config, its last state, its best."""

import copy
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor

from lit_gans.files import aside
from lit_gans.internals import will_validate
from lit_gans.runs.position import after_validation, in_step, settle

__all__ = ("BestCheckpoint", "LastCheckpoint", "SaveConfig")


class _Checkpoint(ModelCheckpoint):
    """A file that could not be written is told of and tried again at the next turn; training goes on."""

    _failed = False

    def _should_remove_checkpoint(self, trainer: Trainer, previous: str, current: str) -> bool:
        """Only a checkpoint in the folder of this run: the path may come from a file that a stranger wrote."""
        own = Path(previous).suffix == ".ckpt" and Path(previous).parent.resolve() == Path(self.dirpath or "").resolve()
        return own and super()._should_remove_checkpoint(trainer, previous, current)

    def _save_checkpoint(self, trainer: Trainer, filepath: str) -> None:
        state = self._last_global_step_saved, self._last_checkpoint_saved
        error = None
        try:
            super()._save_checkpoint(trainer, filepath)
        except OSError as failure:  # on the one process that writes: the others wait at this barrier
            trainer.strategy.barrier("Trainer.save_checkpoint")
            if getattr(failure, "late", False):
                rank_zero_warn(f"an earlier checkpoint could not be written: {failure}")
                self._last_global_step_saved, self._last_checkpoint_saved = trainer.global_step, filepath
            else:
                error = str(failure)
        error = trainer.strategy.broadcast(error)
        self._failed = error is not None
        if self._failed:
            self._last_global_step_saved, self._last_checkpoint_saved = state
            rank_zero_warn(f"no checkpoint at step {trainer.global_step}, the one before is untouched: {error}")


class LastCheckpoint(_Checkpoint):
    """Keep ``last.ckpt``: every ``every_n_train_steps`` steps, at a signal, at an exception, and at the end.

    A validation that is due at such a step comes first, so that resuming finds it done. An exception in the middle of
    a step, when weights or buffers may have changed, leaves a state from which nothing goes on exactly: it is written
    to ``exception.ckpt``, and the last whole state stays where it is. With several processes an exception that reaches
    one of them alone is not saved.

    Args:
        dirpath: Folder of the file; Lightning's choice if left out.
        every_n_train_steps: Training steps between two saves.
    """

    def __init__(self, dirpath: str | None = None, every_n_train_steps: int = 1000) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_train_steps=every_n_train_steps,
            save_on_exception=True,
            enable_version_counter=False,
        )
        self._due = False
        self._began_at = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the first step begins."""
        self._began_at = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, and after the last step: resuming from a later moment, Lightning skips an epoch."""
        step = self._began_at = trainer.global_step
        last = step == trainer.max_steps or trainer.received_sigterm
        self._due = step % self._every_n_train_steps == 0 or last
        if self._due and not will_validate(trainer):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what was put off."""
        if self._due:
            with after_validation(trainer):
                self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the state as it is."""
        self._due = False
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save where it stands; of several processes only if all stop, since one alone would wait for the others."""
        if trainer.world_size > 1 and not isinstance(exception, SIGTERMException):
            return
        if self._should_skip_saving_checkpoint(trainer):
            return
        step, buffers = trainer.global_step, pl_module.buffers()
        untouched = step == self._began_at and not any(buffer.is_floating_point() for buffer in buffers)
        if whole := untouched or not in_step(trainer):
            settle(trainer)
        path = Path(self.dirpath or trainer.default_root_dir, "last.ckpt" if whole else "exception.ckpt")
        self._save_checkpoint(trainer, str(path))
        if not self._failed:
            middle = "" if whole else "the middle of "
            rank_zero_info(f"{type(exception).__name__}: {path} holds the state at {middle}step {step}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        self.save(trainer)


class BestCheckpoint(_Checkpoint):
    """Keep ``best.ckpt``, the state with the best value of a metric of the validation loop.

    Args:
        monitor: Key of the metric, such as ``val/fid``.
        mode: "min" if lower is better, else "max".
        dirpath: Folder of the file; Lightning's choice if left out.
    """

    def __init__(self, monitor: str, mode: str = "min", dirpath: str | None = None) -> None:
        super().__init__(dirpath=dirpath, filename="best", monitor=monitor, mode=mode, enable_version_counter=False)

    def _update_best_and_save(self, current: Tensor, trainer: Trainer, monitor_candidates: dict[str, Tensor]) -> None:
        record = copy.copy(self.__dict__) | {"best_k_models": dict(self.best_k_models)}
        with after_validation(trainer):
            super()._update_best_and_save(current, trainer, monitor_candidates)
        if self._failed:  # the record holds only for what is on the disk
            self.__dict__.update(record)


class SaveConfig(Callback):
    """Write the resolved config to ``config.yaml`` in the run folder, and to Weights & Biases where that logs.

    Args:
        text: The config as YAML.
        config: The same as plain values.
        folder: The folder of the run.
    """

    def __init__(self, text: str, config: dict[str, Any], folder: Path) -> None:
        self.text, self.config, self.folder = text, config, folder
        self.began = False  # whether training did

    @rank_zero_only
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it once it is sure that training starts: a run that cannot go on keeps the config it had."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with aside(self.folder / "config.yaml") as partial:
                partial.write_text(self.text, encoding="utf-8")
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}: no run can be kept there", str(self.folder)) from error
        self.began = True
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(self.config, allow_val_change=True)
