"""Pairs of pictures by number, cut and turned alike, and the loader that gives them in batches."""

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from lit_gans.data.loader import Batch, ResumableLoader, scaled
from lit_gans.data.masks import Place
from lit_gans.data.pictures import Pictures, Stored, cut, one_size, stack, with_channels
from lit_gans.data.tasks import Matte, Task

__all__ = ("TASK", "Key", "Mattes", "PairLoader", "PairSource", "Pairs", "Unpaired", "View", "draw_from")

_HELD_OUT = (0, 0, 0)
_MOVES, TASK, _MASK, _ORDER = 1, 2, 3, 4  # purposes of random numbers
_TOP, _LEFT, _MIRROR, _TURN = range(4)


class Key(NamedTuple):
    """What all that is drawn for a training batch depends on, beside the number of the pair."""

    seed: int
    epoch: int
    offset: int = 0


class View(NamedTuple):
    """Which part of a picture is shown, and how."""

    size: int | None = None
    """Height and width of the window, of the target; None for the whole picture."""
    flip: bool = False
    """Mirror with probability 1/2, in training."""
    rotate: bool = False
    """Turn by 0, 90, 180 or 270 degrees, each as often, in training."""


class PairSource(Protocol):
    """Pairs by number, as the loader sees them."""

    labels: None

    def __len__(self) -> int:
        """Number of pairs."""
        ...

    def batch(self, indices: Tensor, key: Key | None = None) -> tuple[Tensor, Tensor]:
        """Sources and targets, float32 NCHW in [-1, 1]; without a key as validation has them."""
        ...


def draw_from(key: Key | None, index: int, purpose: int) -> np.random.Generator:
    """A generator of its own for each seed, epoch, pair and purpose; for held-out pairs the same always."""
    return np.random.default_rng((*(key or _HELD_OUT), index + 1, purpose + 8 * (key is None)))


class Pairs:
    """Pairs of a source and a target.

    Args:
        targets: The pictures that are to be made, uncut.
        sources: The source of each, smaller by ``scale``; None if ``task`` makes it of the target in each epoch anew.
        task: What makes the source out of the target, and the mask.
        scale: Side of a target over that of its source; targets are cut to multiples of it.
        view: The part that is shown.
        channels: Of the sources, without the mask.
        stems: Name of each pair, by which it finds its mask.
    """

    labels = None

    def __init__(
        self,
        targets: Pictures,
        sources: Pictures | None,
        task: Task,
        scale: int = 1,
        view: View = View(),  # noqa: B008  # immutable
        channels: int | None = None,
        stems: Sequence[str] = (),
    ) -> None:
        self.targets = targets
        self.sources = sources
        self.task = task
        self.scale = scale
        self.view = view
        self.channels = channels or (sources.channels if sources is not None else task.channels(targets.channels))
        self.one_size = view.size is not None or one_size(targets) is not None
        self.stems = stems

    def __len__(self) -> int:
        return len(self.targets)

    def name(self, index: int) -> str:
        """What a person calls the pair: the name of its target."""
        return self.targets.name(index)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Source and target as validation has them, uint8 (C, H, W).

        A mask is the last channel of the source, 255 in the hole, where the other channels are 128.
        """
        source, target, mask = self._drawn(index, None)
        return source if mask is None else torch.cat([source.masked_fill(mask > 127, 128), mask]), target

    def batch(self, indices: Tensor, key: Key | None = None) -> tuple[Tensor, Tensor]:
        """Sources and targets, float32 NCHW in [-1, 1]; a mask is the last channel, 1.0 in the hole.

        Args:
            indices: Numbers of the pairs.
            key: What is drawn depends on it; None for pairs as validation has them.
        """
        if self._looked_up:
            assert self.sources is not None
            mirrored = moves(key, len(self))[indices.numpy(), _MIRROR] < 0.5 if key and self.view.flip else None
            return looked_up(self.sources, indices, mirrored), looked_up(self.targets, indices, mirrored)
        drawn = [self._drawn(index, key) for index in indices.tolist()]
        sources, targets, masks = zip(*drawn, strict=True)
        source, target = (scaled(torch.stack(side), None) for side in (sources, targets))
        if masks[0] is not None:
            holes = torch.stack(masks) > 127
            source = torch.cat([source.masked_fill_(holes, 0), holes.float()], 1)
        return source, target

    @cached_property
    def _looked_up(self) -> bool:
        """Whether batches are a mere look-up in memory: whole pictures without a mask, at most mirrored."""
        height, width = self.targets.size(0)
        return (
            self.task.mask is None
            and self.sources is not None
            and self.sources.channels == self.channels
            and at_hand(self.sources, self.view._replace(size=None))
            and at_hand(self.targets, self.view)
            and height % self.scale == width % self.scale == 0
        )

    def _drawn(self, index: int, key: Key | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Source, target and mask of the window shown, mirrored and turned alike."""
        whole = cut(self.targets.picture(index), self.scale)
        height, width = whole.shape[1:]
        move = moves(key, len(self))[index].tolist() if key and self.view != View() else None
        top, left, h, w = window(height, width, self.view.size, self.scale, move)
        target = whole[:, top : top + h, left : left + w]
        source = self._source(index, key, whole, (top, left, h, w))
        if source.shape[0] != self.channels:
            source = with_channels(source, self.channels)
        mask = None
        if self.task.mask is not None:
            rows, columns, high, wide = (side // self.scale for side in (top, left, h, w))
            whole_size = (height // self.scale, width // self.scale)
            place = Place(high, wide, rows, columns, whole_size, self.stems[index] if self.stems else "")
            mask = self.task.mask(place, draw_from(key, index, _MASK))
        return (
            turned(source, self.view, move),
            turned(target, self.view, move),
            None if mask is None else turned(mask, self.view, move),
        )

    def _source(self, index: int, key: Key | None, target: Tensor, shown: tuple[int, int, int, int]) -> Tensor:
        top, left, h, w = (side // self.scale for side in shown)
        if self.sources is not None:
            return self.sources.picture(index)[:, top : top + h, left : left + w]
        margin = self.task.margin  # a window of a made picture is not that of a picture made of a window
        upper, outer = max(0, shown[0] - margin), max(0, shown[1] - margin)
        around = target[:, upper : shown[0] + shown[2] + margin, outer : shown[1] + shown[3] + margin]
        made = self.task(around[None], draw_from(key, index, TASK))[0]
        top, left = top - upper // self.scale, left - outer // self.scale
        return made[:, top : top + h, left : left + w]


class Mattes:
    """Composites and the opacity of what was laid over: pairs that are made of two pictures each.

    Args:
        pictures: Cut-outs with alpha (4 channels), or pictures that something is laid over.
        others: What cut-outs are laid over, or what shapes are cut out of; which one is drawn.
        matte: How shapes are cut out.
        view: The part that is shown.
        channels: Channels of the composite: 1 for grey, 3 for RGB.
    """

    labels = None
    sources = None
    scale = 1

    def __init__(self, pictures: Pictures, others: Pictures, matte: Matte, view: View, channels: int) -> None:
        self.targets = pictures
        self.others = others
        self.matte = matte
        self.view = view
        self.channels = channels
        self.one_size = view.size is not None or one_size(pictures) is not None

    def __len__(self) -> int:
        return len(self.targets)

    def name(self, index: int) -> str:
        """What a person calls the pair: the name of the picture that is laid over, or is laid over another."""
        return self.targets.name(index)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Composite and opacity as validation has them, uint8 (C, H, W) and (1, H, W)."""
        return self._drawn(index, None)

    def batch(self, indices: Tensor, key: Key | None = None) -> tuple[Tensor, Tensor]:
        """Composites and opacities, float32 NCHW in [-1, 1].

        Args:
            indices: Numbers of the pairs.
            key: What is drawn depends on it; None for pairs as validation has them.
        """
        sources, targets = zip(*(self._drawn(index, key) for index in indices.tolist()), strict=True)
        return scaled(torch.stack(sources), None), scaled(torch.stack(targets), None)

    def _drawn(self, index: int, key: Key | None) -> tuple[Tensor, Tensor]:
        picture, draw = self.targets.picture(index), draw_from(key, index, TASK)
        move = moves(key, len(self))[index].tolist() if key and self.view != View() else None
        top, left, h, w = window(picture.shape[1], picture.shape[2], self.view.size, 1, move)
        ours = picture[:, top : top + h, left : left + w].float()
        number = int(draw.integers(len(self.others)))
        if self.others is self.targets and number == index:  # nothing is laid over itself
            number = (number + 1) % len(self.others)
        theirs = part(self.others.picture(number), h, w, draw).float()
        if ours.shape[0] == 4:
            alpha, over, under = ours[3:] / 255, ours[:3], theirs
        else:
            alpha, over, under = self.matte.shape(h, w, draw), theirs, ours
        alpha = (255 * alpha).round() / 255  # as the target has it
        source = with_channels(alpha * over + (1 - alpha) * under, self.channels)
        done = (source.round().to(torch.uint8), (255 * alpha).round().to(torch.uint8))
        return turned(done[0], self.view, move), turned(done[1], self.view, move)


class Unpaired:
    """Pictures of two sides that do not belong together; which ones meet is drawn for each epoch.

    Every picture of the longer side is seen once in an epoch, those of the other side as often as one another, but for
    what does not divide.

    Args:
        a: Pictures of side A, the sources.
        b: Pictures of side B, the targets.
        view: The part that is shown, drawn for each side by itself.
        length: Pairs in an epoch; None for the number of pictures of the longer side.
    """

    labels = None

    def __init__(
        self,
        a: Pictures,
        b: Pictures,
        view: View = View(),  # noqa: B008  # immutable
        length: int | None = None,
    ) -> None:
        self.sources = a
        self.targets = b
        self.view = view
        self.length = length or max(len(a), len(b))
        self.one_size = view.size is not None or None not in (one_size(a), one_size(b))

    def __len__(self) -> int:
        return self.length

    def name(self, index: int) -> str:
        """What a person calls the two pictures that validation shows together."""
        a, b = self.sources.name(index % len(self.sources)), self.targets.name(index % len(self.targets))
        return f"{a}, {b}"

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """A picture of A and one of B as validation has them, uint8 (C, H, W); the shorter side begins again."""
        return self._shown(self.sources, index, None), self._shown(self.targets, index, None)

    def batch(self, indices: Tensor, key: Key | None = None) -> tuple[Tensor, Tensor]:
        """Pictures of A and of B, float32 NCHW in [-1, 1].

        Args:
            indices: Numbers of the pairs.
            key: What is drawn depends on it; None for pairs as validation has them.
        """
        a, b = (self._side(n, indices.tolist(), key) for n in (0, 1))
        return a, b

    def _side(self, n: int, indices: list[int], key: Key | None) -> Tensor:
        """The pictures of one side of a batch."""
        side = (self.sources, self.targets)[n]
        if not self._looked_up[n]:
            return scaled(torch.stack([self._shown(side, index, key, n) for index in indices]), None)
        mirrored = moves(key, self.length, n)[indices, _MIRROR] < 0.5 if key and self.view.flip else None
        numbers = np.asarray(indices) % len(side) if key is None else meeting(key, n, len(side), self.length)[indices]
        return looked_up(side, torch.from_numpy(numbers), mirrored)

    @cached_property
    def _looked_up(self) -> tuple[bool, bool]:
        """Of each side, whether a batch is a mere look-up in memory: whole pictures, at most mirrored."""
        return at_hand(self.sources, self.view), at_hand(self.targets, self.view)

    def _shown(self, side: Pictures, index: int, key: Key | None, n: int = 0) -> Tensor:
        number = index % len(side) if key is None else int(meeting(key, n, len(side), self.length)[index])
        picture = side.picture(number)
        move = moves(key, self.length, n)[index].tolist() if key and self.view != View() else None
        top, left, h, w = window(picture.shape[1], picture.shape[2], self.view.size, 1, move)
        return turned(picture[:, top : top + h, left : left + w], self.view, move)


def at_hand(pictures: Pictures, view: View) -> bool:
    """Whether whole pictures in memory are what is shown, at most mirrored."""
    if view.rotate or not isinstance(pictures, Stored) or not isinstance(pictures.pictures, Tensor):
        return False
    return view.size is None or pictures.size(0) == (view.size, view.size)


def looked_up(pictures: Pictures, indices: Tensor, mirrored: np.ndarray | None) -> Tensor:
    """Pictures of one size as a batch in [-1, 1], some mirrored."""
    return scaled(stack(pictures, indices.tolist()), None if mirrored is None else torch.from_numpy(mirrored))


def part(picture: Tensor, height: int, width: int, draw: np.random.Generator) -> Tensor:
    """A random part of a picture (C, H, W), which is enlarged first if it is too small."""
    rows, columns = picture.shape[1:]
    grow = max(height / rows, width / columns)
    if grow > 1:
        size = [max(height, round(rows * grow)), max(width, round(columns * grow))]
        picture = tvf.resize(picture, size, interpolation=tvf.InterpolationMode.BICUBIC, antialias=True)
        rows, columns = picture.shape[1:]
    top, left = int(draw.integers(rows - height + 1)), int(draw.integers(columns - width + 1))
    return picture[:, top : top + height, left : left + width]


@lru_cache(maxsize=4)
def moves(key: Key, count: int, side: int = 0) -> np.ndarray:
    """Four numbers in [0, 1) for each of ``count`` pairs: top, left, mirror, turn."""
    return np.random.default_rng((*key, 0, _MOVES + 8 * side)).random((count, 4))


@lru_cache(maxsize=4)
def meeting(key: Key, side: int, count: int, length: int) -> np.ndarray:
    """Which of ``count`` pictures of a side comes at each of ``length`` places, each as often as the others."""
    if side == 0 and count == length:
        return np.arange(length)
    rng = np.random.default_rng((*key, 0, _ORDER + 8 * side))
    return np.concatenate([rng.permutation(count) for _ in range(-(-length // count))])[:length]


def window(
    height: int, width: int, size: int | None, step: int, move: Sequence[float] | None
) -> tuple[int, int, int, int]:
    """Top, left, height and width of the part that is shown; its corner is at multiples of ``step``."""
    if size is None:
        return 0, 0, height, width
    rows, columns = (height - size) // step, (width - size) // step
    if move is None:
        return rows // 2 * step, columns // 2 * step, size, size
    return int(move[_TOP] * (rows + 1)) * step, int(move[_LEFT] * (columns + 1)) * step, size, size


def turned(picture: Tensor, view: View, move: Sequence[float] | None) -> Tensor:
    """A picture (C, H, W), mirrored and turned as the move says."""
    if move is None:
        return picture
    if view.flip and move[_MIRROR] < 0.5:
        picture = picture.flip(-1)
    return picture.rot90(int(4 * move[_TURN]), (-2, -1)) if view.rotate else picture


class PairLoader(ResumableLoader):
    """A ``ResumableLoader`` of pairs: tuples ``(source, target)``, float32 NCHW in [-1, 1].

    What is drawn for a pair, its window, its mirroring, its noise, depends on nothing but (seed, epoch, number).

    Args:
        dataset: The pairs, each read by its number.
        augment: Draw anew in each epoch, as training does; otherwise pairs are those of validation.
        **options: Of ``ResumableLoader``.
    """

    def __init__(self, dataset: PairSource, augment: bool = True, **options: Any) -> None:
        super().__init__(dataset, **options)  # type: ignore[arg-type]  # read through _fetch alone
        self.augment = augment

    def _fetch(self, epoch: int) -> Callable[[Tensor], Any]:
        pairs: Any = self.dataset
        return partial(pairs.batch, key=Key(self.seed, epoch, self.offset) if self.augment else None)

    def _batch(self, images: Any, indices: Tensor, mirrored: Tensor | None) -> Batch:
        return tuple(images)
