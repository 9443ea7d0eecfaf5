"""What all GPUs of this machine would give together: a measurement of its own, as processes cannot take turns."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lit_gans.commands.profiling.alternatives import Alternative

__all__ = ("all_gpus", "in_processes")

PER_PROCESS = ("LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE")
"""Variables in which a process is told that others have been started already."""


def all_gpus(
    words: list[str], folder: Path, count: int, rate: float, start: Callable[..., Any] = subprocess.run
) -> Alternative:
    """Measure the same run on all GPUs, each with a batch of its own.

    Args:
        words: Of the command line of ``fit``.
        folder: Where files may be written.
        count: How many GPUs there are.
        rate: Images per second on one.
        start: How a program is run, as ``subprocess.run`` does it.
    """
    alternative = Alternative(f"{count} GPUs", {"trainer": {"devices": count}}, keeps=False, remark="a batch for each")
    file = folder / "gpus.json"
    done = start(
        in_processes(words, count, file),
        env={name: value for name, value in os.environ.items() if name not in PER_PROCESS},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not file.is_file():
        said = [line for line in str(done.stderr).splitlines() if line.startswith("lit_gans: ")]
        alternative.failed = (said or [f"ended with code {done.returncode}"])[-1].removeprefix("lit_gans: profile: ")
        return alternative
    found = json.loads(file.read_text(encoding="utf-8"))
    alternative.step = found["step"]
    alternative.ratios = [found["images"] / found["step"] / rate]
    return alternative


def in_processes(words: list[str], count: int, file: Path) -> list[str]:
    """The command that measures it."""
    only = ["--no_alternatives", "--steps", "20", "--json", str(file), "--output", str(file.with_suffix(".yaml"))]
    command = [sys.executable, "-m", "lit_gans", "profile", *words]
    return [*command, "--trainer.accelerator", "gpu", "--trainer.devices", str(count), *only]
