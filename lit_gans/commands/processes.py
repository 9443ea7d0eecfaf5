"""Whether a machine can bear the processes that are asked for, before any of them starts."""

import os
from pathlib import Path
from typing import Any

import torch

from lit_gans.errors import UserError

__all__ = ("available_memory", "refuse_too_many")

PROCESS_GIB = 0.8
"""What a process that trains takes at the least: the quickstart's peak is 0.85 GiB, nearly all of it libraries."""


def refuse_too_many(option: str, devices: Any, accelerator: Any) -> None:
    """Compare processes with cores or GPUs, and with memory.

    Processes that somebody else has started (torchrun, SLURM, Lightning's own children) are not counted again. On one
    device nothing is refused.

    Args:
        option: That asks for them, for the message.
        devices: A number, a list of devices, or a word such as ``auto``.
        accelerator: ``cpu``, ``gpu``, ``cuda``, ``mps``, ``auto``; others are Lightning's to judge.

    Raises:
        UserError: naming both numbers.
    """
    if "LOCAL_RANK" in os.environ or "SLURM_NTASKS" in os.environ or (count := count_of(devices)) < 2:
        return
    gpus = torch.cuda.device_count()
    if accelerator in ("gpu", "cuda") or (accelerator == "auto" and gpus):
        if count > gpus and not torch.backends.mps.is_available():
            raise UserError(
                f"{option} asks for {count} GPUs, this machine has {gpus}: give at most so many{on_cpu(gpus)}"
            )
    elif accelerator in ("cpu", "auto"):
        cores = os.cpu_count() or 1
        if count > cores:
            raise UserError(
                f"{option} asks for {count} processes, this machine has {cores} cores: give at most so many"
            )
    else:
        return
    memory = available_memory()
    if memory is not None and (count - 1) * PROCESS_GIB > memory:
        raise UserError(
            f"{option} asks for {count} processes, which take some {count * PROCESS_GIB:.1f} GiB of memory, and "
            f"{memory:.1f} GiB are available: give fewer"
        )


def on_cpu(gpus: int) -> str:
    """What else can be done on a machine without a GPU."""
    return "" if gpus else ", or train on the CPU, accelerator cpu"


def count_of(devices: Any) -> int:
    """How many processes are asked for; 0 if that is left to Lightning."""
    if isinstance(devices, (list, tuple)):
        return len(devices)
    if isinstance(devices, str) and "," in devices:
        return len([part for part in devices.split(",") if part.strip()])
    try:
        return int(devices)
    except (TypeError, ValueError):
        return 0


def available_memory() -> float | None:
    """GiB that can still be taken: of the machine, or of this process's control group; None if unknown."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (Path("/sys/fs/cgroup", name).read_text("utf-8") for name in (limit, used))
            found.append(int(most) - int(now))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return min(found) / 2**30 if found else None
