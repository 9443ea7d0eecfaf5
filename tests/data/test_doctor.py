"""The doctor names what is wrong, and shows what is there."""

import shutil

import numpy as np
import pytest
from PIL import Image

from lit_gans.data import ImageDataModule, examine


def save(path, seed=0, size=(16, 16), grey=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(
        0, 256, (size[1], size[0]) if grey else (size[1], size[0], 3), np.uint8
    )
    Image.fromarray(array).save(path)


@pytest.fixture
def sick(tmp_path):
    """Two classes with one illness of each kind."""
    for n in range(5):
        save(tmp_path / "cat" / f"{n}.png", n)
    shutil.copy(tmp_path / "cat" / "0.png", tmp_path / "dog.png")
    (tmp_path / "dog").mkdir()
    shutil.move(tmp_path / "dog.png", tmp_path / "dog" / "twin.png")
    save(tmp_path / "dog" / "grey.png", 7, grey=True)
    save(tmp_path / "dog" / "small.png", 8, size=(9, 20))
    Image.new("RGB", (16, 16), (9, 9, 9)).save(tmp_path / "dog" / "blank.png")
    (tmp_path / "dog" / "text.jpg").write_text("no image")
    data = (tmp_path / "cat" / "1.png").read_bytes()
    (tmp_path / "dog" / "half.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "notes.txt").write_text("left out")
    return tmp_path


def test_every_illness_is_named(sick):
    report = examine(ImageDataModule("folder", root=sick, image_size=12, batch_size=4))
    assert not report.ok
    assert report.count == 11
    assert report.classes == {"cat": 5, "dog": 6}
    assert report.sizes == {(16, 16): 8, (9, 20): 1}
    assert report.modes == {"RGB": 8, "L": 1}
    assert set(report.broken) == {"dog/text.jpg", "dog/half.png"}
    assert report.broken["dog/text.jpg"] == "not an image"
    assert report.odd == ["dog/grey.png (L)"]
    assert report.small == ["dog/small.png"]
    assert report.duplicates == [["cat/0.png", "dog/twin.png"]]
    assert report.blank == ["dog/blank.png"]
    assert report.ignored == 1
    assert len(report.problems) == 3
    text = str(report)
    for part in ("11 images", "cat: 5", "16x16: 8", "dog/half.png (", "cat/0.png = dog/twin.png", "training refuses:"):
        assert part in text
    report.contact_sheet(sick / "sheet.png")
    assert Image.open(sick / "sheet.png").size == (8 * 96, 2 * 96)


def test_a_healthy_folder_is_taken(tmp_path):
    for n in range(3):
        save(tmp_path / f"{n}.png", n)
    data = ImageDataModule("folder", root=tmp_path, batch_size=3)
    report = examine(data)
    data.setup()
    assert report.ok
    pixels = np.concatenate([np.asarray(Image.open(tmp_path / f"{n}.png")) for n in range(3)])
    assert (report.low, report.high) == (pixels.min(), pixels.max())
    assert report.mean == pytest.approx(pixels.mean())
    assert "training takes it" in str(report)


def test_it_agrees_with_training_on_what_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        examine(ImageDataModule("folder", root=tmp_path / "nowhere"))
    empty = examine(ImageDataModule("folder", root=tmp_path))
    assert not empty.ok
    assert "no images in" in str(empty)
    with pytest.raises(ValueError, match="no readable image"):
        empty.contact_sheet(tmp_path / "sheet.png")
    save(tmp_path / "1.png")
    save(tmp_path / "cat" / "1.png", 1)
    mixed = examine(ImageDataModule("folder", root=tmp_path, batch_size=1))
    assert "lie beside class folders" in mixed.problems[0]
    few = examine(ImageDataModule("folder", root=tmp_path / "cat", batch_size=2))
    assert few.problems == ["batch_size 2 is larger than the data set of 1 images: set batch_size lower"]


def test_values_of_0_to_1_are_hinted_at(tmp_path):
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(tmp_path / "mask.png")
    assert "nearly black" in str(examine(ImageDataModule("folder", root=tmp_path, batch_size=1)))


def test_embedded_data_is_examined_too(tmp_path):
    report = examine(ImageDataModule("digits"))
    assert report.ok
    assert report.count == sum(report.classes.values()) == 1438
    assert report.sizes == {(8, 8): 1438}
    report.contact_sheet(tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").size[0] == 8 * 96
