"""A doctor for image data: what is in it, what training would refuse, and what may be wrong with it."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from lit_gans.data.datamodule import ImageDataModule
from lit_gans.data.files import Header, ImageFiles, UnreadableError, complaints, odd_channels, some, to_mode, unreadable
from lit_gans.data.pairs import PairData
from lit_gans.data.pictures import thumbnail
from lit_gans.data.sources import spread

THUMBNAIL = 96
SHEET = 64


@dataclass
class Report:
    """What :func:`examine` found; ``str`` gives it in words.

    Attributes:
        name: The data set and where it is.
        count: Number of images, readable or not.
        kind: What they are: images, or points.
        problems: Why training would refuse the data, a sentence each.
        classes: Images of each class, by its name; empty without labels.
        sizes: Images of each (width, height).
        modes: Images of each Pillow mode (L grey, RGB, RGBA, P palette, ...).
        broken: Unreadable files and the reason.
        odd: Files whose channels are not those of most, with their mode.
        small: Files smaller than the image size asked for.
        duplicates: Groups of images with exactly the same pixels.
        blank: Images of one single colour.
        low: Smallest pixel value met, of 0 to 255.
        high: Largest pixel value met, of 0 to 255.
        mean: Mean pixel value of all images.
        ignored: Files that are left out because their names are not those of images.
        thumbnails: Up to 64 small RGB pictures, evenly spread over the data.
    """

    name: str
    count: int = 0
    kind: str = "images"
    problems: list[str] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    small: list[str] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    low: int = 255
    high: int = 0
    mean: float = float("nan")
    ignored: int = 0
    thumbnails: list[Image.Image] = field(default_factory=list, repr=False)

    @property
    def ok(self) -> bool:
        """Whether training would take the data."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.name}: {self.count} {self.kind}"
        if self.classes:
            yield f"  classes ({len(self.classes)}): {_table(self.classes)}"
        if self.sizes:
            yield f"  sizes: {_table({f'{w}x{h}': n for (w, h), n in self.sizes.most_common()})}"
            yield f"  modes: {_table(dict(self.modes.most_common()))}"
        if self.high >= self.low:
            yield f"  pixel values: {self.low} to {self.high}, mean {self.mean:.1f} of 0 to 255{self._hint()}"
        listed = {
            "unreadable": [f"{name} ({reason})" for name, reason in self.broken.items()],
            "odd channels": self.odd,
            "smaller than asked": self.small,
            "of one single colour": self.blank,
            "exact duplicates": [" = ".join(group) for group in self.duplicates],
        }
        yield from (f"  {title} ({len(names)}): {some(names)}" for title, names in listed.items() if names)
        if self.ignored:
            yield f"  other files, left out: {self.ignored}"
        yield from (f"  training refuses: {problem}" for problem in self.problems)
        if self.ok:
            yield "  training takes it"

    def _hint(self) -> str:
        if self.high <= 1:
            return " (nearly black: were values of 0 to 1 saved as whole numbers?)"
        return " (low contrast)" if self.high - self.low < 64 else ""

    def contact_sheet(self, path: str | Path) -> None:
        """Write up to 64 of the images, evenly spread over the data, as one PNG of 8 columns.

        Raises:
            ValueError: If no image could be read.
        """
        if not self.thumbnails:
            raise ValueError(f"{self.name} has no readable image to show")
        rows = -(-len(self.thumbnails) // 8)
        sheet = Image.new("RGB", (min(8, len(self.thumbnails)) * THUMBNAIL, rows * THUMBNAIL), "white")
        for n, picture in enumerate(self.thumbnails):
            sheet.paste(picture, (n % 8 * THUMBNAIL, n // 8 * THUMBNAIL))
        sheet.save(path, format="PNG")


def examine(module: ImageDataModule | PairData) -> Report:
    """Read every training image of a data module, decode it, and report what is found; of points, only their number.

    A ``folder`` that training refuses is examined all the same; of the other data sets, missing files raise. Of pairs,
    all files of both sides are read, and the thumbnails are sources and targets by turns.

    Raises:
        FileNotFoundError: If the data is missing.
        ValueError: If a .zip is damaged.
    """
    if isinstance(module, PairData):
        return _examine_pairs(module)
    if module.dataset == "folder":
        return _examine_files(module)
    report = Report(module.dataset)
    source = module.open("train")
    assert source is not None
    names = [source.name(i) for i in range(len(source))]
    report.count = len(names)
    if source.labels is not None:
        report.classes = _counts(source.labels, module.class_names)
    if module.mixture is not None:
        report.kind = "points"
        report.problems += _too_few(module, report.count)
        return report

    def look(index: int) -> "_Look | str":
        try:
            array = source.images(torch.tensor([index]))[0].permute(1, 2, 0).numpy()
        except UnreadableError as error:
            return error.reason
        return _look(Image.fromarray(array[..., 0] if array.shape[2] == 1 else array), index in shown)

    shown = set(spread(len(names), SHEET))
    _collect(report, dict(zip(names, map(look, range(len(names))), strict=True)))
    if report.broken:
        report.problems.append(str(unreadable(list(report.broken), module.root)))
    report.problems += _too_few(module, report.count)
    return report


def _examine_files(module: ImageDataModule) -> Report:
    report = Report(f"folder {module.root}")
    try:
        files = ImageFiles(module.root, lenient=True).first(module.limit)
    except FileNotFoundError as error:
        if not module.root.exists():
            raise
        report.problems.append(str(error))
        return report
    report.count, report.ignored = len(files), files.ignored
    if files.labels is not None:
        report.classes = _counts(files.labels, files.classes)
    shown = set(spread(len(files), SHEET))

    def look(index: int) -> "_Look | str":
        try:
            return _look(files.decode(index), index in shown)
        except UnreadableError as error:
            return error.reason

    with ThreadPoolExecutor() as pool:
        looks = dict(zip(files.names, pool.map(look, range(len(files))), strict=True))
    _collect(report, looks)
    headers: dict[str, Header | str] = {
        name: header if isinstance(looks[name], _Look) else str(looks[name]) for name, header in files.headers().items()
    }
    good = {name: header for name, header in headers.items() if isinstance(header, Header)}
    report.odd = odd_channels(good)
    report.small = [n for n, h in good.items() if min(h.width, h.height) < (module.hparams["image_size"] or 0)]
    report.problems += files.mixed + complaints(
        headers, module.root, module.hparams["channels"], module.hparams["image_size"]
    )
    report.problems += _too_few(module, len(files))
    return report


def _examine_pairs(module: PairData) -> Report:
    folders = module.folders()
    name = " and ".join(str(folder.root) for folder in folders) or str(module.hparams["dataset"])
    report = Report(name, kind="pairs")
    looks: dict[str, _Look | str] = {}
    for folder in folders:
        found = _looks(folder.files)
        report.ignored += folder.files.ignored
        # what decoding tells of files, their headers do not
        folder.headers |= {name: look for name, look in found.items() if isinstance(look, str)}
        report.count = max(report.count, len(folder))
        looks |= {f"{folder.root.name}/{name}": look for name, look in found.items()}
    _collect(report, looks)
    report.problems += module.complaints()
    if not report.problems:
        try:
            module.setup("fit")
        except ValueError as error:
            report.problems.append(str(error))
    if report.ok:
        pairs = module.pairs("train")
        report.count = len(pairs)
        shown = [picture for i in spread(report.count, SHEET // 2) for picture in pairs.pair(i)]
        report.thumbnails = [ImageOps.fit(thumbnail(picture), (THUMBNAIL, THUMBNAIL)) for picture in shown]
    return report


def _looks(files: ImageFiles) -> "dict[str, _Look | str]":
    """What each file shows once it is decoded, or why it cannot be."""

    def look(index: int) -> "_Look | str":
        try:
            return _look(files.decode(index), False)
        except UnreadableError as error:
            return error.reason

    with ThreadPoolExecutor() as pool:
        return dict(zip(files.names, pool.map(look, range(len(files))), strict=True))


@dataclass
class _Look:
    """What one decoded image tells."""

    size: tuple[int, int]
    mode: str
    digest: bytes
    low: int
    high: int
    mean: float
    blank: bool
    thumbnail: Image.Image | None


def _look(image: Image.Image, keep: bool) -> _Look:
    picture = to_mode(image, 3)
    pixels = np.asarray(picture)
    digest = hashlib.blake2b(f"{image.size}".encode() + pixels.tobytes(), digest_size=16).digest()
    blank = bool((pixels == pixels[0, 0]).all())
    thumbnail = ImageOps.fit(picture, (THUMBNAIL, THUMBNAIL)) if keep else None
    low, high, mean = int(pixels.min()), int(pixels.max()), float(pixels.mean())
    return _Look(image.size, image.mode, digest, low, high, mean, blank, thumbnail)


def _collect(report: Report, looks: Mapping[str, _Look | str]) -> None:
    """Add up what was seen of each image."""
    alike: dict[bytes, list[str]] = {}
    means = []
    for name, look in looks.items():
        if isinstance(look, str):
            report.broken[name] = look
            continue
        report.sizes[look.size] += 1
        report.modes[look.mode] += 1
        report.low, report.high = min(report.low, look.low), max(report.high, look.high)
        means.append(look.mean)
        alike.setdefault(look.digest, []).append(name)
        report.blank += [name] * look.blank
        report.thumbnails += [look.thumbnail] if look.thumbnail else []
    report.mean = float(np.mean(means)) if means else float("nan")
    report.duplicates = [names for names in alike.values() if len(names) > 1]


def _too_few(module: ImageDataModule, count: int) -> list[str]:
    if module.drop_last and count < module.batch_size:
        return [f"batch_size {module.batch_size} is larger than the data set of {count} images: set batch_size lower"]
    return []


def _counts(labels: torch.Tensor, names: list[str]) -> dict[str, int]:
    return dict(zip(names, torch.bincount(labels, minlength=len(names)).tolist(), strict=True))


def _table(counts: Mapping[str, int]) -> str:
    return some([f"{name}: {n}" for name, n in counts.items()], 20)
