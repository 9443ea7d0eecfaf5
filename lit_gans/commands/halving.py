"""Successive halving over short runs of ``fit``: many trials begin, the better ones go on.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS,
arXiv:1502.07943: n trials train for r steps, the best n/η of them for ηr steps, the best n/η² for η²r, and so on. Those
that go on are continued from their checkpoints, not started again.
"""

import gc
import json
import logging
import math
import random
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeAlias

import torch
import yaml
from lightning import Callback, LightningModule, Trainer

from lit_gans.cli import fail
from lit_gans.commands.parsing import Parser, explain, options_of
from lit_gans.commands.training import DEFAULT_STEPS, EXPECTED_WARNINGS, CommandLine, run
from lit_gans.data import ImageDataModule
from lit_gans.errors import UserError

__all__ = (
    "OptunaSampler",
    "Outcome",
    "Parameters",
    "RandomSampler",
    "Rung",
    "Sampler",
    "Space",
    "rungs",
    "search",
    "train",
    "training_images",
    "understood",
)

TABULATED_WARNINGS = (  # they tell of what is meant so, or is in the table
    ".*dirpath has changed.*",  # each rung has a folder of its own
    r"step \d+: ",  # the guard's
)

Parameters: TypeAlias = dict[str, float]
Space: TypeAlias = dict[str, tuple[float, float] | list[int]]  # a range, or a list of choices


# the search


@dataclass(frozen=True)
class Rung:
    """How many trials train until which step."""

    trials: int
    steps: int


def rungs(trials: int, max_steps: int, eta: int) -> list[Rung]:
    """The halving: each rung has an η-th of the trials and η times the steps of the one before.

    >>> rungs(9, 500, 3)
    [Rung(trials=9, steps=56), Rung(trials=3, steps=167), Rung(trials=1, steps=500)]
    """
    sizes = [trials]
    while sizes[-1] >= eta:
        sizes.append(sizes[-1] // eta)
    top = len(sizes) - 1
    return [Rung(size, -(-max_steps // eta ** (top - rung))) for rung, size in enumerate(sizes)]


@dataclass
class Outcome:
    """What has come of a trial by the end of a rung; plain values.

    Args:
        trial: Number of the trial, counted from 0.
        rung: Number of the rung, counted from 0.
        parameters: What was drawn for it.
        steps: Training steps in all rungs so far.
        metric: The monitored one, after the last step; None without a monitor.
        events: Of the guard since the trial began, by action; None where no guard wrote any record.
        diverged: Why it cannot go on.
        seconds: A step took, in this rung.
        batches: Number of batches in an epoch.
        memory: Peak in bytes, of what ``device`` says.
        device: "cuda" for the tensors of this run on the GPU, "cpu" for the whole process.
        checkpoint: Where it can be continued.
    """

    trial: int
    rung: int
    parameters: Parameters
    steps: int
    metric: float | None = None
    events: dict[str, int] | None = None
    diverged: str | None = None
    seconds: float | None = None
    batches: int | None = None
    memory: int | None = None
    device: str = "cpu"
    checkpoint: str | None = None

    def loss(self, mode: str) -> float:
        """The metric so that lower is better; without a metric, how often the guard had to act."""
        if self.metric is None:
            return float(sum((self.events or {}).values()))
        return -self.metric if mode == "max" else self.metric

    def place(self, mode: str) -> tuple[Any, ...]:
        """What trials are sorted by: diverged ones last; then who came farthest, fewest rollbacks, best metric."""
        rollbacks = (self.events or {}).get("rollback", 0)
        return self.diverged is not None, -self.rung, rollbacks, self.loss(mode), self.trial


class Sampler(Protocol):
    """Where trials come from."""

    def ask(self) -> Parameters:
        """Parameters of the next trial."""

    def tell(self, loss: float | None) -> None:
        """What came of the trial last asked for; None if it diverged."""


class RandomSampler:
    """Log-uniform in each range; choices are dealt like cards, so that each gets its turn.

    Args:
        space: Ranges and choices by name.
        seed: Same seed, same trials.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.random = space, random.Random(seed)
        self.decks: dict[str, list[int]] = {}

    def ask(self) -> Parameters:
        """Parameters of the next trial."""
        return {name: self.draw(name, allowed) for name, allowed in self.space.items()}

    def draw(self, name: str, allowed: tuple[float, float] | list[int]) -> float:
        """One value."""
        if isinstance(allowed, tuple):
            return rounded(math.exp(self.random.uniform(math.log(allowed[0]), math.log(allowed[1]))), allowed)
        if not self.decks.get(name):
            self.decks[name] = self.random.sample(allowed, len(allowed))
        return self.decks[name].pop()

    def tell(self, loss: float | None) -> None:
        """Nothing is learned."""


class OptunaSampler:
    """Optuna's tree-structured Parzen estimator (Bergstra et al. 2011), told what came of the first rung.

    Args:
        space: Ranges and choices by name.
        seed: Same seed and same losses, same trials.
        trials: A third of them are drawn at random, to learn from.
    """

    def __init__(self, space: Space, seed: int, trials: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise UserError("--sampler optuna needs optuna: pip install lit-gans[tune]") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(2, trials // 3))
        self.space, self.study = space, optuna.create_study(direction="minimize", sampler=sampler)
        self.pruned = optuna.trial.TrialState.PRUNED

    def ask(self) -> Parameters:
        """Parameters of the next trial."""
        self.trial = self.study.ask()
        return {name: self.draw(name, allowed) for name, allowed in self.space.items()}

    def draw(self, name: str, allowed: tuple[float, float] | list[int]) -> float:
        """One value."""
        if isinstance(allowed, tuple):
            return rounded(self.trial.suggest_float(name, *allowed, log=True), allowed)
        return self.trial.suggest_categorical(name, allowed)

    def tell(self, loss: float | None) -> None:
        """Report it; a pruned trial counts as worse than all others."""
        if loss is None:
            self.study.tell(self.trial, state=self.pruned)
        else:
            self.study.tell(self.trial, loss)


def rounded(value: float, allowed: tuple[float, float]) -> float:
    """Three digits of a value, so that what is shown is what was used."""
    return min(max(float(f"{value:.3g}"), allowed[0]), allowed[1])


class Train(Protocol):
    """What trains a trial until the end of a rung, going on from ``before``."""

    def __call__(self, trial: int, rung: int, parameters: Parameters, before: Outcome | None) -> Outcome:
        """The outcome."""


def search(plan: Sequence[Rung], sampler: Sampler, train: Train, mode: str, own: Parameters) -> list[Outcome]:
    """Train by successive halving.

    Args:
        plan: The rungs: how many trials train until which step.
        sampler: Where trials come from; it is told what came of them in the first rung.
        train: A function that trains a trial until the end of a rung.
        mode: "min" if a lower metric is better, else "max".
        own: Parameters of trial 0, those of the config: what the search finds has to be better than these.

    Returns:
        The last outcome of each trial, best first.
    """
    outcomes: dict[int, Outcome] = {}
    for trial in range(plan[0].trials):
        outcomes[trial] = outcome = train(trial, 0, sampler.ask() if trial else own, None)
        if trial:
            sampler.tell(None if outcome.diverged else outcome.loss(mode))
    for rung in range(1, len(plan)):
        able = [outcome for outcome in outcomes.values() if outcome.rung == rung - 1 and not outcome.diverged]
        best = sorted(able, key=lambda outcome: outcome.place(mode))[: plan[rung].trials]
        for before in sorted(best, key=lambda outcome: outcome.trial):
            outcomes[before.trial] = train(before.trial, rung, before.parameters, before)
    return sorted(outcomes.values(), key=lambda outcome: outcome.place(mode))


# a trial, which is a run of fit


class Rehearsal(CommandLine):
    """Reads its words as ``fit`` does, and leaves it at that."""

    def _set_seed(self) -> None:
        pass

    def before_instantiate_classes(self) -> None:
        """Claim no run folder."""

    def instantiate_classes(self) -> None:
        """Build nothing."""

    def _run_subcommand(self, subcommand: str) -> None:
        pass


class Watch(Callback):
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


def fit(words: list[str], *callbacks: Callback, **others: Any) -> CommandLine:
    """``fit`` on these words, without warnings of what is meant so."""
    for message in (*EXPECTED_WARNINGS, *TABULATED_WARNINGS):
        warnings.filterwarnings("ignore", message)
    return run("fit", words, *callbacks, **others)


def understood(words: list[str], others: Sequence[str] = ()) -> dict[str, Any]:
    """The config as ``fit`` understands it, in plain values.

    Args:
        words: Of the command line of ``fit``.
        others: Options that a misspelt one may have meant, besides those of ``fit``.
    """

    class Both(Parser):
        def error(self, message: str, ex: Exception | None = None) -> NoReturn:
            fail(explain(message, [*options_of(self), *others]))

    config: dict[str, Any] = yaml.safe_load(fit(words, kind=Rehearsal, parser=Both).config_text())
    trainer = config["trainer"]
    if (trainer["max_steps"], trainer["max_epochs"], trainer["max_time"]) == (-1, None, None):
        trainer["max_steps"] = DEFAULT_STEPS
    return config


def training_images(config: dict[str, Any]) -> int:
    """How many images there are to train on."""
    data = ImageDataModule(**config["data"])
    data.prepare_data()
    source = data.open("train")
    assert source is not None
    return len(source)


def train(words: list[str], folder: Path, monitor: str | None, outcome: Outcome) -> None:
    """Train as ``fit`` does, and fill in what came of it.

    Args:
        words: Of the command line of ``fit``.
        folder: That the words lead it to.
        monitor: Key of the metric.
        outcome: With the trial, the rung, its parameters, and the events of earlier rungs.

    Raises:
        UserError: if the metric was not measured; other errors are those of ``fit``, unless they tell of divergence.
    """
    watch = Watch()
    try:
        with quiet():
            done = fit(words, watch)
        outcome.checkpoint = str(done.run_folder / "checkpoints" / "last.ckpt")
        if monitor is not None and monitor not in watch.metrics:
            measured = ", ".join(sorted(watch.metrics)) or "nothing"
            raise UserError(f"the monitor {monitor} was not measured by step {watch.steps}; measured was {measured}")
    except (RuntimeError, FloatingPointError) as error:
        if not watch.fitting:
            raise
        outcome.diverged = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
    finally:
        if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
            wandb.finish()  # else the next trial would be logged as this one
    outcome.steps, outcome.seconds, outcome.batches = watch.steps, watch.seconds, watch.batches
    outcome.device = watch.device
    outcome.memory = torch.cuda.max_memory_allocated() if watch.device == "cuda" else peak_of_process()
    outcome.events = counted(folder, outcome.events)
    value = watch.metrics.get(str(monitor), math.nan)
    outcome.metric = value if math.isfinite(value) else None
    outcome.diverged = outcome.diverged or verdict(outcome, watch, monitor)
    if watch.device == "cuda":
        gc.collect()  # a model and its trainer refer to each other
        torch.cuda.empty_cache()


def verdict(outcome: Outcome, watch: Watch, monitor: str | None) -> str | None:
    """Why a trial that came to its end cannot go on all the same; None if it can."""
    events = outcome.events or {}
    if monitor is not None and outcome.metric is None:
        return f"{monitor} is {watch.metrics[monitor]}"
    if not watch.finite:
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
