"""What two processes send and how well they scale under ``ddp`` and ``gan_ddp``: DCGAN's 64×64 networks on the CPU.

    OMP_NUM_THREADS=1 python -m benchmarks.ddp [--rounds 3] [--steps 8] [--batch 8]

Bytes are those of all gradient buckets of five steps, divided by five, as seen by a communication hook.

Weak scaling: one process with one thread takes a batch alone; then two take one each, at the same time but with nothing
to do with each other, which is what the machine itself allows; then two under each strategy. Efficiency is the time of
one step alone over that of one among two. The four follow one another in every round and medians over all rounds are
compared, so that all see the same machine. Time in which the training thread does not compute is waiting, for the other
process or for a core; time in which it computes grows when two processes share memory and caches.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from lightning import Callback, Trainer
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from lit_gans.data import ImageDataModule
from lit_gans.models import DCGAN, WGANGP
from lit_gans.networks import DCGANDiscriminator, DCGANGenerator
from lit_gans.strategies import GANDDPStrategy

RESULTS = Path(__file__).parent / "results" / "ddp.json"
STRATEGIES = ("ddp", "gan_ddp")
WARM = 2  # steps of each run that do not count; buckets are laid out anew after the first
RANK = int(os.environ.get("LOCAL_RANK", "0"))


def build(kind, **kwargs):
    torch.manual_seed(0)
    discriminator = DCGANDiscriminator(image_size=64, channels=1, norm="batch" if kind is DCGAN else "layer")
    return kind(DCGANGenerator(latent_dim=100, image_size=64, channels=1), discriminator, latent_dim=100, **kwargs)


def fit(model, batch, steps, *callbacks, **kwargs):
    data = ImageDataModule("fake", image_size=64, channels=1, batch_size=batch, fake_length=8 * batch * steps)
    Trainer(
        accelerator="cpu",
        max_steps=steps,
        logger=False,
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **kwargs,
    ).fit(model, data)


class Clock(Callback):
    """Of each step: its time, and how much of it the training thread computed, in milliseconds."""

    def __init__(self):
        self.steps = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.start = time.perf_counter(), time.thread_time()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        wall, busy = self.start
        self.steps.append(((time.perf_counter() - wall) * 1e3, (time.thread_time() - busy) * 1e3))


def count_bytes(strategy, kind, n_critic):
    """Bytes of gradients that a process hands to the others per step."""
    sent = [0]

    def hook(state, bucket):
        sent[0] += bucket.buffer().nbytes
        return allreduce_hook(None, bucket)

    class Register(Callback):
        def on_fit_start(self, trainer, pl_module):
            if strategy == "ddp":  # Lightning registers hooks on GPUs only
                trainer.strategy.model.register_comm_hook(None, hook)

    chosen = GANDDPStrategy(ddp_comm_hook=hook) if strategy == "gan_ddp" else strategy
    fit(build(kind, n_critic=n_critic), 2, 5, Register(), devices=2, strategy=chosen)
    return sent[0] // 5


def meet(name):
    """Wait for the other process without a process group, which would join what is to have nothing in common."""
    folder = Path(os.environ["BENCHMARK_FOLDER"])
    (folder / f"{name}-{RANK}").touch()
    while not (folder / f"{name}-{1 - RANK}").exists():
        time.sleep(0.05)


def time_steps(how, batch, steps):
    """(wall, busy) of each step on this process; none where it only waits for the other."""
    if how == "alone" and RANK:
        return []
    clock = Clock()
    together = {"devices": 2, "strategy": how} if how in STRATEGIES else {"devices": 1}
    fit(build(DCGAN), batch, steps + WARM, clock, **together)
    if dist.is_initialized():
        dist.destroy_process_group()
    return clock.steps[WARM:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8, help="of each run in a round")
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    os.environ.setdefault("BENCHMARK_FOLDER", tempfile.mkdtemp())  # the second process inherits it

    sent = {
        f"{kind.__name__}, n_critic={n_critic}": {how: count_bytes(how, kind, n_critic) for how in STRATEGIES}
        for kind, n_critic in ((DCGAN, 1), (WGANGP, 5))
    }
    times = {how: [] for how in ("alone", "side by side", *STRATEGIES)}
    dist.destroy_process_group()
    for turn in range(arguments.rounds):
        for how, measured in times.items():
            meet(f"{how}-{turn}")
            measured += time_steps(how, arguments.batch, arguments.steps)
    if RANK:
        return
    medians = {how: [statistics.median(column) for column in zip(*steps, strict=True)] for how, steps in times.items()}
    alone = medians["alone"]
    scaling = {
        how: {
            "step_ms": round(wall, 1),
            "busy_ms": round(busy, 1),
            "waiting_ms": round(wall - busy, 1),
            "efficiency": round(alone[0] / wall, 3),
            "of_what_the_machine_allows": round(medians["side by side"][0] / wall, 3),
        }
        for how, (wall, busy) in medians.items()
    }
    for name, by_strategy in sent.items():
        ratio = by_strategy["gan_ddp"] / by_strategy["ddp"]
        print(f"{name}: ddp {by_strategy['ddp']:,} bytes a step, gan_ddp {by_strategy['gan_ddp']:,}: {ratio:.3f}")
    print(f"\n{'':14}" + "".join(f"{column:>28}" for column in scaling["alone"]))
    for how, row in scaling.items():
        print(f"{how:14}" + "".join(f"{value:>28}" for value in row.values()))
    machine = {"torch": torch.__version__, "cores": os.cpu_count(), "load": os.getloadavg()[0]}
    result = {"arguments": vars(arguments), "machine": machine, "bytes_per_step": sent, "weak_scaling": scaling}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
