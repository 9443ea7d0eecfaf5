"""Large pictures in tiles: what a network makes of parts that overlap, put together, in the memory of one part."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ("SIDE", "Span", "auto_tile", "cuts", "moments_held", "obstacle", "overlap_of", "seam", "tiled")

SIDE = 1024
"""Side of the squares that a network sees at once, where it does not enlarge."""

Make = Callable[[Tensor], Tensor]


class Span(NamedTuple):
    """A tile along one side of a picture.

    Attributes:
        start, end: Its own pixels, of which the result is kept.
        first, last: The pixels that the network is shown for it.
    """

    start: int
    end: int
    first: int
    last: int


def cuts(side: int, tile: int, overlap: int, stride: int = 1) -> list[Span]:
    """Cut a side into tiles of about equal length, whose beginnings are multiples of the stride.

    Tiles end at the border of the picture, so that the network pads there what it would have padded; only inner edges
    overlap.

    Args:
        side: Pixels.
        tile: Most pixels of a tile's own; at least the stride.
        overlap: Pixels that are shown beyond each inner edge, at least.
        stride: Of the network.

    Example:
        >>> cuts(100, 40, 10, 4)
        [Span(start=0, end=36, first=0, last=48), Span(start=36, end=72, first=24, last=84), Span(start=72, end=100, \
first=60, last=100)]
    """
    number = -(-side // max(tile // stride * stride, stride))
    step = -(-side // (number * stride)) * stride
    beyond = -(-overlap // stride) * stride
    return [
        Span(start, min(start + step, side), max(start - beyond, 0), min(start + step + beyond, side))
        for start in range(0, side, step)
    ]


def tiles(x: Tensor, tile: int, overlap: int, stride: int = 1) -> Iterator[tuple[Span, Span, Tensor]]:
    """The tiles of pictures (N, C, H, W): rows, columns, and the part that the network is shown."""
    across = cuts(x.shape[-1], tile, overlap, stride)
    for rows in cuts(x.shape[-2], tile, overlap, stride):
        for columns in across:
            yield rows, columns, x[..., rows.first : rows.last, columns.first : columns.last]


def tiled(make: Make, x: Tensor, tile: int, overlap: int, stride: int = 1) -> Tensor:
    """What a function makes of pictures, tile by tile: no memory is taken beyond one tile's, and that of the result.

    Args:
        make: From pictures (N, C, h, w) to pictures (N, C', s h, s w), for a whole number s.
        x: Pictures (N, C, H, W).
        tile: Side of a tile.
        overlap: Pixels shown to the function beyond each inner edge; where no pixel of the result depends on one
            farther away, the result is that of the whole.
        stride: Tiles begin at multiples of it.

    Returns:
        Pictures (N, C', s H, s W), of the type and on the device of what the function gives.

    Example:
        >>> x = torch.arange(81.0).view(1, 1, 9, 9)
        >>> torch.equal(tiled(lambda part: F.max_pool2d(part, 3, 1, 1), x, 4, 1), F.max_pool2d(x, 3, 1, 1))
        True
    """
    result: Tensor | None = None
    for rows, columns, part in tiles(x, tile, overlap, stride):
        made = make(part)
        s = made.shape[-1] // part.shape[-1]
        if result is None:
            shape = (*made.shape[:2], s * x.shape[-2], s * x.shape[-1])
            result = torch.empty(shape, dtype=made.dtype, device=made.device, memory_format=torch.channels_last)
        places = [slice(s * span.start, s * span.end) for span in (rows, columns)]
        inner = [slice(s * (span.start - span.first), s * (span.end - span.first)) for span in (rows, columns)]
        result[..., places[0], places[1]] = made[..., inner[0], inner[1]]
    assert result is not None, "a picture has pixels"
    return result


# which networks, how large, how far


def overlap_of(network: nn.Module, exact: bool = False) -> int:
    """Pixels that tiles are shown beyond their inner edges: what a pixel of the result depends on, or nearly so.

    Args:
        network: With a ``receptive_radius``, and, if what is far away hardly counts, an ``overlap`` that is enough.
        exact: Take the radius in any case.
    """
    radius: int = getattr(network, "receptive_radius", None) or 0
    enough: int | None = getattr(network, "overlap", None)
    least = max(getattr(network, "stride", 1), getattr(network, "smallest", 1))
    return max(radius if exact or enough is None else min(radius, enough), least)


def auto_tile(network: nn.Module, height: int, width: int, exact: bool = False) -> int | None:
    """Side of the tiles of a picture; None if it is small enough to be made at once.

    That is up to 1024 x 1024 pixels, divided by the network's scale. Of larger ones the network sees so many at once,
    or, where the overlap is more than a quarter of that square, four overlaps square.
    """
    square = int(SIDE / getattr(network, "scale", 1) ** 0.5)
    overlap = overlap_of(network, exact)
    if height * width <= max(square, 4 * overlap) ** 2:
        return None
    return max(square - 2 * overlap, 2 * overlap)


def obstacle(network: nn.Module) -> str | None:
    """Why a network, in the mode it is in, cannot be shown a picture in tiles; None if it can."""
    name = type(network).__name__
    if getattr(network, "receptive_radius", None) is None:
        return f"each pixel that {name} makes may depend on the whole picture"
    for layer in network.modules():
        noisy = isinstance(layer, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm))
        if noisy and layer.training:
            return f"{type(layer).__name__} of {name} in the mode train depends on the whole picture"
        if isinstance(layer, (nn.GroupNorm, nn.LayerNorm)):
            return f"{type(layer).__name__} of {name} depends on the whole picture"
    return None


# instance normalisation


@contextmanager
def moments_held(network: nn.Module, make: Make, x: Tensor, tile: int, overlap: int, exact: bool = False) -> Iterator[None]:
    """Within, instance normalisation takes mean and variance of the whole picture in the place of a tile's.

    Chen et al. 2022, "Towards ultra-resolution neural style transfer via thumbnail instance normalization",
    arXiv:2103.11784, take them from a picture made smaller.
    """
    layers = [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d) and not (m.track_running_stats and not m.training)]
    yield


def seam(made: Tensor, tile: int) -> float:
    return 1.0
