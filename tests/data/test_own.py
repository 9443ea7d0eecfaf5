"""Data sets of one's own: functions that give images and labels, in Python and in a config."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from lit_gans import ImageDataModule
from lit_gans.cli import main
from lit_gans.data.own import own_images

MODULE = """
import numpy as np


def squares(train):
    rng, n = np.random.default_rng(int(train)), 48 if train else 16
    return rng.integers(0, 256, (n, 8, 8), dtype=np.uint8), np.arange(n) % 3


def unlabelled(train):
    return np.zeros((20, 6, 10, 3), np.uint8) if train else None


def wrong(train):
    return np.zeros((4, 8, 8))


def labels(train):
    return np.zeros((4, 8, 8), np.uint8), [0.5] * 4


def named(train):
    return np.zeros((4, 8, 8), np.uint8), ["cat", "dog"] * 2


def ragged(train):
    return [np.zeros((8, 8), np.uint8), np.zeros((9, 8), np.uint8)]


def one_class(train):
    return np.random.default_rng(int(train)).integers(0, 256, (24, 8, 8), dtype=np.uint8), np.zeros(24, int)


def more_held_out(train):
    rng, n = np.random.default_rng(0), 24
    return rng.integers(0, 256, (n, 8, 8), dtype=np.uint8), np.arange(n) % (3 if train else 5)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_images_and_labels_of_a_function(own):
    data = ImageDataModule(f"{own}:squares", batch_size=16)
    data.setup("fit")
    assert (data.channels, data.image_size, data.num_classes) == (1, 8, 3)
    x, y = next(iter(data.val_dataloader()))
    expected = np.random.default_rng(0).integers(0, 256, (16, 8, 8), dtype=np.uint8)
    assert torch.equal(((x + 1) * 127.5).round().byte()[:, 0], torch.from_numpy(expected))
    assert y.tolist() == [n % 3 for n in range(16)]
    assert len(list(data.train_dataloader())) == 3


def test_colours_without_labels_and_without_held_out_images(own):
    data = ImageDataModule(f"{own}:unlabelled", batch_size=4)
    data.setup("fit")
    (x,) = next(iter(data.train_dataloader()))
    assert x.shape == (4, 3, 6, 6)
    assert data.val_dataloader() == []
    assert data.num_classes is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wrong", "they must be uint8"),
        ("labels", "one whole number from 0 up for each image"),
        ("named", "labels that are no array of numbers: they must be one whole number from 0 up for each image"),
        ("ragged", "images that are no array of numbers: they must be uint8 and of one size"),
        ("missing", "it must name a function, module:function"),
    ],
)
def test_what_a_function_must_give_is_told(name, message, own):
    with pytest.raises(ValueError, match=message):
        own_images(f"{own}:{name}", train=True)


def test_a_config_trains_on_it(own, tmp_path):
    write_config(tmp_path, f"{own}:squares")
    main(["fit", "--config", "own.yaml"])
    assert list(tmp_path.glob("runs/gan-*.squares/version_0/checkpoints/last.ckpt"))


def test_held_out_classes_that_are_not_learned_from_are_refused_before_training(own, tmp_path, capsys):
    write_config(tmp_path, f"{own}:more_held_out", cls="CGAN")
    message = refused(capsys, "fit", "--config", "own.yaml", "--model.num_classes", "3")
    assert "labels 0..4 in the held-out data, but num_classes=3" in message
    assert not list(tmp_path.glob("runs/*/*/checkpoints/*"))


def test_a_model_of_labels_without_a_number_of_classes_says_which_option_it_misses(own, tmp_path, capsys):
    write_config(tmp_path, f"{own}:squares", cls="CGAN")
    message = refused(capsys, "fit", "--config", "own.yaml")
    assert "missing num_classes: the model learns from labels; give their number, --model.num_classes" in message


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        ("GAN", []),
        ("CGAN", ["--model.num_classes=1"]),
        ("ACGAN", ["--model.num_classes=1", "--model.discriminator.head=1"]),
        ("ReACGAN", ["--model.num_classes=1", "--model.embed_dim=4", "--model.discriminator.head=4"]),
    ],
)
def test_data_of_one_class_are_learned_from_and_measured(cls, options, own, tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    write_config(tmp_path, f"{own}:one_class", cls)
    metrics = ["--trainer.callbacks=GenerativeMetrics", "--trainer.callbacks.metrics=[fd,classes]"]
    protocol = '{"class_path": "lit_gans.metrics.Protocol", "init_args": {"fakes": 24}}'
    metrics += ["--trainer.callbacks.extractor=digits", "--trainer.callbacks.every_n_steps=2"]
    metrics += [f"--trainer.callbacks.protocol={protocol}", "--trainer.logger=true"]
    main(["fit", "--config", "own.yaml", *options, *metrics, "--trainer.log_every_n_steps=1"])
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    saved = torch.load(checkpoint, weights_only=True)
    assert all(torch.isfinite(value).all() for value in saved["state_dict"].values())
    (log,) = tmp_path.rglob("metrics.csv")
    rows = list(csv.DictReader(log.open()))
    values = [float(value) for row in rows for value in row.values() if value]
    assert {"train/g_loss", "train/d_loss", "val/entropy", "val/fd_digits"} <= rows[0].keys()
    assert values
    assert np.isfinite(values).all()


def test_a_folder_of_one_class_folder_has_no_labels_and_says_so(own, tmp_path, capsys):
    for n in range(4):
        path = tmp_path / "images" / "cat" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 60 * n).save(path)
    write_config(tmp_path, "folder", "CGAN")
    words = ["fit", "--config", "own.yaml", "--data.root=images", "--data.batch_size=2"]
    message = refused(capsys, *words, "--model.num_classes=1")
    assert (
        "the model has 1, the data have no labels (a folder has them where it holds two class folders or more"
        in message
    )
    main([*words, "--model.class_path=GAN"])
    assert list(tmp_path.rglob("last.ckpt"))


def write_config(folder, dataset, cls="GAN"):
    (folder / "own.yaml").write_text(
        f"""
model:
  class_path: {cls}
  init_args:
    generator: {{class_path: MLPGenerator, init_args: {{latent_dim: 4, widths: [8]}}}}
    discriminator: {{class_path: MLPDiscriminator, init_args: {{widths: [8]}}}}
    latent_dim: 4
data: {{dataset: "{dataset}", image_size: 8, channels: 1, batch_size: 16}}
trainer: {{max_steps: 2, logger: false, accelerator: cpu, enable_progress_bar: false}}
"""
    )
