"""Time of a hand-written loop's step over that of ours: same networks, data, optimizers, blocks interleaved.

    python -m benchmarks.step [--blocks 20] [--cases w1 w2 w3 w4 stylegan2 r3gan pix2pix cyclegan ...] [--bare] [--bf16]
    python -m benchmarks.step --guard all|norms [--blocks 20] [--cases w1 w4]

Above 1 ours is faster. The model is used as it comes, with no option set; the loop is that of benchmarks.workloads, in
full precision, once with the Adam that most people write and once with torch's fused one. A callback stops the
trainer's clock after each block of steps and lets the loops run a block of their own, so all see the same machine.
Loggers and progress bar are those that ``fit`` gives every run (TensorBoard and CSV at every 50th step, bar redrawn at
every 20th); ``--bare`` leaves them out. ``--bf16`` trains ours with configs/trainer/bf16.yaml.

``--guard`` measures instead what the callbacks of configs/callbacks/guard.yaml cost, all of them or GradientNormMonitor
alone: in one run of one model they are taken out of the trainer and put in again, block by block. A block is long
enough to have its share of looks and logging steps; of snapshots every fourth has one. Here more than 1 is slower.
"""

import argparse
import copy
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import yaml
from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import lit_gans
from benchmarks.picture_workloads import PICTURE_WORKLOADS, PlainPairs
from benchmarks.workloads import WORKLOADS as GENERATIVE
from lit_gans import Guard
from lit_gans.callbacks import GameProgressBar

GUARD = Path(__file__).parents[1] / "configs" / "callbacks" / "guard.yaml"
WORKLOADS = GENERATIVE | PICTURE_WORKLOADS
BLOCKS = {  # steps, with each player's share
    **dict.fromkeys(PICTURE_WORKLOADS, 4),
    **{"w1": 3, "w2": 5, "w3": 10, "w4": 100, "stylegan2": 16, "r3gan": 4},
}
GUARD_BLOCKS = {"w1": 25, "w4": 100}


class Batches:
    """Batches of a data module's loader, again and again, each handed to the step of a plain loop."""

    def __init__(self, loop, loader):
        self.loop, self.loader, self.iterator = loop, loader, iter(())

    def step(self):
        try:
            batch = next(self.iterator)
        except StopIteration:
            self.iterator = iter(self.loader)
            batch = next(self.iterator)
        self.loop.step(batch if isinstance(self.loop, PlainPairs) else batch[0])


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
                self.times[name].append(time_of(loop, self.block))
            self.start = time.perf_counter()


def time_of(loop, steps):
    """Milliseconds per step of a plain loop, as if Lightning were not there: its import makes torch's Adam slower."""
    asks = os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    start = time.perf_counter()
    for _ in range(steps):
        loop.step()
    end = time.perf_counter()
    if asks is not None:
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = asks
    return (end - start) / steps * 1e3


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
    work, block = WORKLOADS[case], GUARD_BLOCKS[case]
    entries = yaml.safe_load(GUARD.read_text("utf-8"))["trainer"]["callbacks+"]
    guard = [getattr(lit_gans, entry["class_path"])(**entry.get("init_args", {})) for entry in entries]
    guard = [*(guard if which == "all" else guard[:1]), Guard()]
    switch = Switch(guard, block)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=block * 2 * (blocks + 1) + 1,
            logger=[TensorBoardLogger(folder, "", ""), CSVLogger(folder, "", "")],
            callbacks=[switch, *guard],
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
        ).fit(work.model(*work.build()), work.data(100))
    off, on = (switch.times[key][1:] for key in (False, True))
    ratio = statistics.median(a / b for a, b in zip(on, off, strict=False))
    print(f"\n{case}: {statistics.median(off):.2f} ms a step; with {which} of the guard over without: {ratio:.3f}")
    if which == "all":
        print(f"  two snapshots took {switch.held / 2**20:.1f} MiB of memory")


def measure(case, blocks, bare, precision, arguments):
    work, block = WORKLOADS[case], BLOCKS[case]
    generator, discriminator = work.build()
    module, plain_data = work.data(100), work.data(100)
    if hasattr(plain_data, "setup"):
        plain_data.prepare_data()
        plain_data.setup("fit")
    loader = plain_data.train_dataloader() if hasattr(plain_data, "train_dataloader") else plain_data
    loops = {
        name: Batches(work.plain(*copy.deepcopy((generator, discriminator)), fused=fused), loader)
        for name, fused in (("plain", None), ("plain, fused Adam", True))
    }
    watch = Interleave(loops, block)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=block * (blocks + 2) + 1,
            logger=False if bare else [TensorBoardLogger(folder, "", ""), CSVLogger(folder, "", "")],
            callbacks=[watch] if bare else [watch, GameProgressBar()],
            enable_progress_bar=not bare,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            precision=precision,
        ).fit(work.model(generator, discriminator, **arguments), module)
    ours, *others = (values[2:] for values in watch.times.values())
    print(f"\n{case}, {work.title}: {statistics.median(ours):.2f} ms a step, median of {len(ours)} blocks of {block}")
    for name, theirs in zip(loops, others, strict=True):
        ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(
            f"  {name} ({statistics.median(theirs):.2f} ms) over ours: {statistics.median(ratios):.3f} "
            f"(half of the blocks: {low:.3f} to {high:.3f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--cases", nargs="+", choices=WORKLOADS)
    parser.add_argument("--bare", action="store_true", help="without loggers and progress bar")
    parser.add_argument("--bf16", action="store_true", help="ours with configs/trainer/bf16.yaml")
    parser.add_argument("--set", type=yaml.safe_load, default={}, help="arguments of our models, {channels_last: true}")
    parser.add_argument("--guard", choices=["all", "norms"], help="the cost of the guard instead")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    for case in arguments.cases or (GUARD_BLOCKS if arguments.guard else WORKLOADS):
        if arguments.guard:
            measure_guard(case, arguments.blocks, arguments.guard)
        else:
            precision = "bf16-mixed" if arguments.bf16 else "32-true"
            measure(case, arguments.blocks, arguments.bare, precision, arguments.set)


if __name__ == "__main__":
    main()
