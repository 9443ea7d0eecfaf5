"""Large pictures in tiles: what a network makes of parts that overlap, put together, in the memory of one part."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = (
    "SIDE",
    "Span",
    "auto_tile",
    "cuts",
    "moments_held",
    "normalising",
    "obstacle",
    "overlap_of",
    "seam",
    "tiled",
)

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
    overlap. All tiles show the network equally many pixels (but for those that the stride leaves over at the end), so
    that memory of one serves the next.

    Args:
        side: Pixels.
        tile: Most pixels of a tile's own; at least the stride.
        overlap: Pixels that are shown beyond each inner edge, at least.
        stride: Of the network.

    Example:
        >>> cuts(100, 40, 10, 4)
        [Span(start=0, end=36, first=0, last=60), Span(start=36, end=72, first=24, last=84), Span(start=72, end=100, \
first=40, last=100)]
    """
    number = -(-side // max(tile // stride * stride, stride))
    step = -(-side // (number * stride)) * stride
    beyond = -(-overlap // stride) * stride
    shown = step + 2 * beyond
    latest = max(-(-(side - shown) // stride) * stride, 0)  # from where so many pixels reach the end
    spans = []
    for start in range(0, side, step):
        first = min(max(start - beyond, 0), latest)
        spans.append(Span(start, min(start + step, side), first, min(first + shown, side)))
    return spans


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

    That is up to 1024 x 1024 pixels, divided by the network's scale; with instance normalisation, which makes tiles
    expensive, up to four times as many. Of larger ones the network sees 1024 x 1024 pixels at once, divided by the
    scale, or, where the overlap is more than a quarter of that square's side, a square of four overlaps.
    """
    overlap = overlap_of(network, exact)
    square = max(int(SIDE / getattr(network, "scale", 1) ** 0.5), 4 * overlap)
    if height * width <= square**2 * (4 if normalising(network) else 1):
        return None
    return square - 2 * overlap


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
def moments_held(
    network: nn.Module, read: Make, make: Make, x: Tensor, tile: int, overlap: int, stride: int = 1, fast: bool = False
) -> Iterator[None]:
    """Within, instance normalisation takes mean and variance of the whole picture in the place of a tile's.

    They are found layer by layer: all tiles pass through the network as far as the first layer, then, with its moments
    known, as far as the second, and so on. That is as exact as it is slow; of nine residual blocks it takes the time of
    eleven passes. ``fast`` takes the moments from one pass of the picture made smaller (Chen et al. 2022, "Towards
    ultra-resolution neural style transfer via thumbnail instance normalization", arXiv:2103.11784): there are no seams
    either, but contrast and colours are others, by as much as textures look different when they are smaller.

    Args:
        network: Whose layers are told their moments.
        read: From a part of ``x`` to what ``make`` takes.
        make: Shows pictures to the network, once.
        x: Pictures (N, C, H, W).
        tile: Side of a tile, as in ``tiled``.
        overlap: As in ``tiled``.
        stride: As in ``tiled``.
        fast: Whether moments are those of the picture made smaller.
    """
    layers = normalising(network)
    held: list[_Moments] = []
    found: list[_Moments] = []
    calls, own = 0, None  # layers met in this pass; the tile that is shown

    def begin(*_: Any) -> None:
        nonlocal calls
        calls = 0

    def hold(layer: nn.Module, seen: tuple[Tensor], made: Tensor) -> Tensor | None:
        nonlocal calls
        calls += 1
        if calls <= len(held):
            return held[calls - 1].normalised(layer, seen[0], made)
        found.append(_Moments.of(seen[0] if own is None else _inner(seen[0], own, stride)))
        if own is None:
            return None
        raise _EnoughError

    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(layer.register_forward_hook(hold).remove)
        hooks.callback(network.register_forward_pre_hook(begin).remove)
        if layers and fast:
            make(thumbnail(read, x, tile + 2 * overlap))
            held += found
        while layers and not fast:
            found.clear()
            for rows, columns, part in tiles(x, tile, overlap, stride):
                own = rows, columns
                with suppress(_EnoughError):
                    make(read(part))
                    break  # all layers know theirs
            if not found:
                break
            held.append(_Moments.together(found))
        yield


def normalising(network: nn.Module) -> list[nn.InstanceNorm2d]:
    """The layers that take mean and variance from the picture at hand."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.InstanceNorm2d)]
    return [layer for layer in layers if layer.training or not layer.track_running_stats]


class _EnoughError(Exception):
    """A pass has come as far as it is needed."""


class _Moments(NamedTuple):
    """Mean and variance of each channel, (N, C, 1, 1), and of how many values."""

    mean: Tensor
    variance: Tensor
    number: int

    @classmethod
    def of(cls, maps: Tensor) -> "_Moments":
        """Those of maps (N, C, H, W)."""
        variance, mean = torch.var_mean(maps.float(), (2, 3), correction=0, keepdim=True)
        return cls(mean.double(), variance.double(), maps.shape[2] * maps.shape[3])

    @classmethod
    def together(cls, parts: "list[_Moments]") -> "_Moments":
        """Those of all parts."""
        number = sum(part.number for part in parts)
        shares = torch.tensor([part.number / number for part in parts], dtype=torch.float64).view(-1, 1, 1, 1, 1)
        means, variances = torch.stack([part.mean for part in parts]), torch.stack([part.variance for part in parts])
        shares = shares.to(means)
        mean = (shares * means).sum(0)
        return cls(mean, (shares * (variances + (means - mean).square())).sum(0), number)

    def normalised(self, layer: Any, seen: Tensor, made: Tensor) -> Tensor:
        """What a layer makes of maps with these moments, written over what it made with theirs."""
        scale = (self.variance + layer.eps).rsqrt()
        shift = -self.mean * scale
        if layer.affine:
            scale = scale * layer.weight.view(-1, 1, 1)
            shift = shift * layer.weight.view(-1, 1, 1) + layer.bias.view(-1, 1, 1)
        return made.copy_(torch.addcmul(shift.to(seen), seen, scale.to(seen)))


def _inner(maps: Tensor, own: Sequence[Span], stride: int) -> Tensor:
    """The part of maps that belongs to a tile's own pixels."""
    places = []
    for span, side in zip(own, maps.shape[2:], strict=True):
        padded = -(-(span.last - span.first) // stride) * stride  # pictures are continued as far as a stride wants it
        end = None if span.end == span.last else (span.end - span.first) * side // padded
        places.append(slice((span.start - span.first) * side // padded, end))
    return maps[..., places[0], places[1]]


def thumbnail(read: Make, x: Tensor, side: int) -> Tensor:
    """Pictures made smaller by a whole factor, so that no side is longer than ``side``: means over squares."""
    factor = -(-max(x.shape[-2:]) // side)
    rows = factor * 64
    strips = [x[..., top : top + rows, :] for top in range(0, x.shape[-2], rows)]
    return torch.cat([F.avg_pool2d(read(strip), factor, ceil_mode=True) for strip in strips], 2)


# what can be seen of it


def seam(made: Tensor, spans: tuple[list[Span], list[Span]], period: int = 1) -> tuple[float, float] | None:
    """How much the tone jumps at the borders of tiles, and beside these.

    The mean difference of neighbouring pixels along the border of two tiles, in which edges of the picture cancel out
    and a step of brightness or colour does not, less what it is one period before and after; of all borders and
    channels the root mean square.

    Args:
        made: A picture (C, H, W) of any type.
        spans: Its tiles, as ``cuts`` gives them, from top to bottom and from left to right, in pixels of ``made``.
        period: Of the pattern that the network itself may leave: its stride times its scale.

    Returns:
        What it is at the borders, and at the lines two periods to either side, in the unit of pixels; None where no
        border lies so far inside.
    """
    reach, found = 3 * period, []
    for axis, picture in enumerate((made, made.transpose(-1, -2))):
        for border in (span.start for span in spans[axis][1:]):
            if reach < border < picture.shape[-2] - reach:
                steps = picture[..., border - reach - 1 : border + reach + 1, :].float().diff(dim=-2)[..., ::period, :]
                found += [steps[..., along.start : along.end].mean(-1) for along in spans[1 - axis]]
    if not found:
        return None
    steps = torch.cat(found)
    jumps = (steps[:, 1:-1] - (steps[:, :-2] + steps[:, 2:]) / 2).square().mean(0)
    return float(jumps[2].sqrt()), float(((jumps[0] + jumps[4]) / 2).sqrt())
