"""Metrics as CSV that go on where they ended."""

import csv
import os

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_only

__all__ = ("AppendingCSVLogger",)


class _AppendingWriter(ExperimentWriter):
    """Lightning's deletes what it finds, and rewrites the file in place when a new metric comes."""

    def _check_log_dir_exists(self) -> None:
        if os.path.isfile(self.metrics_file_path):
            with open(self.metrics_file_path, encoding="utf-8", newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])

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
