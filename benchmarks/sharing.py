"""Time of a training step whose terms share forward passes over one whose terms each have their own.

    python -m benchmarks.sharing [--blocks 8] [--output benchmarks/results/sharing.json]

DCGAN's networks for 32 × 32 images, without batch norm; blocks of two steps, interleaved.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning import Callback, Trainer

from lit_gans.data import ImageDataModule
from lit_gans.game import loop
from lit_gans.models import GAN, R3GAN
from lit_gans.networks import DCGANDiscriminator, DCGANGenerator
from lit_gans.regularizers import R1, R2, LeCam

GAMES = {
    "R3GAN": lambda *networks: R3GAN(*networks),
    "GAN + LeCam": lambda *networks: GAN(*networks, regularizers=[LeCam()]),
    "GAN + R1": lambda *networks: GAN(*networks, regularizers=[R1(0.1)]),
    "GAN + R1 + R2 + LeCam": lambda *networks: GAN(*networks, regularizers=[R1(0.1), R2(0.1), LeCam()]),
}
BLOCK = 2
SHARED = loop.playing_round


@contextmanager
def apart(model, player, penalties, real, fake):
    """Every term pays its own forward passes."""
    yield real, fake


class Exchange(Callback):
    """Shares in one block of steps and not in the next; seconds per step of each."""

    def __init__(self):
        self.ways, self.times = {"shared": SHARED, "apart": apart}, {"shared": [], "apart": []}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step % BLOCK:
            return
        now, turn = time.perf_counter(), trainer.global_step // BLOCK
        if turn:
            self.times[list(self.ways)[(turn - 1) % 2]].append((now - self.start) / BLOCK)
        loop.playing_round = self.ways[list(self.ways)[turn % 2]]
        self.start = time.perf_counter()


def measure(name, blocks):
    torch.manual_seed(0)
    shape, exchange = {"image_size": 32, "channels": 3}, Exchange()
    model = GAMES[name](DCGANGenerator(latent_dim=128, norm=None, **shape), DCGANDiscriminator(norm=None, **shape))
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=2 * BLOCK * (blocks + 1) + 1,
            logger=False,
            callbacks=[exchange],
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            default_root_dir=folder,
        ).fit(model, ImageDataModule("fake", image_size=32, channels=3, batch_size=64, fake_length=1280))
    loop.playing_round = SHARED
    shared, alone = (statistics.median(exchange.times[way][1:]) for way in ("shared", "apart"))  # the first warms up
    row = {"game": name, "shared_ms": round(shared * 1e3), "apart_ms": round(alone * 1e3)}
    row["ratio"] = round(shared / alone, 3)
    print(f"{name:24}{row['shared_ms']:6} ms a step, over {row['apart_ms']} ms apart: {row['ratio']:.3f}", flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=8, help="blocks of each way, of which the median counts")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = [measure(name, options.blocks) for name in GAMES]
    if options.output:
        command, threads = f"python -m benchmarks.sharing --blocks {options.blocks}", torch.get_num_threads()
        result = {"command": command, "threads": threads, "torch": torch.__version__, "rows": rows}
        options.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
