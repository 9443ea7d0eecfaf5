"""Successive halving: many trials begin, the better ones go on.

Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization", AISTATS,
arXiv:1502.07943: n trials train for r steps, the best n/η of them for ηr steps, the best n/η² for η²r, and so on. Those
that go on are continued from their checkpoints, not started again.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from lit_gans.errors import UserError

__all__ = ("OptunaSampler", "Outcome", "Parameters", "RandomSampler", "Rung", "Sampler", "Space", "rungs", "search")

Parameters: TypeAlias = dict[str, float]
Space: TypeAlias = dict[str, tuple[float, float] | list[int]]  # a range, or a list of choices


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
        seconds: Seconds that one step took in this rung.
        batches: Number of batches in an epoch.
        memory: Peak memory in bytes, on the device that ``device`` names.
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
