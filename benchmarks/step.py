"""Time of a training step over that of a hand-written loop: same networks, data, optimizers, blocks interleaved.

    python -m benchmarks.step [--blocks 20] [--cases mlp dcgan64] [--bare]
    python -m benchmarks.step --guard all|norms [--blocks 20] [--cases mlp dcgan64]

A callback stops the trainer's clock after each block of steps and lets the plain loop run a block of its own, so both
see the same machine. Loggers and progress bar are those that ``fit`` gives every run (TensorBoard and CSV at every 50th
step, bar redrawn at every 20th); ``--bare`` leaves them out.

``--guard`` measures instead what the callbacks of configs/callbacks/guard.yaml cost, all of them or GradientNormMonitor
alone: in one run of one model they are taken out of the trainer and put in again, block by block. A block is long
enough to have its share of looks and logging steps; of snapshots every fourth has one.
"""

import argparse
import copy
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
import yaml
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import lit_gans
from lit_gans import Guard
from lit_gans.callbacks import GameProgressBar
from lit_gans.data import ImageDataModule
from lit_gans.models import GAN
from lit_gans.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator

GUARD = Path(__file__).parents[1] / "configs" / "callbacks" / "guard.yaml"
CASES = {
    "mlp": {"image_size": 28, "batch": 64, "block": 100, "guard_block": 100, "latent_dim": 64},
    "dcgan64": {"image_size": 64, "batch": 32, "block": 4, "guard_block": 25, "latent_dim": 100},
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


class Switch(Callback):
    """Takes callbacks out of the trainer and puts them in again, block by block."""

    def __init__(self, callbacks, block):
        self.switched, self.block = callbacks, block
        self.times = {False: [], True: []}

    def on_train_start(self, trainer, pl_module):
        self.on = True
        self.flip(trainer)

    def flip(self, trainer):
        self.on = not self.on
        others = [callback for callback in trainer.callbacks if callback not in self.switched]
        trainer.callbacks = [*others, *self.switched] if self.on else others
        self.start = time.perf_counter()

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step and trainer.global_step % self.block == 0:
            self.times[self.on].append((time.perf_counter() - self.start) / self.block * 1e3)
            self.flip(trainer)

    def on_train_end(self, trainer, pl_module):
        self.held = sum(self.switched[-1].snapshots.sizes)


def measure_guard(case, blocks, which):
    settings = CASES[case]
    entries = yaml.safe_load(GUARD.read_text("utf-8"))["trainer"]["callbacks+"]
    guard = [getattr(lit_gans, entry["class_path"])(**entry.get("init_args", {})) for entry in entries]
    guard = [*(guard if which == "all" else guard[:1]), Guard()]
    switch = Switch(guard, settings["guard_block"])
    data = ImageDataModule(
        "fake", image_size=settings["image_size"], channels=1, batch_size=settings["batch"], fake_length=6400
    )
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=settings["guard_block"] * 2 * (blocks + 1) + 1,
            logger=[TensorBoardLogger(folder, "", ""), CSVLogger(folder, "", "")],
            callbacks=[switch, *guard],
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
        ).fit(GAN(*build(case), latent_dim=settings["latent_dim"]), data)
    off, on = (switch.times[key][1:] for key in (False, True))
    ratio = statistics.median(a / b for a, b in zip(on, off, strict=False))
    print(f"\n{case}: {statistics.median(off):.2f} ms a step; with {which} of the guard over without: {ratio:.3f}")
    if which == "all":
        print(f"  two snapshots took {switch.held / 2**20:.1f} MiB of memory")


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
    parser.add_argument("--guard", choices=["all", "norms"], help="the cost of the guard instead")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for case in arguments.cases:
        if arguments.guard:
            measure_guard(case, arguments.blocks, arguments.guard)
        else:
            measure(case, arguments.blocks, arguments.bare)


if __name__ == "__main__":
    main()
