"""How the metrics go while a GAN learns to draw digits.

    python -m benchmarks.mnist_metrics --root DIR [--seeds 0 1 2] [--steps 3000]

Trains configs/dcgan/mnist.yaml through the command line, once for each seed (of the networks, the latents and the
order of the images), and measures ten times in a run, with the callback ``GenerativeMetrics``: 5,000 samples of the
averaged generator, with the same latents each time, against the first 10,000 training images, seen through the
extractor ``mnist``. Black lines are what 5,000 held-out images score in the place of samples.

Writes the values to benchmarks/results/mnist_metrics.json and their curves to mnist_metrics.png, and prints best and
last of each, means and standard deviations over the seeds. Seconds are those of the whole ``fit`` command.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure

from lit_gans.data import ImageDataModule
from lit_gans.metrics import Evaluation, Protocol, load_extractor, real_statistics
from lit_gans.metrics.evaluation import HIGHER_IS_BETTER
from lit_gans.metrics.reference import BLOCK

RESULTS = Path(__file__).parent / "results"
CONFIG = "configs/dcgan/mnist.yaml"
METRICS = ["fd", "is", "kid", "pr", "classes"]
PROTOCOL = {"reals": 10_000, "fakes": 5_000}
PANELS = (
    ("Fréchet distance, fd_mnist", "fd_mnist"),
    ("Inception score of the classifier", "is"),
    ("kernel distance", "kid"),
    ("precision and recall", "precision", "recall"),
    ("density and coverage", "density", "coverage"),
    ("confidence of the classifier", "confidence"),
)
NAMES = tuple(name for _, *names in PANELS for name in names)


def callback(steps):
    """A config to lay over the shipped one."""
    init_args = {"metrics": METRICS, "extractor": "mnist", "protocol": PROTOCOL, "every_n_steps": max(1, steps // 10)}
    return {"trainer": {"callbacks": [{"class_path": "GenerativeMetrics", "init_args": init_args}]}}


def train(root, seed, steps):
    """Seconds, steps and values of each measurement of a run."""
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "callback.yaml"
        overlay.write_text(json.dumps(callback(steps)))
        words = ["--config", CONFIG, "--config", overlay, "--seed_everything", seed, "--data.seed", seed]
        words += ["--data.root", root, "--data.download", "false", "--trainer.max_steps", steps]
        words += ["--trainer.default_root_dir", Path(folder) / "runs", "--trainer.enable_progress_bar", "false"]
        start = time.perf_counter()
        command = [sys.executable, "-m", "lit_gans", "fit", *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds = time.perf_counter() - start
        (path,) = Path(folder).rglob("metrics.csv")
        with path.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["val/fd_mnist"]]
    values = {name: [float(f"{float(row[f'val/{name}']):.5g}") for row in rows] for name in NAMES}
    return {"seed": seed, "seconds": round(seconds), "step": [int(row["step"]) + 1 for row in rows], **values}


def score_real(root):
    """What held-out images score."""
    data, extractor, protocol = ImageDataModule("mnist", root=root, download=False), load_extractor("mnist"), Protocol()
    protocol = protocol.changed(**PROTOCOL)
    reference = real_statistics(
        lambda: data.open("train"), extractor, data.describe("train"), reals=protocol.reals, keep_features=True
    )
    held_out = data.open("test")

    def block(number):
        return held_out.images(torch.arange(number * BLOCK, (number + 1) * BLOCK))

    result = Evaluation(METRICS, extractor, protocol).measure(lambda seed: block, reference, torch.device("cpu"))
    return {name: float(f"{result.metrics[name]:.5g}") for name in NAMES}


def best(name, values):
    return (max if name in HIGHER_IS_BETTER else min)(values)


def draw(runs, real, path):
    """A panel for each metric, a line for each seed."""
    figure = Figure((13, 7), layout="constrained")
    for panel, (title, *names) in zip(figure.subplots(2, 3).flat, PANELS, strict=True):
        for name, style, marker in zip(names, ("-", ":"), ("o", "s"), strict=False):
            for number, run in enumerate(runs):
                label = f"{name}, seed {run['seed']}" if len(names) > 1 else f"seed {run['seed']}"
                panel.plot(run["step"], run[name], f"C{number}{style}{marker}", markersize=4, label=label)
            panel.axhline(real[name], color="black", linestyle=style, linewidth=0.8)
        panel.set(
            title=title, xlabel="step", xlim=(0, None), yscale="log" if names[0] in ("fd_mnist", "kid") else "linear"
        )
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8, ncols=len(names))
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})


def over_seeds(values):
    spread = f" ± {statistics.stdev(values):.3g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4g}{spread}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder that holds MNIST")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=3000)
    options = parser.parse_args()
    real = score_real(options.root)
    runs = []
    for seed in options.seeds:
        runs.append(train(options.root, seed, options.steps))
        print(f"seed {seed}: {runs[-1]['seconds']} s, last fd_mnist {runs[-1]['fd_mnist'][-1]}", flush=True)
    draw(runs, real, RESULTS / "mnist_metrics.png")
    print(f"\n{'':12}{'best':>20}{'last':>20}{'held-out images':>20}")
    for name in NAMES:
        cells = over_seeds([best(name, run[name]) for run in runs]), over_seeds([run[name][-1] for run in runs])
        print(f"{name:12}{cells[0]:>20}{cells[1]:>20}{real[name]:>20.4g}")
    threads = os.environ.get("OMP_NUM_THREADS")
    result = {
        "command": f"{f'OMP_NUM_THREADS={threads} ' if threads else ''}python -m benchmarks.mnist_metrics --root DIR"
        f" --seeds {' '.join(map(str, options.seeds))} --steps {options.steps}",
        "torch": torch.__version__,
        "extractor": load_extractor("mnist").describe(),
        "protocol": PROTOCOL,
        "held-out images": real,
        "runs": runs,
    }
    (RESULTS / "mnist_metrics.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
