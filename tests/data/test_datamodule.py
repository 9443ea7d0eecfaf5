"""The data module: pixels, splits, sources, and what it refuses."""

import io
import pickle
import zipfile
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
import torchvision
from launching import python
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import transforms

from lit_gans.data import ImageDataModule
from lit_gans.data.catalog import DATASETS
from lit_gans.data.datamodule import DataSet

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
CUSTOMARY = transforms.Compose([transforms.ToTensor(), transforms.Normalize(0.5, 0.5)])


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The official MNIST and CIFAR-10 files, where they are at hand."""
    if not (SHARED / "prepare.py").exists():
        pytest.skip(f"no real data in {SHARED}")
    root = tmp_path_factory.mktemp("real")
    assert python(SHARED / "prepare.py", root, "mnist", "cifar10", cwd=root).returncode == 0
    return root


def picture(seed, size=(8, 8), mode="RGB"):
    bands = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    array = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], *bands), np.uint8)
    return Image.fromarray(array)


def save(folder, *names, size=(8, 8), mode="RGB", seed=0):
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed + n, size, mode).save(folder / name)
    return folder


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def load(root, dataset="folder", **options):
    data = ImageDataModule(dataset, root=root, **{"batch_size": 1, "drop_last": False, "download": False, **options})
    data.setup()
    return data


def stored(loader):
    """All images of a fixed order."""
    return torch.cat([batch[0] for batch in loader])


def training_images(data):
    """All training images in their stored order, as scaled floats."""
    source = data.source("train")
    return source.images(torch.arange(len(source))).float() / 127.5 - 1


def test_the_catalogue_lists_every_data_set():
    assert sorted(DATASETS) == sorted(get_args(DataSet))


def test_digits_are_those_of_scikit_learn():
    data = ImageDataModule("digits")
    assert (data.channels, data.image_size, data.num_classes) == (1, 8, 10)
    train, held_out = data.source("train"), data.source("val")
    assert (len(train), len(held_out)) == (1438, 359)
    pixels = torch.cat([train.array, held_out.array]).flatten(1).numpy()
    expected = (load_digits().data * 255 / 16).round()
    assert sorted(map(tuple, pixels.tolist())) == sorted(map(tuple, expected.tolist()))
    assert torch.bincount(held_out.labels).tolist() == pytest.approx([36] * 10, abs=2)
    images, labels = next(iter(data.train_dataloader()))
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert (images.min(), images.max()) == (-1, 1)


@pytest.mark.parametrize("dataset", ["mnist", "cifar10"])
def test_pixels_are_those_of_the_customary_pipeline(real, dataset):
    kind = {"mnist": torchvision.datasets.MNIST, "cifar10": torchvision.datasets.CIFAR10}[dataset]
    official = kind(real, train=False, transform=CUSTOMARY)
    data = ImageDataModule(dataset, root=real, download=False, batch_size=1000)
    data.setup("test")
    images, labels = zip(*data.test_dataloader(), strict=True)
    images, labels = torch.cat(images), torch.cat(labels)
    assert images.shape == (10000, data.channels, data.image_size, data.image_size)
    for n in range(0, 10000, 499):
        assert torch.allclose(images[n], official[n][0], atol=1e-6)
    assert labels.tolist() == list(official.targets)


def test_resizing_is_antialiased(tmp_path):
    save(tmp_path, "a.png", "b.png", size=(40, 64))
    images = training_images(load(tmp_path, image_size=16))
    resize = transforms.Compose([transforms.Resize(16, antialias=True), transforms.CenterCrop(16), CUSTOMARY])
    for n, name in enumerate(("a.png", "b.png")):
        # torchvision scales pictures by Pillow, tensors by itself: they round apart by one step of 255
        assert torch.allclose(images[n], resize(Image.open(tmp_path / name)), atol=1.01 / 127.5)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("in_memory", [True, False])
def test_channels_are_converted(tmp_path, mode, channels, in_memory):
    save(tmp_path, "a.png", mode=mode)
    data = load(tmp_path, channels=channels, in_memory=in_memory)
    expected = CUSTOMARY(Image.open(tmp_path / "a.png").convert("L" if channels == 1 else "RGB"))
    assert torch.allclose(training_images(data)[0], expected, atol=1e-6)
    assert data.channels == channels


@pytest.mark.parametrize("in_memory", [True, False])
def test_arrays_are_converted_and_resized(in_memory):
    plain = training_images(ImageDataModule("digits", limit=5))
    data = ImageDataModule("digits", limit=5, channels=3, image_size=16, in_memory=in_memory)
    assert len(data.source("train")) == 5
    images = training_images(data)
    assert images.shape == (5, 3, 16, 16)
    assert torch.equal(images[:, 0], images[:, 2])
    shrunk = training_images(ImageDataModule("digits", limit=5, image_size=4, in_memory=in_memory))
    for found, size in ((images[:, :1], 16), (shrunk, 4)):
        expected = torchvision.transforms.functional.resize(plain, [size, size], antialias=True)
        assert torch.allclose(found, expected, atol=1.01 / 127.5)


def test_transparency_is_laid_on_white_and_16_bits_are_scaled(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    images = training_images(load(tmp_path, channels=3))
    assert (images[0] == 1).all()
    assert torch.allclose(images[1], torch.tensor(128 / 127.5 - 1), atol=1e-6)


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image = picture(0)
    image.save(tmp_path / "a.png", exif=exif)
    assert torch.allclose(training_images(load(tmp_path))[0], CUSTOMARY(image).flip(-1, -2), atol=1e-6)


def zipped(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder.parent))
    return path


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_class_folders_give_labels(tmp_path, form):
    folder = save(tmp_path / "pets", "cat/1.png", "cat/old/2.PNG", "dog/1.jpg", ".hidden/1.png")
    (folder / "dog" / "notes.txt").write_text("no image")
    data = load(folder if form == "folder" else zipped(folder), batch_size=3)
    assert (data.num_classes, data.class_names, data.channels, data.image_size) == (2, ["cat", "dog"], 3, 8)
    images, labels = next(iter(data.train_dataloader()))
    assert sorted(labels.tolist()) == [0, 0, 1]
    expected = CUSTOMARY(Image.open(folder / "dog" / "1.jpg"))
    assert torch.allclose(images[labels == 1][0], expected, atol=1e-6)
    assert data.val_dataloader() == data.test_dataloader() == []


@pytest.mark.parametrize("names", [("1.png", "2.png"), ("all/1.png", "all/2.png")])
def test_images_in_one_folder_have_no_labels(tmp_path, names):
    data = load(save(tmp_path, *names), batch_size=2)
    batch = next(iter(data.train_dataloader()))
    assert (len(batch), batch[0].shape, data.num_classes) == (1, (2, 3, 8, 8), None)


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_streaming_workers_and_memory_give_the_same_batches(tmp_path, form):
    root = save(tmp_path / "many", *[f"{n:02}.png" for n in range(20)], size=(9, 8))
    root = root if form == "folder" else zipped(root)
    runs = [
        [batch[0] for batch in load(root, image_size=8, batch_size=3, flip=True, **options).train_dataloader()]
        for options in ({"in_memory": True}, {"in_memory": False}, {"in_memory": False, "num_workers": 2})
    ]
    assert len(runs[0]) == 7
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_size_decides_where_images_live(tmp_path, monkeypatch):
    save(tmp_path, "1.png", "2.png")
    assert hasattr(load(tmp_path).source("train"), "array")
    monkeypatch.setattr("lit_gans.data.datamodule.MEMORY_LIMIT", 2 * 3 * 8 * 8 - 1)
    assert hasattr(load(tmp_path).source("train"), "files")


def test_fake_images_depend_on_their_number_only():
    data = ImageDataModule("fake", image_size=6, channels=1, fake_classes=3, fake_length=20)
    assert (data.channels, data.image_size, data.num_classes) == (1, 6, 3)
    source = data.source("train")
    assert torch.equal(source.images(torch.tensor([7]))[0], data.open("train").images(torch.tensor([2, 7]))[1])
    assert source.labels.tolist() == [n % 3 for n in range(20)]
    assert len(data.source("val")) == 5
    assert not torch.equal(data.source("val").images(torch.tensor([0])), source.images(torch.tensor([0])))
    assert len(next(iter(ImageDataModule("fake", fake_classes=None).train_dataloader()))) == 1


@pytest.fixture
def celeba(tmp_path):
    """Six faces of the official size, in the official folder with the official list."""
    base = tmp_path / "celeba"
    names = [f"{n:06}.jpg" for n in range(1, 7)]
    save(base / "img_align_celeba", *names, size=(178, 218))
    lines = [f"{name} {part}" for name, part in zip(names, "000112", strict=True)]
    (base / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return base


def test_celeba_is_cropped_and_split_as_papers_do(celeba):
    for root in (celeba, celeba.parent):
        data = load(root, "celeba", batch_size=3)
        assert [len(data.source(split)) for split in ("train", "val", "test")] == [3, 2, 1]
    (images,) = next(iter(data.val_dataloader()))
    face = Image.open(celeba / "img_align_celeba" / "000004.jpg").crop((0, 20, 178, 198))
    expected = CUSTOMARY(face.resize((64, 64), Image.Resampling.BILINEAR))
    assert torch.allclose(images[0], expected, atol=1.01 / 127.5)
    assert (data.channels, data.image_size, data.num_classes) == (3, 64, None)


def test_celeba_is_refused_without_its_parts(celeba):
    (celeba / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 images of .*list_eval_partition.txt are not in .*: 000002.jpg"):
        load(celeba, "celeba")
    (celeba / "list_eval_partition.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"celeba needs the list list_eval_partition.txt.*--data.download true"):
        load(celeba, "celeba")


def test_missing_data_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(
        FileNotFoundError, match=r"mnist needs MNIST/raw.*download=True \(--data.download true\)"
    ) as error:
        load(tmp_path, "mnist")
    assert str(tmp_path) in str(error.value)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", lambda self: 1 / 0)
    with pytest.raises(
        FileNotFoundError, match=r"cifar10 needs .*the download failed \(division by zero\).*--data.root"
    ):
        load(tmp_path, "cifar10", download=True)


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder or .zip of images at .*nowhere.*--data.root"):
        load(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(FileNotFoundError, match=r"no images in .*\.jpg.*--data.root"):
        load(tmp_path)
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"broken.zip is not a readable .zip"):
        load(tmp_path / "broken.zip")


def test_truncated_images_are_named(tmp_path):
    save(tmp_path, *[f"{n:02}.jpg" for n in range(14)], size=(64, 64))
    for n in range(12):
        truncate(tmp_path / f"{n:02}.jpg")
    for in_memory in (True, False):
        with pytest.raises(
            ValueError, match=r"cannot read 12 image files in .*: 00.jpg, .*, 09.jpg and 2 more; remove"
        ):
            load(tmp_path, in_memory=in_memory)


def test_what_is_no_image_is_named(tmp_path):
    save(tmp_path, "a.png")
    (tmp_path / "b.png").write_text("hello")
    with pytest.raises(ValueError, match=r"cannot read 1 image file in .*: b.png; remove"):
        load(tmp_path)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_breaks_later_is_named(tmp_path, workers):
    save(tmp_path, "a.jpg", "b.jpg", size=(64, 64))
    data = load(tmp_path, in_memory=False, num_workers=workers)
    truncate(tmp_path / "b.jpg")
    with pytest.raises(ValueError, match=r"cannot read 1 image file in .*: b.jpg \(image file is truncated"):
        list(data.train_dataloader())


def test_a_grey_image_among_colour_is_named(tmp_path):
    save(tmp_path, "a.png", "b.png", "c.png")
    save(tmp_path, "d.png", mode="L")
    save(tmp_path, "e.png", mode="RGBA")
    with pytest.raises(ValueError, match=r"2 of 5 images .* not RGB: d.png \(L\), e.png \(RGBA\); .*--data.channels 3"):
        load(tmp_path)
    assert len(load(tmp_path, channels=3).train_dataloader()) == 5


def test_small_images_and_mixed_sizes_are_named(tmp_path):
    save(tmp_path, "a.png", size=(20, 30))
    save(tmp_path, "b.png", size=(12, 40))
    with pytest.raises(ValueError, match=r"1 of 2 .* smaller than image_size 16: b.png \(12 px\); .* at most 12"):
        load(tmp_path, image_size=16)
    with pytest.raises(ValueError, match=r"not squares of one size \(shorter sides 12 to 20\): set image_size"):
        load(tmp_path)
    assert load(tmp_path, image_size=12).image_size == 12


def test_images_beside_class_folders_are_named(tmp_path):
    save(tmp_path, "a.png", "cat/1.png")
    with pytest.raises(ValueError, match=r"1 images lie beside class folders in .*: a.png; move them"):
        load(tmp_path)


def test_too_few_images_are_refused_in_setup(tmp_path):
    save(tmp_path, "a.png", "b.png")
    with pytest.raises(ValueError, match="batch_size 3 is larger than the data set of 2 images"):
        load(tmp_path, batch_size=3, drop_last=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "minst"}, "unknown dataset 'minst': did you mean mnist"),
        ({"dataset": "CIFAR"}, "did you mean cifar10"),
        ({"channels": 2}, r"channels must be 1 \(grey\) or 3 \(RGB\), not 2"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"limit": 0}, "limit must be at least 1, not 0"),
        ({"dataset": "ring", "image_size": 8}, "ring holds points, no images: leave image_size out"),
        ({"dataset": "grid", "channels": 3}, "grid holds points, no images: leave channels out"),
        ({"dataset": "spiral", "flip": True}, "spiral holds points, no images: leave flip out"),
        ({"dataset": "stacked_mnist", "channels": 1}, "leave channels out, or take mnist"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        ImageDataModule(**options)


def test_hyperparameters_are_plain_and_the_module_travels(tmp_path):
    data = load(zipped(save(tmp_path / "a", "1.png")))
    assert data.hparams["root"] == str(tmp_path / "a.zip")
    torch.load(io.BytesIO(_saved(dict(data.hparams))), weights_only=True)
    assert torch.equal(training_images(pickle.loads(pickle.dumps(data))), training_images(data))


def _saved(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()
