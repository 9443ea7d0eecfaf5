"""Steps beside those of a loop by hand: their time, the waits in them, and their memory."""

import copy
import logging
import statistics
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback
from lightning.pytorch.loggers import CSVLogger

import lit_gans
from benchmarks.gpu.setting import Noise, NotOnThisDeviceError, Setting
from benchmarks.measuring import MIB, Clock, Peak, in_process
from benchmarks.workloads import WORKLOADS, Workload
from lit_gans.game import compiling

ROUNDS = 5  # that count, at most; fewer where time is short
LONGEST = 90  # seconds of a comparison with compiled networks
BLOCKS = {"stylegan2": 32}  # steps of a block: with each penalty as often as the other blocks
BLOCK = 20
GUARD = Path(__file__).parents[2] / "configs" / "callbacks" / "guard.yaml"
SETTINGS: dict[str, tuple[dict[str, Any], str, torch.dtype | None]] = {  # arguments of the model, precision, the loop's
    "float32": ({}, "32-true", None),
    "bf16-mixed": ({}, "bf16-mixed", torch.bfloat16),
    "16-mixed": ({}, "16-mixed", torch.float16),
    "channels_last, bf16-mixed": ({"channels_last": True}, "bf16-mixed", torch.bfloat16),
}
COMPILED: dict[str, tuple[dict[str, Any], str, torch.dtype | None]] = {
    "compile": ({"compile": True}, "32-true", None),
    "compile, bf16-mixed": ({"compile": True}, "bf16-mixed", torch.bfloat16),
}


def plain_loop(workload: Workload, networks: Any, place: torch.device, **kwargs: Any) -> Any:
    """The loop by hand, on the device."""
    return workload.plain(*(network.to(place) for network in networks), **kwargs)


class Turns(Callback):
    """A block of the trainer's steps, then one of the loop by hand, again and again; milliseconds per step of both."""

    def __init__(
        self, loop: Any, batches: Any, block: int, rounds: int, done: Callable[[], bool], clock: Clock
    ) -> None:
        self.loop, self.batches, self.block, self.clock = loop, batches, block, clock
        self.rounds, self.done = rounds, done
        self.times: list[tuple[float, float]] = []
        self.iterator: Iterator[Any] = iter(())

    def next(self, place: torch.device) -> torch.Tensor:
        """Images, taken to the device as the trainer takes them."""
        batch = next(self.iterator, None)
        if batch is None:
            self.iterator = iter(self.batches)
            batch = next(self.iterator)
        return batch[0].to(place, non_blocking=True)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.start = self.clock.mark()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not trainer.global_step or trainer.global_step % self.block:
            return
        ours = self.clock.between(self.start, self.clock.mark())
        start = self.clock.mark()
        for _ in range(self.block):
            self.loop.step(self.next(pl_module.device))
        self.times.append((ours / self.block, self.clock.between(start, self.clock.mark()) / self.block))
        # the first block warms up and compiles
        trainer.should_stop = len(self.times) > self.rounds or (len(self.times) > 1 and self.done())
        self.start = self.clock.mark()


@contextmanager
def heard() -> Iterator[list[str]]:
    """What is said of networks that stay eager."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("compile:"):
                said.append(record.getMessage())

    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before, listener = (logger.level, logger.propagate), Listener()
    logger.addHandler(listener)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(listener)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def compare(setting: Setting, name: str, how: str, seconds: float) -> dict[str, Any]:
    """Milliseconds a step of both, and the ratio block by block."""
    workload, (kwargs, precision, dtype) = setting.workloads()[name], (SETTINGS | COMPILED)[how]
    if precision == "16-mixed" and not setting.cuda:
        raise NotOnThisDeviceError("16-mixed needs a GPU")
    if kwargs.get("compile") and setting.quick:
        compiling._BACKEND = "eager"  # the way there without the code at its end
    block = 1 if setting.quick else BLOCKS.get(name, BLOCK)
    until = setting.left - seconds
    networks = workload.build()
    loop = plain_loop(workload, copy.deepcopy(networks), setting.place, dtype=dtype)
    rounds = 1 if setting.quick else ROUNDS
    model = workload.model(*networks, seed=0, **kwargs)
    data = workload.data(8, setting.batch(workload))
    data.setup("fit")
    turns = Turns(loop, data.train_dataloader(), block, rounds, lambda: setting.left < until, setting.clock)
    with tempfile.TemporaryDirectory() as folder, heard() as said:
        steps = block * (rounds + 2) + 1
        setting.trainer(folder, turns, max_steps=steps, precision=precision).fit(model, data)
    first, *times = turns.times
    ratios = [ours / theirs for ours, theirs in times]
    found: dict[str, Any] = {
        "ours_ms": round(statistics.median(ours for ours, _ in times), 3),
        "plain_ms": round(statistics.median(theirs for _, theirs in times), 3),
        "ratio": round(statistics.median(ratios), 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "blocks": len(times),
        "first_block_s": round(first[0] * block / 1e3, 1),
    }
    return found | ({"stays_eager": said} if said else {})


def speed(setting: Setting) -> Iterator[dict[str, Any]]:
    """Each workload in each setting, against the loop by hand in the same precision.

    The loop runs under autocast where ours is in mixed precision, without a gradient scaler. Blocks of both take turns
    in one process; each measurement has an equal part of the time that is left.
    """
    cases = [(how, name) for how in SETTINGS for name in setting.workloads()]
    for number, (how, name) in enumerate(cases):
        case = (name, how, setting.left / (len(cases) - number))
        yield setting.row(f"{name}, {how}", lambda case=case: compare(setting, *case), seconds=3)


def compiled(setting: Setting) -> Iterator[dict[str, Any]]:
    """The same compiled, against the loop by hand as it is; in a process each, since a compilation cannot be ended."""
    cases = [(how, name) for how in COMPILED for name in setting.workloads()][: 1 if setting.quick else None]
    for how, name in cases:

        def measure(name: str = name, how: str = how) -> dict[str, Any]:
            limit = min(setting.left, LONGEST)
            (found,) = in_process(alone, setting, name, how, limit / 4, seconds=limit)
            return found

        yield setting.row(f"{name}, {how}", measure, seconds=15)


def alone(setting: Setting, *case: Any) -> Iterator[dict[str, Any]]:
    """One comparison."""
    yield compare(setting, *case)


class Waits(Callback):
    """How often each step waited for the device, by what CUDA's synchronisation warnings say."""

    def __init__(self, caught: list[warnings.WarningMessage]) -> None:
        self.caught, self.counts, self.places = caught, list[int](), list[list[str]]()

    def count(self) -> None:
        """Note what has been caught since the last time."""
        waits = [one for one in self.caught if "synchronizing CUDA operation" in str(one.message)]
        self.caught.clear()
        self.counts.append(len(waits))
        self.places.append([f"{Path(one.filename).name}:{one.lineno}" for one in waits])

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.count()  # from one beginning to the next, so that what lies between two steps counts, too


def count_waits(setting: Setting, model: Any, batches: Any, told: bool, *callbacks: Any, **kwargs: Any) -> Any:
    """Waits of steps that log and of those that do not; ``told`` ones miss no bar."""
    # all loaders have eight batches, so that epochs end with logging steps; the first steps make the optimizers' state
    steps, every, first = 26, 8, 4
    torch.set_warn_always(True)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        waits = Waits(caught)
        logger = CSVLogger(folder, "", "")
        trainer = setting.trainer(
            folder, *callbacks, waits, max_steps=steps, log_every_n_steps=every, logger=logger, **kwargs
        )
        torch.cuda.set_sync_debug_mode("warn")
        try:
            trainer.fit(model, batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    by_step = dict(enumerate(zip(waits.counts[1:], waits.places[1:], strict=True), start=1))
    silent = [row for step, row in by_step.items() if step % every and step > first]
    logging_steps = [row for step, row in by_step.items() if not step % every]
    found = {
        "waits_of_a_step": max(count for count, _ in silent),
        "of_a_logging_step": max((count for count, _ in logging_steps), default=0),
    }
    where = Counter(place for _, places in silent for place in places)
    return found | ({"where": dict(where.most_common(5))} if where else {}) | {"pass": told or not where}


def waits(setting: Setting) -> Iterator[dict[str, Any]]:
    """No step but a logging one waits for the device; a gradient scaler and the guard have to, which is told."""
    if not setting.cuda:

        def nothing() -> Any:
            raise NotOnThisDeviceError("CUDA alone counts how often one waits for it")

        yield setting.row("waits of a step", nothing)
        return
    from toys import MODELS, build, loader

    def of_model(name: str) -> Any:
        model = build(name, seed=1)
        return count_waits(setting, model, loader(n=64, labels=model.num_classes is not None), False)

    for name in MODELS:
        yield setting.row(name, lambda name=name: of_model(name))
    entries = yaml.safe_load(GUARD.read_text("utf-8"))["trainer"]["callbacks+"]
    workload = WORKLOADS["w1"]

    def of_workload(told: bool, guarded: bool = False, precision: str = "32-true", **kwargs: Any) -> Any:
        wanted = entries if guarded else []
        callbacks = [getattr(lit_gans, entry["class_path"])(**entry.get("init_args", {})) for entry in wanted]
        model = workload.model(*workload.build(), seed=0, **kwargs)
        return count_waits(setting, model, Noise(workload, 16), told, *callbacks, precision=precision)

    yield setting.row("w1, bf16-mixed, averaged", lambda: of_workload(False, precision="bf16-mixed", ema_decay=0.9))
    yield setting.row("w1, 16-mixed", lambda: of_workload(True, precision="16-mixed"))
    yield setting.row("w1 with the guard", lambda: of_workload(True, guarded=True))


def peak_of_ours(setting: Setting, workload: Workload, steps: int) -> Iterator[int]:
    """Bytes at most while a model of lit_gans trains."""
    batches = Noise(workload, setting.batch(workload))
    peak = Peak(setting.place)
    with tempfile.TemporaryDirectory() as folder:
        model = workload.model(*workload.build(), seed=0)
        setting.trainer(folder, max_steps=steps).fit(model, batches)
    yield peak.read()


def peak_of_plain(setting: Setting, workload: Workload, steps: int) -> Iterator[int]:
    """Bytes at most while the loop by hand trains."""
    batches = Noise(workload, setting.batch(workload))
    peak = Peak(setting.place)
    loop = plain_loop(workload, workload.build(), setting.place)
    for step in range(steps):
        loop.step(batches.batches[step % len(batches)][0].to(setting.place))
    yield peak.read()


def memory(setting: Setting) -> Iterator[dict[str, Any]]:
    """The most memory that training takes, networks and optimizers included, each in a process of its own.

    On the CPU the trainer's own code and what it imports count, too.
    """
    for name, workload in setting.workloads().items():
        steps = 2 if setting.quick else max(6, workload.plain_arguments.get("n_critic", 1) + 1)

        def measure(workload: Workload = workload, steps: int = steps) -> dict[str, Any]:
            limit = max(1.0, min(60.0, setting.left))
            (ours,) = in_process(peak_of_ours, setting, workload, steps, seconds=limit)
            (plain,) = in_process(peak_of_plain, setting, workload, steps, seconds=limit)
            return {
                "ours_mib": round(ours / MIB, 1),
                "plain_mib": round(plain / MIB, 1),
                "ratio": round(ours / max(plain, 1), 3),
            }

        yield setting.row(name, measure)
