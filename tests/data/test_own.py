"""Data sets of one's own: functions that give images and labels, in Python and in a config."""

import numpy as np
import pytest
import torch

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
        ("missing", "it must name a function, module:function"),
    ],
)
def test_what_a_function_must_give_is_told(name, message, own):
    with pytest.raises(ValueError, match=message):
        own_images(f"{own}:{name}", train=True)


def test_a_config_trains_on_it(own, tmp_path):
    (tmp_path / "own.yaml").write_text(
        f"""
model:
  class_path: GAN
  init_args:
    generator: {{class_path: MLPGenerator, init_args: {{latent_dim: 4, widths: [8]}}}}
    discriminator: {{class_path: MLPDiscriminator, init_args: {{widths: [8]}}}}
    latent_dim: 4
data: {{dataset: "{own}:squares", image_size: 8, channels: 1, batch_size: 16}}
trainer: {{max_steps: 2, logger: false, accelerator: cpu, enable_progress_bar: false}}
"""
    )
    main(["fit", "--config", "own.yaml"])
    assert list(tmp_path.glob("runs/gan-*.squares/version_0/checkpoints/last.ckpt"))
