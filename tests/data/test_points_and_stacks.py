"""Points around known centres, and stacks of three digits: right places, labels and numbers, on the usual loader."""

import gzip
import itertools
import math
import pickle
import struct

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from lit_gans.data import ImageDataModule, examine
from lit_gans.data.points import draw_points, mixture
from lit_gans.data.sources import ArrayImages, StackedImages

PLANES = {"ring": 8, "grid": 25, "spiral": 20}


@pytest.mark.parametrize(("name", "modes"), PLANES.items())
def test_batches_are_points_and_their_modes(name, modes):
    data = ImageDataModule(name, batch_size=500)
    data.setup()
    points, labels = next(iter(data.train_dataloader()))
    assert (points.shape, points.dtype) == ((500, 2), torch.float32)
    assert (labels.shape, labels.dtype) == ((500,), torch.int64)
    assert (data.num_classes, data.shape, len(data.class_names)) == (modes, (2,), modes)
    assert (len(data.source("train")), len(data.source("val"))) == (50_000, 10_000)
    assert data.source("test") is data.source("val")
    assert torch.equal(torch.cdist(points, data.mixture.centers).argmin(1), labels)


@pytest.mark.parametrize("name", PLANES)
def test_each_mode_is_a_round_gaussian_of_the_right_size(name):
    points, labels = draw_points(name, train=True)
    centers, std = mixture(name)
    noise = (points - centers[labels]).double() / std
    n = len(noise)
    assert noise.mean(0).abs().max() < 4 / math.sqrt(n)
    assert torch.allclose(noise.T.cov(), torch.eye(2, dtype=torch.float64), atol=6 / math.sqrt(n))
    within = (noise.norm(dim=1) <= 3).double().mean()  # 1 - exp(-9/2), that of a Rayleigh distribution
    assert float(within) == pytest.approx(1 - math.exp(-4.5), abs=4 * math.sqrt(0.011 / n))
    assert labels.bincount().tolist() == [n // len(centers)] * len(centers)


def test_the_centres_are_those_of_the_papers():
    ring, grid = mixture("ring"), mixture("grid")
    assert torch.allclose(ring.centers.norm(dim=1), torch.tensor(2.0))
    assert torch.allclose(ring.centers.sum(0), torch.zeros(2), atol=1e-6)
    assert {tuple(center) for center in grid.centers.tolist()} == set(itertools.product((-4, -2, 0, 2, 4), repeat=2))
    assert (ring.std, grid.std) == (0.02, 0.05)


@pytest.mark.parametrize("name", PLANES)
def test_modes_are_too_far_apart_to_be_mistaken(name):
    centers, std = mixture(name)
    between = torch.cdist(centers, centers) + 100 * torch.eye(len(centers))
    assert between.min() > 10 * std


def test_the_points_are_always_the_same_ones_and_the_held_out_are_others():
    first, again = (ImageDataModule("ring", seed=seed).source("train").array for seed in (0, 1))
    assert torch.equal(first, again)
    held_out = ImageDataModule("ring").source("val").array
    assert not torch.isclose(first[:10_000], held_out).all(1).any()
    assert torch.equal(ImageDataModule("ring", limit=80).source("train").array, first[:80])


def test_workers_ranks_and_resuming_change_nothing():
    def batches(**options):
        data = ImageDataModule("grid", batch_size=16, limit=100, **options)
        return data.train_dataloader()

    one, two = ([points for points, _ in batches(num_workers=workers)] for workers in (0, 2))
    assert all(map(torch.equal, one, two))
    loader = batches()
    passes = iter(loader)
    for _ in range(3):
        next(passes)
    resumed = batches()
    resumed.load_state_dict(loader.state_dict())
    rest = [points for points, _ in resumed]
    assert len(rest) == 3
    assert all(map(torch.equal, rest, one[3:]))
    assert torch.equal(pickle.loads(pickle.dumps(loader)).dataset.array, loader.dataset.array)


class Seen(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches = []

    def training_step(self, batch, batch_idx):
        self.batches.append(batch[0])
        return self.weight.square()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_lightning_trains_on_them():
    module = Seen()
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(module, ImageDataModule("spiral", batch_size=20, limit=60))
    assert [tuple(batch.shape) for batch in module.batches] == [(20, 2)] * 3


def test_points_have_no_size_of_images():
    data = ImageDataModule("ring")
    for name in ("channels", "image_size"):
        with pytest.raises(AttributeError, match="ring holds points, which have neither channels nor image_size"):
            getattr(data, name)
    assert ImageDataModule("digits").mixture is None
    assert ImageDataModule("digits").shape == (1, 8, 8)
    assert data.describe("train") == {"dataset": "ring", "split": "train", "limit": None}


def test_the_doctor_counts_points():
    report = examine(ImageDataModule("ring", limit=80))
    assert str(report).splitlines()[0] == "ring: 80 points"
    assert report.classes == {str(mode): 10 for mode in range(8)}
    assert report.ok
    assert not examine(ImageDataModule("ring", limit=8, batch_size=9)).ok


# stacked MNIST


@pytest.fixture
def fake_mnist(tmp_path):
    """MNIST's files with 40 training and 20 test images; the image of a digit d is d everywhere."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, n in (("train", 40), ("t10k", 20)):
        labels = np.arange(n, dtype=np.uint8) % 10
        images = np.broadcast_to(labels[:, None, None], (n, 28, 28))
        for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            content = struct.pack(f">{1 + array.ndim}i", magic, *array.shape) + array.tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(content)
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    return tmp_path


@pytest.mark.parametrize("options", [{}, {"image_size": 32}, {"in_memory": False, "num_workers": 1, "image_size": 16}])
def test_each_channel_is_a_digit_and_the_label_reads_them(fake_mnist, options):
    data = ImageDataModule("stacked_mnist", fake_mnist, download=False, batch_size=50, limit=100, **options)
    data.setup()
    images, labels = next(iter(data.train_dataloader()))
    size = options.get("image_size", 28)
    assert images.shape == (50, 3, size, size)
    assert (data.shape, data.num_classes) == ((3, size, size), 1000)
    digits = ((images + 1) * 127.5).round().long()
    assert torch.equal(digits.amin((2, 3)), digits.amax((2, 3)))
    assert torch.equal(digits[:, :, 0, 0] @ torch.tensor([100, 10, 1]), labels)


def test_there_are_as_many_stacks_as_in_the_literature_and_each_digit_is_held_once(fake_mnist):
    data = ImageDataModule("stacked_mnist", fake_mnist, download=False)
    source = data.source("train")
    assert (len(source), len(data.source("val"))) == (128_000, 26_000)
    assert source.parts.array.shape == (40, 1, 28, 28)
    assert len(source.labels.unique()) == 1000
    again = ImageDataModule("stacked_mnist", fake_mnist, download=False, seed=5).source("train")
    assert torch.equal(again.choice, source.choice)


def test_only_labelled_grey_images_are_stacked():
    for images, labels in ((torch.zeros(2, 3, 4, 4), torch.arange(2)), (torch.zeros(2, 1, 4, 4), None)):
        with pytest.raises(ValueError, match="only grey images with labels can be stacked"):
            StackedImages(ArrayImages(images.byte(), labels), torch.zeros(1, 3, dtype=torch.int64))


def test_missing_digits_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="stacked_mnist needs MNIST/raw"):
        ImageDataModule("stacked_mnist", tmp_path, download=False).setup()
