"""Time of a training step with an augmentation over that without: DCGAN on 32 × 32 images, blocks interleaved.

    python -m benchmarks.augment [--blocks 15] [--p 0.0 0.2 1.0] [--output benchmarks/results/augment.json]

One trainer runs one model; after each block of steps the augmentation is exchanged, so all see the same machine. ADA is
measured with the groups it has by default, at each p.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
from lightning import Callback, Trainer

from lit_gans import DCGAN
from lit_gans.augment import ADA, DiffAugment
from lit_gans.data import ImageDataModule
from lit_gans.networks import DCGANDiscriminator, DCGANGenerator

BAR = 1.15  # of DiffAugment
BATCH, BLOCK = 64, 2


class Exchange(Callback):
    """Gives the model one augmentation after another, a block of steps each; times per step in milliseconds."""

    def __init__(self, augmentations):
        self.augmentations = augmentations
        self.times = {name: [] for name in augmentations}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step % BLOCK:
            return
        now, names = time.perf_counter(), list(self.augmentations)
        turn = trainer.global_step // BLOCK
        if turn:
            self.times[names[(turn - 1) % len(names)]].append((now - self.start) / BLOCK * 1e3)
        pl_module.augment = self.augmentations[names[turn % len(names)]]
        self.start = time.perf_counter()


def measure(blocks, strengths):
    torch.manual_seed(0)
    augmentations = {"none": None, "diffaugment": DiffAugment()}
    augmentations |= {f"ada, p = {p:g}": ADA(p=p, kimg=1e9, every=10**9) for p in strengths}
    exchange = Exchange(augmentations)
    networks = (
        DCGANGenerator(image_size=32, channels=3, latent_dim=100),
        DCGANDiscriminator(image_size=32, channels=3),
    )
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=BLOCK * len(augmentations) * (blocks + 1) + 1,
            logger=False,
            callbacks=[exchange],
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=folder,
        ).fit(
            DCGAN(*networks, latent_dim=100, augment=torch.nn.Identity()),
            ImageDataModule("fake", image_size=32, channels=3, batch_size=BATCH, fake_length=1280),
        )
    times = {name: values[1:] for name, values in exchange.times.items()}  # the first block warms up
    plain = statistics.median(times["none"])
    for name, values in times.items():
        step = statistics.median(values)
        row = {"augment": name, "step_ms": round(step, 1), "ratio": round(step / plain, 3)}
        print(f"{name:14}{row['step_ms']:8.1f} ms a step, over none: {row['ratio']:.3f}", flush=True)
        yield row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=15, help="blocks of each, of which the median counts")
    parser.add_argument("--p", type=float, nargs="+", default=[0.0, 0.2, 1.0], help="ADA's probabilities")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = list(measure(options.blocks, options.p))
    result = {
        "command": f"python -m benchmarks.augment --blocks {options.blocks} --p {' '.join(map(str, options.p))}",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "bar": BAR,
        "rows": rows,
    }
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if rows[1]["ratio"] <= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
