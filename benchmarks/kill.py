"""Kill runs at random moments, some while a checkpoint is being written: does each go on to the same end?

    OMP_NUM_THREADS=1 python -m benchmarks.kill [--kills 50] [--seed 0]

Runs of ``fit --resume`` on the digits are killed (SIGKILL) at a moment drawn uniformly from their training time, and
started again until they come to their end; in every second run the disk is slow: each checkpoint is written in pieces
with pauses between them, and the kill comes while one of them is half written. Compared with a run that was left alone:
all weights, averages, optimizer states and rows of metrics.csv, bit by bit. Writes benchmarks/results/kill.json.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
STEPS = 400
WORDS = [
    *("fit", "--resume", "--config", str(ROOT / "configs/quickstart.yaml"), f"--trainer.max_steps={STEPS}"),
    *("--checkpoint_every=10", "--sample_every=100", "--trainer.log_every_n_steps=5"),
    *("--trainer.val_check_interval=40", "--trainer.limit_val_batches=2", "--trainer.enable_progress_bar=false"),
]
SLOW = """
import os, runpy, time
import torch
import lit_gans.runs.checkpoint_files as io

class Slow:
    def __init__(self, file):
        self.file = file
    def write(self, data):
        time.sleep(0.01)
        return self.file.write(data)
    def __getattr__(self, name):
        return getattr(self.file, name)

save = io._save
io._save = lambda checkpoint, file: save(checkpoint, Slow(file))
runpy.run_module("lit_gans", run_name="__main__", alter_sys=True)
"""


def start(folder, slow):
    program = ["-c", SLOW] if slow else ["-m", "lit_gans"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *program, *WORDS], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip


def run_of(folder):
    return folder / "runs/gan-digits/version_0"


def wait_for(process, true):
    while process.poll() is None and not true():
        time.sleep(0.005)


def kill(folder, slow, rng):
    """Start, kill at a random moment; tell at which step, whether a file was half written, and what it said."""
    checkpoints = run_of(folder) / "checkpoints"
    before = newest(checkpoints)
    process = start(folder, slow)
    for aside in checkpoints.glob(".*.partial"):
        aside.unlink()
    wait_for(process, lambda: newest(checkpoints) != before)  # it trains and has saved: nothing tells of less
    deadline = time.monotonic() + rng.uniform(0, 2.5)
    wait_for(process, lambda: time.monotonic() > deadline)
    if slow:
        wait_for(process, lambda: list(checkpoints.glob(".*.partial")))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    told = process.communicate()[0]
    return {"ended": process.returncode == 0, "half": bool(list(checkpoints.glob(".*.partial"))), "told": told}


def newest(folder):
    times = [path.stat().st_mtime_ns for path in folder.glob("*.ckpt")]
    return max(times, default=0)


def result(folder):
    """What a run came to."""
    checkpoint = torch.load(run_of(folder) / "checkpoints/last.ckpt", weights_only=True)
    rows = list(csv.DictReader((run_of(folder) / "metrics.csv").read_text().splitlines()))
    return {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lit_gans", "global_step")} | {
        "rows": rows
    }


def equal(a, b):
    """Nested values, tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return len(a) == len(b) and all(map(equal, a, b)) if isinstance(a, list) else a == b


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, rows, folder = random.Random(options.seed), [], None
    with tempfile.TemporaryDirectory() as base:
        whole = Path(base) / "whole"
        whole.mkdir()
        start(whole, slow=False).communicate()
        expected = result(whole)
        runs = kills = ends = same = 0
        while kills < options.kills or folder is not None:
            if folder is None:
                folder = Path(base) / f"run{runs}"
                folder.mkdir()
                runs += 1
            if kills < options.kills:
                row = kill(folder, slow=kills % 2 == 1, rng=rng)
                kills += not row["ended"]
            else:
                process = start(folder, slow=False)
                row = {"told": process.communicate()[0], "ended": process.returncode == 0, "half": False}
                assert row["ended"], row["told"]
            resumed = [line for line in row["told"].splitlines() if line.startswith("resume")]
            failed = "Traceback" in row["told"]
            rows.append({"run": runs, "ended": row["ended"], "half": row["half"], "resumed": resumed, "failed": failed})
            print(rows[-1], flush=True)
            if row["ended"]:
                ends += 1
                found = result(folder)
                differs = [key for key in expected if not equal(expected[key], found[key])]
                same += not differs
                if differs:
                    print(f"run {runs} differs in {', '.join(differs)}", flush=True)
                shutil.rmtree(folder)
                folder = None
    half, failed = sum(row["half"] for row in rows), sum(row["failed"] for row in rows)
    summary = {"kills": kills, "half written": half, "failed to load": failed, "ends": ends, "bit-equal": same}
    print(summary)
    (RESULTS / "kill.json").write_text(json.dumps({**summary, "starts": rows}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
