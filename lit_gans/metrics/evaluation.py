"""Measuring a generator: one pass over its samples feeds all metrics, and the result carries its stamp."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_gans.metrics.classes import ClassStatistics
from lit_gans.metrics.drawing import Sampler, quantise
from lit_gans.metrics.extractors import FeatureExtractor
from lit_gans.metrics.feature_metric import rank_and_world
from lit_gans.metrics.frechet import FrechetDistance
from lit_gans.metrics.inception_score import InceptionScore
from lit_gans.metrics.kernel import KernelDistance
from lit_gans.metrics.modes import ModeCoverage, Modes, PointModes, StackedDigits
from lit_gans.metrics.prdc import PrecisionRecall
from lit_gans.metrics.protocol import Protocol, stamp
from lit_gans.metrics.reference import BLOCK, Reference, shard
from lit_gans.metrics.values import Value

__all__ = ("METRICS", "Evaluation", "Progress", "Result", "check_metrics", "higher_is_better")

METRICS = {
    "fd": "Fréchet distance: FID with Inception's features",
    "fd_infinity": "its value for infinitely many samples",
    "is": "Inception score",
    "kid": "kernel distance: KID",
    "mmd": "the kernel distance of all images at once",
    "pr": "precision, recall, density, coverage",
    "classes": "classes covered, their entropy, how sure the classifier is",
    "modes": "modes covered, where they are known: ring, grid, spiral, stacked_mnist",
}
"""What can be measured, by name; ``fid`` is another name of ``fd``."""
Progress = Callable[[Iterable[int], str], Iterable[int]]


@dataclass
class Result:
    """What was measured.

    Args:
        metrics: Values by name; the Fréchet distance is ``fid`` or ``fd_<extractor>``.
        intervals: 95 % intervals of some of them, for the sampling of the generated images.
        classes: Shares of the classes among generated and real images.
        protocol: The stamp: all that the result depends on, as plain values.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    classes: dict[str, list[float]] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)


_DIRECTIONS = {
    key: higher
    for metric in (FrechetDistance, InceptionScore, KernelDistance, PrecisionRecall, ClassStatistics, ModeCoverage)
    for key, higher in metric.directions.items()
} | {"psnr": True, "ssim": True, "l1": False, "lpips": False, "cycle_a": False, "cycle_b": False, "checkerboard": False}


def higher_is_better(key: str) -> bool | None:
    """Whether more is better of a value that is logged or written under this key; None where it is not known.

    Args:
        key: Such as ``val/fid``, ``fd_digits`` or ``recall``.
    """
    name = key.rpartition("/")[2]
    return _DIRECTIONS.get("fd" if name == "fid" or name.startswith(("fid_", "fd_")) else name)


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """The metrics meant, each once.

    Raises:
        ValueError: if one does not exist, or two go by one name.
    """
    meant = ["fd" if name == "fid" else name for name in names]
    for name in meant:
        if name not in METRICS:
            raise ValueError(f"there is no metric {name!r}: there are {', '.join(METRICS)}")
    if not meant:
        raise ValueError(f"no metric was asked for: there are {', '.join(METRICS)}")
    if {"classes", "modes"} <= set(meant):
        raise ValueError("classes and modes both measure what is called modes: ask for one of them")
    return tuple(dict.fromkeys(meant))


class Evaluation:
    """Measures images against a reference.

    Args:
        metrics: Names of the metrics, of those in ``METRICS``.
        extractor: What looks at the images; None where the modes alone are counted.
        protocol: The protocol that is followed.
        resamples: Number of bootstrap resamples behind the interval of the Fréchet distance; 0 for no interval, else
            at least 2.
        modes: What tells the modes, for the metric of that name.

    Raises:
        ValueError: if the extractor cannot serve a metric, or the modes are not known.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        extractor: FeatureExtractor | None,
        protocol: Protocol,
        resamples: int = 0,
        modes: Modes | None = None,
    ) -> None:
        if resamples < 0 or resamples == 1:
            raise ValueError(f"resamples must be 0 or at least 2, got {resamples}")
        self.metrics, self.protocol, self.resamples = check_metrics(metrics), protocol, resamples
        self.modes = modes
        if "modes" in self.metrics and modes is None:
            raise ValueError(
                "modes are counted where they are known, on ring, grid, spiral and stacked_mnist: leave modes out, or "
                "count the classes of labelled images with classes"
            )
        if looking := [name for name in self.metrics if name != "modes"]:
            if isinstance(modes, PointModes):
                raise ValueError(f"{', '.join(looking)} look at images, and the data are points: ask for modes alone")
            if extractor is None:
                raise ValueError(f"{', '.join(looking)} need an extractor to look at the images")
        self.extractor = extractor if looking else None
        if self.extractor is not None and protocol.resize is not None:
            self.extractor = self.extractor.with_resize(protocol.resize)
        if (
            self.extractor is not None
            and self.extractor.num_features is not None
            and self.extractor.num_classes is None
        ):
            for name in {"is", "classes"} & set(self.metrics):
                raise ValueError(f"{name} needs class logits, and the extractor {self.extractor.name!r} has none")

    @property
    def key(self) -> str:
        """What the first value is called."""
        return "modes" if self.extractor is None else self.extractor.key

    @property
    def needs_features(self) -> bool:
        """Whether the features of all real images are wanted, or their sums are enough."""
        return bool({"kid", "mmd", "pr"} & set(self.metrics))

    def check(self, reals: int | None) -> None:
        """Refuse, before the long work, what the numbers of images do not allow.

        Where there are fewer images than the kernel distance draws for a subset, subsets are as small as need be; that
        is warned of and stamped.

        Args:
            reals: How many real images there are; None if that is not known yet.

        Raises:
            ValueError: naming the number and the remedy.
        """
        p = self.protocol
        if reals is not None and p.reals is not None and p.reals > reals:
            raise ValueError(
                f"the protocol {p.name} takes {p.reals} real images, but the {p.split} split has {reals}: "
                "choose another protocol"
            )
        available = {"generated": p.fakes, "real": None if reals is None else min(reals, p.reals or reals)}
        for side, n in available.items():
            if n is None:
                continue
            if "kid" in self.metrics and n < 2:
                raise ValueError(f"kid needs at least 2 {side} images, there are {n}: leave kid out")
            if "kid" in self.metrics and n < self.protocol.kid_subset_size:
                warnings.warn(
                    f"kid draws subsets of {n} images, in place of {self.protocol.kid_subset_size}: there are no more "
                    f"{side} ones",
                    stacklevel=2,
                )
                self.protocol = self.protocol.changed(kid_subset_size=n)
            if "pr" in self.metrics and n <= max(p.k, p.k_density):
                raise ValueError(f"pr needs more than {max(p.k, p.k_density)} {side} images, there are {n}")
        if "is" in self.metrics and p.fakes < p.is_splits:
            raise ValueError(f"is needs at least {p.is_splits} generated images, one for each split, not {p.fakes}")

    def stamp(self, data: Mapping[str, Any], averaged: bool | None, processes: int) -> dict[str, Any]:
        """All that a result depends on; arguments as of ``lit_gans.metrics.protocol.stamp``."""
        seen_by = {} if self.extractor is None else self.extractor.describe()
        counted = {"modes": self.modes.describe()} if "modes" in self.metrics and self.modes is not None else {}
        return stamp(self.protocol, data, seen_by, averaged, processes) | counted

    def leave_device(self) -> None:
        """Take what looks at the images off the device, until the next measurement."""
        if self.extractor is not None:
            self.extractor.to("cpu")
        if isinstance(self.modes, StackedDigits):
            self.modes.classifier.to("cpu")

    @staticmethod
    def place(device: torch.device) -> torch.device:
        """Where moments and distances are computed: on the CPU, unless the device knows float64."""
        return device if device.type == "cuda" else torch.device("cpu")

    def measure(
        self,
        sampler: Callable[[int], Sampler],
        reference: Reference | None,
        device: torch.device,
        progress: Progress = lambda blocks, title: blocks,
    ) -> Result:
        """Draw, look, compute; the same on all processes.

        Args:
            sampler: A function that takes a seed of latents and returns a function that draws a block of images.
            reference: The real side; None where none is needed.
            device: Where the images are looked at.
            progress: Wraps the loop over blocks, to show how far it is.

        Raises:
            ValueError: if the images are not finite, or of another form than they should be.
        """
        place = self.place(device)
        results = []
        for seed in range(self.protocol.seed, self.protocol.seed + self.protocol.repeats):
            metrics = {name: metric.to(place) for name, metric in self._metrics(reference and reference.to(place))}
            self._draw(sampler(seed), list(metrics.values()), device, progress)
            results.append(self._compute(metrics))
        return _mean(results)

    def _metrics(self, reference: Reference | None) -> Iterable[tuple[str, Metric]]:
        """The metrics, fed with the real side."""
        if "modes" in self.metrics:
            assert self.modes is not None
            yield "modes", ModeCoverage(self.modes)
        if self.extractor is None:
            return
        assert reference is not None, "there are no real images to compare with"
        e, p, names = self.extractor, self.protocol, set(self.metrics)
        if names & {"fd", "fd_infinity"}:
            keep = self.resamples > 0 or "fd_infinity" in names
            yield "fd", FrechetDistance(e, reference.moments, keep_features=keep)
        if "is" in names:
            yield "is", InceptionScore(e, p.is_splits)
        if "kid" in names:
            yield "kid", KernelDistance(e, p.kid_subsets, p.kid_subset_size, reference.features)
        if "mmd" in names:
            yield "mmd", KernelDistance(e, None, reference=reference.features)
        if "pr" in names:
            yield "pr", PrecisionRecall(e, p.k, p.k_density, reference.manifold)
        if "classes" in names:
            yield "classes", ClassStatistics(e, reference.counts)

    def _draw(self, draw: Sampler, metrics: Sequence[Metric], device: torch.device, progress: Progress) -> None:
        """Feed the metrics with this process's share of the samples."""
        finite = torch.ones((), device=device)
        n = self.protocol.fakes
        for block in progress(shard(n), "samples"):
            images = draw(block)
            if isinstance(images, Tensor) and images.is_floating_point():
                finite *= images.isfinite().all()
                images = images.nan_to_num() if isinstance(self.modes, PointModes) else quantise(images.nan_to_num())
            expected = min(BLOCK, n - block * BLOCK)
            if len(images) not in (expected, BLOCK):
                raise ValueError(f"{BLOCK} samples were asked for, {len(images)} came: sample(n) must return n images")
            images = images[:expected]
            images = images.to(device) if isinstance(images, Tensor) else [image.to(device) for image in images]
            seen = None if self.extractor is None else self.extractor(images)
            index = torch.arange(block * BLOCK, block * BLOCK + len(images))
            for metric in metrics:
                if isinstance(metric, ModeCoverage):
                    metric.update(images if isinstance(images, Tensor) else torch.stack(images))
                else:
                    metric.update(seen, False, index)
        if rank_and_world()[1] > 1:  # a decision for all processes
            torch.distributed.all_reduce(finite, torch.distributed.ReduceOp.MIN)
        if not finite:
            raise FloatingPointError("the generator makes NaN or infinite values: there is nothing to measure")

    def _compute(self, metrics: Mapping[str, Metric]) -> Result:
        """Values, in the order of ``METRICS``."""
        result, found = Result({}), dict[str, Value]()
        for metric in (metrics[name] for name in METRICS if name in metrics):
            if isinstance(metric, FrechetDistance):
                found |= metric.values("fd" in self.metrics, self.resamples, "fd_infinity" in self.metrics)
            else:
                found |= metric.values(self.protocol.fakes)  # type: ignore[operator]
            if isinstance(metric, ClassStatistics):
                statistics = metric.compute()
                result.classes = {"fake": statistics.shares.tolist(), "real": statistics.real_shares.tolist()}
        result.metrics = {name: value.value for name, value in found.items()}
        result.intervals = {name: value.interval for name, value in found.items() if value.interval is not None}
        return result


def _mean(results: Sequence[Result]) -> Result:
    """The mean of several measurements; what comes of the seeds is added as ``<name>_seeds_std``."""
    if len(results) == 1:
        return results[0]
    mean = Result({}, classes=results[0].classes)
    for key in results[0].metrics:
        values = torch.tensor([result.metrics[key] for result in results], dtype=torch.float64)
        mean.metrics[key] = float(values.mean())
        if not key.endswith("_std"):
            mean.metrics[f"{key}_seeds_std"] = float(values.std())
    for key in results[0].intervals:
        low, high = (sum(r.intervals[key][i] for r in results) / len(results) for i in (0, 1))
        mean.intervals[key] = (low, high)
    return mean
