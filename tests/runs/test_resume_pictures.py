"""Models of pictures from pictures whose process is killed go on bit by bit, within an epoch, pool and all."""

import os
import signal

import pytest
import torch
from launching import python
from lightning import Callback
from pictures import EXTRAS, TRANSLATORS, networks
from toys import same, trainer, weights

from lit_gans.data import PairedImageDataModule, UnpairedImageDataModule
from lit_gans.runs import LastCheckpoint

STEPS, KILLED = 14, 9  # epochs of four batches
EACH = ["CycleGAN", *(name for name in TRANSLATORS if name != "CycleGAN")]


class Kill(Callback):
    """Ends this process without a word."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == KILLED:
            os.kill(os.getpid(), signal.SIGKILL)


def data(name):
    size = {"batch_size": 4, "limit": 16, "load_size": 16, "flip": True}
    if name in ("CycleGAN", "CUT"):
        return UnpairedImageDataModule("digits", task_b="invert", **size)
    tasks = {"SRGAN": {"downscale": 2}, "ESRGAN": {"downscale": 2}, "GatedInpainting": "mask"}
    tasks["ContextEncoder"] = {"mask": {"kind": "box", "place": "centre"}}
    return PairedImageDataModule("digits", task=tasks.get(name, "noise"), **size)


def fit(folder, name, *callbacks, resume=False):
    last = LastCheckpoint(str(folder), 3)
    run = trainer(folder, max_steps=STEPS, callbacks=[*callbacks, last], enable_checkpointing=True)
    model = TRANSLATORS[name](*networks(name), **EXTRAS.get(name, {}), ema_decay=0.9)
    run.fit(model, data(name), ckpt_path=str(folder / "last.ckpt") if resume else None)
    return model, run


if __name__ == "__main__":
    from pathlib import Path

    fit(Path(os.environ["FOLDER"]), os.environ["NAME"], Kill())


@pytest.mark.parametrize("name", [EACH[0], *(pytest.param(name, marks=pytest.mark.exhaustive) for name in EACH[1:])])
def test_a_killed_run_goes_on_bit_by_bit(name, tmp_path):
    torch.set_num_threads(1)
    whole, whole_run = fit(tmp_path / "whole", name)
    (tmp_path / "killed").mkdir()
    done = python(__file__, cwd=tmp_path, FOLDER=str(tmp_path / "killed"), NAME=name)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    assert torch.load(tmp_path / "killed" / "last.ckpt", weights_only=True)["global_step"] == KILLED // 3 * 3
    resumed, run = fit(tmp_path / "killed", name, resume=True)
    assert run.global_step == STEPS
    assert same(weights(whole), weights(resumed))
    assert same(dict(whole.named_buffers()), dict(resumed.named_buffers()))
    for a, b in zip(whole_run.optimizers, run.optimizers, strict=True):
        assert str(a.state_dict()) == str(b.state_dict())
    if name == "CycleGAN":
        assert int(resumed.pools[0].filled) == 3
