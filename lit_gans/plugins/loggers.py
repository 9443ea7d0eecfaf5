"""Loggers that go on where they ended, and do not end a run because they cannot write."""

import csv
import os
from collections.abc import Mapping

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn

__all__ = ("AppendingCSVLogger", "PatientTensorBoardLogger")


class _AppendingWriter(ExperimentWriter):
    """Lightning's deletes what it finds, and rewrites the file in place when a new metric comes."""

    def _check_log_dir_exists(self) -> None:
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, encoding="utf-8", newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

    def save(self) -> None:
        try:
            super().save()
        except OSError as error:  # the rows are kept for the next time
            rank_zero_warn(f"{self.metrics_file_path} could not be written, training goes on: {error}")

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        path = self.metrics_file_path
        with open(path, encoding="utf-8", newline="") as file, open(f"{path}.partial", "w", newline="") as aside:
            writer = csv.DictWriter(aside, fieldnames)
            writer.writeheader()
            writer.writerows(csv.DictReader(file))
        os.replace(f"{path}.partial", path)


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
    """Lightning's, which tells of a disk that is full, and of the rows that are lost then, and lets training go on."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write what can be written."""
        try:
            super().log_metrics(metrics, step)
        except OSError as error:
            rank_zero_warn(f"TensorBoard's events in {self.log_dir} could not be written, training goes on: {error}")

    def finalize(self, status: str) -> None:
        """Close the file."""
        try:
            super().finalize(status)
        except OSError as error:
            rank_zero_warn(f"TensorBoard's events in {self.log_dir} could not be written: {error}")
