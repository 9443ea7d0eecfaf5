"""The command line: what a user gets, what is refused, and each surprise of LightningCLI that is mended."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning import Callback
from PIL import Image
from refusals import refused
from torch import nn

from lit_gans.cli import COMMANDS, main
from lit_gans.commands import training
from lit_gans.commands.sampling import write_grid
from lit_gans.models import CGAN, GAN, BigGAN, InfoGAN
from lit_gans.networks import MLPDiscriminator, MLPGenerator
from lit_gans.runs import folders

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
SHORT = [  # a small GAN on the digits, for four steps
    *("--model", "GAN", "--model.latent_dim", "4", "--model.ema_decay", "0.99"),
    *("--model.generator", "MLPGenerator", "--model.generator.image_size", "8", "--model.generator.latent_dim", "4"),
    *("--model.generator.widths", "[16]", "--model.discriminator", "MLPDiscriminator"),
    *("--model.discriminator.image_size", "8", "--model.discriminator.widths", "[16]"),
    *("--data.batch_size", "16", "--data.limit", "64", "--trainer.max_steps", "4"),
    *("--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"),
]
LAST = "checkpoints/last.ckpt"


def fit(*words, name="gan-digits"):
    """Train in the current directory; the run folder."""
    before = set(Path("runs").glob("*/version_*"))
    main(["fit", *SHORT, *map(str, words)])
    (folder,) = set(Path("runs").glob("*/version_*")) - before
    assert folder.parent.name == name
    return folder.absolute()


def load(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run, to be read only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        return fit("--trainer.val_check_interval", "2", "--monitor", "val/d_loss")


@pytest.fixture(scope="module")
def checkpoint(trained):
    return trained / LAST


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """The checkpoint of a conditional model that was built in Python with the networks of the package."""
    torch.manual_seed(0)
    sizes = {"image_size": 8, "widths": [16], "num_classes": 10}
    model = CGAN(MLPGenerator(latent_dim=100, **sizes), MLPDiscriminator(**sizes), num_classes=10, ema_decay=0.5)
    nn.init.zeros_(next(model.g_ema.parameters()))  # so that the average is not the generator
    return save(model, tmp_path_factory.mktemp("conditional") / "last.ckpt")


def save(model, path):
    from lightning import Trainer

    run = Trainer(accelerator="cpu", logger=False, default_root_dir=path.parent, enable_progress_bar=False)
    run.strategy.connect(model)
    model.trainer = run
    run.save_checkpoint(path, weights_only=True)
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# what can be answered at once


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--version"], 0, "0."),
        (["--help"], 0, "check-data"),
        ([], 0, "usage"),
        (["list"], 0, "configs/quickstart.yaml"),
        (["fitt"], 2, "unknown command 'fitt': did you mean fit"),
        (["sample"], 2, "CKPT"),
        (["sample", "--help"], 0, "--no_ema"),
        (["translate"], 2, "CKPT"),
        (["translate", "--help"], 0, "--apply_mask"),
        (["list", "--all"], 2, "unknown option 'all'"),
    ],
)
def test_answers_without_importing_torch(words, code, told):
    command = [sys.executable, "-X", "importtime", "-m", "lit_gans", *words]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines if line.startswith("import time:")}
    assert done.returncode == code
    assert told in done.stdout + "".join(line for line in lines if not line.startswith("import time:"))
    assert "lit_gans" in imported
    assert not {"torch", "lightning", "numpy", "jsonargparse", "yaml"} & imported
    assert "Traceback" not in done.stderr


def test_list_names_every_model_data_set_and_config(capsys):
    from typing import get_args

    import lit_gans.models
    from lit_gans.data.datamodule import DataSet

    main(["list"])
    names = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("  ")}
    models = {n for n in lit_gans.models.__all__ if issubclass(getattr(lit_gans.models, n), GAN)}
    configs = {path.relative_to(ROOT).as_posix() for path in CONFIGS.rglob("*.yaml")}
    assert names == models | set(get_args(DataSet)) | configs


def test_list_shows_the_models_by_family(capsys):
    main(["list"])
    blocks = [block.splitlines() for block in capsys.readouterr().out.strip().split("\n\n")]
    families = {title: [line.split()[0] for line in lines] for title, *lines in blocks}
    assert next(iter(families)) == "Models, divergences:"
    assert families["Models, Wasserstein:"] == ["WGAN", "WGANGP", "WGANLP"]
    assert sum(title.startswith("Models, ") for title in families) == len(families) - 2
    listed = [name for title, names in families.items() if title.startswith("Models, ") for name in names]
    assert len(listed) == len(set(listed))


def test_help_tells_every_command(capsys):
    main(["help"])
    out = capsys.readouterr().out
    assert all(re.search(rf"^  {command} ", out, re.MULTILINE) for command in COMMANDS)


# what a user gets without asking


def test_a_run_leaves_config_checkpoints_samples_and_logs(trained):
    names = {path.relative_to(trained).as_posix() for path in trained.rglob("*") if path.is_file()}
    assert {"config.yaml", LAST, "checkpoints/best.ckpt", "samples/step-00000004.png", "metrics.csv"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert not [name for name in names if name.endswith((".tmp", ".partial"))]
    rows = np.genfromtxt(trained / "metrics.csv", delimiter=",", names=True)
    steps = rows["step"][~np.isnan(rows["traind_loss"])]
    assert steps.tolist() == [0, 1, 2, 3]
    assert rows["trainkimg"][~np.isnan(rows["trainkimg"])].tolist() == pytest.approx([0.016, 0.032, 0.048, 0.064])
    assert sorted(path.name for path in trained.parent.parent.parent.iterdir()) == ["runs"]


def test_checkpoints_are_the_last_and_the_best(trained):
    assert load(trained / LAST)["global_step"] == 4
    rows = np.genfromtxt(trained / "metrics.csv", delimiter=",", names=True)
    validated = rows[~np.isnan(rows["vald_loss"])]
    best = load(trained / "checkpoints/best.ckpt")
    assert len(validated) == 2
    assert best["global_step"] == validated["step"][validated["vald_loss"].argmin()] + 1
    assert sorted(path.name for path in (trained / "checkpoints").glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]


def test_checkpoints_and_grids_come_as_often_as_asked(tmp_path, monkeypatch):
    from lit_gans.runs import LastCheckpoint

    saved = []
    saver = LastCheckpoint._save_checkpoint
    monkeypatch.setattr(
        LastCheckpoint, "_save_checkpoint", lambda s, t, path: (saved.append(t.global_step), saver(s, t, path))[1]
    )
    folder = fit("--checkpoint_every", 3, "--sample_every", 2)
    assert saved == [3, 4]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["step-00000002.png", "step-00000004.png"]


def test_an_exception_leaves_the_state_it_met(monkeypatch, capsys):
    step = GAN.training_step

    def fails(self, batch, batch_idx):
        if self.trainer.global_step == 3:
            raise RuntimeError("the roof is on fire")
        step(self, batch, batch_idx)

    monkeypatch.setattr(GAN, "training_step", fails)
    with pytest.raises(RuntimeError, match="roof"):
        fit()
    assert load(Path("runs/gan-digits/version_0", LAST))["global_step"] == 3


def test_parts_that_are_not_wanted_are_left_out():
    folder = fit("--trainer.enable_checkpointing", "false", "--trainer.logger", "false")
    assert sorted(path.name for path in folder.iterdir()) == ["config.yaml", "samples"]


def test_a_callback_of_ones_own_takes_the_place_of_ours():
    folder = fit("--trainer.callbacks+=SampleGrid", "--trainer.callbacks.n=4", "--trainer.callbacks.dirpath=mine")
    assert [path.name for path in Path("mine").iterdir()] == ["step-00000004.png"]
    assert Image.open("mine/step-00000004.png").size == (2 * 66 + 2, 2 * 66 + 2)  # magnified
    assert not (folder / "samples").exists()


def test_fast_dev_run_writes_no_results():
    main(["fit", *SHORT, "--trainer.fast_dev_run", "true"])
    assert [path.name for path in Path("runs").rglob("*") if path.is_file()] in ([], ["config.yaml"])


# the mended traps


def test_the_config_wins_over_the_checkpoint_and_differences_are_told(checkpoint, caplog):
    before = load(checkpoint)
    assert before["optimizer_states"][1]["param_groups"][0]["lr"] == 2e-4
    caplog.clear()
    with caplog.at_level("INFO"):
        folder = fit("--ckpt_path", checkpoint, "--model.g_lr", "5e-4", "--model.n_critic", 2, "--trainer.max_steps", 6)
    after = load(folder / LAST)
    told = [record.getMessage() for record in caplog.records if record.getMessage().startswith("resume")]
    assert told == ["resume: n_critic 1 → 2", "resume: g_lr 0.0002 → 0.0005"]
    assert after["global_step"] == 6
    assert after["hyper_parameters"]["g_lr"] == 5e-4
    lrs = [state["param_groups"][0]["lr"] for state in after["optimizer_states"]]
    assert lrs == [2e-4, 5e-4]
    updates = [next(iter(state["state"].values()))["step"].item() for state in after["optimizer_states"]]
    assert updates == [6, 5]  # the generator's at step 6 alone


def test_resuming_goes_on_as_if_never_stopped(checkpoint):
    whole = load(fit("--trainer.max_steps", 10) / LAST)  # a new order after each four steps
    resumed = load(fit("--ckpt_path", checkpoint, "--trainer.max_steps", 10) / LAST)
    assert all(torch.equal(value, resumed["state_dict"][key]) for key, value in whole["state_dict"].items())
    assert (whole["epoch"], whole["lit_gans"]) == (resumed["epoch"], resumed["lit_gans"])


def test_resuming_another_class_is_refused_with_both_names(checkpoint, capsys):
    message = refused(capsys, "fit", *SHORT, "--model", "WGAN", "--ckpt_path", checkpoint)
    assert re.search(r"holds a lit_gans\S*\.GAN, the config asks for a lit_gans\S*\.WGAN", message)
    assert not Path("runs").exists()


def test_a_schedule_goes_on_from_where_it_was():
    words = ["--model.g_scheduler", "torch.optim.lr_scheduler.ExponentialLR", "--model.g_scheduler.gamma", "0.5"]
    first = fit(*words)
    resumed = load(fit(*words, "--ckpt_path", first / LAST, "--trainer.max_steps", 6) / LAST)
    assert resumed["optimizer_states"][1]["param_groups"][0]["lr"] == pytest.approx(2e-4 * 0.5**6)


@pytest.mark.parametrize("command", ["validate", "test"])
def test_evaluation_takes_the_model_from_the_checkpoint_alone(command, checkpoint, capsys):
    quiet = ["--trainer.enable_progress_bar", "false"]
    main([command, "--ckpt_path", str(checkpoint), *quiet])
    out = capsys.readouterr().out
    prefix = "val" if command == "validate" else "test"
    assert f"{prefix}/d_loss" in out
    assert f"{prefix}/g_loss" in out
    assert list(Path().iterdir()) == []
    main([command, f"--ckpt_path={checkpoint}", *quiet])
    assert capsys.readouterr().out == out


def test_optimizers_by_short_name_and_player():
    folder = fit(
        *("--model.g_optimizer", "RMSprop", "--model.g_optimizer.lr", "1e-4"),
        *(
            "--model.d_optimizer",
            "torch.optim.SGD",
            "--model.d_optimizer.lr",
            "0.1",
            "--model.d_optimizer.momentum",
            "0.5",
        ),
    )
    saved = load(folder / LAST)
    d, g = (state["param_groups"][0] for state in saved["optimizer_states"])
    assert (g["lr"], g["alpha"]) == (1e-4, 0.99)
    assert (d["lr"], d["momentum"], d["nesterov"]) == (0.1, 0.5, False)
    assert saved["hyper_parameters"]["g_optimizer"]["class_path"] == "torch.optim.RMSprop"
    assert json.loads(json.dumps(saved["hyper_parameters"])) == saved["hyper_parameters"]
    model = GAN.load_from_checkpoint(folder / LAST, weights_only=True)
    assert isinstance(model.configure_optimizers()[0][1], torch.optim.RMSprop)


@pytest.mark.parametrize("option", ["optimizer", "lr_scheduler"])
def test_options_that_break_two_players_are_gone(option, capsys):
    assert f"unknown option '{option}'" in refused(capsys, "fit", *SHORT, f"--{option}", "Adam")


def test_a_second_run_gets_its_own_folder_and_its_config_reproduces_it():
    first, second = fit("--model.g_lr", "3e-4"), fit("--model.seed", 7)
    assert (first.name, second.name) == ("version_0", "version_1")
    before = set(Path("runs").glob("*/version_*"))
    main(["fit", "--config", str(first / "config.yaml")])
    (third,) = {path.absolute() for path in set(Path("runs").glob("*/version_*")) - before}
    a, b, other = (load(folder / LAST)["state_dict"] for folder in (first, third, second))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], other[key]) for key in a)
    assert (first / "config.yaml").read_text() == (third / "config.yaml").read_text()
    assert yaml.safe_load((first / "config.yaml").read_text())["model"]["init_args"]["g_lr"] == 3e-4


def test_the_seed_decides_the_weights():
    ends = [load(fit("--seed_everything", seed) / LAST)["state_dict"] for seed in (1, 1, 2)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert not all(torch.equal(ends[0][key], ends[2][key]) for key in ends[0])


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_overlays_in_order_the_last_one_wins_and_options_win_over_all(order):
    Path("a.yaml").write_text("model:\n  init_args:\n    g_lr: 0.5\n    d_lr: 0.25\n")
    Path("b.yaml").write_text("model:\n  init_args:\n    g_lr: 0.125\n    n_critic: 3\n")
    overlays = [word for name in order for word in ("--config", f"{name}.yaml")]
    folder = fit(*overlays, "--model.n_critic", 2)
    hparams = load(folder / LAST)["hyper_parameters"]
    assert hparams["g_lr"] == {"a": 0.5, "b": 0.125}[order[-1]]
    assert (hparams["d_lr"], hparams["n_critic"], hparams["ema_decay"]) == (0.25, 2, 0.99)


def test_arguments_of_one_name_do_not_clash_with_a_logger():
    saved = load(fit("--model.seed", 3, "--data.seed", 4) / LAST)
    assert saved["hyper_parameters"]["seed"] == 3
    assert saved["datamodule_hyper_parameters"]["seed"] == 4


# errors


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model.g_lrr", "1"], r"unknown argument 'g_lrr': did you mean g_lr"),
        (["--model", "WGANPG"], r"model: unknown class 'WGANPG': did you mean WGANGP"),
        (["--model.class_path", "GANN"], r"unknown class 'GANN': did you mean GAN"),
        (["--data.dataset", "digit"], r"data.dataset: unknown value 'digit': did you mean digits"),
        (["--data.dataset", "mnst"], r"data.dataset: unknown value 'mnst': did you mean mnist"),
        (["--data.batchsize", "3"], r"unknown option 'data.batchsize': did you mean data.batch_size"),
        (["--trainer.max_stepz", "3"], r"unknown option 'trainer.max_stepz': did you mean trainer.max_steps"),
        (["--trainer.max_step", "3"], r"unknown option 'trainer.max_step': did you mean trainer.max_steps"),
        (["--model.generator.init_args.latent_dimm", "3"], r"'latent_dimm': did you mean latent_dim"),
        (["--model.generator.latent_dimm", "3"], r"'latent_dimm': did you mean latent_dim"),
        (
            ["--model.generator", "DCGANGenerater"],
            r"generator: unknown class 'DCGANGenerater': did you mean DCGANGenerator",
        ),
        (["--model.g_optimizer", "RMSpropp"], r"g_optimizer: unknown class 'RMSpropp': did you mean RMSprop"),
        (["--model.g_optimizer", "RMSprop", "--model.g_optimizer.lrr", "1"], r"'lrr': did you mean lr"),
        (["--model.regularizers+=LeCamm"], r"regularizers: unknown class 'LeCamm': did you mean LeCam\?"),
        (["--model.augment", "DiffAugmentt"], r"augment: unknown class 'DiffAugmentt': did you mean DiffAugment"),
        (["--model.g_lr", "fast"], r"g_lr: 'fast' is not valid, expected float"),
        (["--model.betas", "[0.5]"], r"betas"),
        (["--data.batch_size", "many"], r"data.batch_size: 'many' is not valid, expected int"),
        (["--data.batch_size", "0"], r"batch_size must be at least 1, not 0"),
        (["--data.batch_size", "65"], r"batch_size 65 is larger than the data set of 64 images"),
        (["--model.n_critic", "0"], r"n_critic must be at least 1, got 0"),
        (["--model.generator.norm", "bach"], r"bach.*did you mean batch|batch"),
        (
            ["--data.image_size", "16"],
            "image_size is given several times: data 16, the generator 8.*add --model",
        ),
        (["--trainer.gradient_clip_val", "1"], r"gradient_clip_val=1.* g_clip=1"),
        (["--config", "missing.yaml"], r"no such file: .*missing.yaml"),
        (["--ckpt_path", "missing.ckpt"], r"no checkpoint at missing.ckpt"),
        (["--data.dataset", "folder", "--data.root", "nowhere"], r"nowhere"),
        (["--monitor_mode", "least"], r"least"),
    ],
)
def test_mistakes_get_one_message_with_the_nearest_right_name(words, told, capsys):
    assert re.search(told, refused(capsys, "fit", *SHORT, *words))
    assert not list(Path().rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model:\n  init_args:\n    g_lrr: 1\n", r"'g_lrr': did you mean g_lr"),
        ("model:\n  class_path: WGANPG\n", r"'WGANPG': did you mean WGANGP"),
        ("data:\n  datset: mnist\n", r"'data.datset': did you mean data.dataset"),
        ("data:\n  dataset: cifar11\n", r"'cifar11': did you mean cifar10"),
        ("trainer:\n  max_stepz: 1\n", r"'trainer.max_stepz': did you mean trainer.max_steps"),
        ("trianer:\n  max_steps: 1\n", r"'trianer.max_steps': did you mean trainer.max_steps"),
        (
            "model:\n  init_args:\n    generator:\n      class_path: MLPGeneratr\n",
            r"'MLPGeneratr': did you mean MLPGenerator",
        ),
        ("model:\n  init_args:\n    generator:\n      init_args:\n        width: 3\n", r"'width': did you mean widths"),
        ("model:\n  init_args:\n    g_lr: [1\n", r"broken.yaml is no YAML: .*line 3"),
        ("a plain sentence", r"broken.yaml is no config: it holds no options"),
        ("", r"broken.yaml is no config: it holds no options"),
    ],
)
def test_mistakes_in_files_too(text, told, capsys):
    Path("broken.yaml").write_text(text)
    assert re.search(told, refused(capsys, "fit", *SHORT, "--config", "broken.yaml"))


def test_only_what_a_config_can_name_is_suggested():
    from lit_gans.commands.parsing import known_classes

    names = set(known_classes())
    assert {"GAN", "MLPGenerator", "R1", "LatentDiversity", "DiffAugment", "SampleGrid", "NormClip", "Adam"} <= names
    assert not {"Answer", "Network", "Reconstruction", "Regularizer", "SelfAttention"} & names


def test_no_model_at_all(capsys):
    assert "--config configs/quickstart.yaml" in refused(capsys, "fit")
    assert "did you mean fit" in refused(capsys, "fitt", "--config", "x")
    assert "did you mean sample" in refused(capsys, "sampel")
    assert "--ckpt_path" in refused(capsys, "validate")


# sample


def sample(*words):
    main(["sample", *map(str, words)])


def test_grid_arrays_and_single_files_hold_the_same_images(checkpoint, capsys):
    sample(checkpoint, "-n", 9, "--seed", 5, "-o", "grid.png")
    sample(checkpoint, "-n", 9, "--seed", 5, "-o", "arrays.npz")
    sample(checkpoint, "-n", 9, "--seed", 5, "-o", "deep/singles/")
    arrays = np.load("arrays.npz")
    assert set(arrays) == {"images"}
    images = arrays["images"]
    assert (images.shape, images.dtype) == ((9, 8, 8, 1), np.uint8)
    model = GAN.load_from_checkpoint(checkpoint, weights_only=True)
    expected = ((model.sample(9, seed=5) + 1) * 127.5).round().clamp(0, 255).byte()
    assert np.array_equal(images, expected.permute(0, 2, 3, 1).numpy())
    files = sorted(Path("deep/singles").iterdir())
    assert [file.name for file in files] == [f"{index}.png" for index in range(9)]
    assert all(np.array_equal(np.asarray(Image.open(f)), image[..., 0]) for f, image in zip(files, images, strict=True))
    grid = np.asarray(Image.open("grid.png"))
    assert grid.shape[:2] == (3 * 66 + 2,) * 2  # eight times as large, for people
    assert np.array_equal(grid[68:132:8, 134:198:8, 0], images[5, ..., 0])  # second row, third column
    assert "9 images of GAN, seed 5" in capsys.readouterr().out
    assert sorted(path.name for path in Path().iterdir()) == ["arrays.npz", "deep", "grid.png"]


def test_same_seed_same_images_whatever_the_batches_and_the_number(conditional):
    sample(conditional, "-n", 70, "-o", "whole.npz")
    sample(conditional, "-n", 70, "--batch-size", 7, "-o", "parts.npz")
    sample(conditional, "-n", 40, "-o", "fewer.npz")
    sample(conditional, "-n", 70, "--seed", 1, "-o", "other.npz")
    whole, parts, fewer, other = (np.load(f"{name}.npz") for name in ("whole", "parts", "fewer", "other"))
    assert np.array_equal(whole["labels"], parts["labels"])
    assert np.array_equal(whole["labels"][:40], fewer["labels"])
    assert np.abs(whole["images"].astype(int) - parts["images"]).max() <= 1  # a rounding may tip
    assert np.abs(whole["images"][:40].astype(int) - fewer["images"]).max() <= 1
    assert not np.array_equal(whole["images"], other["images"])


def test_labels_are_stored_and_can_be_chosen(conditional, capsys):
    sample(conditional, "-n", 200, "-o", "all.npz")
    labels = np.load("all.npz")["labels"]
    assert set(labels) == set(range(10))
    sample(conditional, "-n", 5, "--class", 3, "-o", "threes.npz")
    chosen = np.load("threes.npz")
    assert chosen["labels"].tolist() == [3] * 5
    model = CGAN.load_from_checkpoint(conditional, weights_only=True)
    expected = ((model.sample(5, y=3, seed=0) + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    assert np.array_equal(chosen["images"], expected)
    assert "y must be in 0..9, got 10..10" in refused(capsys, "sample", conditional, "--class", 10, "-o", "x.png")
    assert not Path("x.png").exists()


def test_codes_can_be_chosen(tmp_path_factory, checkpoint, capsys):
    torch.manual_seed(0)
    sizes = {"image_size": 8, "widths": [16]}
    networks = MLPGenerator(latent_dim=8 + 5, **sizes), MLPDiscriminator(head=7, **sizes)
    model = InfoGAN(*networks, categorical=[3], continuous=2, latent_dim=8)
    path = save(model, tmp_path_factory.mktemp("codes") / "last.ckpt")
    sample(path, "-n", 6, "-o", "drawn.npz")
    sample(path, "-n", 6, "-o", "chosen.npz", "--codes", 2, "-", -0.5)
    drawn, chosen = np.load("drawn.npz"), np.load("chosen.npz")
    assert chosen["codes"][:, :3].tolist() == [[0, 0, 1]] * 6
    assert np.array_equal(chosen["codes"][:, 3], drawn["codes"][:, 3])
    assert chosen["codes"][:, 4].tolist() == [-0.5] * 6
    expected = ((model.sample(6, y=chosen["codes"], seed=0) + 1) * 127.5).round().clamp(0, 255).byte()
    assert np.array_equal(chosen["images"], expected.permute(0, 2, 3, 1).numpy())
    for words, told in {
        (3, 0, 0): "must be in 0..2, got 3",
        (0.5, 0, 0): "must be in 0..2, got 0.5",
        (1, 0): "has 1 categorical and 2 continuous codes, got 2 values",
    }.items():
        assert told in refused(capsys, "sample", path, "-o", "x.png", "--codes", *words)
    assert "GAN has none" in refused(capsys, "sample", checkpoint, "-o", "x.png", "--codes", 1)
    assert not Path("x.png").exists()


def test_batch_statistics_can_be_estimated_anew(tmp_path_factory, checkpoint, capsys):
    torch.manual_seed(0)
    sizes = {"image_size": 8, "widths": [16]}
    networks = MLPGenerator(latent_dim=8, norm="batch", **sizes), MLPDiscriminator(**sizes)
    model = BigGAN(*networks, latent_dim=8, ema_decay=0.9)
    nn.init.normal_(next(model.g_ema.parameters()))  # so that the average is not the generator
    path = save(model, tmp_path_factory.mktemp("norms") / "last.ckpt")
    sample(path, "-n", 4, "-o", "as_trained.npz", "--truncation", 0.5)
    for words in ([], ["--no-ema"]):
        sample(path, "-n", 4, "-o", "anew.npz", "--standing", 3, "--truncation", 0.5, "--overwrite", *words)
        model = BigGAN.load_from_checkpoint(path, weights_only=True)
        network = model.standing_statistics(truncation=0.5, batches=3, ema=not words)
        setattr(model, "generator" if words else "g_ema", network)
        samples = model.sample(4, seed=0, ema=not words, truncation=0.5)
        expected = ((samples + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        assert np.array_equal(np.load("anew.npz")["images"], expected)
        assert not np.array_equal(np.load("as_trained.npz")["images"], expected)
    words = ["-o", "x.png", "--standing", 3, "--truncation", 0.5]
    assert "--truncation: GAN knows no truncation" in refused(capsys, "sample", checkpoint, *words)
    assert "has no batch norm" in refused(capsys, "sample", checkpoint, "-o", "x.png", "--standing", 3)


def test_a_class_for_a_model_without(checkpoint, capsys):
    assert "has no classes" in refused(capsys, "sample", checkpoint, "--class", 1, "-o", "x.png")


def test_average_or_live_generator(conditional):
    sample(conditional, "-n", 4, "-o", "average.npz")
    sample(conditional, "-n", 4, "--no-ema", "-o", "live.npz")
    model = CGAN.load_from_checkpoint(conditional, weights_only=True)
    live = ((model.sample(4, seed=0, ema=False) + 1) * 127.5).round().clamp(0, 255).byte()
    assert np.array_equal(np.load("live.npz")["images"], live.permute(0, 2, 3, 1).numpy())
    assert not np.array_equal(np.load("live.npz")["images"], np.load("average.npz")["images"])


@pytest.mark.parametrize("output", ["x.png", "x.npz", "x/"])
def test_what_exists_is_not_overwritten_unasked(output, checkpoint, capsys):
    sample(checkpoint, "-n", 2, "-o", output)
    before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    message = refused(capsys, "sample", checkpoint, "-n", 2, "--seed", 1, "-o", output)
    assert "exists" in message
    assert "--overwrite" in message
    assert before == {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    sample(checkpoint, "-n", 2, "--seed", 1, "-o", output, "--overwrite")
    after = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert after != before


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("output", ["x.png", "x.npz", "x/"])
def test_a_full_disk_leaves_no_half_file(output, existing, checkpoint, capsys, monkeypatch):
    if existing:
        sample(checkpoint, "-n", 2, "-o", output)
    before = {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}

    def full(image, target, *args, **kwargs):
        Path(target).write_bytes(b"half a file")
        if not str(target).endswith("0.png"):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    monkeypatch.setattr(np, "savez_compressed", lambda target, **arrays: full(None, target))
    message = refused(capsys, "sample", checkpoint, "-n", 3, "-o", output, "--overwrite")
    assert "No space left on device" in message
    assert before == {path: path.is_file() and path.read_bytes() for path in Path().rglob("*")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-o", "x.jpg"], r"end it with .png"),
        (["-n", "0"], "at least 1, got 0"),
        (["--seed", "99999999999999999999"], r"--seed must be in 0\.\."),
        (["--batch-size", "0"], "at least 1"),
        (["--standing", "-1"], "--standing must not be negative"),
        (["--device", "quantum"], "--device quantum"),
    ],
)
def test_sample_options_that_cannot_work(words, told, checkpoint, capsys):
    assert re.search(told, refused(capsys, "sample", checkpoint, *words))
    assert list(Path().iterdir()) == []


def test_checkpoints_that_are_none_of_ours(checkpoint, capsys):
    whole = checkpoint.read_bytes()
    Path("cut.ckpt").write_bytes(whole[: len(whole) // 2])
    Path("empty.ckpt").write_bytes(b"")
    Path("text.ckpt").write_text("not a checkpoint")
    torch.save({"state_dict": {}}, "foreign.ckpt")
    torch.save([1, 2], "list.ckpt")
    torch.save({"model": nn.Linear(1, 1)}, "code.ckpt")
    damaged = load(checkpoint)
    del damaged["state_dict"][next(key for key in damaged["state_dict"] if key.startswith("generator"))]
    torch.save(damaged, "damaged.ckpt")
    for name, told in {
        "missing": "no checkpoint at missing.ckpt",
        "cut": "cut.ckpt is truncated",
        "empty": "empty.ckpt is truncated or is not a checkpoint at all",
        "text": "not a checkpoint at all",
        "foreign": "not a checkpoint of a lit_gans model",
        "list": "not a checkpoint of a lit_gans model",
        "code": "holds objects other than tensors and plain values",
        "damaged": "damaged.ckpt cannot be rebuilt as lit_gans.models.gan.GAN",
    }.items():
        assert told in refused(capsys, "sample", f"{name}.ckpt", "-o", "x.png")
        if name != "damaged":
            assert f"{name}.ckpt" in refused(capsys, "fit", *SHORT, "--ckpt_path", f"{name}.ckpt")
            assert f"{name}.ckpt" in refused(capsys, "validate", "--ckpt_path", f"{name}.ckpt")
    assert not Path("x.png").exists()


def test_networks_of_ones_own_cannot_be_rebuilt_and_the_message_says_what_can_be_done(tmp_path, capsys):
    foreign = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Unflatten(1, (1, 8, 8)))
    save(GAN(foreign, MLPDiscriminator(image_size=8), latent_dim=4), tmp_path / "foreign.ckpt")
    message = refused(capsys, "sample", "foreign.ckpt", "-o", "x.png")
    assert "load_from_checkpoint(path, generator=..., discriminator=...)" in message
    model = GAN.load_from_checkpoint(
        "foreign.ckpt", generator=foreign, discriminator=MLPDiscriminator(image_size=8), weights_only=True
    )
    assert model.sample(2, seed=0).shape == (2, 1, 8, 8)


def test_points_are_no_images(tmp_path, capsys):
    networks = MLPGenerator(latent_dim=4, image_size=4, channels=2), MLPDiscriminator(image_size=4, channels=2)
    save(GAN(*networks, latent_dim=4), tmp_path / "two.ckpt")
    assert "makes (2, 4, 4), which is no grey or RGB image" in refused(capsys, "sample", "two.ckpt", "-o", "x.npz")
    assert [path.name for path in Path().iterdir()] == ["two.ckpt"]


def test_colour_grid(tmp_path):
    write_grid(tmp_path / "x.png", np.full((2, 4, 4, 3), [9, 99, 199], np.uint8))
    assert np.asarray(Image.open("x.png"))[3, 3].tolist() == [9, 99, 199]


# check-data


def test_check_data_of_the_digits(capsys):
    main(["check-data", "--data.dataset", "digits", "-o", "sheet.png"])
    out = capsys.readouterr().out
    assert "digits: 1438 images" in out
    assert Image.open("sheet.png").size[0] > 100
    assert "exists" in refused(capsys, "check-data", "-o", "sheet.png")


def test_check_data_names_a_truncated_jpeg(capsys):
    Path("images").mkdir()
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(f"images/{index}.jpg")
    whole = Path("images/2.jpg").read_bytes()
    Path("images/2.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit) as left:
        main(["check-data", "--data.dataset", "folder", "--data.root", "images", "-o", "sheet.png"])
    assert left.value.code == 1
    out = capsys.readouterr().out
    assert "2.jpg" in out
    assert "1.jpg" not in out
    assert Path("sheet.png").is_file()
    message = refused(
        capsys, "fit", *SHORT, "--data.dataset", "folder", "--data.root", "images", "--data.channels", "1"
    )
    assert "2.jpg" in message


def test_check_data_mistakes(capsys):
    assert "did you mean digits" in refused(capsys, "check-data", "--data.dataset", "digit")
    assert "did you mean data.root" in refused(capsys, "check-data", "--data.rot", "x")
    assert "nowhere" in refused(capsys, "check-data", "--data.dataset", "folder", "--data.root", "nowhere")


# loggers


def test_tensorboard_and_csv_overlays_log_into_the_run_folder():
    board = fit("--config", CONFIGS / "logger/tensorboard.yaml")
    table = fit("--config", CONFIGS / "logger/csv.yaml")
    assert not (board / "metrics.csv").exists()
    assert len(list(board.glob("events.out.tfevents*"))) == 1
    assert (table / "metrics.csv").is_file()
    assert not list(table.glob("events.out.tfevents*"))
    assert {path.name for path in Path("runs").iterdir()} == {"gan-digits"}


def records(data):
    """The records of a file in LevelDB's log format: blocks of 32 KiB, parts of (checksum, length, type, bytes)."""
    at, record = 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def test_wandb_offline_holds_metrics_images_and_config_on_one_axis(monkeypatch):
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    folder = fit("--config", CONFIGS / "logger/wandb.yaml", "--sample_every", 2)
    import wandb

    wandb.finish()
    wandb.teardown()  # ends the process that writes the file: only then it is whole
    (path,) = folder.rglob("*.wandb")
    rows, config = [], {}
    for data in records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        rows.append({(i.key or ".".join(i.nested_key)): json.loads(i.value_json) for i in record.history.item})
        for update in (*record.config.update, *record.run.config.update):
            config[update.key or ".".join(update.nested_key)] = json.loads(update.value_json)
    metrics = [row for row in rows if "train/d_loss" in row]
    pictures = [row for row in rows if row.get("samples._type") == "images/separated"]
    assert [row["trainer/global_step"] for row in metrics] == [0, 1, 2, 3]
    assert [row["trainer/global_step"] for row in pictures] == [1, 3]
    assert len(list(folder.rglob("media/images/*.png"))) == 2
    assert config["model"]["class_path"].endswith(".GAN")
    assert config["model"]["init_args"]["g_lr"] == 2e-4
    assert config["data"]["dataset"] == "digits"
    assert sorted(path.name for path in Path().iterdir()) == ["runs"]


def test_a_run_that_cannot_be_saved_ends_in_a_sentence_and_two_checkpoints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quickstart = str(Path(__file__).parents[1] / "configs/quickstart.yaml")
    words = ["--model.d_lr", "1e30", "--trainer.limit_val_batches", "1", "--trainer.enable_progress_bar", "false"]
    with pytest.raises(SystemExit) as left:
        main(["fit", "--config", quickstart, *words])
    assert left.value.code == 2
    message = capsys.readouterr().err
    assert "Training was stopped at step" in message
    assert "Traceback" not in message
    (folder,) = Path("runs").glob("*/version_*")
    assert len(list((folder / "checkpoints").glob("health-*.ckpt"))) == 2
    last = json.loads((folder / "health.jsonl").read_text("utf-8").splitlines()[-1])
    assert last["action"] == "stop"
    (good,) = (folder / "checkpoints").glob("*good.ckpt")
    main(["sample", str(good), "-n", "2", "-o", "x.npz"])


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("rolback", "unknown action 'rolback': did you mean rollback?"),
        ("{nam: skip}", "unknown kind 'nam': did you mean nan?"),
    ],
)
def test_an_action_that_does_not_exist(capsys, tmp_path, monkeypatch, action, said):
    monkeypatch.chdir(tmp_path)
    words = ["--trainer.callbacks+=ExplosionDetector", f"--trainer.callbacks.action={action}"]
    assert said in refused(capsys, "fit", *SHORT, *words)


def test_a_guard_that_is_there_twice(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    configs = Path(__file__).parents[1] / "configs"
    overlay = ["--config", configs / "callbacks/guard.yaml", "--trainer.max_steps", 2]
    assert "there are two GradientNormMonitor" in refused(
        capsys, "fit", "--config", configs / "quickstart.yaml", *overlay
    )


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("resume")]


def begin(*words):
    main(["fit", *SHORT, "--checkpoint_every", "2", *map(str, words)])


def test_resume_goes_on_in_the_folder_of_the_run_and_tells_once_what_changed(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    begin()
    with caplog.at_level("INFO"):
        begin("--resume", "--trainer.max_steps", 6, "--model.d_lr", 1e-4)
    assert messages(caplog) == [
        "resume: runs/gan-digits/version_0/checkpoints/last.ckpt, step 4",
        "resume: d_lr 0.0002 → 0.0001",
        "resume: trainer.max_steps 4 → 6",
    ]
    assert [path.name for path in Path("runs/gan-digits").iterdir()] == ["version_0"]
    folder = Path("runs/gan-digits/version_0")
    assert load(folder / LAST)["global_step"] == 6
    assert load(folder / LAST)["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-4
    steps = np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True)["step"].tolist()
    assert sorted(set(steps)) == [0, 1, 2, 3, 4, 5]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["resume"], config["ckpt_path"], config["trainer"]["max_steps"]) == (False, None, 6)


@pytest.mark.parametrize("words", [["--resume"], ["--ckpt_path", "last"]])
def test_resume_without_a_run_begins_one_and_says_so(words, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        begin(*words)
    assert messages(caplog) == ["resume: there is no checkpoint in runs/gan-digits/version_0 yet, the run begins"]
    assert load(Path("runs/gan-digits/version_0") / LAST)["global_step"] == 4


def test_resume_takes_the_newest_whole_state(tmp_path, monkeypatch, caplog, capsys):
    monkeypatch.chdir(tmp_path)
    begin()
    folder = Path("runs/gan-digits/version_0")
    os.truncate(folder / LAST, 2000)
    with caplog.at_level("INFO"):
        begin("--ckpt_path", folder, "--trainer.max_steps", 5)
    assert "last.ckpt is truncated" in messages(caplog)[0]
    assert messages(caplog)[1] == f"resume: {folder / LAST}.previous, step 2"
    steps = np.genfromtxt(folder / "metrics.csv", delimiter=",", names=True)["step"].tolist()
    assert steps == sorted(steps)
    assert load(folder / LAST)["global_step"] == 5
    for name in ("last.ckpt", "last.ckpt.previous"):
        os.truncate(folder / "checkpoints" / name, 2000)
    assert "none of the checkpoints in" in refused(capsys, "fit", *SHORT, "--ckpt_path", folder)


def test_what_cannot_change_within_a_run_is_refused_and_the_run_stays_as_it_was(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    begin()
    folder = Path("runs/gan-digits/version_0")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wider = "--model.discriminator.widths=[32]"
    assert "(16, 64) in the checkpoint, (32, 64) in the model" in refused(capsys, "fit", *SHORT, "--resume", wider)
    other = ["--ckpt_path", folder, "--model", "WGAN"]
    assert "is a run of lit_gans.models.gan.GAN, the config asks for" in refused(capsys, "fit", *SHORT, *other)
    optimizer = ["--resume", "--model.g_optimizer", "torch.optim.RMSprop"]
    assert "state of Adam and Adam" in refused(capsys, "fit", *SHORT, *optimizer)
    checkpoint = load(folder / LAST)
    checkpoint["lit_gans"]["format"] = 99
    torch.save(checkpoint, "future.ckpt")
    assert "format 99, of a later lit_gans" in refused(capsys, "fit", *SHORT, "--ckpt_path", "future.ckpt")
    Path("empty").mkdir()
    assert "empty holds no checkpoint" in refused(capsys, "fit", *SHORT, "--ckpt_path", "empty")
    assert [path.name for path in Path("runs/gan-digits").iterdir()] == ["version_0"]
    kept = {path: content for path, content in before.items() if path.suffix in (".ckpt", ".yaml")}
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_folder_that_a_living_process_writes_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    begin()
    folder = Path("runs/gan-digits/version_0")
    os.close(folders._locks.pop(folder.resolve()))
    hold = f"import fcntl, os; fcntl.flock(os.open('{folder}', os.O_RDONLY), 2); print(1, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline()
    assert re.search(
        rf"{folder} is being written by (process {holder.pid}|another)", refused(capsys, "fit", *SHORT, "--resume")
    )
    holder.communicate(b"\n")
    begin("--resume", "--trainer.max_steps", 5)


def test_a_run_that_never_began_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    refused(capsys, "fit", *SHORT, "--trainer.accelerator", "gpu")
    refused(capsys, "fit", *SHORT, "--model.latent_dim", "7")
    assert not Path("runs").exists()
    Path("runs").mkdir()  # what was there before stays
    refused(capsys, "fit", *SHORT, "--model.latent_dim", "7")
    assert list(Path("runs").iterdir()) == []


@pytest.mark.parametrize("rate", [2e-4, 1e-4])
def test_a_schedule_goes_on_in_the_proportion_of_the_rates(rate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--model.g_scheduler", "torch.optim.lr_scheduler.StepLR", "--model.g_scheduler.step_size", 3]
    begin(*words)
    begin(*words, "--resume", "--trainer.max_steps", 7, "--model.g_lr", rate)
    group = load(Path("runs/gan-digits/version_0") / LAST)["optimizer_states"][1]["param_groups"][0]
    assert group["lr"] == pytest.approx(rate * 0.1**2)


def test_slurm_is_asked_to_start_the_job_again(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho $* > asked\n")
    (tmp_path / "scontrol").chmod(0o755)

    class Warn(Callback):
        def on_train_batch_start(self, trainer, *args):
            if trainer.global_step == 2:
                os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(training.CommandLine, "callbacks", lambda self, *args, make=training.CommandLine.callbacks: [
        Warn(), *make(self, *args)
    ])  # fmt: skip
    with pytest.raises(SystemExit) as left:
        begin()
    assert left.value.code == 128 + signal.SIGUSR1
    assert Path("asked").read_text() == "requeue 123\n"
    assert load(Path("runs/gan-digits/version_0") / LAST)["global_step"] == 3


def test_resuming_from_a_newer_best_makes_it_the_last(tmp_path, monkeypatch, caplog):
    """As after a kill between the two writes that follow the last validation."""
    monkeypatch.chdir(tmp_path)
    begin("--trainer.val_check_interval", 2, "--monitor", "val/d_loss", "--monitor_mode", "max")
    checkpoints = Path("runs/gan-digits/version_0/checkpoints")
    (checkpoints / "best.ckpt").write_bytes((checkpoints / "last.ckpt").read_bytes())
    (checkpoints / "last.ckpt.previous").replace(checkpoints / "last.ckpt")
    os.utime(checkpoints / "last.ckpt", (0, 0))
    assert load(checkpoints / "last.ckpt")["global_step"] == 2
    with caplog.at_level("INFO"):
        begin("--resume", "--trainer.val_check_interval", 2, "--monitor", "val/d_loss", "--monitor_mode", "max")
    assert messages(caplog) == [f"resume: {checkpoints}/best.ckpt, step 4"]
    assert load(checkpoints / "last.ckpt")["global_step"] == 4
