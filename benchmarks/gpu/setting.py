"""Where and how long a part measures, and how what it finds becomes a row."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer

from benchmarks.measuring import Clock, said
from benchmarks.workloads import WORKLOADS, Workload

sys.path += [str(Path(__file__).parents[2] / "tests" / "support")]  # small networks for each model, and faults
OK, FAILED, NOT_HERE, NO_TIME = "ok", "failed", "not on this device", "no time left"
MEASURED = ("w1", "w2", "w3", "stylegan2", "r3gan")
"""Workloads that are measured: three papers of the first kind, and two with penalties that are differentiated twice."""


class NotOnThisDeviceError(Exception):
    """What is to be measured does not exist there."""


@dataclass
class Setting:
    """Where a part measures, whether in its small version, and until when."""

    device: str
    quick: bool
    until: float

    @property
    def cuda(self) -> bool:
        """Whether there is a GPU."""
        return self.device == "cuda"

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    @property
    def place(self) -> torch.device:
        """The device, as torch names it."""
        return torch.device("cuda", 0) if self.cuda else torch.device("cpu")

    @property
    def clock(self) -> Clock:
        """Of the device."""
        return Clock(self.place)

    def workloads(self) -> dict[str, Workload]:
        """What is measured; the smallest one in the small version."""
        return {name: WORKLOADS[name] for name in (["w4"] if self.quick else MEASURED)}

    def batch(self, workload: Workload) -> int:
        """Images per step; few in the small version."""
        return 4 if self.quick else workload.batch

    def trainer(self, folder: Path | str, *callbacks: Callback, **kwargs: Any) -> Trainer:
        """A quiet one on the device."""
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        place = {"accelerator": self.device, "devices": 1, "logger": False, "default_root_dir": folder}
        return Trainer(**{**quiet, **place, "limit_val_batches": 0, "callbacks": list(callbacks), **kwargs})

    def row(self, name: str, measure: Callable[[], dict[str, Any]], seconds: float = 0) -> dict[str, Any]:
        """What is measured under this name, if ``seconds`` are left for it; ``pass`` False is a failure."""
        if self.left < seconds:
            return {"name": name, "state": NO_TIME}
        try:
            values = measure()
        except NotOnThisDeviceError as error:
            return {"name": name, "state": NOT_HERE, "reason": str(error)}
        except TimeoutError as error:
            return {"name": name, "state": NO_TIME, "reason": str(error)}
        except Exception as error:  # whatever it is, the next row is measured
            return {"name": name, "state": FAILED, "reason": said(error)}
        return {"name": name, "state": OK if values.pop("pass", True) else FAILED, **values}


def state_of(rows: Iterable[dict[str, Any]]) -> str:
    """The worst of a part's rows; those that the device does not have count only if there are no others."""
    states = {row["state"] for row in rows}
    return next((state for state in (FAILED, NO_TIME, OK, NOT_HERE) if state in states), FAILED)


class Noise:
    """A loader of batches of random images in main memory, the same in each epoch."""

    def __init__(self, workload: Workload, batch: int, batches: int = 8) -> None:
        rng = torch.Generator().manual_seed(0)
        shape = (batch, workload.channels, workload.image_size, workload.image_size)
        self.batches = [(torch.rand(shape, generator=rng) * 2 - 1,) for _ in range(batches)]

    def __iter__(self) -> Iterator[tuple[torch.Tensor]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def exact() -> None:
    """The same bits each time, and float32 that is float32."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
