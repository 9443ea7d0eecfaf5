"""From the words to what is told: the run as configured first, then the alternatives."""

import argparse
import gc
import json
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from lit_gans.commands.files import staged
from lit_gans.commands.profiling.alternatives import (
    Alternative,
    Comparison,
    try_all,
    usual_alternatives,
)
from lit_gans.commands.profiling.devices import all_gpus
from lit_gans.commands.profiling.pace import Measured, Pace, turn_of
from lit_gans.commands.profiling.report import (
    alternatives_table,
    as_plain,
    estimate_text,
    overlay_text,
    parts_table,
)
from lit_gans.commands.profiling.running import Built, build, first, room, without_output
from lit_gans.commands.training import EXPECTED_WARNINGS, of_checkpoint, resume_folder
from lit_gans.commands.tuning.trial import peak_of_process
from lit_gans.commands.words import values_of

__all__ = ("profile",)


def profile(options: argparse.Namespace, words: list[str], rest: list[str], began: float) -> None:
    """Measure a run and its alternatives, and tell.

    Args:
        options: The options of ``profile`` itself, such as ``--steps``.
        words: All words of the command line.
        rest: The words of ``fit`` among them.
        began: ``time.perf_counter()`` at the start of the command.
    """
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    rest = of_checkpoint("fit", resume_folder(rest), values_of(rest, "import"))
    with room() as folder:
        built, measured = measure(options, rest, folder, began)
        if first():
            print(heading(built, measured), parts_table(measured), sep="\n\n")
            print(estimate_text(measured, built.max_seconds, built.left_out), flush=True)
        alternatives: list[Alternative] | None = None
        chosen: list[Alternative] = []
        if not options.no_alternatives:
            device = built.trainer.strategy.root_device
            found = usual_alternatives(built.config[str(built.subcommand)], built.model, device)
            growth = (measured.host or 0) - (measured.host_before or 0)
            comparison = Comparison(rest, folder, measured.step, turn_of(built.model), options.steps, growth)
            del built
            gc.collect()  # a model and its trainer refer to each other
            alternatives, chosen = compared(comparison, found)
            alternatives += on_all_gpus(rest, folder, device, measured)
        if first():
            tell(options, words, measured, alternatives, chosen)
        if dist.is_initialized():
            dist.barrier()  # the folder of the others lies in that of the first


def measure(options: argparse.Namespace, words: list[str], folder: Path, began: float) -> tuple[Built, Measured]:
    """The run as configured, from its start to its end, and what was measured of it."""
    pace = Pace(options.steps, began, None if options.trace is None else Path(options.trace))
    with without_output():
        built = build(words, folder, pace)
        device = built.trainer.strategy.root_device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        built.train()
    measured = pace.measured
    measured.ending = time.perf_counter() - pace.last_step_at
    measured.host = peak_of_process()
    if device.type == "cuda":
        measured.device, measured.device_name = (
            torch.cuda.max_memory_allocated(device),
            torch.cuda.get_device_name(device),
        )
    return built, measured


def compared(comparison: Comparison, found: list[Alternative]) -> tuple[list[Alternative], list[Alternative]]:
    """What the alternatives give."""
    with comparison.begun():
        return try_all(comparison, found, note)


def on_all_gpus(words: list[str], folder: Path, device: torch.device, measured: Measured) -> list[Alternative]:
    """What all GPUs would give, if there are others than the one that is used."""
    count = torch.cuda.device_count() if device.type == "cuda" and measured.processes == 1 else 1
    if count < 2:
        return []
    note(f"trying {count} GPUs")
    return [all_gpus(words, folder, count, measured.images / measured.step)]


def note(line: str) -> None:
    """What is being done: it takes a while."""
    if first():
        print(f"profile: {line}", file=sys.stderr, flush=True)


def heading(built: Built, measured: Measured) -> str:
    """What was measured, on what."""
    trainer, model = built.trainer, built.model
    processes = f"{measured.processes} process{'es' * (measured.processes > 1)}"
    return (
        f"{type(model).__name__} on {trainer.strategy.root_device.type}, {processes}, precision {trainer.precision}: "
        f"{measured.images} images a step, {len(measured.blocks)} blocks of steps measured"
    )


def tell(
    options: argparse.Namespace,
    words: list[str],
    measured: Measured,
    alternatives: list[Alternative] | None,
    chosen: list[Alternative],
) -> None:
    """Print the table of alternatives, and write the files that were asked for."""
    if alternatives is not None:
        print("", alternatives_table(alternatives), sep="\n")
        if chosen:
            with staged(Path(options.output)) as target:
                target.write_text(overlay_text(words, chosen), encoding="utf-8")
            print(f"→ {options.output}: give fit the same options, and --config {options.output} after them")
        else:
            print("Nothing that keeps what is trained as it is helps by more than 5 %: no overlay is written")
    if options.json is not None:
        with staged(Path(options.json)) as target:
            target.write_text(json.dumps(as_plain(measured, alternatives, chosen), indent=1) + "\n", encoding="utf-8")
        print(f"→ {options.json}: all of it")
    if options.trace is not None:
        print(f"→ {options.trace}: a trace of three steps")
