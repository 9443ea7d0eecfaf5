"""The line at the end of training: how long, what was measured, whether samples vary, what next."""

from pathlib import Path

import pytest
import torch

from lit_gans.cli import main
from lit_gans.commands.verdict import alike

ROOT = Path(__file__).parents[1]
QUIET = ["--trainer.logger=false", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
QUIET += ["--trainer.limit_val_batches=0", "--trainer.enable_checkpointing=false"]


@pytest.fixture
def last_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(config, *words):
        told = []
        monkeypatch.setattr("lit_gans.commands.training.rank_zero_info", told.append)
        main(["fit", "--config", str(ROOT / "configs" / config), *words, *QUIET])
        (line,) = (message for message in told if message.startswith("result: "))
        return line

    return run


def test_modes_that_are_not_reached_are_counted(last_line):
    line = last_line("gan/ring.yaml", "--trainer.max_steps=3", "--trainer.callbacks=[]", "--monitor=null")
    assert line.startswith("result: 3 steps, 0.0307 times through the data; samples reach 0 of 8 modes; next: ")
    assert "train longer (fit --resume runs/gan-ring/version_0 --trainer.max_steps 30)" in line
    assert line.endswith("measure it (evaluate runs/gan-ring/version_0)")


def test_images_that_vary_little_are_named(last_line):
    words = ["--trainer.callbacks=[]", "--monitor=null", "--trainer.max_steps=2", "--model.generator.norm=null"]
    line = last_line("quickstart.yaml", *words)
    assert "samples vary 0." in line
    assert "which is little" in line
    assert "train longer" in line


def test_variety_is_a_ratio_of_mean_distances():
    real = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert alike(0.25 * real, real) == pytest.approx(0.25)
    assert alike(real[:1].expand(64, 1, 8, 8), real) == 0
