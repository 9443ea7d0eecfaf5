"""Images per second of ImageDataModule against the customary DataLoader over a torchvision data set.

    python benchmarks/data.py [--root DIR] [--batches 100] [--rounds 5] [--output benchmarks/results/data.json]

Both run in one process (num_workers=0) and take turns, so that the ratio holds on a busy machine, too. The customary
pipeline is ToTensor and Normalize(0.5, 0.5), with RandomHorizontalFlip for flips. Without ``--root`` (a folder with the
official MNIST and CIFAR-10), files of the same form with random pixels are made. The bar is a ratio of 10.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import pickle
import statistics
import struct
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import torchvision
from torch.utils.data import DataLoader
from torchvision import transforms

from lit_gans.data import ImageDataModule

BATCH = 64
BAR = 10
DATA_SETS = {"mnist": torchvision.datasets.MNIST, "cifar10": torchvision.datasets.CIFAR10}


def make_files(root):
    """Write files of the form of MNIST and CIFAR-10, with random pixels, below ``root``."""
    rng = np.random.default_rng(0)
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, n in (("train", 60000), ("t10k", 10000)):
        images = rng.integers(0, 256, (n, 28, 28), np.uint8)
        (raw / f"{split}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, n, 28, 28) + images.tobytes())
        labels = rng.integers(0, 10, n, np.uint8)
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, n) + labels.tobytes())
    base = root / "cifar-10-batches-py"
    base.mkdir()
    for name in [*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]:
        batch = {"data": rng.integers(0, 256, (10000, 3072), np.uint8), "labels": rng.integers(0, 10, 10000).tolist()}
        (base / name).write_bytes(pickle.dumps(batch))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


@contextlib.contextmanager
def sums_of(root):
    """Let torchvision take the made files for the official ones."""

    def md5(name):
        return hashlib.md5((root / "cifar-10-batches-py" / name).read_bytes()).hexdigest()

    cifar = torchvision.datasets.CIFAR10
    lists = {key: [[name, md5(name)] for name, _ in getattr(cifar, key)] for key in ("train_list", "test_list")}
    meta = {**cifar.meta, "md5": md5("batches.meta")}
    with mock.patch.multiple(cifar, meta=meta, **lists):
        yield


def customary(name, root, flip):
    steps = [transforms.RandomHorizontalFlip()] * flip + [transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    data = DATA_SETS[name](root, transform=transforms.Compose(steps))
    return DataLoader(data, batch_size=BATCH, shuffle=True, drop_last=True)


def ours(name, root, flip):
    return ImageDataModule(name, root=root, batch_size=BATCH, flip=flip, download=False).train_dataloader()


def rate(loader, batches):
    """Images per second, the start of the pass included."""
    start = time.perf_counter()
    images = sum(len(images) for images, _ in itertools.islice(loader, batches))
    return images / (time.perf_counter() - start)


def compare(root, batches, rounds):
    for name, flip in itertools.product(DATA_SETS, (False, True)):
        loaders = {"customary": customary(name, root, flip), "ours": ours(name, root, flip)}
        rates = {who: [] for who in loaders}
        for _ in range(rounds):
            for who, loader in loaders.items():
                rates[who].append(rate(loader, batches))
        ratios = [a / b for a, b in zip(rates["ours"], rates["customary"], strict=True)]
        row = {
            "dataset": name,
            "flip": flip,
            **{who: round(statistics.median(values)) for who, values in rates.items()},
            "ratio": round(statistics.median(ratios), 1),
            "lowest_ratio": round(min(ratios), 1),
        }
        flips = "flips" if flip else "plain"
        print(f"{name:8} {flips}: {row['customary']:7,} -> {row['ours']:9,} images/s, ratio {row['ratio']}", flush=True)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder with the official files (default: files are made)")
    parser.add_argument("--batches", type=int, default=100, help="batches of 64 images a round (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, of which the median counts (default: 5)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        root = options.root
        if root is None:
            root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            make_files(root)
            stack.enter_context(sums_of(root))
        rows = list(compare(root, options.batches, options.rounds))
    result = {
        "command": f"python benchmarks/data.py --batches {options.batches} --rounds {options.rounds}"
        + (" --root DIR" if options.root else ""),
        "files": "official" if options.root else "made",
        "torch": torch.__version__,
        "bar": BAR,
        "rows": rows,
    }
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(row["ratio"] >= BAR for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
