"""Precision, recall, density and coverage: are samples like real images, and are all real images met?"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from lit_gans.metrics.extractors import FeatureExtractor, Features
from lit_gans.metrics.feature_metric import FeatureMetric
from lit_gans.metrics.values import Value, about

__all__ = ("Manifold", "PrecisionRecall", "PrecisionRecallValues", "precision_recall")

_ROWS, _COLUMNS = 512, 2048  # distances at a time: 8 MiB in float64, which caches hold
_NEIGHBOURS = 8  # found at once


class PrecisionRecallValues(NamedTuple):
    """Float64 scalars; all in [0, 1], but for density, which may exceed 1."""

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


class Manifold:
    """A set of features, and around each a ball that reaches its k-th nearest neighbour in the set.

    Args:
        features: One vector of D features for each of N images, shape (N, D).
    """

    def __init__(self, features: Tensor) -> None:
        self.points = features
        self._nearest = features.new_zeros(len(features), 0)

    def __len__(self) -> int:
        return len(self.points)

    def reach(self, k: int) -> Tensor:
        """Squared distance to the k-th nearest neighbour of each, itself not counted, float64 (N,).

        Raises:
            ValueError: if there are not more than k points.
        """
        if k >= len(self):
            raise ValueError(f"{len(self)} points have no {k}th nearest neighbour: give more images")
        if k >= self._nearest.shape[1]:
            count = min(max(k, _NEIGHBOURS) + 1, len(self))
            self._nearest = torch.cat([self._nearest_of(rows, count) for rows in self.points.split(_ROWS)])
        return self._nearest[:, k]

    def _nearest_of(self, rows: Tensor, count: int) -> Tensor:
        """Sorted squared distances to so many nearest points, of which the first is the point itself."""
        nearest = torch.zeros(len(rows), 0, dtype=torch.float64, device=rows.device)
        for columns in self.points.split(_COLUMNS):
            nearest = torch.cat([nearest, squared_distances(rows, columns)], 1)
            nearest = nearest.topk(min(count, nearest.shape[1]), largest=False).values
        return nearest


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances, float64 (M, N), of features (M, D) and (N, D)."""
    x, y = x.double(), y.double()
    distances = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)
    return distances.add_(x.square().sum(1, keepdim=True)).clamp_min_(0)


def precision_recall(real: Manifold, fake: Manifold, k: int = 3, k_density: int = 5) -> PrecisionRecallValues:
    """Precision and recall (Kynkäänniemi et al. 2019, equation 1), density and coverage (Naeem et al. 2020, section 3).

    Precision is the share of fakes within the ball of some real image, recall the share of reals within the ball of
    some fake; density counts, for each fake, the real balls it is in, over k; coverage is the share of real balls that
    hold a fake.

    Args:
        real: The manifold of the real images.
        fake: The manifold of the generated images.
        k: Neighbour that the balls of precision and recall reach; 3 in the paper.
        k_density: Neighbour that those of density and coverage reach; 5 in the paper.
    """
    device = real.points.device
    reaches = real.reach(k), fake.reach(k), real.reach(k_density)
    precise = torch.zeros(len(fake), dtype=torch.bool, device=device)
    recalled, covered = (torch.zeros(len(real), dtype=torch.bool, device=device) for _ in range(2))
    inside = torch.zeros((), dtype=torch.float64, device=device)
    for i in range(0, len(fake), _ROWS):
        for j in range(0, len(real), _COLUMNS):
            rows, columns = slice(i, i + _ROWS), slice(j, j + _COLUMNS)
            distance = squared_distances(fake.points[rows], real.points[columns])
            precise[rows] |= (distance <= reaches[0][columns]).any(1)
            recalled[columns] |= (distance <= reaches[1][rows, None]).any(0)
            within = distance <= reaches[2][columns]
            inside += within.sum()
            covered[columns] |= within.any(0)
    shares = (values.double().mean() for values in (precise, recalled, covered))
    precision, recall, coverage = shares
    return PrecisionRecallValues(precision, recall, inside / (k_density * len(fake)), coverage)


class PrecisionRecall(FeatureMetric):
    """Improved precision and recall, density and coverage; higher is better.

    See ``precision_recall``. Distances are computed in blocks of rows: 50,000 × 50,000 take less than 2 GiB.

    Args:
        extractor: What turns images into features: all that ``load_extractor`` takes.
        k: Neighbour that the balls of precision and recall reach.
        k_density: Neighbour that those of density and coverage reach.
        reference: The real images' manifold, in place of ``update(images, real=True)``.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: in ``compute``, if there are not more images than neighbours.

    Example:
        >>> metric = PrecisionRecall("digits", k=1, k_density=1)
        >>> images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
        >>> metric.update(images, real=True)
        >>> metric.update(images, real=False)
        >>> [float(value) for value in metric.compute()[:2]]
        [1.0, 1.0]
    """

    higher_is_better = True
    directions: ClassVar[Mapping[str, bool]] = dict.fromkeys(PrecisionRecallValues._fields, True)
    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(
        self,
        extractor: str | nn.Module | FeatureExtractor,
        k: int = 3,
        k_density: int = 5,
        reference: Manifold | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(extractor, **kwargs)
        if min(k, k_density) < 1:
            raise ValueError(f"k={k} and k_density={k_density} must be at least 1")
        self.k, self.k_density = k, k_density
        self.__dict__["reference"] = reference
        self.reference: Manifold | None
        self.add_set("real_features", "real")
        self.add_set("fake_features", "fake")

    def add(self, seen: Features, side: str) -> None:
        """Keep the features."""
        getattr(self, f"{side}_features").append(seen.features)

    def compute(self) -> PrecisionRecallValues:
        """Precision, recall, density and coverage."""
        k = max(self.k, self.k_density)
        self.need("fake", k + 1, f"for the {k}th nearest neighbour of each")
        if self.reference is None:
            self.need("real", k + 1, f"for the {k}th nearest neighbour of each")
        real = Manifold(self.ordered("real_features", "real")) if self.reference is None else self.reference
        return precision_recall(real, Manifold(self.ordered("fake_features", "fake")), self.k, self.k_density)

    def values(self, n: int) -> dict[str, Value]:
        """All four by name; precision, a share of independent samples, with its interval.

        Args:
            n: Number of generated images, over all processes.
        """
        found = {name: Value(float(value)) for name, value in self.compute()._asdict().items()}
        share = found["precision"].value
        error = math.sqrt(share * (1 - share) / n)
        return found | {"precision": about(share, error, low=0.0, high=1.0)}
