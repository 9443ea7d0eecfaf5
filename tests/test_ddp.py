"""Two gloo processes on the CPU, plain ``strategy="ddp"``: one launch trains them all, the tests read what it noted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning import Callback
from toys import CLASSES, LATENT, MODELS, Batches, networks, trainer

pytestmark = pytest.mark.slow  # half a minute, nearly all of it the one launch

STEPS, BATCH = 7, 4  # three batches an epoch for each rank; the seventh step comes after the last validation
RUNS = ["GAN", "GAN-accumulate", "DCGAN-norm", "WGAN", "WGANGP", "SNGAN", "CGAN", "CGAN-accumulate"]

SCRIPT = """
import sys

import torch
from lightning import Callback
from torch import nn
from toys import CLASSES, LATENT, MODELS, SIDE, networks, trainer

import lit_gans.models.wgan_gp
from lit_gans.callbacks import ReplicaCheck
from lit_gans.data import ImageDataModule

steps, batch_size, *runs = sys.argv[1:]
lit_gans.models.wgan_gp.interpolate = lambda real, fake, rng: 0.3 * real + 0.7 * fake  # as in one process


def noting(cls, notes):
    class Noting(cls):
        def draw_latents(self, n, rng):
            z = super().draw_latents(n, rng)
            if rng is self.rng and self.trainer.training:
                notes["z"].append(z)
            return z

    return Noting


class Notes(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        notes["batches"].append(batch)

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        notes["gradients"].append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])

    def on_validation_end(self, trainer, pl_module):
        notes["validated"].append([b.clone() for b in pl_module.buffers()])


for run in runs:
    name, _, option = run.partition("-")
    notes = {"z": [], "batches": [], "gradients": [], "validated": []}
    generator, discriminator = networks(name, norm=option == "norm")
    if option == "norm":
        discriminator.body.insert(1, nn.BatchNorm1d(16))
    extra = {"num_classes": CLASSES} if name == "CGAN" else {}
    model = noting(MODELS[name], notes)(
        generator, discriminator, latent_dim=LATENT, n_critic=2, accumulate=1 + (option == "accumulate"), **extra
    )
    data = ImageDataModule(
        "fake", image_size=SIDE, channels=1, batch_size=int(batch_size), fake_length=6 * int(batch_size), fake_classes=3
    )
    ddp = trainer(
        ".", devices=2, strategy="ddp", max_steps=int(steps), use_distributed_sampler=False, num_sanity_val_steps=0,
        callbacks=[Notes(), ReplicaCheck()],
    )
    ddp.fit(model, data)
    notes["parameters"] = [p.detach() for p in model.parameters()]
    notes["trained"] = [b.clone() for b in model.buffers()]
    ddp.save_checkpoint(f"{run}.ckpt")
    notes |= {"saved": list(model.buffers()), "state": (ddp.global_rank, ddp.world_size, ddp.global_step)}
    torch.save(notes | {"images_seen": model.images_seen}, f"{run}-{ddp.global_rank}.pt")
"""


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """What each rank noted in each run."""
    folder = tmp_path_factory.mktemp("ddp")
    (folder / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", str(STEPS), str(BATCH), *RUNS],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent / "support"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {run: [torch.load(folder / f"{run}-{rank}.pt", weights_only=True) for rank in (0, 1)] for run in RUNS}


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("run", RUNS)
def test_replicas_stay_equal_bit_by_bit(notes, run):
    first, second = notes[run]
    assert (first["state"], second["state"]) == ((0, 2, STEPS), (1, 2, STEPS))
    assert equal(first["parameters"], second["parameters"])
    for some, others in zip(first["gradients"], second["gradients"], strict=True):
        assert equal(some, others)


@pytest.mark.parametrize("run", RUNS)
def test_ranks_draw_different_noise_and_never_the_same_twice(notes, run):
    drawn = [tuple(z.flatten().tolist()) for note in notes[run] for z in note["z"]]
    assert len(drawn) == 2 * (STEPS + STEPS // 2)
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("run", RUNS)
def test_ranks_see_disjoint_halves_of_each_epoch(notes, run):
    for epoch in (slice(0, 3), slice(3, 6)):
        halves = [
            {tuple(image.flatten().tolist()) for x, _ in note["batches"][epoch] for image in x} for note in notes[run]
        ]
        assert [len(half) for half in halves] == [3 * BATCH, 3 * BATCH]
        assert not halves[0] & halves[1]
    assert notes[run][0]["images_seen"] == notes[run][1]["images_seen"] == 2 * BATCH * STEPS


class Replay(Callback):
    """Notes the gradients of each update."""

    def __init__(self):
        self.gradients = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append([p.grad.clone() for group in optimizer.param_groups for p in group["params"]])


@pytest.mark.parametrize("run", [run for run in RUNS if not run.endswith("norm")])
def test_gradients_equal_those_of_one_process_on_the_joint_batch(notes, run, tmp_path, monkeypatch):
    monkeypatch.setattr("lit_gans.models.wgan_gp.interpolate", lambda real, fake, rng: 0.3 * real + 0.7 * fake)
    first, second = notes[run]
    latents = iter([torch.cat(pair) for pair in zip(first["z"], second["z"], strict=True)])
    pairs = zip(first["batches"], second["batches"], strict=True)
    joint = [[torch.cat(tensors) for tensors in zip(*pair, strict=True)] for pair in pairs]
    name, replay = run.partition("-")[0], Replay()

    class Joint(MODELS[name]):
        def draw_latents(self, n, rng):
            return next(latents) if rng is self.rng else super().draw_latents(n, rng)

    extra = {"num_classes": CLASSES} if name == "CGAN" else {}
    model = Joint(*networks(name), latent_dim=LATENT, n_critic=2, **extra)
    trainer(tmp_path, max_steps=STEPS, callbacks=[replay]).fit(model, Batches(*joint))
    assert len(replay.gradients) == STEPS + STEPS // 2
    for step, (ours, theirs) in enumerate(zip(replay.gradients, first["gradients"], strict=True)):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6, msg=lambda text, step=step: f"update {step}: {text}")


def test_batch_statistics_differ_while_training_and_are_averaged_before_validation_and_saving(notes):
    first, second = notes["DCGAN-norm"]
    assert not equal(first["trained"], second["trained"])
    assert equal(first["saved"], second["saved"])
    assert len(first["validated"]) == 2
    for some, others in zip(first["validated"], second["validated"], strict=True):
        assert equal(some, others)
    for a, b, mean in zip(first["trained"], second["trained"], first["saved"], strict=True):
        torch.testing.assert_close(mean, ((a.double() + b.double()) / 2).to(a.dtype), rtol=1e-6, atol=1e-7)
