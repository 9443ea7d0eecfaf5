"""Files that are no honest ones: pipes, bombs, names that a terminal would obey, code in old formats."""

import os
import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from lit_gans.cli import main
from lit_gans.data import ImageDataModule, files
from lit_gans.runs.checkpoint_files import CheckpointError, SafeCheckpointIO, read

GOOD = Path(__file__).parent / "data" / "format_1.ckpt"
MARK = "mark-of-the-stranger"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for n in range(4):
        array = np.random.default_rng(n).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(array).save(f"images/{n}.png")


def examined(capsys, root="images"):
    with pytest.raises(SystemExit) as left:
        main(["check-data", "--data.dataset", "folder", "--data.root", root])
    assert left.value.code == 1
    return capsys.readouterr().out


def test_a_pipe_among_the_images_is_not_opened(capsys):
    os.mkfifo("images/pipe.png")
    assert "pipe.png" in examined(capsys)
    with pytest.raises(ValueError, match=r"cannot read 1 image file.*pipe\.png"):
        ImageDataModule("folder", root="images", batch_size=2).setup("fit")


def black(width, height):
    """A PNG of one bit a pixel, and next to no bytes."""
    rows = zlib.compress(bytes((1 + -(-width // 8)) * height), 9)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", rows), (b"IEND", b"")]
    packed = (struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x)) for kind, x in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_a_picture_is_refused_by_its_header(capsys, monkeypatch):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    Path("images").joinpath("bomb.png").write_bytes(black(13_000, 13_000))
    with pytest.raises(ValueError, match=r"cannot read 1 image file.*bomb\.png"):
        ImageDataModule("folder", root="images", batch_size=2).setup("fit")
    index = files.ImageFiles(Path("images")).names.index("bomb.png")
    assert "13000 × 13000 pixels" in files.ImageFiles(Path("images")).header(index)


def test_so_is_a_file_in_an_archive(monkeypatch, capsys):
    monkeypatch.setattr(files, "MOST_BYTES", 10_000)
    with zipfile.ZipFile("images.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write("images/0.png", "0.png")
        archive.writestr("bomb.png", bytes(10_001))
    found = files.ImageFiles(Path("images.zip"))
    assert "unpacks to 10001 bytes" in found.header(found.names.index("bomb.png"))
    assert isinstance(found.header(found.names.index("0.png")), files.Header)
    assert "bomb.png" in examined(capsys, "images.zip")


def test_names_are_written_out(capsys):
    Path("images/a\nb\x1b[2Jc.png").write_text("none")
    out = examined(capsys)
    assert "a\\nb\\x1b[2Jc.png" in out
    assert "\x1b" not in out
    with pytest.raises(ValueError, match=r"a\\nb\\x1b\[2Jc\.png"):
        ImageDataModule("folder", root="images", batch_size=2).setup("fit")
    assert "\x1b" not in refused(capsys, "sample", "\x1b[2J.ckpt", "-o", "x.png")


class Evil:
    def __reduce__(self):
        return os.system, (f"touch {MARK}",)


def legacy(path):
    torch.save({"state_dict": {"x": torch.zeros(3), "y": Evil()}}, path, _use_new_zipfile_serialization=False)


def protocol(n):
    return lambda path: Path(path).write_bytes(pickle.dumps({"x": Evil()}, n))


def zipped(path):
    torch.save({"x": Evil()}, path, pickle_protocol=4)


@pytest.mark.parametrize("write", [legacy, zipped, *map(protocol, range(5))])
def test_code_is_refused_by_name_in_every_format_and_no_other_file_is_taken_instead(write, capsys):
    SafeCheckpointIO().save_checkpoint(torch.load(GOOD, weights_only=True), "last.ckpt")
    os.replace("last.ckpt", "last.ckpt.previous")
    write("last.ckpt")
    with pytest.raises(CheckpointError, match=r"is refused.*would call (posix|nt)\.system"):
        read(Path("last.ckpt"))
    assert "would call" in refused(capsys, "sample", "last.ckpt", "-o", "x.png")
    assert not Path(MARK).exists()


def test_an_old_format_cut_off_is_no_code():
    torch.save({"x": torch.zeros(1000)}, "x.ckpt", _use_new_zipfile_serialization=False)
    os.truncate("x.ckpt", os.path.getsize("x.ckpt") // 2)
    with pytest.raises(CheckpointError, match="truncated"):
        read(Path("x.ckpt"))


def test_records_that_unpack_to_more_than_the_file_are_refused_unread():
    with zipfile.ZipFile(GOOD) as good, zipfile.ZipFile("x.ckpt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in good.namelist():
            packed.writestr(name, good.read(name))
        packed.writestr("format_1/data/bomb", bytes(10**6))
    with pytest.raises(CheckpointError, match=r"unpack to \d+ bytes, the file holds"):
        read(Path("x.ckpt"))
