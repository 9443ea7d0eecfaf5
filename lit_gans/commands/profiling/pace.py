"""The run as configured, measured: what happens at which step, and what is noted."""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import lcm
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lit_gans.commands.profiling.ledger import Key, Ledger
from lit_gans.commands.profiling.occasional import Work, whole_turns, works_of
from lit_gans.commands.profiling.parts import Apart
from lit_gans.commands.tuning.trial import peak_of_process
from lit_gans.models import GAN

__all__ = ("Measured", "Pace", "clock_of", "turn_of")

ROUND = 10
"""Steps that are measured as a whole before some are taken apart, if penalties do not ask for more."""

TRACED = 3
PATIENCE = 10.0
"""Seconds that a validation may take to be done twice."""


@dataclass
class Measured:
    """What came of the measured run, in seconds and bytes.

    Args:
        images: Real images of a step, over all processes.
        processes: Number of processes that train together.
        total: Steps of the whole run; None if only time limits it.
        start_up: From the start of the command to the first step.
        warm_up: What the first steps took longer than later ones.
        blocks: Mean seconds of a step in each block of steps that were measured as a whole.
        parts: Seconds of each part, of each step that was taken apart.
        works: What most steps are without, such as validation, with the seconds that it takes.
        ending: From the last step to the end of the command.
        host: Peak memory of this process.
        host_before: The same, before the first step.
        device: Peak memory of tensors on its GPU; None without one.
        device_name: What it trains on.
    """

    images: int = 0
    processes: int = 1
    total: int | None = None
    start_up: float = 0.0
    warm_up: float = 0.0
    blocks: list[float] = field(default_factory=list)
    parts: list[dict[Key, float]] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    ending: float = 0.0
    host: int | None = None
    device: int | None = None
    device_name: str = "cpu"
    host_before: int | None = None

    @property
    def step(self) -> float:
        """Seconds of a usual step."""
        return statistics.median(self.blocks)

    def usual_parts(self) -> dict[Key, float]:
        """Seconds of each part of a usual step; they add up to it.

        Steps that are taken apart take somewhat longer: their parts are shares of the time of those that are not.
        """
        sums = Counter[Key]()
        for parts in self.parts:
            sums.update(parts)
        whole = sum(sums.values())
        return {key: seconds / whole * self.step for key, seconds in sums.items()} if whole else {}

    def estimate(self) -> dict[str, float]:
        """Seconds of the whole run by what they go to, in the order in which they come."""
        total = self.total or 0
        works = {work.name: work.cost(work.count(total)) for work in self.works}
        return {"start-up": self.start_up + self.warm_up, "steps": total * self.step, **works, "end": self.ending}


class Pace(Callback):
    """Takes a run through what is to be measured, and ends it.

    Args:
        steps: Steps to measure as a whole; more if a lazy penalty would not get its share of them.
        began: ``time.perf_counter()`` at the start of the command.
        trace: File for a trace of some steps.
        clock: Seconds; None takes one that waits for the device.
    """

    measures = True

    def __init__(
        self, steps: int, began: float, trace: Path | None = None, clock: Callable[[], float] | None = None
    ) -> None:
        self.steps, self.began, self.trace, self.clock = steps, began, trace, clock
        self.measured = Measured()
        self.last_step_at = began
        self._course: Iterator[None] = iter(())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at how often things are done, and have none of them done until it is their turn."""
        self.measured.total = total_steps(trainer)
        self.measured.processes = trainer.world_size
        self.measured.works = works_of(trainer)
        trainer.check_val_every_n_epoch = None
        trainer.fit_loop.epoch_loop.max_steps = trainer.fit_loop.max_epochs = -1
        for work in self.measured.works:
            work.rest()
        self.measured.host_before = peak_of_process()
        self._course = self.course(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The step before has ended, this one begins."""
        next(self._course, None)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        """Note when the last step ended, and how many images it saw."""
        self.last_step_at = time.perf_counter()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let go of the run, so that its memory can be used again."""
        self._course = iter(())
        for work in self.measured.works:
            work.places = []

    def course(self, trainer: Trainer, model: Any) -> Iterator[None]:
        """What is measured, from step to step: each ``yield`` is one."""
        self.clock = clock = self.clock or clock_of(model.device)
        measured, turn = self.measured, turn_of(model)
        block = whole_turns(min(ROUND, self.steps), turn)
        ledger = Ledger(clock)
        apart = Apart(trainer, model, ledger)
        measured.start_up = time.perf_counter() - self.began
        warm, seen = turn + 2, model.images_seen
        began = clock()
        for _ in range(warm):
            yield
        first = clock() - began
        measured.images = (model.images_seen - seen) // warm
        for _ in range(whole_turns(self.steps, block) // block):
            began = clock()
            for _ in range(block):
                yield
            measured.blocks.append((clock() - began) / block)
            with apart.installed():
                for _ in range(whole_turns(block // 2 or 1, turn)):
                    ledger.begin()
                    yield
                    measured.parts.append(ledger.end())
        measured.warm_up = max(0.0, first - warm * measured.step)
        usual = usual_of(measured.parts)
        yield from self.occasional(trainer, apart, ledger, usual)
        if self.trace is not None:
            apart.ledger = Ledger(clock, torch.profiler.record_function)
            yield from self.traced(trainer, apart, self.trace)
        trainer.fit_loop.epoch_loop.max_steps = trainer.global_step + 1
        yield

    def occasional(self, trainer: Trainer, apart: Apart, ledger: Ledger, usual: dict[Key, float]) -> Iterator[None]:
        """Steps with the work that most steps are without."""
        placed = [work for work in self.measured.works if not work.follows]
        followers = [work for work in self.measured.works if work.follows]
        for work in placed:
            for _ in range(work.repeats):
                with ExitStack() as stack:
                    stack.enter_context(apart.installed())
                    stack.enter_context(work.due())
                    ledger.begin()
                    yield
                    step = ledger.end()
                work.charge(step, usual)
                if work.name == "validation":
                    for follower in followers:
                        follower.charge(step, usual)
                    if trainer.strategy.broadcast(work.seconds[-1] > PATIENCE):
                        break

    def traced(self, trainer: Trainer, apart: Apart, path: Path) -> Iterator[None]:
        """Steps that are traced, with their parts by name."""
        from torch.profiler import ProfilerActivity, profile

        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        with apart.installed(), profile(activities=kinds) as profiler:
            for _ in range(TRACED):
                apart.ledger.begin()
                yield
                apart.ledger.end()
        if trainer.is_global_zero:
            path.parent.mkdir(parents=True, exist_ok=True)
            profiler.export_chrome_trace(str(path))


def usual_of(parts: list[dict[Key, float]]) -> dict[Key, float]:
    """The median of each part over steps."""
    keys = {key for step in parts for key in step}
    return {key: statistics.median(step.get(key, 0.0) for step in parts) for key in keys}


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds, of when the device has done what it was told."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def turn_of(model: GAN) -> int:
    """Steps after which lazy penalties, players and add-ons come round again."""
    every = [penalty.every * (model.n_critic if penalty.player == "generator" else 1) for penalty in model.regularizers]
    return min(lcm(model.n_critic, *every), 64)


def total_steps(trainer: Trainer) -> int | None:
    """Steps of the whole run; None if nothing but time limits it."""
    limits: list[float] = []
    if trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    if trainer.max_epochs is not None and trainer.max_epochs > 0:
        limits.append(trainer.max_epochs * trainer.num_training_batches)
    finite = [limit for limit in limits if limit != float("inf")]
    return int(min(finite)) if finite else None
