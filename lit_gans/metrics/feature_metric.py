"""What all metrics of sets of images have in common: one way in, and states that add up or are put in order."""

import hashlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lit_gans.metrics.extractors import FeatureExtractor, Features, load_extractor

__all__ = ("FeatureMetric", "rank_and_world", "warn_of_few")


class FeatureMetric(Metric):
    """A ``torchmetrics.Metric`` of what an extractor sees in real and generated images.

    States are sums, or sets of vectors with the index of each sample; after gathering, sets are put in the order of
    that index, so that a result depends neither on the number of processes nor on the batches. No random number is
    taken from torch's global generators. States keep their precision whatever the module that holds the metric is
    converted to.

    Args:
        extractor: ``inception``, ``digits``, ``mnist``, a ``FeatureExtractor`` or a module (see ``load_extractor``).
        kwargs: Those of ``torchmetrics.Metric``.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, extractor: str | nn.Module | FeatureExtractor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.__dict__["extractor"] = load_extractor(extractor)  # never a submodule
        self.extractor: FeatureExtractor
        self._sets: list[str] = []
        looks = int(hashlib.sha256(str(self.extractor.describe()).encode()).hexdigest()[:15], 16)
        self.add_state("looks", torch.tensor(looks), dist_reduce_fx="max")  # a MetricCollection merges equal states
        for side in ("real", "fake"):
            self.add_state(f"{side}_n", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def add_set(self, name: str, side: str) -> None:
        """A state that holds one vector for each sample of a side, "real" or "fake"."""
        self._sets.append(name)
        self.add_state(name, [], dist_reduce_fx="cat")
        if not hasattr(self, f"{side}_index"):
            self.add_state(f"{side}_index", [], dist_reduce_fx="cat")

    def update(self, images: Tensor | Features, real: bool, index: Tensor | None = None) -> None:
        """Add images.

        Args:
            images: uint8 (N, 1 or 3, H, W); or what the extractor has already seen in them.
            real: True for real images, False for generated ones.
            index: Number of each image among all of its side, int64 (N,); if left out, they are taken to be dealt out
                to the processes in turn.

        Raises:
            ValueError: if the images are not of that form.
        """
        seen = images if isinstance(images, Features) else self.extractor(images)
        side = "real" if real else "fake"
        n: Tensor = getattr(self, f"{side}_n")
        if index is None:
            start = int(n)
            rank, world = rank_and_world()
            index = rank + world * torch.arange(start, start + len(seen.features), device=self.device)
        self.add(Features(*(None if t is None else t.to(self.device) for t in seen)), side)  # type: ignore[arg-type]
        n += len(seen.features)
        if isinstance(held := getattr(self, f"{side}_index", None), list):
            held.append(index.to(self.device))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """A batch of one side has no value of its own.

        Raises:
            TypeError: always, with what to call instead.
        """
        name = type(self).__name__
        raise TypeError(f"{name} compares sets of images: call update(images, real=...) for each batch, then compute()")

    def add(self, seen: Features, side: str) -> None:
        """Add what was seen in some images of a side, "real" or "fake"."""
        raise NotImplementedError

    def ordered(self, name: str, side: str) -> Tensor:
        """A set of vectors in the order of their samples' numbers."""
        values = getattr(self, name)
        if isinstance(values, list) and not values:
            raise ValueError(f"{type(self).__name__}: no {side} images yet: update(images, real={side == 'real'})")
        return dim_zero_cat(values)[torch.argsort(dim_zero_cat(getattr(self, f"{side}_index")))]

    def need(self, side: str, least: int, what: str) -> int:
        """How many images there are of a side.

        Raises:
            ValueError: if there are fewer than ``least``.
        """
        n = int(getattr(self, f"{side}_n"))
        if n < least:
            raise ValueError(
                f"{type(self).__name__} needs at least {least} {side} images {what}, got {n}: "
                f"update(images, real={side == 'real'}) adds them"
            )
        return n

    def size_states(self, features: int, classes: int) -> None:
        """Give sums that are still empty their widths: from the first images, or from other processes that saw some."""

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the states; processes that saw no image take part with none."""
        if kwargs.get("should_sync", True) and rank_and_world()[1] > 1:
            widths: list[Any] = [None] * rank_and_world()[1]
            torch.distributed.all_gather_object(widths, (self.extractor.num_features, self.extractor.num_classes))
            features, classes = (max(width or 0 for width in kind) for kind in zip(*widths, strict=True))
            self.size_states(features, classes)
            for name, side in [(name, name.partition("_")[0]) for name in self._sets]:
                if not getattr(self, name):
                    width = classes if name.endswith("logits") else features
                    setattr(self, name, [torch.zeros(0, width, device=self.device)])
                    setattr(self, f"{side}_index", [torch.zeros(0, dtype=torch.int64, device=self.device)])
        super().sync(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any) -> "FeatureMetric":
        """Follow to another device, but to no other precision."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(fn(torch.empty(0, dtype=torch.int64, device=tensor.device)).device)

        return super()._apply(move, *args)  # type: ignore[return-value]


def warn_of_few(n: int, features: int, name: str) -> None:
    """Warn that a covariance is estimated from fewer samples than it has dimensions."""
    if n < features:
        warnings.warn(
            f"{name} from {n} images of {features} features: with so few its value is far too high, and the more so "
            "the fewer (Chong & Forsyth 2020): take more images, or KernelDistance, which has no such bias",
            stacklevel=3,
        )


def rank_and_world() -> tuple[int, int]:
    """Number of this process, and of all."""
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    return (torch.distributed.get_rank(), torch.distributed.get_world_size()) if distributed else (0, 1)
