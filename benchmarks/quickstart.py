"""Does a shipped config draw digits? Judged by classifiers that saw only real images.

    python -m benchmarks.quickstart [--data digits|mnist] [--root DIR] [--seeds 0 1 2]

Trains configs/quickstart.yaml, or configs/dcgan/mnist.yaml for two epochs (``--root``: the folder that holds MNIST),
through the command line, draws 1,000 samples from ``last.ckpt`` through it, too, and asks classifiers of several kinds,
trained on the real training images. Bars, for each classifier and each seed:

- sure: share of samples with a class of probability 0.9 or more, over that share of held-out real images: 0.8
- rarest class: its share of the samples: 0.03
- distance: mean Euclidean distance of pairs of samples, over that of pairs of held-out images: 0.85

No bar, but told: ``as asked``, the share of samples read as the label they were drawn for; ``within class``, the
distance of pairs of the same class alone; ``nearest``, the median distance from a sample to the nearest training image,
over that from a held-out image (0 would be copies). Seconds are those of the whole ``fit`` command, the start of Python
included. The first seed's samples become benchmarks/results/<name>.png, the
numbers <name>.json; exit code 1 if a bar is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC
from torch import nn

from lit_gans.data import ImageDataModule

RESULTS = Path(__file__).parent / "results"
CASES = {
    "digits": {"name": "quickstart", "config": "configs/quickstart.yaml", "words": (), "zoom": 4},
    "mnist": {"name": "dcgan_mnist", "config": "configs/dcgan/mnist.yaml", "words": ("--trainer.max_epochs", "2")},
}
BARS = {"sure": 0.8, "rarest class": 0.03, "distance": 0.85}
COLUMNS = (*BARS, "within class", "as asked")
SAMPLES = 1000


class ConvNet:
    """A small convolutional classifier with scikit-learn's two methods."""

    def __init__(self, epochs):
        self.epochs = epochs

    def fit(self, x, y):
        torch.manual_seed(0)
        size = round(x.shape[1] ** 0.5)
        self.net = nn.Sequential(
            nn.Unflatten(1, (1, size, size)),
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25)),
            *(nn.Linear(32 * (size // 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 10)),
        )
        x, y = torch.from_numpy(x), torch.from_numpy(y)
        optimizer = torch.optim.Adam(self.net.parameters(), lr=2e-3)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                F.cross_entropy(self.net(x[rows]), y[rows]).backward()
                optimizer.step()
        self.net.eval()
        return self

    @torch.no_grad()
    def predict_proba(self, x):
        return self.net(torch.from_numpy(x)).softmax(1).numpy()


def judges(data):
    """Untrained classifiers, and how many training images each gets: the slow ones not all 60,000 of MNIST."""
    yield "convolutional net", ConvNet(epochs=30 if data == "digits" else 2), None
    yield "MLP", MLPClassifier((100,), max_iter=400 if data == "digits" else 5, random_state=0), None
    yield "logistic regression", LogisticRegression(max_iter=2000 if data == "digits" else 50), 20000
    yield "nearest neighbours", KNeighborsClassifier(10), 10000
    yield "random forest", RandomForestClassifier(300, random_state=0), 10000
    if data == "digits":
        yield "SVM", CalibratedClassifierCV(SVC(C=10), ensemble=False), None


def pixels(images):
    """Images of any shape, uint8 → rows in [0, 1]."""
    return np.asarray(images, np.float32).reshape(len(images), -1) / 255


def real(data, root, train):
    """Rows and labels of a split."""
    source = ImageDataModule(data, root=root or "data", download=False).open("train" if train else "test")
    return pixels(source.images(torch.arange(len(source)))), source.labels.numpy()


def spread(x):
    """Mean distance of pairs among at most the first thousand rows."""
    return torch.pdist(torch.from_numpy(x[:1000])).mean().item()


def spread_within(x, labels):
    """The same among images of one class, mean over the classes."""
    return np.mean([spread(x[labels == label]) for label in range(10)])


def nearest(x, others):
    """Median distance to the nearest of others."""
    return torch.cdist(torch.from_numpy(x[:1000]), torch.from_numpy(others)).min(1).values.median().item()


def lit_gans(*words):
    done = subprocess.run([sys.executable, "-m", "lit_gans", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def train_and_draw(case, data, root, seed):
    """Seconds of training, 1,000 samples, and the labels they were drawn for (None without)."""
    with tempfile.TemporaryDirectory() as folder:
        words = [*case["words"], "--seed_everything", seed, "--trainer.default_root_dir", folder]
        words += ["--trainer.enable_progress_bar", "false"]
        words += ["--data.root", root, "--data.download", "false"] if root else []
        start = time.perf_counter()
        lit_gans("fit", "--config", case["config"], *words)
        seconds = time.perf_counter() - start
        (checkpoint,) = Path(folder).rglob("last.ckpt")
        lit_gans("sample", checkpoint, "-n", SAMPLES, "--seed", 0, "-o", Path(folder) / "samples.npz")
        with np.load(Path(folder) / "samples.npz") as arrays:
            return seconds, arrays["images"], arrays.get("labels")


def draw(images, labels, path, zoom=1):
    """A grid of 64 samples, or of as many columns as there are classes, one a column."""
    columns = [range(n, 64, 8) for n in range(8)]
    if labels is not None:
        columns = [np.flatnonzero(labels == label)[:7] for label in np.unique(labels)]
    pad = ((1, 1), (1, 1), (0, 0))
    grid = np.hstack([np.vstack([np.pad(images[n], pad) for n in column]) for column in columns])
    Image.fromarray(grid.squeeze(-1).repeat(zoom, 0).repeat(zoom, 1)).save(path, optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=CASES, default="digits")
    parser.add_argument("--root", type=Path, help="folder that holds the data set (digits need none)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=ConvergenceWarning)  # good enough for a judge
    case = CASES[options.data]
    (train_x, train_y), (test_x, test_y) = (real(options.data, options.root, train) for train in (True, False))
    panel = {}
    for name, judge, limit in judges(options.data):
        judge.fit(train_x[:limit], train_y[:limit])
        belief = judge.predict_proba(test_x)
        panel[name] = judge, (belief.max(1) >= 0.9).mean()
        accuracy = (belief.argmax(1) == test_y).mean()
        print(f"{name}: {accuracy:.1%} right on held-out images, sure of {panel[name][1]:.1%}", flush=True)
    real_spread, real_within, real_nearest = spread(test_x), spread_within(test_x, test_y), nearest(test_x, train_x)
    rows, runs = [], []
    print(f"\nseed {'judge':20}{''.join(f'{column:>14}' for column in COLUMNS)}", flush=True)
    for seed in options.seeds:
        seconds, images, labels = train_and_draw(case, options.data, options.root, seed)
        if seed == options.seeds[0]:
            RESULTS.mkdir(exist_ok=True)
            draw(images, labels, RESULTS / f"{case['name']}.png", case.get("zoom", 1))
        x = pixels(images)
        distance = spread(x) / real_spread
        run = {"seed": seed, "seconds": round(seconds), "nearest": round(nearest(x, train_x) / real_nearest, 2)}
        for name, (judge, real_sure) in panel.items():
            belief = judge.predict_proba(x)
            shares = np.bincount(belief.argmax(1), minlength=10) / SAMPLES
            sure = (belief.max(1) >= 0.9).mean() / real_sure
            values = {"sure": sure, "rarest class": shares.min(), "distance": distance}
            passed = all(values[key] >= bar for key, bar in BARS.items())
            values["within class"] = spread_within(x, belief.argmax(1)) / real_within
            if labels is not None:
                values["as asked"] = (belief.argmax(1) == labels).mean()
            values = {key: round(float(value), 3) for key, value in values.items()}
            rows.append({"seed": seed, "judge": name, **values, "pass": passed})
            cells = "".join(f"{values.get(key, ''):>14}" for key in COLUMNS)
            print(f"{seed:<4} {name:20}{cells}  {'pass' if passed else 'FAIL'}", flush=True)
        runs.append(run)
        print(f"{seed:<4} {run['seconds']} s; nearest {run['nearest']}", flush=True)
    print(f"{'bar':25}{''.join(f'{BARS[key]:>14}' for key in BARS)}")
    threads = os.environ.get("OMP_NUM_THREADS")
    result = {
        "command": f"{f'OMP_NUM_THREADS={threads} ' if threads else ''}python -m benchmarks.quickstart"
        f" --data {options.data}{' --root DIR' if options.root else ''} --seeds {' '.join(map(str, options.seeds))}",
        "torch": torch.__version__,
        "bars": BARS,
        "runs": runs,
        "judges": rows,
    }
    (RESULTS / f"{case['name']}.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(row["pass"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
