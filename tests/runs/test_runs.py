"""What happens to the folder of a run while it goes on: files that vanish, a disk that is full."""

import csv
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from lightning import Callback
from refusals import refused

from lit_gans.commands import training
from lit_gans.runs import folders, resuming

LAST = "checkpoints/last.ckpt"
SHORT = [  # a small GAN on the digits, for four steps
    *("--model", "GAN", "--model.latent_dim", "4"),
    *("--model.generator", "MLPGenerator", "--model.generator.image_size", "8", "--model.generator.latent_dim", "4"),
    *("--model.generator.widths", "[16]", "--model.discriminator", "MLPDiscriminator"),
    *("--model.discriminator.image_size", "8", "--model.discriminator.widths", "[16]"),
    *("--data.batch_size", "16", "--data.limit", "64", "--trainer.max_steps", "4"),
    *("--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"),
    *("--trainer.accelerator", "cpu"),
]
RUN = Path("runs/gan-digits/version_0")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    folders._claimed.clear()


class After(Callback):
    """Does something after so many steps."""

    def __init__(self, **acts):
        self.acts = {int(name.removeprefix("step")): act for name, act in acts.items()}

    def on_train_batch_end(self, trainer, *args):
        if act := self.acts.pop(trainer.global_step, None):
            act()


def fit(*words, **acts):
    training.run("fit", [*SHORT, *words], After(**acts))


@pytest.mark.parametrize("gone", ["config.yaml", "."])
def test_a_run_keeps_what_it_wrote_whatever_is_taken_from_it(gone):
    def remove():
        shutil.rmtree(RUN) if gone == "." else (RUN / gone).unlink()

    fit(step2=remove)
    assert torch.load(RUN / LAST, weights_only=True)["global_step"] == 4


def test_a_failed_start_leaves_no_folder_unless_somebody_wrote_into_it(capsys, monkeypatch):
    words = ("fit", *SHORT, "--data.batch_size", "2000")
    refused(capsys, *words)
    assert not RUN.exists()
    claim = resuming.claim_version

    def written(root):
        folder = claim(root)
        (folder / "notes.txt").write_text("mine")
        return folder

    monkeypatch.setattr(resuming, "claim_version", written)
    refused(capsys, *words)
    assert (RUN / "notes.txt").read_text() == "mine"


@pytest.fixture
def disk(monkeypatch):
    """Says how long files may become; no bound at the end."""
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda bound=soft: resource.setrlimit(resource.RLIMIT_FSIZE, (bound, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, old)


def test_training_goes_on_while_the_disk_is_full_and_catches_up(disk, recwarn):
    words = ("--trainer.max_steps=80", "--checkpoint_every=10", "--sample_every=10", "--trainer.val_check_interval=100")
    fit(*words, step5=lambda: disk(200), step60=disk)
    assert torch.load(RUN / LAST, weights_only=True)["global_step"] == 80
    rows = list(csv.DictReader((RUN / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows if row["train/d_loss"]] == list(range(80))
    told = [str(warning.message) for warning in recwarn]
    assert len([line for line in told if "TensorBoard" in line]) == 1
    assert len([line for line in told if "metrics.csv could not be written" in line]) == 1
    (events, *later) = sorted(RUN.glob("events.out.tfevents.*"))
    assert later, events


def test_a_disk_full_from_the_start_is_named_with_its_path(disk, capsys):
    disk(2000)  # too short for a config
    try:
        message = refused(capsys, "fit", *SHORT)
    finally:
        disk()
    assert "version_0" in message
