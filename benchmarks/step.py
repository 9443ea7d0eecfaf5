"""Time of a training step over that of a hand-written loop: same networks, data, optimizers, blocks interleaved.

    python -m benchmarks.step [--blocks 20] [--cases mlp dcgan64] [--bare]

A callback stops the trainer's clock after each block of steps and lets the plain loop run a block of its own, so both
see the same machine. Loggers and progress bar are those that ``fit`` gives every run (TensorBoard and CSV at every 50th
step, bar redrawn at every 20th); ``--bare`` leaves them out.
"""

import argparse
import copy
import statistics
import tempfile
import time
import warnings

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lit_gans.callbacks import GameProgressBar
from lit_gans.data import ImageDataModule
from lit_gans.models import GAN
from lit_gans.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator

CASES = {
    "mlp": {"image_size": 28, "batch": 64, "block": 100, "latent_dim": 64},
    "dcgan64": {"image_size": 64, "batch": 32, "block": 4, "latent_dim": 100},
}


def build(case):
    size, latent = CASES[case]["image_size"], CASES[case]["latent_dim"]
    torch.manual_seed(0)
    if case == "mlp":
        widths = {"widths": (128, 128)}
        return (
            MLPGenerator(latent_dim=latent, image_size=size, channels=1, **widths),
            MLPDiscriminator(image_size=size, channels=1, **widths),
        )
    return (
        DCGANGenerator(latent_dim=latent, image_size=size, channels=1),
        DCGANDiscriminator(image_size=size, channels=1),
    )


class PlainLoop:
    """What one would write by hand."""

    def __init__(self, generator, discriminator, batches, latent_dim, fused):
        self.g, self.d, self.batches, self.latent_dim = generator, discriminator, batches, latent_dim
        self.g_opt = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=fused)
        self.d_opt = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=fused)
        self.iterator = iter(())

    def step(self):
        try:
            real = next(self.iterator)[0]
        except StopIteration:
            self.iterator = iter(self.batches)
            real = next(self.iterator)[0]
        with torch.no_grad():
            fake = self.g(torch.randn(len(real), self.latent_dim))
        self.d_opt.zero_grad()
        (F.softplus(-self.d(real)).mean() + F.softplus(self.d(fake)).mean()).backward()
        self.d_opt.step()
        for parameter in self.d.parameters():
            parameter.requires_grad_(False)
        self.g_opt.zero_grad()
        F.softplus(-self.d(self.g(torch.randn(len(real), self.latent_dim)))).mean().backward()
        self.g_opt.step()
        for parameter in self.d.parameters():
            parameter.requires_grad_(True)


class Interleave(Callback):
    """After each block of the trainer's, a block of each plain loop; times per step in milliseconds."""

    def __init__(self, loops, block):
        self.loops, self.block = loops, block
        self.times = {name: [] for name in ("lit_gans", *loops)}

    def on_train_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step and trainer.global_step % self.block == 0:
            self.times["lit_gans"].append((time.perf_counter() - self.start) / self.block * 1e3)
            for name, loop in self.loops.items():
                start = time.perf_counter()
                for _ in range(self.block):
                    loop.step()
                self.times[name].append((time.perf_counter() - start) / self.block * 1e3)
            self.start = time.perf_counter()


def measure(case, blocks, bare):
    settings = CASES[case]
    generator, discriminator = build(case)
    data = {"dataset": "fake", "image_size": settings["image_size"], "channels": 1, "batch_size": settings["batch"]}
    module, plain_data = ImageDataModule(**data), ImageDataModule(**data)
    plain_data.prepare_data()
    plain_data.setup("fit")
    loops = {
        name: PlainLoop(
            *copy.deepcopy((generator, discriminator)), plain_data.train_dataloader(), settings["latent_dim"], fused
        )
        for name, fused in (("plain, fused Adam", True), ("plain, default Adam", None))
    }
    watch = Interleave(loops, settings["block"])
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=settings["block"] * (blocks + 2) + 1,
            logger=False if bare else [TensorBoardLogger(folder, "", ""), CSVLogger(folder, "", "")],
            callbacks=[watch] if bare else [watch, GameProgressBar()],
            enable_progress_bar=not bare,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
        ).fit(GAN(generator, discriminator, latent_dim=settings["latent_dim"]), module)
    ours, *others = (values[2:] for values in watch.times.values())
    print(f"\n{case}: {statistics.median(ours):.2f} ms a step, median of {len(ours)} blocks of {settings['block']}")
    for name, theirs in zip(loops, others, strict=True):
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        print(f"  over {name} ({statistics.median(theirs):.2f} ms): {ratio:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--bare", action="store_true", help="without loggers and progress bar")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for case in arguments.cases:
        measure(case, arguments.blocks, arguments.bare)


if __name__ == "__main__":
    main()
