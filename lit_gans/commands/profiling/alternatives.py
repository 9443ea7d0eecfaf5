"""What other options would give: each takes turns with the run as configured, a block of steps after another."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
import yaml
from jsonargparse import Namespace

from lit_gans.commands.linking import options_of_data
from lit_gans.commands.processes import available_memory
from lit_gans.commands.profiling.occasional import whole_turns
from lit_gans.commands.profiling.running import Stepper, build, told, without_output

__all__ = ("Alternative", "Comparison", "Side", "compare", "merged", "recommended", "try_all", "usual_alternatives")

HELPS = 1.05
"""How many times as fast an option must be to be recommended."""

ROUNDS, BLOCK_SECONDS = 7, 0.8


@dataclass
class Alternative:
    """Other options, and what they were found to give.

    Args:
        name: What a reader sees.
        overlay: The options, as in a config.
        keeps: Whether training stays mathematically the same, so that it may be recommended.
        remark: What is to be known of it.
        ratios: How many times as many images a second as the run as configured, block by block.
        step: Median milliseconds of a step.
        compiling: Seconds that the first steps took longer than later ones.
        failed: Why it could not be measured, in a sentence.
    """

    name: str
    overlay: dict[str, Any]
    keeps: bool = True
    remark: str = ""
    ratios: list[float] = field(default_factory=list)
    step: float | None = None
    compiling: float | None = None
    failed: str | None = None

    @property
    def speed(self) -> float | None:
        """How many times as many images a second; None if it failed."""
        return statistics.median(self.ratios) if self.ratios and self.failed is None else None


class Side(Protocol):
    """A run that can be made to take some steps."""

    images: int

    def advance(self, steps: int) -> float:
        """Seconds that so many steps took; ``images`` are those that they saw."""
        ...


def compare(alternative: Alternative, base: Side, other: Side, block: int, rounds: int = ROUNDS) -> None:
    """Let both take blocks of steps in turn, and note what came of it.

    Args:
        alternative: What is filled in.
        base: The run as configured.
        other: The run with the alternative's options.
        block: Steps in a block.
        rounds: How many blocks of steps each of the two takes.
    """
    steps = []
    for _ in range(rounds):
        ours = base.advance(block) / base.images
        seconds = other.advance(block)
        alternative.ratios.append(ours * other.images / seconds)
        steps.append(seconds / block)
    alternative.step = statistics.median(steps)


def usual_alternatives(options: Namespace, model: Any, device: torch.device) -> list[Alternative]:
    """What is worth trying for a run.

    Args:
        options: The options of ``fit``, with all defaults filled in.
        model: The model that these options describe, once it has been set up to train.
        device: The device on which that model trains.
    """
    data, trainer, arguments = options_of_data(options), options.trainer, options.model.init_args
    found = []
    if any(parameter.ndim == 4 for parameter in model.parameters()):
        value = not model.laid_out
        found.append(Alternative(f"channels_last {'on' if value else 'off'}", of_model(channels_last=value)))
    if "bf16" not in str(trainer.precision):
        remark = "another precision"
        found.append(Alternative("bf16-mixed", {"trainer": {"precision": "bf16-mixed"}}, remark=remark))
    compiles = not arguments.compile
    found.append(Alternative(f"compile {'on' if compiles else 'off'}", of_model(compile=compiles)))
    workers = data.num_workers or 0
    for count in (0, 2 * workers) if workers else (2,):
        found.append(Alternative(f"num_workers {count}", of_data(options, num_workers=count)))
    if device.type == "cpu" and torch.cuda.is_available():
        found.append(Alternative("one GPU", {"trainer": {"accelerator": "gpu", "devices": 1}}, keeps=False))
    changes = "changes the training"
    for factor in (2, 4):
        overlay = of_data(options, batch_size=factor * data.batch_size)
        found.append(Alternative(f"batch_size × {factor}", overlay, keeps=False, remark=changes))
    parts = 2 * arguments.accumulate
    found.append(Alternative(f"accumulate {parts}", of_model(accumulate=parts), keeps=False, remark="saves memory"))
    return found


def of_data(options: Namespace, **arguments: Any) -> dict[str, Any]:
    """An overlay of the data's arguments, which stand deeper where the class of the data is named."""
    return {"data": {"init_args": arguments} if "class_path" in options.data else arguments}


def of_model(**arguments: Any) -> dict[str, Any]:
    """An overlay of the model's arguments."""
    return {"model": {"init_args": arguments}}


def recommended(alternatives: Sequence[Alternative]) -> list[Alternative]:
    """Those that help by more than 5 %, and keep what is trained as it is."""
    helping = [one for one in alternatives if one.keeps and one.speed is not None and one.speed > HELPS]
    best: dict[str, Alternative] = {}
    for one in helping:  # of several numbers of workers only one can be had
        name = "/".join(f"{room}.{key}" for room, part in one.overlay.items() for key in names_in(part))
        if name not in best or (one.speed or 0) > (best[name].speed or 0):
            best[name] = one
    return list(best.values())


def names_in(part: dict[str, Any]) -> Iterator[str]:
    """Names of the options in a part of an overlay."""
    for key, value in part.items():
        yield from names_in(value) if isinstance(value, dict) else [key]


def merged(overlays: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Several overlays in one."""
    whole: dict[str, Any] = {}
    for overlay in overlays:
        for key, value in overlay.items():
            whole[key] = merged([whole.get(key, {}), value]) if isinstance(value, dict) else value
    return whole


class Comparison:
    """The run as configured, and what takes turns with it.

    Args:
        words: Of the command line of ``fit``.
        folder: Where runs may write.
        step: Seconds of a step as configured.
        turn: Steps after which lazy penalties come round again.
        steps: The most steps of a block, if a turn is not longer.
        growth: Bytes that main memory has grown by while training.
    """

    def __init__(self, words: list[str], folder: Path, step: float, turn: int, steps: int, growth: int = 0) -> None:
        self.words, self.folder, self.turn, self.growth = words, folder, turn, growth
        most = max(turn, whole_turns(steps, turn))
        self.block = min(most, whole_turns(max(2, round(BLOCK_SECONDS / max(step, 1e-6))), turn))
        self.agreement: Any = None

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Within it the run as configured is there."""
        with without_output():
            self.base = self.begin_base()
        if dist.is_initialized():
            self.agreement = dist.new_group(backend="gloo", timeout=timedelta(minutes=2))
            numbers = [self.block]
            dist.broadcast_object_list(numbers, group=self.agreement)
            self.block = numbers[0]
        try:
            yield
        finally:
            with without_output():
                self.base.close()

    def begin_base(self) -> Stepper:
        """The run as configured, warm."""
        base = self.stepper({})
        base.begin()
        base.advance(self.turn + 2)
        return base

    def stepper(self, overlay: dict[str, Any]) -> Stepper:
        """A run with some options changed."""
        file = self.folder / "overlay.yaml"
        file.write_text(
            yaml.safe_dump(overlay | {"trainer": {"enable_progress_bar": False} | overlay.get("trainer", {})})
        )
        return Stepper(build([*self.words, "--config", str(file)], self.folder))

    def try_out(self, alternative: Alternative) -> None:
        """Measure an alternative, or note in a sentence why it cannot be."""
        other = None
        with without_output() as said:
            try:
                if alternative.failed is None:
                    alternative.failed = self.refusal(alternative)
                if self.base.error is not None:  # there was not memory enough for both
                    self.base = self.begin_base()
                if alternative.failed is None:
                    other = self.stepper(alternative.overlay)
                    other.begin()
                    self.measure(alternative, other)
            except (Exception, SystemExit) as error:
                alternative.failed = told(error)
            finally:
                if other is not None:
                    other.close()
        stays = [line for line in said if line.startswith("compile: ") and "stays eager: " in line]
        if alternative.failed is None and stays:
            alternative.remark = stays[0].removeprefix("compile: ")[:120]
        self.agree(alternative)
        del other
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def measure(self, alternative: Alternative, other: Stepper) -> None:
        """Warm up, then take turns."""
        began = time.perf_counter()
        other.advance(self.turn + 2)
        warm = time.perf_counter() - began
        compare(alternative, self.base, other, self.block)
        if "compile on" in alternative.name and alternative.step is not None:
            alternative.compiling = max(0.0, warm - (self.turn + 2) * alternative.step)

    def refusal(self, alternative: Alternative) -> str | None:
        """Why an alternative had better not be tried: main memory that it might not find ends the process."""
        factor = {"batch_size × 2": 2, "batch_size × 4": 4}.get(alternative.name)
        memory = available_memory()
        if factor and memory is not None and factor * self.growth > memory * 2**30:
            return f"might not fit: {memory:.1f} GiB of memory are left"
        return None

    def agree(self, alternative: Alternative) -> None:
        """What failed in one process has failed; one that waits for the others in vain gives up in two minutes."""
        if self.agreement is None:
            return
        failures: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(failures, alternative.failed, group=self.agreement)
        ratios = [alternative.ratios, alternative.step]
        dist.broadcast_object_list(ratios, group=self.agreement)
        alternative.failed = next((failure for failure in failures if failure is not None), None)
        alternative.ratios, alternative.step = ratios  # type: ignore[assignment]


def try_all(
    comparison: Comparison, alternatives: list[Alternative], tell: Callable[[str], None]
) -> tuple[list[Alternative], list[Alternative]]:
    """Measure them all, then those together that help.

    Returns:
        All that was measured, and those that are recommended: together, or the best alone where that is faster.
    """
    for one in alternatives:
        tell(f"trying {one.name}")
        comparison.try_out(one)
    helping = recommended(alternatives)
    if len(helping) < 2:
        return alternatives, helping
    together = Alternative("these together", merged([one.overlay for one in helping]))
    together.remark = ", ".join(one.name for one in helping)
    tell(f"trying {together.name}: {together.remark}")
    comparison.try_out(together)
    best = max(helping, key=lambda one: one.speed or 0)
    return [*alternatives, together], helping if (together.speed or 0) >= (best.speed or 0) else [best]
