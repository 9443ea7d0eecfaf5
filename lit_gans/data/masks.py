"""Masks of inpainting: boxes, strokes of a brush, or files. 1 is the hole, everywhere.

J. Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019, arXiv:1806.03589.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lit_gans.data.files import ImageFiles, some, to_mode
from lit_gans.data.folders import Folder
from lit_gans.errors import unknown

__all__ = ("Box", "FileMasks", "Masks", "Place", "Span", "Strokes", "build", "parse_mask", "span")

Span: TypeAlias = float | Sequence[float]
"""A number, or [least, most], between which one is drawn."""


@dataclass(frozen=True)
class Place:
    """Where a mask is to be: the window of a picture."""

    height: int
    width: int
    top: int = 0
    left: int = 0
    whole: tuple[int, int] | None = None
    """Height and width of the whole picture; None if the window is all of it."""
    name: str = ""
    """Name of the picture, by which masks from files may be found."""


@dataclass(frozen=True)
class Box:
    """A box as hole.

    Args:
        size: Side of the box as a share of the picture's, in (0, 1]; [least, most] draws height and width apart.
        place: ``random``, or ``centre``, where Pathak et al. (2016) have theirs, of half the side.

    Example:
        >>> int(Box(0.5, "centre")(Place(4, 4), np.random.default_rng(0)).sum())
        4
    """

    size: Span = 0.5
    place: str = "random"

    def __post_init__(self) -> None:
        span("size of a box", self.size, 0, 1)
        if self.place not in ("centre", "random"):
            raise ValueError(unknown("place of a box", self.place, ("centre", "random")))

    def __call__(self, place: Place, draw: np.random.Generator) -> np.ndarray:
        """A mask, bool (height, width)."""
        least, most = span("size of a box", self.size, 0, 1)
        height, width = (max(1, round(draw.uniform(least, most) * side)) for side in (place.height, place.width))
        top, left = (place.height - height) // 2, (place.width - width) // 2
        if self.place == "random":
            top, left = int(draw.integers(place.height - height + 1)), int(draw.integers(place.width - width + 1))
        mask = np.zeros((place.height, place.width), bool)
        mask[top : top + height, left : left + width] = True
        return mask


@dataclass(frozen=True)
class Strokes:
    """Strokes of a brush as hole (Yu et al. 2019, section 3.4 and algorithm 1).

    A stroke begins anywhere, and goes on in straight lines whose every second angle is turned about, so that it goes to
    and fro; joints are round. Lengths and widths are shares of the shorter side. The paper gives no numbers; the
    defaults are of the order of its published settings for 256 × 256: holes cover an eighth of the picture, now
    more, now less.

    Args:
        strokes: How many there are, [least, most].
        vertices: Lines of a stroke, [least, most].
        length: Length of a line as a share of the picture's shorter side, [least, most].
        width: Width of the brush as such a share, [least, most].
        angle: Largest angle of a line, in radians.

    Example:
        >>> mask = Strokes()(Place(64, 64), np.random.default_rng(0))
        >>> mask.shape, 0.05 < float(mask.mean()) < 0.3
        ((64, 64), True)
    """

    strokes: Span = (1, 12)
    vertices: Span = (1, 5)
    length: Span = (0.04, 0.2)
    width: Span = (0.04, 0.08)
    angle: float = 4.0

    def __post_init__(self) -> None:
        for name in ("strokes", "vertices"):
            span(f"{name} of a mask", getattr(self, name), 1, 1000)
        for name in ("length", "width"):
            span(f"{name} of strokes", getattr(self, name), 0, 1)

    def __call__(self, place: Place, draw: np.random.Generator) -> np.ndarray:
        """A mask, bool (height, width)."""
        picture = Image.new("L", (place.width, place.height))
        brush, side = ImageDraw.Draw(picture), min(place.height, place.width)
        for _ in range(self._count(self.strokes, draw)):
            x, y = draw.uniform(0, place.width), draw.uniform(0, place.height)
            width = max(1.0, side * draw.uniform(*span("width", self.width, 0, 1)))
            for line in range(self._count(self.vertices, draw)):
                angle = draw.uniform(0, self.angle)
                angle = 2 * math.pi - angle if line % 2 == 0 else angle
                length = side * draw.uniform(*span("length", self.length, 0, 1))
                to_x = float(np.clip(x + length * math.sin(angle), 0, place.width))
                to_y = float(np.clip(y + length * math.cos(angle), 0, place.height))
                brush.line((x, y, to_x, to_y), fill=255, width=round(width))
                for joint_x, joint_y in ((x, y), (to_x, to_y)):
                    half = width / 2
                    brush.ellipse((joint_x - half, joint_y - half, joint_x + half, joint_y + half), fill=255)
                x, y = to_x, to_y
        return np.asarray(picture) > 127

    @staticmethod
    def _count(number: Span, draw: np.random.Generator) -> int:
        least, most = span("number", number, 1, 1000)
        return int(draw.integers(int(least), int(most) + 1))


@dataclass(frozen=True)
class FileMasks:
    """Masks from picture files: white is the hole; grey ones are thresholded at half.

    Args:
        root: A folder or .zip of them.
        match: Each picture has the mask of its own name, which must be of its size. Otherwise any mask is drawn for any
            picture, and resized to the window (nearest neighbour).
        invert: Black is the hole.
    """

    root: str = ""
    match: bool = False
    invert: bool = False

    def __post_init__(self) -> None:
        if not self.root:
            raise ValueError("masks from files need their folder: {mask: {kind: files, root: FOLDER}}")

    @cached_property
    def folder(self) -> Folder:
        """The files."""
        return Folder(self.root, "task.mask.root", channels=1)

    @cached_property
    def _by_name(self) -> dict[str, int]:
        return {stem: index for index, stem in enumerate(self.folder.stems)}

    def __call__(self, place: Place, draw: np.random.Generator) -> np.ndarray:
        """A mask, bool (height, width)."""
        if self.match:
            mask = self.read(self._by_name[place.name])
            return mask[place.top : place.top + place.height, place.left : place.left + place.width]
        mask = self.read(int(draw.integers(len(self.folder))))
        rows, columns = (
            np.minimum((np.arange(side) + 0.5) * have / side, have - 1).astype(int)
            for side, have in ((place.height, mask.shape[0]), (place.width, mask.shape[1]))
        )
        return mask[rows[:, None], columns]

    def read(self, index: int) -> np.ndarray:
        """The mask of a file, bool (height, width)."""
        files: ImageFiles = self.folder.files
        return (np.asarray(to_mode(files.decode(index), 1)) > 127) != self.invert

    def complaints(self, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[str]:
        """What is wrong with the masks of pictures of these names and sizes, a sentence each; inverted ones warn."""
        found = self.folder.complaints()
        if found:
            return found
        if self.match:
            if missing := [name for name in names if name not in self._by_name]:
                found.append(f"{len(missing)} of {len(names)} pictures have no mask in {self.root}: {some(missing)}")
            odd = []
            for name, size in zip(names, sizes, strict=True):
                have = self.folder.size(self._by_name[name]) if name in self._by_name else size
                if have is not None and have != size:
                    odd.append(f"{name} ({have[1]}x{have[0]}, its picture {size[1]}x{size[0]})")
            if odd:
                found.append(
                    f"{len(odd)} masks in {self.root} are not of their picture's size: {some(odd)}; make them so, or "
                    "leave match out to have masks drawn at random and resized"
                )
        if not found:
            self._warn()
        return found

    def _warn(self) -> None:
        """Warn of masks that are mostly hole: they may mean the opposite."""
        looked = range(min(len(self.folder), 256))
        full = [self.folder.files.names[i] for i in looked if self.read(i).mean() > 0.5]
        if full:
            warnings.warn(
                f"more than half is hole in {len(full)} of {len(looked)} masks in {self.root}: {some(full)}; white is "
                "the hole: set invert to true if black is meant to be",
                stacklevel=2,
            )


class Masks:
    """The union of masks of several kinds.

    Args:
        kinds: What makes a mask, each: from a place and a generator to bool (height, width).
    """

    def __init__(self, kinds: Sequence[Callable[[Place, np.random.Generator], np.ndarray]]) -> None:
        self.kinds = kinds

    def __call__(self, place: Place, draw: np.random.Generator) -> Tensor:
        """A mask, uint8 (1, height, width), 255 in the hole, 0 elsewhere."""
        hole = np.logical_or.reduce([kind(place, draw) for kind in self.kinds])
        return torch.from_numpy(hole.astype(np.uint8) * 255)[None]

    @property
    def files(self) -> list[FileMasks]:
        """Those that come from files."""
        return [kind for kind in self.kinds if isinstance(kind, FileMasks)]


KINDS: dict[str, Any] = {"box": Box, "files": FileMasks, "strokes": Strokes}


def parse_mask(given: Any) -> Masks:
    """Masks from plain values: None (a box), a kind, ``{kind: ..., ...}``, or a list of these, whose union is the hole.

    Raises:
        ValueError: If a kind or a parameter is unknown.

    Example:
        >>> draw = np.random.default_rng(0)
        >>> int(parse_mask({"kind": "box", "size": 0.5})(Place(8, 8), draw).sum()) // 255
        16
    """
    kinds = []
    for entry in given if isinstance(given, list) and given else [given]:
        options = {"kind": entry} if isinstance(entry, str) else dict(entry or {})
        kind = options.pop("kind", "box")
        if kind not in KINDS:
            raise ValueError(unknown("kind of mask", kind, KINDS))
        kinds.append(build(f"mask of kind {kind}", KINDS[kind], options))
    return Masks(kinds)


def build(what: str, kind: Any, given: Any) -> Any:
    """A dataclass from its parameters by name, from its first parameter alone, or from None.

    Raises:
        ValueError: If a parameter is unknown or out of its range.
    """
    known = [parameter.name for parameter in fields(kind)]
    if given is None:
        given = {}
    elif not isinstance(given, dict):
        if not known:
            raise ValueError(f"{what} takes no parameter, but was given {given!r}")
        given = {known[0]: given}
    for name in given:
        if name not in known:
            raise ValueError(unknown(f"parameter of {what}", name, known))
    return kind(**{name: tuple(v) if isinstance(v, list) else v for name, v in given.items()})


def span(what: str, value: Span, least: float, most: float) -> tuple[float, float]:
    """A number or [low, high] as (low, high).

    Raises:
        ValueError: If it is neither, or out of its range.
    """
    ends = (value, value) if isinstance(value, int | float) else tuple(value) if isinstance(value, list | tuple) else ()
    if len(ends) != 2 or not all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends):
        raise ValueError(f"{what} must be a number or [least, most], not {value!r}")
    low, high = float(ends[0]), float(ends[1])
    if not least <= low <= high <= most:
        raise ValueError(f"{what} must lie between {least:g} and {most:g}, least first, not {value!r}")
    return low, high
