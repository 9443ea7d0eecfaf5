"""Two gloo processes that train each model of pictures from pictures: one launch, of which the tests read the notes."""

from contextlib import contextmanager

import pytest
import torch
from launching import ranks
from lightning import Callback
from pictures import TRANSLATORS, build, pairs
from toys import Batches, trainer

from lit_gans.models import CUT

pytestmark = pytest.mark.slow

STEPS, BATCH = 3, 2
EACH = [("gan_ddp", name) for name in TRANSLATORS] + [("ddp", "Pix2Pix"), ("ddp", "CycleGAN")]


def affine(self, x):
    return x * self.weight[:, None, None] + self.bias[:, None, None]


@contextmanager
def still():
    """Without dropout, with batch norm of constants, and with fixed places: two processes draw other than one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CUT, "draw_places", lambda self, x: torch.arange(9))
        patch.setattr(torch.nn.Dropout, "forward", lambda self, x: x)
        patch.setattr(torch.nn.BatchNorm2d, "forward", affine)
        yield


class Notes(Callback):
    def __init__(self):
        self.gradients = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append(
            [p.grad.clone() for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
        )


def batches(name, rank=None):
    """Batches of one rank, or of both together, one after the other."""
    source, target = pairs(name, 2 * STEPS * BATCH)
    joint = zip(source.double().split(2 * BATCH), target.double().split(2 * BATCH), strict=True)
    rows = slice(None) if rank is None else slice(rank * BATCH, (rank + 1) * BATCH)
    return Batches(*[(s[rows], t[rows]) for s, t in joint])


def train(name, rank=None, **kwargs):
    unfilled = {"pool": 50} if name == "CycleGAN" else {}  # from a full one, two processes draw other than one
    notes, model = Notes(), build(name, **unfilled).double()
    run = trainer(".", max_steps=STEPS, callbacks=[notes], precision="64-true", use_distributed_sampler=False, **kwargs)
    run.fit(model, batches(name, run.global_rank if rank is None else None))
    return notes.gradients, model


if __name__ == "__main__":
    with still():
        for strategy, name in EACH:
            gradients, model = train(name, devices=2, strategy=strategy)
            kept = {"gradients": gradients, "parameters": [p.detach() for p in model.parameters()]}
            torch.save(kept, f"{strategy}-{name}-{model.global_rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    done = ranks(__file__, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize(("strategy", "name"), EACH)
def test_two_processes_equal_one_on_the_joint_batch(strategy, name, folder):
    first, second = (torch.load(folder / f"{strategy}-{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first["parameters"], second["parameters"], strict=True))
    with still():
        alone, _ = train(name, rank=0, devices=1)
    assert len(alone) == len(first["gradients"]) == 2 * STEPS
    for ours, theirs in zip(first["gradients"], alone, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-6)
