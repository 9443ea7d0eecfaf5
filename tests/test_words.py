"""One spelling of options, shipped configs by name, and modules of one's own on the command line."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

from lit_gans.cli import main
from lit_gans.commands.listing import CONFIGS
from lit_gans.commands.words import shipped, spelled, with_shipped
from lit_gans.runs.checkpoint_files import CheckpointError, read

ROOT = Path(__file__).parents[1]
GOOD = ROOT / "tests/data/format_1.ckpt"
STEPS = ["--trainer.max_steps", "1", "--trainer.enable_progress_bar", "false", "--trainer.limit_val_batches", "0"]
MINE = """
from lit_gans.models import GAN

__import__("pathlib").Path("imported").touch()


class MyGAN(GAN):
    def __init__(self, generator, discriminator, depth: int = 3, **kwargs):
        super().__init__(generator, discriminator, **kwargs)
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def console(monkeypatch):
    """As the console script has it: without the current folder, and nothing of ours imported before."""
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", os.getcwd())])
    yield
    for name in ("my_gan", "hidden_gan"):
        sys.modules.pop(name, None)


# configs by name


@pytest.mark.parametrize("name", ["configs/quickstart.yaml", "quickstart", "dcgan/mnist", "configs/dcgan/mnist"])
def test_a_shipped_config_has_several_names(name):
    inner = name.removeprefix("configs/").removesuffix(".yaml")
    assert shipped(name) == CONFIGS / f"{inner}.yaml"
    assert with_shipped(["--config", name, f"--config={name}"]) == [
        *("--config", str(CONFIGS / f"{inner}.yaml")),
        f"--config={CONFIGS / inner}.yaml",
    ]


@pytest.mark.parametrize("name", ["../configs/quickstart.yaml", "/quickstart", "dcgan", "", "nothing", "{a: 1}"])
def test_nothing_else_is_a_shipped_config(name):
    assert shipped(name) is None


def test_a_shipped_config_trains_from_anywhere():
    main(["fit", "--config", "quickstart", "--config=logger/csv", *STEPS[:-2]])
    assert len(list(Path("runs").glob("gan-digits/version_0/checkpoints/last.ckpt"))) == 1


def test_a_local_file_wins(capsys):
    Path("quickstart").write_text("trainer: {max_stepz: 1}")
    assert "'trainer.max_stepz'" in refused(capsys, "fit", "--config", "quickstart")


# modules of one's own


def test_a_model_of_ones_own_from_training_to_evaluation(console, capsys):
    Path("my_gan.py").write_text(MINE)
    quickstart = ["--config", "quickstart", "--trainer.callbacks=null", "--monitor=null", *STEPS]
    main(["fit", *quickstart, "--import", "my_gan", "--model", "MyGAN"])
    main(["fit", *quickstart, "--model", "my_gan.MyGAN"])
    checkpoints = [f"runs/mygan-digits/version_{i}/checkpoints/last.ckpt" for i in (0, 1)]
    assert all(torch.load(path, weights_only=True)["lit_gans"]["class_path"] == "my_gan.MyGAN" for path in checkpoints)
    Path("imported").unlink()
    del sys.modules["my_gan"]
    for command in (["sample"], ["evaluate"], ["validate", "--ckpt_path"]):
        message = refused(capsys, *command, checkpoints[1])
        assert "my_gan.MyGAN" in message
        assert "--import my_gan" in message
        assert "where my_gan.py lies" in message
        assert not Path("imported").exists(), "a file in the current folder is not imported because it is named"
    main(["sample", checkpoints[1], "--import", "my_gan", "-n", "2", "-o", "x.npz"])
    assert np.load("x.npz")["images"].shape == (2, 8, 8, 1)
    quick = ["--import=my_gan", "--n", "64", "--metrics", "fd,classes", "--resamples", "0"]
    capsys.readouterr()
    main(["evaluate", checkpoints[1], *quick])
    out = capsys.readouterr().out
    assert "fd_digits" in out
    assert "entropy" in out
    main(["validate", "--ckpt_path", checkpoints[1], "--import", "my_gan", *STEPS[:-2]])
    assert "val/d_loss" in capsys.readouterr().out


def test_a_module_that_cannot_be_imported(console, capsys):
    assert "--import nowhere: there is no such module in" in refused(capsys, "fit", "--import", "nowhere")
    Path("hidden_gan.py").write_text("import nothing_of_this_name")
    assert "it imports nothing_of_this_name" in refused(capsys, "fit", "--import", "hidden_gan")
    Path("hidden_gan.py").write_text("1 / 0")
    assert "--import hidden_gan: ZeroDivisionError" in refused(capsys, "fit", "--import", "hidden_gan")


def test_the_console_script_finds_what_lies_in_the_current_folder():
    Path("my_gan.py").write_text("raise RuntimeError('found')")
    Path("x").touch()
    code = "import sys; sys.path[0] = '/'; from lit_gans.cli import main; main(['sample', 'x', '--import', 'my_gan'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "--import my_gan: RuntimeError: found" in done.stderr


# one spelling


def test_dashes_and_underscores_are_one():
    words = ["--data.batch-size=3-4", "--no-ema", "-n", "-3", "--model.g-lr", "a-b", "--x y-z"]
    assert spelled(words) == ["--data.batch_size=3-4", "--no_ema", "-n", "-3", "--model.g_lr", "a-b", "--x y-z"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--trainer.max_epochs", "0"], "--trainer.max_epochs 0 would train nothing"),
        (["--model.g_lr=-1.0"], "g_lr must not be negative, got -1.0"),
        (["--trainer.default_root_dir", "taken/runs"], "--trainer.default_root_dir"),
    ],
)
def test_what_cannot_train_names_its_option(words, told, capsys):
    Path("taken").touch()
    assert told in refused(capsys, "fit", "--config", "quickstart", "--trainer.accelerator", "cpu", *words)


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU")
def test_a_missing_gpu_names_the_option(capsys):
    assert "--trainer.accelerator" in refused(capsys, "fit", "--config", "quickstart", "--trainer.accelerator", "gpu")


def test_a_file_is_not_written_to_a_folder_that_is_not_there(capsys):
    assert "no folder nodir" in refused(capsys, "sample", GOOD, "-o", "nodir/x.png")
    assert not Path("nodir").exists()


def test_a_text_read_as_a_checkpoint_comes_without_advice_of_torch():
    Path("README.md").write_text("# A text\n" * 50)
    with pytest.raises(CheckpointError, match=r"README.md is truncated or is not a checkpoint at all$"):
        read(Path("README.md"))


@pytest.mark.parametrize("words", [["--trainer.logger", "csv"], ["--trainer.logger=csv"]])
def test_loggers_have_short_names(words):
    assert with_shipped([*words, "--x"]) == ["--config", str(CONFIGS / "logger" / "csv.yaml"), "--x"]
