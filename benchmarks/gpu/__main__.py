"""All that only a GPU can tell, in one command of at most eight minutes.

    python -m benchmarks.gpu -o gpu.json
    python -m benchmarks.gpu -o cpu.json --device cpu --quick
    python -m benchmarks.gpu -o gpu.json --only parity speed --minutes 4

It needs one CUDA device, the package and its dev group, and nothing from the network. Each part runs in a process of
its own, with a share of the time and all that the parts before have left over; one that fails, hangs or brings its
process down is a row in the table, and the next part follows. Results are written after each part.

- parity: twelve steps of every model, in float32 without TF32, and noise from the CPU, against the same on the CPU;
- resume: a run that goes on from a checkpoint against one without a stop, bit by bit;
- guard: faults, and whether they are found in their step and kept from the weights;
- waits: how often a step waits for the device;
- processes: ``ddp`` and ``gan_ddp`` through NCCL in one process, and SyncBatchNorm;
- features: what metrics do in a second;
- memory: the most that training takes, beside a loop by hand;
- speed: steps in float32, in half precision and in channels_last, beside loops by hand;
- compiled: the same with compiled networks.

With ``--device cpu`` all of it runs on a CPU, gloo in the place of NCCL, where it tells little but that it runs, and
with ``--quick`` in seconds. The exit code is 1 if a part failed, 2 if there is no such device.
"""

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PARTS = {  # where each is, and its share of eight minutes in seconds
    "parity": ("games", 90),
    "resume": ("games", 30),
    "guard": ("games", 25),
    "waits": ("speed", 35),
    "processes": ("processes", 35),
    "features": ("features", 30),
    "memory": ("speed", 45),
    "speed": ("speed", 80),
    "compiled": ("speed", 85),
}
GRACE = 6  # seconds between the end of a part's time and the end of its process


def machine(device: str) -> Iterator[dict[str, Any]]:
    """What it is, and whether the device is there."""
    import torch

    found = {"torch": torch.__version__, "cuda": torch.version.cuda, "python": platform.python_version()}
    if device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit
        properties = torch.cuda.get_device_properties(0)
        found |= {"device": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)}
        found |= {"capability": f"{properties.major}.{properties.minor}", "cudnn": torch.backends.cudnn.version()}
        found |= {"nccl": ".".join(map(str, torch.cuda.nccl.version()))}
    yield found | {"cores": os.cpu_count()}


def measure(part: str, device: str, quick: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """The rows of a part; in a process of its own."""
    import logging
    import warnings

    import torch

    from benchmarks.gpu.setting import Setting

    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if quick:
        torch.set_num_threads(1)
        os.environ["OMP_NUM_THREADS"] = "1"  # else Lightning takes all cores under ddp
    module = importlib.import_module(f"benchmarks.gpu.{PARTS[part][0]}")
    yield from getattr(module, part)(Setting(device, quick, time.monotonic() + seconds))


def rows_of(part: str, device: str, quick: bool, seconds: float) -> Iterator[dict[str, Any]]:
    """The same, with a row that says so where the part itself failed."""
    from benchmarks.gpu.setting import FAILED
    from benchmarks.measuring import in_process, said

    try:
        yield from in_process(measure, part, device, quick, seconds - GRACE, seconds=seconds)
    except (RuntimeError, TimeoutError) as error:
        yield {"name": "the part itself", "state": FAILED, "reason": said(error)}


def told(row: dict[str, Any]) -> str:
    """A row of the table."""
    values = {key: value for key, value in row.items() if key not in ("name", "state")}
    shown = ", ".join(f"{key} {value}" for key, value in values.items())
    return f"  {row['name']:42}{row['state']:20}{shown}"


def run(options: argparse.Namespace) -> int:
    """Measure all parts, write and print what was found."""
    from benchmarks.gpu.setting import FAILED, NO_TIME, state_of
    from benchmarks.measuring import in_process

    start = time.monotonic()
    total, scale = options.minutes * 60, options.minutes / 8
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which products of matrices may differ
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        (here,) = in_process(machine, options.device, seconds=60)
    except (RuntimeError, TimeoutError):
        print(f"there is no device {options.device!r}: --device cpu --quick runs without", file=sys.stderr)
        return 2
    command = f"python -m benchmarks.gpu -o {options.output.name} {' '.join(options.words)}".rstrip()
    result: dict[str, Any] = {"command": command, "machine": here, "parts": {}}
    for part in options.only:
        later = sum(PARTS[other][1] for other in options.only[options.only.index(part) + 1 :]) * scale
        seconds = max(5.0, start + total - time.monotonic() - later)
        began, rows = time.monotonic(), []
        print(f"{part}, at most {seconds:.0f} s", flush=True)
        for row in rows_of(part, options.device, options.quick, seconds):
            rows.append(row)
            print(told(row), flush=True)
        taken = round(time.monotonic() - began, 1)
        result["parts"][part] = {"state": state_of(rows), "seconds": taken, "rows": rows}
        result["seconds"] = round(time.monotonic() - start, 1)
        options.output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(f"\n{'part':14}{'state':20}{'seconds':>9}{'rows':>6}   not ok")
    for part, found in result["parts"].items():
        missed = [row["name"] for row in found["rows"] if row["state"] in (FAILED, NO_TIME)]
        counts = f"{found['seconds']:>9}{len(found['rows']):>6}"
        print(f"{part:14}{found['state']:20}{counts}   {'; '.join(missed)}")
    return int(any(found["state"] == FAILED for found in result["parts"].values()))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu.json"), help="JSON file to write")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="a small version, which tells that it runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=8, help="that all of it may take (default: 8)")
    options = parser.parse_args()
    options.words = [word for word in sys.argv[1:] if word not in ("-o", "--output", str(options.output))]
    sys.exit(run(options))


if __name__ == "__main__":
    main()
