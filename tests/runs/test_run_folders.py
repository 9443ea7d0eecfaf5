"""A run folder stands for its best or last checkpoint, and a checkpoint brings its model and data."""

import shutil
import sys

import pytest
import torch
import yaml
from launching import python

import lit_gans
from lit_gans.cli import main

QUIET = ["--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
QUIET += ["--trainer.limit_val_batches=1"]
CONFIG = """
model:
  class_path: LSGAN
  init_args:
    generator: {class_path: MLPGenerator, init_args: {image_size: 8, channels: 1, latent_dim: 4, widths: [8]}}
    discriminator: {class_path: MLPDiscriminator, init_args: {image_size: 8, channels: 1, widths: [8]}}
    latent_dim: 4
    ema_decay: 0.5
data: {dataset: digits, batch_size: 16, limit: 64}
trainer: {max_steps: 2}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    (folder / "lsgan.yaml").write_text(CONFIG)
    main(["fit", "--config", str(folder / "lsgan.yaml"), "--trainer.default_root_dir", str(folder / "runs"), *QUIET])
    (found,) = folder.glob("runs/*/version_0")
    return found


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def step_of(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


def test_load_needs_no_class(run):
    model = lit_gans.load(run / "checkpoints/last.ckpt")
    assert type(model).__name__ == "LSGAN"
    assert not model.training
    assert torch.equal(lit_gans.load(str(run)).sample(2, seed=0), model.sample(2, seed=0))
    with pytest.raises(FileNotFoundError, match="is a folder with neither checkpoints/best"):
        lit_gans.load(run.parent)


def test_loading_imports_what_it_is_told_to_trust_alone(tmp_path):
    (tmp_path / "my_gan.py").write_text("from lit_gans import LSGAN\n\n\nclass MyGAN(LSGAN):\n    pass\n")
    script = """
import sys, lit_gans
from my_gan import MyGAN
from lightning import Trainer
from lit_gans.networks import MLPDiscriminator, MLPGenerator
sizes = {"image_size": 8, "channels": 1, "widths": [8]}
model = MyGAN(MLPGenerator(latent_dim=4, **sizes), MLPDiscriminator(**sizes), latent_dim=4)
trainer = Trainer(max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False)
trainer.fit(model, lit_gans.ImageDataModule("digits"))
trainer.save_checkpoint("my.ckpt")
"""
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with pytest.raises(ValueError, match=r"my_gan\.MyGAN"):
        lit_gans.load("my.ckpt")
    assert "my_gan" not in sys.modules
    sys.path.insert(0, str(tmp_path))
    try:
        assert type(lit_gans.load("my.ckpt", trust=["my_gan"])).__name__ == "MyGAN"
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("my_gan", None)


def test_best_is_taken_before_last_and_told(run, monkeypatch, capsys):
    told = []
    monkeypatch.setattr("lit_gans.runs.checkpoint_files.rank_zero_info", told.append)
    best = run / "checkpoints/best.ckpt"
    best.write_bytes((run / "checkpoints/last.ckpt").read_bytes())
    try:
        main(["sample", str(run), "-n", "2", "-o", "x.npz"])
        assert f"{run}: best.ckpt" in told
    finally:
        best.unlink()
    main(["evaluate", str(run), "-n", "64", "--metrics", "fd", "--resamples", "0"])
    assert f"{run}: last.ckpt" in told
    assert "last.ckpt LSGAN" in capsys.readouterr().out


def test_validate_takes_model_and_data_of_a_folder(run, capsys):
    main(["validate", "--ckpt_path", str(run), *QUIET])
    assert "val/d_loss" in capsys.readouterr().out


@pytest.mark.parametrize("flag", ["--resume", "--ckpt_path"])
def test_a_folder_goes_on_with_nothing_but_its_name(flag, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "runs/lsgan-digits/version_0")
    main(["fit", flag, str(copy), "--trainer.max_steps=4", *QUIET])
    assert step_of(copy) == 4


def test_a_checkpoint_alone_begins_a_run_of_its_model_and_data(run, tmp_path):
    main(["fit", "--ckpt_path", str(run / "checkpoints/last.ckpt"), "--trainer.max_steps=3", *QUIET])
    (begun,) = tmp_path.glob("runs/lsgan-digits/version_*")
    assert step_of(begun) == 3
    config = yaml.safe_load((begun / "config.yaml").read_text("utf-8"))
    assert config["model"]["init_args"]["ema_decay"] == 0.5
    assert (config["data"]["batch_size"], config["data"]["limit"]) == (16, 64)


@pytest.mark.parametrize(("inside", "folder"), [("../..", "{name}/version_0"), ("..", "version_0"), (".", ".")])
def test_a_folder_goes_on_from_wherever_it_is_named(inside, folder, run, tmp_path, monkeypatch):
    """Loggers that the config has write into it, however it is spelled."""
    shutil.copytree(run.parents[1], tmp_path / "moved")
    copied = tmp_path / "moved" / run.parent.name / "version_0"
    monkeypatch.chdir(copied / inside)
    loggers = ["--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "runs", "--trainer.log_every_n_steps", "1"]
    words = [word for word in QUIET if "logger" not in word]
    main(["fit", "--ckpt_path", folder.format(name=run.parent.name), "--trainer.max_steps", "4", *loggers, *words])
    assert step_of(copied) == 4
    assert (copied / "metrics.csv").is_file()
    assert not list(tmp_path.rglob("runs"))


def test_a_folder_without_checkpoints_is_named(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words in (["sample", "empty", "-o", "x.png"], ["validate", "--ckpt_path", "empty"]):
        with pytest.raises(SystemExit):
            main(words)
        assert "empty is a folder with neither checkpoints/best.ckpt nor" in capsys.readouterr().err
