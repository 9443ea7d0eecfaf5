"""Overlays of regularizers, augmentation and schedules go onto any config, alone and together."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from toys import by_turns

from lit_gans.cli import main
from lit_gans.models import GAN

CONFIGS = Path(__file__).parents[1] / "configs"
OVERLAYS = sorted(
    path.relative_to(CONFIGS).as_posix()
    for room in ("regularizers", "augment", "schedule")
    for path in (CONFIGS / room).glob("*.yaml")
)
CONFIG = """
trainer:
  max_steps: 2
  limit_val_batches: 0
  log_every_n_steps: 1
  enable_progress_bar: false
  callbacks:
    - class_path: SampleGrid
      init_args:
        n: 2
model:
  class_path: {model}
  init_args:
    generator:
      class_path: MLPGenerator
      init_args:
        image_size: 8
        latent_dim: 4
        widths: [16]
    discriminator:
      class_path: MLPDiscriminator
      init_args:
        image_size: 8
        widths: [16]
    latent_dim: 4
    n_critic: 1
data:
  dataset: digits
  batch_size: 8
  limit: 16
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(model, *overlays):
    """The checkpoint of two steps on digits, and what was logged at the last."""
    Path("config.yaml").write_text(CONFIG.format(model=model))
    main(["fit", "--config", "config.yaml", *(w for name in overlays for w in ("--config", str(CONFIGS / name)))])
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    header, *rows = next(Path("runs").rglob("metrics.csv")).read_text("utf-8").splitlines()
    logged = {key for row in rows for key, value in zip(header.split(","), row.split(","), strict=True) if value}
    return checkpoint, logged


def asked_for(name):
    """What an overlay sets, without the mark of appending."""
    given = yaml.safe_load((CONFIGS / name).read_text("utf-8"))["model"]["init_args"]
    return {key.removesuffix("+"): value for key, value in given.items()}


def check(model, name):
    checkpoint, logged = trained(model, name)
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["global_step"] == 2
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
    loaded = GAN.load_from_checkpoint(checkpoint)
    assert type(loaded).__name__ == model
    for key, value in asked_for(name).items():
        if key == "regularizers":
            assert [type(penalty).__name__ for penalty in loaded.regularizers] == [one["class_path"] for one in value]
            for penalty, one in zip(loaded.regularizers, value, strict=True):
                assert one.get("init_args", {}).items() <= penalty.init_args.items()
                assert f"train/{penalty.player[0]}_{penalty.name}" in logged
        elif key == "augment":
            assert type(loaded.augment).__name__ == value["class_path"]
        elif key.endswith("_scheduler"):
            written = saved["hyper_parameters"][key]
            assert written["class_path"] == value["class_path"]
            assert value["init_args"].items() <= written["init_args"].items()
        else:
            assert loaded.hparams[key] == value
    assert loaded.sample(2, seed=0).shape == (2, 1, 8, 8)
    return checkpoint


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_trains_a_model_that_can_be_sampled_from(name):
    main(["sample", str(check("GAN", name)), "-n", "2", "--seed", "0", "-o", "x.npz"])
    assert np.load("x.npz")["images"].shape == (2, 8, 8, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "model"), by_turns(OVERLAYS, ["WGANGP", "SNGAN"]))
def test_overlays_go_with_every_kind_of_model(name, model):
    check(model, name)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("linear_decay", 1 - 2 / 100_000),
        ("cosine", (1 + math.cos(math.pi * 2 / 100_000)) / 2),
        ("warmup", 0.01 + 0.99 * 2 / 1000),
    ],
)
def test_schedules_have_moved_both_rates_after_two_steps(name, factor):
    saved = torch.load(trained("GAN", f"schedule/{name}.yaml")[0], weights_only=True)
    rates = [state["param_groups"][0]["lr"] for state in saved["optimizer_states"]]
    assert rates == pytest.approx([2e-4 * factor] * 2, rel=1e-12)


def test_ttur_is_four_to_one():
    saved = torch.load(trained("GAN", "schedule/ttur.yaml")[0], weights_only=True)
    assert [state["param_groups"][0]["lr"] for state in saved["optimizer_states"]] == [4e-4, 1e-4]


def test_overlays_add_up():
    names = ("regularizers/r1.yaml", "regularizers/lecam.yaml", "regularizers/path_length.yaml")
    checkpoint, logged = trained("GAN", *names, "augment/diffaugment.yaml", "schedule/ttur.yaml")
    assert {"train/d_r1", "train/d_lecam", "train/g_path_length"} <= logged
    loaded = GAN.load_from_checkpoint(checkpoint)
    assert [type(penalty).__name__ for penalty in loaded.regularizers] == ["R1", "LeCam", "PathLength"]
    assert (type(loaded.augment).__name__, loaded.hparams["d_lr"]) == ("DiffAugment", 4e-4)


def test_an_overlay_given_twice_is_refused(capsys):
    with pytest.raises(SystemExit) as left:
        trained("GAN", "regularizers/r1.yaml", "regularizers/r1_r2.yaml")
    assert left.value.code == 2
    assert "two loss terms are called 'r1'" in capsys.readouterr().err


def test_regularizers_are_appended_by_short_name():
    Path("config.yaml").write_text(CONFIG.format(model="GAN"))
    words = ["--model.regularizers+=R1", "--model.regularizers.weight=3", "--model.regularizers+=LeCam"]
    main(["fit", "--config", "config.yaml", *words])
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    r1, lecam = GAN.load_from_checkpoint(checkpoint).regularizers
    assert (type(r1).__name__, r1.weight, type(lecam).__name__) == ("R1", 3.0, "LeCam")
