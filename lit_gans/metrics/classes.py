"""Which classes a generator draws, by an extractor that knows some."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lit_gans.metrics.extractors import FeatureExtractor, Features
from lit_gans.metrics.feature_metric import FeatureMetric
from lit_gans.metrics.inception_score import logits_of
from lit_gans.metrics.values import Value

__all__ = ("ClassShares", "ClassStatistics")


class ClassShares(NamedTuple):
    """Float64, of the generated images unless said otherwise."""

    shares: Tensor
    """Share of each class, (K,), summing to 1."""
    real_shares: Tensor
    """The same of the real images."""
    entropy: Tensor
    """Of the shares, in nats, between 0 and log K."""
    modes: Tensor
    """Number of classes drawn at least a tenth as often as they occur in the data."""
    confidence: Tensor
    """Mean probability of the likeliest class, in [1/K, 1]."""
    real_confidence: Tensor
    """The same of the real images."""


class ClassStatistics(FeatureMetric):
    """Share of each class against the data's, entropy, modes covered, and how sure the classifier is.

    Args:
        extractor: One with logits; see ``load_extractor``.
        reference: Counts (K + 1,) of the real images by class, and last the sum of their confidences, in place of
            ``update(images, real=True)``.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: if the extractor has no logits; in ``compute``, if a side has no images.

    Example:
        >>> statistics = ClassStatistics("digits")
        >>> for real in (True, False):
        ...     statistics.update(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), real=real)
        >>> float(statistics.compute().modes), float(statistics.compute().entropy)
        (1.0, 0.0)
    """

    higher_is_better = None
    directions: ClassVar[Mapping[str, bool]] = {"modes": True, "entropy": True, "confidence": True}
    real_counts: Tensor
    fake_counts: Tensor

    def __init__(
        self, extractor: str | nn.Module | FeatureExtractor, reference: Tensor | None = None, **kwargs: Any
    ) -> None:
        super().__init__(extractor, **kwargs)
        self.__dict__["reference"] = reference
        self.reference: Tensor | None
        for side in ("real", "fake"):
            width = (self.extractor.num_classes or 0) + 1
            self.add_state(f"{side}_counts", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")

    def add(self, seen: Features, side: str) -> None:
        """Count."""
        counted = count_classes(logits_of(seen, self.extractor, "ClassStatistics"))
        self.size_states(0, len(counted) - 1)
        getattr(self, f"{side}_counts").add_(counted)

    def size_states(self, features: int, classes: int) -> None:
        """Give the counts the number of classes, once it is known."""
        for name in ("real_counts", "fake_counts"):
            if len(getattr(self, name)) != classes + 1:
                setattr(self, name, torch.zeros(classes + 1, dtype=torch.float64, device=self.device))

    def compute(self) -> ClassShares:
        """The statistics."""
        self.need("fake", 1, "to count")
        if self.reference is None:
            self.need("real", 1, "to compare with")
        real = self.real_counts if self.reference is None else self.reference.to(self.device)
        shares, real_shares = (counts[:-1] / counts[:-1].sum() for counts in (self.fake_counts, real))
        entropy = 0 - torch.xlogy(shares, shares).sum()  # not -0 of a single class
        modes = ((shares >= 0.1 * real_shares) & (shares > 0)).sum().double()
        confidence, real_confidence = (counts[-1] / counts[:-1].sum() for counts in (self.fake_counts, real))
        return ClassShares(shares, real_shares, entropy, modes, confidence, real_confidence)

    def values(self, n: int) -> dict[str, Value]:
        """``modes``, ``entropy`` and ``confidence``.

        Args:
            n: Number of generated images, over all processes.
        """
        statistics = self.compute()
        return {name: Value(float(getattr(statistics, name))) for name in self.directions}


def count_classes(logits: Tensor) -> Tensor:
    """Number of images of each class, by the likeliest of logits (N, K), and last the sum of its probabilities."""
    best = logits.double().softmax(1).max(1)
    counts = torch.bincount(best.indices, minlength=logits.shape[1]).double()
    return torch.cat([counts, best.values.sum().view(1)])
