"""Measuring what becomes of pictures: each beside its target, or all of them beside all of the other kind."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric

from lit_gans.errors import unknown
from lit_gans.functional import checkerboard, imresize, to_uint8
from lit_gans.metrics.evaluation import Progress, Result
from lit_gans.metrics.extractors import FeatureExtractor
from lit_gans.metrics.feature_metric import rank_and_world
from lit_gans.metrics.frechet import FrechetDistance
from lit_gans.metrics.lpips import LPIPS
from lit_gans.metrics.pictures import L1, Channel, PictureMetric
from lit_gans.metrics.protocol import QUANTISER, versions
from lit_gans.metrics.psnr import PSNR
from lit_gans.metrics.ssim import SSIM

__all__ = (
    "BASELINES",
    "PICTURE_METRICS",
    "PICTURE_PROTOCOLS",
    "PictureEvaluation",
    "PictureProtocol",
    "PictureSource",
    "load_picture_protocol",
)

PICTURE_METRICS = {
    "psnr": "peak signal-to-noise ratio in dB",
    "ssim": "structural similarity",
    "l1": "mean absolute error of pixels in 0..1",
    "lpips": "learned perceptual distance, AlexNet's",
    "fd": "Fréchet distance: FID with Inception's features",
    "checkerboard": "energy of patterns of every second pixel over those a little coarser, 1 without such",
    "cycle": "mean absolute error after the way there and back, of models with two directions",
}
"""What can be measured of a model of pictures from pictures."""
_PAIRED: dict[str, type[PictureMetric]] = {"psnr": PSNR, "ssim": SSIM, "l1": L1, "lpips": LPIPS}
BASELINES = ("bicubic", "input", "mean")
_TOGETHER = 32  # pictures of one size that are looked at in one pass


class PictureSource(Protocol):
    """Pairs by number, as data modules of pairs have them."""

    def __len__(self) -> int:
        """Number of pairs."""
        ...

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Sources and targets, float NCHW in [-1, 1]."""
        ...


@dataclass(frozen=True)
class PictureProtocol:
    """How a model of pictures from pictures is measured.

    Args:
        name: Name under which results cite this protocol; ``custom`` for one that was changed.
        split: Split of the data: ``train``, ``val`` or ``test``.
        channel: ``rgb``, or ``y`` for the luma of BT.601, by which papers on super-resolution report.
        crop: Pixels at the border that are left out; None for as many as the scale.
        pictures: Number of pictures, the first of the split; None for all.
        ema: Whether the averaged generator is measured, where there is one.
        seed: Seed of dropout, where the model generates with it.

    Raises:
        ValueError: if a value is out of its range.
    """

    name: str = "custom"
    split: str = "val"
    channel: Channel = "rgb"
    crop: int | None = 0
    pictures: int | None = None
    ema: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in ("train", "val", "test"):
            raise ValueError(f"split must be train, val or test, got {self.split!r}")
        if self.channel not in ("rgb", "y"):
            raise ValueError(f"channel must be rgb or y, got {self.channel!r}")
        if (self.crop or 0) < 0 or (self.pictures is not None and self.pictures < 1):
            raise ValueError(f"crop must be 0 or more, pictures 1 or more, got {self.crop} and {self.pictures}")

    def changed(self, **values: Any) -> "PictureProtocol":
        """The same with other values, named ``custom`` if any does change."""
        other = replace(self, **values)
        return other if other == self else replace(other, name="custom")


PICTURE_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        PictureProtocol("pictures"),
        # super-resolution: luma, without as many pixels at the border as the scale
        PictureProtocol("sr_y", channel="y", crop=None),
        # as BasicSR and MMagic count: the same in RGB
        PictureProtocol("sr_rgb", crop=None),
        # inpainting: whole pictures in RGB
        PictureProtocol("inpainting"),
    )
}
"""Presets under the field's names."""


def load_picture_protocol(protocol: Any) -> PictureProtocol:
    """A protocol by name, or itself; what is a protocol of samples alone becomes ``pictures``.

    Raises:
        ValueError: if there is none of that name.
    """
    if isinstance(protocol, PictureProtocol):
        return protocol
    if isinstance(protocol, str):
        if protocol not in PICTURE_PROTOCOLS:
            raise ValueError(unknown("protocol", protocol, PICTURE_PROTOCOLS))
        return PICTURE_PROTOCOLS[protocol]
    return PICTURE_PROTOCOLS["pictures"].changed(ema=protocol.ema, seed=protocol.seed)


class PictureEvaluation:
    """Measures outputs against targets.

    Args:
        metrics: Names of the metrics, of those in ``PICTURE_METRICS``; empty for those that suit: ``psnr``, ``ssim``
            where pictures have room for its window, and ``l1``, or without pairs ``fd`` and ``cycle``.
        protocol: The protocol that is followed.
        extractor: What looks at pictures for the Fréchet distance; None where that is not asked for.
        paired: Whether a target belongs to its source.
        directions: Those that the model knows, ``a2b`` first.

    Raises:
        ValueError: if there is no such metric, or the model or the extractor cannot serve it.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        protocol: PictureProtocol,
        extractor: FeatureExtractor | None = None,
        paired: bool = True,
        directions: Sequence[str] = ("a2b",),
    ) -> None:
        self.chosen = bool(metrics)
        names = ["fd" if name == "fid" else name for name in metrics]
        if not names:
            names = ["psnr", "ssim", "l1"] if paired else ["fd", *["cycle"] * (len(directions) > 1)]
        for name in names:
            if name not in PICTURE_METRICS:
                raise ValueError(f"there is no metric {name!r} of pictures: there are {', '.join(PICTURE_METRICS)}")
            if name in _PAIRED and not paired:
                raise ValueError(f"{name} compares a picture with its target, and there are no pairs: ask for fd")
        if "cycle" in names and len(directions) < 2:
            raise ValueError("cycle is measured of models with two directions: leave it out")
        if "fd" in names and extractor is None:
            raise ValueError("fd needs an extractor to look at the pictures")
        self.metrics, self.protocol, self.extractor = tuple(dict.fromkeys(names)), protocol, extractor
        self.paired, self.directions = paired, tuple(directions)

    @property
    def key(self) -> str:
        """What the first value is called."""
        return self.extractor.key if self.metrics[0] == "fd" and self.extractor is not None else self.metrics[0]

    def measure(
        self,
        translate: Callable[[Tensor, str], Tensor],
        pairs: PictureSource,
        device: torch.device,
        progress: Progress = lambda blocks, title: blocks,
        baselines: Iterable[str] = (),
    ) -> Result:
        """Translate, look, compute; the same on all processes.

        Args:
            translate: From sources (N, C, H, W) and a direction to what is made of them.
            pairs: Sources and targets by number.
            device: Where it is done.
            progress: Wraps the batches, to show how far it is.
            baselines: Of ``BASELINES``: what is measured beside, as ``<metric>_<baseline>``.

        Raises:
            FloatingPointError: if what is made is not finite.
        """
        rank, world = rank_and_world()
        n = min(len(pairs), self.protocol.pictures or len(pairs))
        size = _TOGETHER if getattr(pairs, "one_size", False) else 1
        whole = torch.arange(n).split(size)
        tables = {name: Table(self, device, () if name else self.directions) for name in ("", *baselines)}
        mean = mean_picture(pairs, n) if "mean" in tables else None
        if self.paired and n:
            first = pairs.batch(torch.arange(1))  # on all processes, of which some may get no pictures of their own
            for table in tables.values():
                table.compare_like(*first)
        for rows in progress(range(rank, len(whole), world), "pictures"):
            index = whole[rows]
            source, target = (side.to(device) for side in pairs.batch(index))
            for name, table in tables.items():
                made = baseline(name, source, target, mean) if name else translate(source, "a2b")
                if not made.isfinite().all():
                    raise FloatingPointError("the model makes NaN or infinite values: there is nothing to measure")
                table.add("a2b", made, source, target, index)
                if not name and len(self.directions) > 1:
                    there = translate(target, "b2a")
                    table.add("b2a", there, target, source, index)
                    table.add_cycles(translate(made, "b2a"), source, translate(there, "a2b"), target)
        result = Result({})
        for name, table in tables.items():
            result.metrics |= {f"{key}_{name}" if name else key: value for key, value in table.values().items()}
        return result

    def stamp(self, data: Mapping[str, Any], averaged: bool | None, count: int) -> dict[str, Any]:
        """All that a result depends on, as plain values, of ``count`` pairs that there are."""
        return {
            **asdict(self.protocol),
            "ema": averaged,
            "data": {**data, "count": min(count, self.protocol.pictures or count)},
            "extractor": {} if self.extractor is None else self.extractor.describe(),
            "quantiser": QUANTISER,
            "versions": versions(),
        }


class Table:
    """The metrics of one kind of outputs, in some directions beside the way there."""

    def __init__(self, evaluation: PictureEvaluation, device: torch.device, directions: Sequence[str] = ()) -> None:
        self.evaluation, self.device = evaluation, device
        self.paired = dict[str, PictureMetric]()
        self.distances = dict[str, FrechetDistance]()
        self.cycles = dict[str, L1]()
        self.grids = MeanMetric().to(device) if "checkerboard" in evaluation.metrics else None
        if "fd" in evaluation.metrics and evaluation.extractor is not None:
            place = device if device.type == "cuda" else torch.device("cpu")
            self.distances = {
                way: FrechetDistance(evaluation.extractor).to(place) for way in dict.fromkeys(("a2b", *directions))
            }
        if "cycle" in evaluation.metrics and directions:
            self.cycles = {"cycle_a": L1().to(device), "cycle_b": L1().to(device)}

    def compare_like(self, source: Tensor, target: Tensor) -> None:
        """Begin to compare outputs with targets, as the sizes of a first pair want it."""
        p = self.evaluation.protocol
        crop = target.shape[-1] // source.shape[-1] if p.crop is None else p.crop
        self.paired = {
            name: (LPIPS(crop=crop) if name == "lpips" else _PAIRED[name](p.channel, crop)).to(self.device)
            for name in self.evaluation.metrics
            if name in _PAIRED and (name != "ssim" or self.evaluation.chosen or large_enough(target, crop))
        }

    def add(self, direction: str, made: Tensor, source: Tensor, target: Tensor, index: Tensor) -> None:
        """Pictures, what they are made of, and what they should be, or be like."""
        if direction == "a2b":
            for metric in self.paired.values():
                metric.update(made, target)
        if direction == "a2b" and self.grids is not None:
            self.grids.update(checkerboard(made).float())
        if direction in self.distances:
            self.distances[direction].update(to_uint8(made), False, index)
            self.distances[direction].update(to_uint8(target), True, index)

    def add_cycles(self, back_a: Tensor, a: Tensor, back_b: Tensor, b: Tensor) -> None:
        """Pictures after the way there and back."""
        for metric, made, wanted in zip(self.cycles.values(), (back_a, back_b), (a, b), strict=False):
            metric.update(made, wanted)

    def values(self) -> dict[str, float]:
        """Values by name, in the order that was asked for."""
        found = dict[str, float]()
        for name in self.evaluation.metrics:
            metrics: dict[str, Metric] = {name: self.paired[name]} if name in self.paired else {}
            if name == "fd" and self.evaluation.extractor is not None:
                key = self.evaluation.extractor.key
                metrics = {key if d == "a2b" else f"{key}_back": metric for d, metric in self.distances.items()}
            if name == "checkerboard" and self.grids is not None:
                metrics = {name: self.grids}
            if name == "cycle":
                metrics = dict(self.cycles)
            found |= {key: float(metric.compute()) for key, metric in metrics.items()}
        return found


def large_enough(target: Tensor, crop: int) -> bool:
    """Whether the window of the structural similarity fits into pictures."""
    return min(target.shape[2:]) - 2 * crop >= 11


def baseline(name: str, source: Tensor, target: Tensor, mean: Tensor | None) -> Tensor:
    """What one would have without a model.

    Args:
        name: ``bicubic``, the source in the size of the target; ``input``, the source as it is; ``mean``, the mean
            target.
        source: (N, C, H, W).
        target: (N, C', H', W').
        mean: The mean target, for the baseline of that name.

    Raises:
        ValueError: if there is no such baseline, or it makes no sense of these pictures.
    """
    if name == "mean":
        if mean is None or mean.shape[1:] != target.shape[1:]:
            raise ValueError("the mean picture needs targets of one size: leave --baseline mean out")
        return mean.to(target).expand_as(target)
    if name not in BASELINES:
        raise ValueError(unknown("baseline", name, BASELINES))
    picture = source[:, : target.shape[1]] if source.shape[1] > target.shape[1] else source
    if picture.shape[1] == 1 and target.shape[1] == 3:
        picture = picture.expand(-1, 3, -1, -1)
    if picture.shape[2:] == target.shape[2:]:
        return picture
    if name == "input":
        raise ValueError("the input has another size than the target: take --baseline bicubic")
    made = imresize(picture, target.shape[-1] / picture.shape[-1]).clamp(-1, 1)
    return made[..., : target.shape[-2], : target.shape[-1]]


def mean_picture(pairs: PictureSource, n: int) -> Tensor | None:
    """The mean of n targets, (1, C, H, W); None if they differ in size."""
    if not getattr(pairs, "one_size", False):
        return None
    total, count = None, 0
    for rows in torch.arange(n).split(_TOGETHER):
        target = pairs.batch(rows)[1].double()
        total = target.sum(0) if total is None else total + target.sum(0)
        count += len(target)
    return None if total is None else (total / max(count, 1)).float()[None]
