"""A trial: a run of ``fit`` in a folder of its own."""

import gc
import json
import logging
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from lightning import Callback, LightningModule, Trainer

import lit_gans.data
from lit_gans.commands.errors import fail
from lit_gans.commands.parsing import Parser, explain, options_of
from lit_gans.commands.training import EXPECTED_WARNINGS, CommandLine, give_an_end, run
from lit_gans.commands.tuning.search import Outcome
from lit_gans.commands.tuning.space import data_options, short
from lit_gans.data import ImageDataModule
from lit_gans.errors import UserError

__all__ = ("train", "training_images", "understood")

TABULATED_WARNINGS = (  # they tell of what is meant so, or is in the table
    r"step \d+: ",  # the guard's
)


class Understood(Exception):  # noqa: N818  # it ends the reading of the words, and is no error
    """The words of a command line were read."""

    def __init__(self, config: str) -> None:
        super().__init__()
        self.config = config


class Reading(CommandLine):
    """Reads its words as ``fit`` does, and leaves it at that.

    Raises:
        Understood: when they were read, with the config that they make, as YAML.
    """

    def before_instantiate_classes(self) -> None:
        """Claim no run folder, build nothing."""
        raise Understood(self.config_text())


def fit(words: list[str], *callbacks: Callback, **others: Any) -> CommandLine:
    """``fit`` on these words, without warnings of what is meant so."""
    for message in (*EXPECTED_WARNINGS, *TABULATED_WARNINGS):
        warnings.filterwarnings("ignore", message)
    return run("fit", words, *callbacks, **others)


def understood(words: list[str], others: Sequence[str] = ()) -> dict[str, Any]:
    """The config as ``fit`` understands it, in plain values.

    Args:
        words: The words of the command line of ``fit``.
        others: Options that a misspelt one may have meant, besides those of ``fit``.
    """

    class Both(Parser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            fail(explain(message, [*options_of(self), *others]))

    config: dict[str, Any] = {}
    try:
        fit(words, kind=Reading, parser=Both)
    except Understood as reading:
        config = yaml.safe_load(reading.config)
    give_an_end(config["trainer"])
    return config


def training_images(config: dict[str, Any]) -> int:
    """How many images there are to train on."""
    if "class_path" in config["data"]:
        pairs = getattr(lit_gans.data, short(config["data"]))(**data_options(config))
        pairs.prepare_data()
        return len(pairs.train_dataloader().dataset)
    data = ImageDataModule(**config["data"])
    data.prepare_data()
    source = data.open("train")
    assert source is not None
    return len(source)


def train(words: list[str], folder: Path, monitor: str | None, outcome: Outcome) -> None:
    """Train as ``fit`` does, and fill in what came of it.

    Args:
        words: Of the command line of ``fit``.
        folder: The folder in which the run writes.
        monitor: Key of the metric.
        outcome: With the trial, the rung, its parameters, and the events of earlier rungs.

    Raises:
        UserError: if the metric was not measured; other errors are those of ``fit``, unless they tell of divergence.
    """
    record = Record()
    try:
        with quiet():
            done = fit(words, record)
        outcome.checkpoint = str(done.run_folder / "checkpoints" / "last.ckpt")
        if monitor is not None and monitor not in record.metrics:
            measured = ", ".join(sorted(record.metrics)) or "nothing"
            raise UserError(f"the monitor {monitor} was not measured by step {record.steps}; measured was {measured}")
    except (RuntimeError, FloatingPointError) as error:
        if not record.fitting:
            raise
        outcome.diverged = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
    finally:
        if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
            wandb.finish()  # else the next trial would be logged as this one
    outcome.steps, outcome.seconds, outcome.batches = record.steps, record.seconds, record.batches
    outcome.device = record.device
    outcome.memory = torch.cuda.max_memory_allocated() if record.device == "cuda" else peak_of_process()
    outcome.events = counted(folder, outcome.events)
    value = record.metrics.get(str(monitor), math.nan)
    outcome.metric = value if math.isfinite(value) else None
    outcome.diverged = outcome.diverged or verdict(outcome, record, monitor)
    if record.device == "cuda":
        gc.collect()  # a model and its trainer refer to each other
        torch.cuda.empty_cache()


class Record(Callback):
    """Measures the state after the last step, and what a step costs."""

    def __init__(self) -> None:
        self.fitting, self.finite, self.device = False, True, "cpu"
        self.steps = self.batches = 0
        self.seconds: float | None = None
        self.metrics: dict[str, float] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """From here on, errors are those of training."""
        self.fitting = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self.steps = self.began_at = trainer.global_step
        self.batches, self.device = int(trainer.num_training_batches), pl_module.device.type
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats(pl_module.device)
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Stop the clock at the last step, and see to it that its state is validated, whatever the interval."""
        self.steps = trainer.global_step
        last = self.steps == trainer.max_steps
        if last and self.device == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.seconds = (time.perf_counter() - self.began) / max(1, self.steps - self.began_at)
        if last:
            trainer.check_val_every_n_epoch, trainer.should_stop = None, True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note how far it came."""
        self.steps = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what was measured."""
        self.metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        self.finite = all(bool(parameter.isfinite().all()) for parameter in pl_module.parameters())


def verdict(outcome: Outcome, record: Record, monitor: str | None) -> str | None:
    """Why a trial that came to its end cannot go on all the same; None if it can."""
    events = outcome.events or {}
    if monitor is not None and outcome.metric is None:
        return f"{monitor} is {record.metrics[monitor]}"
    if not record.finite:
        return "weights are NaN or infinite"
    if events.get("stop"):
        return "stopped by the guard"
    if (skips := events.get("skip", 0)) * 2 >= outcome.steps:  # what was measured was hardly trained
        return f"{skips} updates skipped"
    return None


@contextmanager
def quiet() -> Iterator[None]:
    """No lines of Lightning on devices, seeds and limits, trial after trial; warnings are shown."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def counted(folder: Path, before: dict[str, int] | None) -> dict[str, int] | None:
    """The guard's events by action, added to those before; None if there is no record."""
    records = list(folder.rglob("health.jsonl"))
    if not records and before is None:
        return None
    counts = Counter(before or {})
    for line in (line for record in records for line in record.read_text(encoding="utf-8").splitlines()):
        with suppress(ValueError, KeyError, TypeError):  # a line that a crash cut short
            counts[json.loads(line)["action"]] += 1
    return dict(sorted(counts.items()))


def peak_of_process() -> int | None:
    """The most memory that the process ever held, in bytes; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
