"""Loggers that go on where they ended, and do not end a run because they cannot write."""

import csv
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

from lit_gans.files import aside

__all__ = ("AppendingCSVLogger", "PatientTensorBoardLogger", "place_loggers")


def place_loggers(config: Any, folder: Path, root: Path, goes_on_from: Mapping[str, Any] | None) -> None:
    """Have the loggers of a config write into the folder of the run, unless the config says where.

    Args:
        config: One logger or several, each with ``class_path`` and ``init_args``, or any other value, which is left.
        folder: The folder of the run.
        root: ``default_root_dir`` of the trainer, where loggers write of which the config says nothing.
        goes_on_from: The entries ``lit_gans``, ``logs`` and ``global_step`` of the checkpoint that is continued, from
            which the run of Weights & Biases is known; None for a new run.
    """
    for logger in config if isinstance(config, list) else [config]:
        if not hasattr(logger, "init_args") or Path(logger.init_args.get("save_dir") or ".") not in (Path("."), root):
            continue
        logger.init_args["save_dir"] = str(folder)
        if logger.class_path.endswith(("CSVLogger", "TensorBoardLogger")):
            logger.init_args["name"] = logger.init_args["version"] = ""
        if logger.class_path.endswith(".CSVLogger"):
            logger.class_path = "lit_gans.runs.AppendingCSVLogger"
        if logger.class_path.endswith(".WandbLogger") and goes_on_from:
            logger.init_args["id"], logger.init_args["resume"] = goes_on_from["logs"].get("wandb"), "allow"


class _AppendingWriter(ExperimentWriter):
    """Lightning's deletes what it finds, and rewrites the file in place when a new metric comes."""

    def _check_log_dir_exists(self) -> None:
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, encoding="utf-8", newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    _failed = False

    def log_hparams(self, params: dict[str, Any]) -> None:
        try:
            super().log_hparams(params)
        except OSError as error:
            rank_zero_warn(f"the hyperparameters could not be written to {self.log_dir}: {error}")

    def save(self) -> None:
        try:
            os.makedirs(self.log_dir, exist_ok=True)
            super().save()
            self._failed = False
        except OSError as error:  # the rows are kept for the next time
            if not self._failed:
                rank_zero_warn(f"{self.metrics_file_path} could not be written yet, training goes on: {error}")
            self._failed = True

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = Path(self.metrics_file_path)
        with (
            aside(path) as partial,
            path.open(encoding="utf-8", newline="") as file,
            partial.open("w", newline="") as new,
        ):
            writer = csv.DictWriter(new, fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(file))


class AppendingCSVLogger(CSVLogger):
    """Lightning's ``CSVLogger``, which appends to a file that is there, as a resumed run should."""

    @property
    def experiment(self) -> ExperimentWriter:
        """The writer; only the first process writes."""
        if self._experiment is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._fs.makedirs(self.root_dir, exist_ok=True)
            self._experiment = _AppendingWriter(log_dir=self.log_dir)
        return self._experiment or super().experiment  # type: ignore[return-value]  # a dummy on other processes


class PatientTensorBoardLogger(TensorBoardLogger):
    """Lightning's, which tells of a disk that is full, and of the rows that are lost then, and lets training go on.

    TensorBoard writes in a thread of its own, which ends with the first error; a new one, with a file of its own, goes
    on as soon as the folder can be written to again.
    """

    _failed = _told = False

    @property
    def experiment(self) -> Any:
        """The writer, whose methods do nothing, and tell so once, while nothing can be written."""
        return _Patient(self)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Write them if they can be."""
        self.patiently(lambda: super(PatientTensorBoardLogger, self).log_hyperparams(*args, **kwargs))

    def save(self) -> None:
        """Write out what is buffered."""
        self.patiently(super().save)

    def finalize(self, status: str) -> None:
        """Close the file."""
        self.patiently(lambda: super(PatientTensorBoardLogger, self).finalize(status))

    def patiently(self, write: Callable[[], Any]) -> Any:
        """Do something that may meet a full disk."""
        try:
            if self._failed or self._experiment is None:
                _probe(self.log_dir)
            self._failed = False
            return write()
        except OSError as error:
            self._failed, self._experiment = True, None
            if not self._told:
                rank_zero_warn(
                    f"TensorBoard's events in {self.log_dir} cannot be written, and are lost until they can be; "
                    f"training goes on: {error}"
                )
            self._told = True
            return None


class _Patient:
    """A SummaryWriter that may have to wait."""

    def __init__(self, logger: PatientTensorBoardLogger) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        def writer() -> Any:
            return super(PatientTensorBoardLogger, self._logger).experiment

        if name.startswith(("add_", "flush", "close")):
            return lambda *args, **kwargs: self._logger.patiently(lambda: getattr(writer(), name)(*args, **kwargs))
        return getattr(writer(), name)


def _probe(folder: str) -> None:
    """Raise OSError unless something can be written there: TensorBoard's own thread would print a traceback."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(2**14))
