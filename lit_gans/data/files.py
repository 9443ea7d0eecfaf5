"""Image files of a folder or a .zip: finding them, reading their headers, decoding them, and saying what is wrong."""

import hashlib
import io
import os
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


MOST_BYTES = 2**28
"""Largest file in a .zip that is unpacked, 256 MiB: an archive of kilobytes may unpack to any size."""
MOST_PIXELS = 2**26
"""Largest picture that is decoded, 8192 × 8192: a file of kilobytes may decode to any size."""


class UnreadableError(ValueError):
    """Image files that cannot be decoded; ``names`` lists them all, the message the first ones."""

    def __init__(self, message: str, names: Sequence[str] = (), reason: str = "") -> None:
        super().__init__(message)
        self.names = list(names)
        self.reason = reason


class Header(NamedTuple):
    """What the first bytes of an image file say, of the picture once it is upright."""

    width: int
    height: int
    mode: str
    kind: str
    """``grey``, ``colour``, ``transparent``, or ``deep`` (32 bits a pixel, of unknown range)."""


class ImageFiles:
    """Image files below a folder or in a .zip, in sorted order, and the classes that their sub-folders name.

    Folders that hold nothing but one sub-folder are looked through. Below them, images in sub-folders are labelled by
    the name of the first sub-folder; images that lie side by side in one folder have no labels. Hidden files are left
    out.

    Args:
        root: A folder or a .zip file.
        names: The files, relative to ``root``; None for all that have an image's suffix.
        lenient: Say in ``mixed`` that images lie beside class folders, and go without labels, instead of raising.

    Raises:
        FileNotFoundError: If ``root`` is missing or holds no image.
        ValueError: If ``root`` is a damaged .zip, or if images lie beside class folders.
    """

    def __init__(self, root: Path, names: Sequence[str] | None = None, lenient: bool = False) -> None:
        self.root = root
        found = _listing(root) if names is None else list(names)
        self.names = [name for name in found if PurePosixPath(name).suffix.lower() in SUFFIXES]
        self.ignored = len(found) - len(self.names)
        if not self.names:
            raise FileNotFoundError(
                f"no images in {root.absolute()}: put files there ({', '.join(sorted(SUFFIXES))}), "
                "or point `root` (--data.root) to the folder or .zip that holds them"
            )
        self.classes: list[str] = []
        self.labels: Tensor | None = None
        self.mixed: list[str] = []
        if names is None:
            try:
                self.classes, self.labels = _classes(self.names, root)
            except ValueError as error:
                if not lenient:
                    raise
                self.mixed = [str(error)]

    def __len__(self) -> int:
        return len(self.names)

    def first(self, n: int | None) -> "ImageFiles":
        """The first ``n`` files, the classes unchanged."""
        files = ImageFiles(self.root, self.names[:n])
        files.ignored, files.classes, files.mixed = self.ignored, self.classes, self.mixed
        files.labels = None if self.labels is None else self.labels[:n]
        return files

    def open(self, index: int) -> Image.Image:
        """The file as Pillow opens it: the header is read, the pixels are not."""
        name = self.names[index]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound below is a lower one
            image = Image.open(self._path(name) if self.root.is_dir() else io.BytesIO(self._unpacked(name)))
        if image.width * image.height > MOST_PIXELS:
            image.close()
            raise ValueError(f"{image.width} × {image.height} pixels, more than the {MOST_PIXELS} that are decoded")
        return image

    def _path(self, name: str) -> Path:
        """Of a regular file: a pipe or a device may keep its reader waiting for ever."""
        path = self.root / name
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError("no regular file")
        return path

    def _unpacked(self, name: str) -> bytes:
        """The content of a file in the .zip."""
        archive = _archive(str(self.root), os.getpid())
        if (size := archive.getinfo(name).file_size) > MOST_BYTES:
            raise ValueError(f"unpacks to {size} bytes, more than the {MOST_BYTES} that are read")
        return archive.read(name)

    def header(self, index: int) -> Header | str:
        """The header of a file, or the reason why it cannot be read."""
        try:
            with self.open(index) as image:
                width, height = image.size[::-1] if _lies_on_its_side(image) else image.size
                return Header(width, height, image.mode, _kind(image))
        except Exception as error:  # decoders of damaged files raise nearly anything
            return _reason(error)

    def headers(self, indices: Iterable[int] | None = None) -> dict[str, Header | str]:
        """By name, the header of each file (or of those at ``indices``), or the reason why it cannot be read."""
        wanted = list(range(len(self)) if indices is None else indices)
        with ThreadPoolExecutor() as pool:
            return dict(zip([self.names[i] for i in wanted], pool.map(self.header, wanted), strict=True))

    @cached_property
    def digest(self) -> str:
        """A hash of all names and contents, in order."""

        def content(index: int) -> bytes:
            name = self.names[index]
            data = self._path(name).read_bytes() if self.root.is_dir() else self._unpacked(name)
            return hashlib.blake2b(name.encode() + b"\0" + data, digest_size=16).digest()

        with ThreadPoolExecutor() as pool:
            return hashlib.blake2b(b"".join(pool.map(content, range(len(self)))), digest_size=16).hexdigest()

    def decode(self, index: int) -> Image.Image:
        """The picture, turned upright as its EXIF tag says.

        Raises:
            UnreadableError: Naming the file, if it is damaged or gone.
        """
        try:
            with self.open(index) as image:
                return ImageOps.exif_transpose(image)
        except Exception as error:  # decoders of damaged files raise nearly anything
            raise unreadable([self.names[index]], self.root, _reason(error)) from error


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Grey (``channels`` 1) or RGB (3), 8 bits; transparency is laid on white, 16 bits are scaled to 8."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("L" if channels == 1 else "RGB")


def unreadable(names: Sequence[str], root: Path, reason: str = "") -> UnreadableError:
    """The error for files that cannot be decoded: their number, the first names, the remedy."""
    which = f"{shown(names[0])} ({reason})" if reason else some(names)
    files = "image file" if len(names) == 1 else "image files"
    message = f"cannot read {len(names)} {files} in {root}: {which}; remove or replace them"
    return UnreadableError(message, names, reason)


def some(names: Sequence[str], most: int = 10) -> str:
    """The first names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + rest


def shown(name: str) -> str:
    """A name for a message: line breaks and escape codes are written out, which a terminal would obey."""
    return name if name.isprintable() else ascii(name)[1:-1]


def complaints(
    headers: dict[str, Header | str], root: Path, channels: int | None = None, size: int | None = None
) -> list[str]:
    """Why files cannot be trained on, a sentence each; none if they can.

    Args:
        headers: The headers by name, or the reasons why they cannot be read.
        root: Where the files are, for the messages.
        channels: The channels asked for; None if all files have the same.
        size: The image size asked for; None if all files have the same.
    """
    good = {name: header for name, header in headers.items() if isinstance(header, Header)}
    broken = [name for name in headers if name not in good]
    found = [str(unreadable(broken, root))] if broken else []
    if deep := [f"{name} ({h.mode})" for name, h in good.items() if h.kind == "deep"]:
        found.append(f"32 bits a pixel have no known range in {some(deep)}: save them with 8 or 16 bits")
    if channels is None and (odd := odd_channels(good)):
        want = common_channels(good)
        colour = "grey" if want == 1 else "RGB"
        found.append(
            f"{len(odd)} of {len(good)} images in {root} are not {colour}: {some(odd)}; "
            f"convert them, or set channels={want} (--data.channels {want}) to have them converted as they are read"
        )
    sides = {name: min(h.width, h.height) for name, h in good.items()}
    if size is None and len({(h.width, h.height) for h in good.values()} | {(s, s) for s in sides.values()}) > 1:
        least = min(sides.values())
        found.append(
            f"the images in {root} are not squares of one size (shorter sides {least} to {max(sides.values())}): "
            f"set image_size (--data.image_size), at most {least}"
        )
    if size is not None and (small := [f"{name} ({s} px)" for name, s in sides.items() if s < size]):
        found.append(
            f"{len(small)} of {len(good)} images in {root} are smaller than image_size {size}: {some(small)}; "
            f"set image_size to at most {min(sides.values())}, or remove them"
        )
    return found


def common_channels(headers: dict[str, Header]) -> int:
    """1 if most files are grey, else 3."""
    grey = sum(h.kind == "grey" for h in headers.values())
    return 1 if 2 * grey > len(headers) else 3


def odd_channels(headers: dict[str, Header]) -> list[str]:
    """The files, with their mode, whose channels are not those of most files."""
    common = "grey" if common_channels(headers) == 1 else "colour"
    return [f"{name} ({h.mode})" for name, h in headers.items() if h.kind not in (common, "deep")]


def in_threads(work: Callable[[Tensor], None], indices: Tensor, root: Path) -> None:
    """Call ``work`` on chunks of ``indices`` in threads.

    Raises:
        UnreadableError: Naming all files that some call could not read.
    """
    broken: list[str] = []
    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(work, part) for part in indices.split(64)]:
            try:
                future.result()
            except UnreadableError as error:
                broken += error.names
    if broken:
        raise unreadable(broken, root)


def _listing(root: Path) -> list[str]:
    """All files below a folder or in a .zip, sorted, without hidden ones."""
    if root.is_dir():
        walk = os.walk(root, followlinks=True)
        found = [
            PurePosixPath(Path(folder, name).relative_to(root)).as_posix()
            for folder, _, names in walk
            for name in names
        ]
    elif root.suffix.lower() == ".zip" and root.is_file():
        try:
            found = [name for name in _archive(str(root), os.getpid()).namelist() if not name.endswith("/")]
        except zipfile.BadZipFile as error:
            raise ValueError(f"{root} is not a readable .zip ({error}): make or download it again") from error
    else:
        raise FileNotFoundError(
            f"no folder or .zip of images at {root.absolute()}: point `root` (--data.root) to the one that holds them"
        )
    return sorted(name for name in found if not any(part.startswith((".", "__MACOSX")) for part in name.split("/")))


def _classes(names: Sequence[str], root: Path) -> tuple[list[str], Tensor | None]:
    """Class names and labels from the first level of sub-folders, where there is more than one."""
    folders = [name.split("/")[:-1] for name in names]
    low, high = min(folders), max(folders)
    depth = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    firsts = [folder[depth : depth + 1] for folder in folders]
    loose = [name for name, first in zip(names, firsts, strict=True) if not first]
    if len(loose) == len(names):
        return [], None
    if loose:
        raise ValueError(
            f"{len(loose)} images lie beside class folders in {root}: {some(loose)}; "
            "move them into the folder of their class, or all images into one folder"
        )
    classes = sorted({first[0] for first in firsts})
    number = {name: label for label, name in enumerate(classes)}
    return classes, torch.tensor([number[first[0]] for first in firsts])


@lru_cache(maxsize=8)
def _archive(path: str, process: int) -> zipfile.ZipFile:
    """An open .zip for each process, as processes that share a file descriptor move each other's position."""
    return zipfile.ZipFile(path)


def _lies_on_its_side(image: Image.Image) -> bool:
    """Whether an EXIF tag says that the picture is to be turned by a quarter; no pixels are read to find out."""
    if image.format == "PNG" and "exif" not in image.info:  # Pillow would decode the file to look for it at its end
        return False
    return image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)


def _kind(image: Image.Image) -> str:
    if image.has_transparency_data:
        return "transparent"
    if image.mode in ("I", "F"):
        return "deep"
    return "grey" if image.mode in ("1", "L") or image.mode.startswith("I;16") else "colour"


def _reason(error: Exception) -> str:
    return "not an image" if "cannot identify" in str(error) else str(error) or type(error).__name__
