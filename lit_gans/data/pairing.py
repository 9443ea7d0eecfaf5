"""Pairs of pictures by number, cut and turned alike, and the loader that gives them in batches."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lit_gans.data.loader import Batch, ResumableLoader
from lit_gans.data.loader import _pixels as pixels
from lit_gans.data.pictures import Pictures, cut, one_size
from lit_gans.data.tasks import Task

__all__ = ("Key", "PairLoader", "PairSource", "Pairs", "View")

_HELD_OUT = (0, 0, 0)
_GEOMETRY, _TASK, _MASK = 1, 2, 3  # streams of random numbers of one pair


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


def draw_from(key: Key | None, index: int, stream: int) -> np.random.Generator:
    """A generator of its own for each seed, epoch, pair and purpose; for held-out pairs the same always."""
    return np.random.default_rng((*(key or _HELD_OUT), index + 1, stream + 4 * (key is None)))


class Pairs:
    """Pairs of a source and a target.

    Args:
        targets: The targets.
        sources: The source of each, smaller by ``scale``; None if ``task`` makes it of the target in each epoch anew.
        task: What makes the source out of the target, and the mask.
        scale: Side of a target over that of its source; targets are cut to multiples of it.
        view: The part that is shown.
        channels: Of the sources, without the mask.
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
    ) -> None:
        self.targets = targets
        self.sources = sources
        self.task = task
        self.scale = scale
        self.view = view
        self.channels = channels or (sources.channels if sources is not None else task.channels(targets.channels))
        self.one_size = one_size(targets) is not None

    def __len__(self) -> int:
        return len(self.targets)

    def name(self, index: int) -> str:
        """What a person calls the pair: the name of its target."""
        return self.targets.name(index)

    def pair(self, index: int) -> tuple[Tensor, Tensor]:
        """Source and target as validation has them, uint8 (C, H, W); of a mask, a last channel, 255 is the hole."""
        source, target, mask = self._drawn(index, None)
        return source if mask is None else torch.cat([source, mask]), target

    def batch(self, indices: Tensor, key: Key | None = None) -> tuple[Tensor, Tensor]:
        """Sources and targets, float32 NCHW in [-1, 1]; a mask is the last channel, 1.0 in the hole.

        Args:
            indices: Numbers of the pairs.
            key: What is drawn depends on it; None for pairs as validation has them.
        """
        drawn = [self._drawn(index, key) for index in indices.tolist()]
        sources, targets, masks = zip(*drawn, strict=True)
        source, target = (pixels(torch.stack(side), None) for side in (sources, targets))
        if masks[0] is not None:
            holes = torch.stack(masks) > 127
            source = torch.cat([source.masked_fill_(holes, 0), holes.float()], 1)
        return source, target

    def _drawn(self, index: int, key: Key | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Source, target and mask of the window shown, mirrored and turned alike."""
        whole = cut(self.targets.picture(index), self.scale)
        height, width = whole.shape[1:]
        moves = draw_from(key, index, _GEOMETRY) if key and self.view != View() else None
        top, left, h, w = window(height, width, self.view.size, self.scale, moves)
        target = whole[:, top : top + h, left : left + w]
        source = self._source(index, key, whole, (top, left, h, w))
        if source.shape[0] != self.channels:
            source = source.expand(self.channels, -1, -1)
        mask = None
        if self.task.mask is not None:
            mask = self.task.mask(*source.shape[1:], draw_from(key, index, _MASK))
        turn = turning(self.view, moves)
        return turn(source), turn(target), None if mask is None else turn(mask)

    def _source(self, index: int, key: Key | None, target: Tensor, shown: tuple[int, int, int, int]) -> Tensor:
        top, left, h, w = (side // self.scale for side in shown)
        if self.sources is not None:
            return self.sources.picture(index)[:, top : top + h, left : left + w]
        margin = self.task.margin  # a window of a made picture is not that of a picture made of a window
        upper, outer = max(0, shown[0] - margin), max(0, shown[1] - margin)
        around = target[:, upper : shown[0] + shown[2] + margin, outer : shown[1] + shown[3] + margin]
        made = self.task(around[None], draw_from(key, index, _TASK))[0]
        top, left = top - upper // self.scale, left - outer // self.scale
        return made[:, top : top + h, left : left + w]


def window(
    height: int, width: int, size: int | None, step: int, draw: np.random.Generator | None
) -> tuple[int, int, int, int]:
    """Top, left, height and width of the part that is shown; its corner is at multiples of ``step``."""
    if size is None:
        return 0, 0, height, width
    rows, columns = (height - size) // step, (width - size) // step
    if draw is None:
        return rows // 2 * step, columns // 2 * step, size, size
    return int(draw.integers(rows + 1)) * step, int(draw.integers(columns + 1)) * step, size, size


def turning(view: View, draw: np.random.Generator | None) -> Callable[[Tensor], Tensor]:
    """What mirrors and turns pictures (C, H, W), all alike."""
    mirror = draw is not None and view.flip and draw.random() < 0.5
    quarters = int(draw.integers(4)) if draw is not None and view.rotate else 0

    def turn(picture: Tensor) -> Tensor:
        picture = picture.flip(-1) if mirror else picture
        return picture.rot90(quarters, (-2, -1)) if quarters else picture

    return turn


class PairLoader(ResumableLoader):
    """A ``ResumableLoader`` of pairs: tuples ``(source, target)``, float32 NCHW in [-1, 1].

    What is drawn for a pair, its window, its mirroring, its noise, depends on nothing but (seed, epoch, number).

    Args:
        dataset: The pairs.
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
