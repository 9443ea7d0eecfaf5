"""What a run leaves behind: its resolved config, its last state, its best."""

import os
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

__all__ = ("BestCheckpoint", "LastCheckpoint", "SaveConfig")


class LastCheckpoint(ModelCheckpoint):
    """Keep ``last.ckpt``: every ``every_n_train_steps`` steps, at an exception, and at the end.

    With several processes, of the exceptions only a termination by signal is saved: the others reach one process alone.

    Args:
        dirpath: Folder of the file; Lightning's choice if left out.
        every_n_train_steps: Steps between two saves.
    """

    def __init__(self, dirpath: str | None = None, every_n_train_steps: int = 1000) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="last",
            every_n_train_steps=every_n_train_steps,
            save_on_exception=True,
            enable_version_counter=False,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time, and after the last step: resuming from a later moment, Lightning skips an epoch."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if trainer.global_step == trainer.max_steps:
            self.on_train_end(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save where it stands; of several processes only if all stop, since one alone would wait for the others."""
        if trainer.world_size == 1 or isinstance(exception, SIGTERMException):
            super().on_exception(trainer, pl_module, exception)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state."""
        if self._last_global_step_saved != trainer.global_step and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._save_none_monitor_checkpoint(trainer, self._monitor_candidates(trainer))


class BestCheckpoint(ModelCheckpoint):
    """Keep ``best.ckpt``, the state with the best value of a metric of the validation loop.

    Args:
        monitor: Key of the metric.
        mode: "min" if lower is better, else "max".
        dirpath: Folder of the file; Lightning's choice if left out.
    """

    def __init__(self, monitor: str, mode: str = "min", dirpath: str | None = None) -> None:
        super().__init__(dirpath=dirpath, filename="best", monitor=monitor, mode=mode, enable_version_counter=False)


class SaveConfig(Callback):
    """Write the resolved config to ``config.yaml`` in the run folder, and to Weights & Biases where that logs.

    Args:
        text: The config as YAML.
        config: The same as plain values.
        folder: Of the run.
    """

    def __init__(self, text: str, config: dict[str, Any], folder: Path) -> None:
        self.text, self.config, self.folder = text, config, folder

    @rank_zero_only
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it once, before training starts."""
        if stage != "fit":
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / ".config.yaml.partial"
        partial.write_text(self.text, encoding="utf-8")
        os.replace(partial, self.folder / "config.yaml")
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.experiment.config.update(self.config, allow_val_change=True)
