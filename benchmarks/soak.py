"""Does a long run leak? DCGAN on MNIST with validation, samples and checkpoints; memory, files and threads each second.

    OMP_NUM_THREADS=1 python -m benchmarks.soak [--minutes 30] [--root FOLDER] [--settle 3]

The run is the command that a user would give, with loggers, guard, one worker, and frequent validation, sample grids
and checkpoints. Watched from outside: resident memory of the process and its workers, open files, threads. Told is the
change along a straight line through the time after ``--settle`` minutes, beside the scatter around it. Writes
benchmarks/results/soak.json and soak.png.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
WORDS = [
    *(
        "fit",
        "--config",
        str(ROOT / "configs/dcgan/mnist.yaml"),
        "--config",
        str(ROOT / "configs/callbacks/guard.yaml"),
    ),
    *("--trainer.accelerator=cpu", "--trainer.max_steps=10000000", "--trainer.val_check_interval=100"),
    *("--trainer.limit_val_batches=4", "--checkpoint_every=50", "--sample_every=50", "--data.num_workers=1"),
    *("--model.generator.width=16", "--model.discriminator.width=16", "--trainer.enable_progress_bar=false"),
]
MEASURES = {"memory": "MiB", "files": "open files", "threads": "threads"}


def children(pid):
    """The process and those it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += children(int(child))
    return found


def measure(pid):
    """Sums over the process and its children; of the memory, what is theirs alone and their share of the rest."""
    memory = files = threads = 0
    for process in children(pid):
        try:
            folder = Path(f"/proc/{process}")
            memory += int(
                next(x for x in (folder / "smaps_rollup").read_text().splitlines() if x[:4] == "Pss:").split()[1]
            )
            files += len(list((folder / "fd").iterdir()))
            threads += len(list((folder / "task").iterdir()))
        except (OSError, StopIteration):
            continue  # it ended while it was looked at
    return {"memory": memory / 1024, "files": files, "threads": threads}


def trend(seconds, values):
    """Change over the time given along the best straight line, scatter around it, and the mean."""
    slope, start = np.polyfit(seconds, values, 1)
    scatter = np.std(np.array(values) - slope * np.array(seconds) - start)
    return float(slope * (seconds[-1] - seconds[0])), float(scatter), float(np.mean(values))


def plot(rows, settle, path):
    """Three panels over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, 1, figsize=(8, 7), sharex=True, layout="constrained")
    for axis, (name, unit) in zip(axes, MEASURES.items(), strict=True):
        axis.plot([row["seconds"] / 60 for row in rows], [row[name] for row in rows], lw=0.8)
        axis.axvline(settle, color="0.6", ls=":")
        axis.set_ylabel(unit)
        axis.set_ylim(bottom=0)
    axes[-1].set_xlabel("minutes")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--settle", type=float, default=3)
    parser.add_argument("--root", default="data", help="where MNIST is or is put")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        words = [*WORDS, f"--data.root={Path(options.root).resolve()}"]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        log = (Path(folder) / "log").open("w+")
        run = subprocess.Popen(
            [sys.executable, "-m", "lit_gans", *words], cwd=folder, env=env, stdout=log, stderr=subprocess.STDOUT
        )
        metrics = Path(folder) / "runs/dcgan-mnist/version_0/metrics.csv"
        while not metrics.exists():
            if run.poll() is not None:
                log.seek(0)
                raise SystemExit(log.read())
            time.sleep(0.5)
        start = time.monotonic()
        while time.monotonic() - start < options.minutes * 60 and run.poll() is None:
            rows.append({"seconds": time.monotonic() - start, **measure(run.pid)})
            time.sleep(1)
        run.terminate()
        code = run.wait(60)
        steps = metrics.read_text().splitlines()[-1]
        samples = len(list(metrics.parent.glob("samples/*")))
    late = [row for row in rows if row["seconds"] > options.settle * 60]
    result = {
        "minutes": options.minutes,
        "exit code": code,
        "sample grids": samples,
        "rows": rows[:: max(1, len(rows) // 600)],
    }
    for name, unit in MEASURES.items():
        change, scatter, mean = trend([row["seconds"] for row in late], [row[name] for row in late])
        result[name] = {"change": change, "scatter": scatter, "mean": mean}
        print(
            f"{name:8} mean {mean:9.2f} {unit}, change {change:+8.2f} from minute {options.settle:g} on, "
            f"scatter {scatter:.2f}"
        )
    print(f"exit code {code}, {samples} sample grids, last line of metrics.csv: {steps}")
    (RESULTS / "soak.json").write_text(json.dumps(result) + "\n", "utf-8")
    plot(rows, options.settle, RESULTS / "soak.png")


if __name__ == "__main__":
    main()
