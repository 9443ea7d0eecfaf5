r"""Fréchet distance between sets of features (Heusel et al. 2017): FID, where the features are Inception's.

.. math:: d^2 = \|μ_1 - μ_2\|^2 + \operatorname{tr}\bigl(Σ_1 + Σ_2 - 2 (Σ_1 Σ_2)^{1/2}\bigr)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lit_gans.metrics.extractors import FeatureExtractor, Features
from lit_gans.metrics.feature_metric import FeatureMetric, warn_of_few
from lit_gans.metrics.values import Value

__all__ = ("FrechetDistance", "Moments", "add_outer_", "frechet_distance")

_BLOCKS = 4  # the outer sum is symmetric: of 4 x 4 blocks, 10 are computed
_ROWS = 4096  # converted to float64 at a time


@dataclass
class Moments:
    """Number, mean (D,) and covariance (D, D) of a set of features, float64; the covariance is divided by N - 1."""

    n: int
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of_sums(cls, n: int, total: Tensor, outer: Tensor) -> "Moments":
        """From the sum of the features, and the upper triangle of the sum of their outer products."""
        mean = total / n
        outer = outer.triu() + outer.triu(1).T
        return cls(n, mean, (outer - n * torch.outer(mean, mean)) / (n - 1))

    @classmethod
    def of_features(cls, features: Tensor, weights: Tensor | None = None) -> "Moments":
        """From features (N, D), each counted as often as ``weights`` (N,) says."""
        total = features.new_zeros(features.shape[1], dtype=torch.float64)
        outer = torch.zeros(len(total), len(total), dtype=torch.float64, device=total.device)
        for rows in torch.arange(len(features)).split(_ROWS):
            x = features[rows[0] : rows[-1] + 1].double()
            w = None if weights is None else weights[rows[0] : rows[-1] + 1, None].double()
            total += x.sum(0) if w is None else (w * x).sum(0)
            add_outer_(outer, x if w is None else w.sqrt() * x)
        return cls.of_sums(len(features) if weights is None else int(weights.sum()), total, outer)

    @cached_property
    def factor(self) -> Tensor:
        """L with L Lᵀ = Σ, (D, rank): by Cholesky, or, where Σ is singular, without what is lost to rounding."""
        width, basis = len(self.mean), None
        if self.n > width:
            lower, failed = torch.linalg.cholesky_ex(self.covariance)
            if not failed:
                return lower
        elif self.n < width // 2:  # a rank below N: a random sketch spans all of Σ (Halko et al. 2011, section 4)
            rng = torch.Generator(self.mean.device).manual_seed(0)
            sketch = torch.randn(width, self.n + 8, generator=rng, dtype=self.mean.dtype, device=self.mean.device)
            basis = torch.linalg.qr(self.covariance @ sketch).Q
        inner = self.covariance if basis is None else basis.T @ self.covariance @ basis
        values, vectors = torch.linalg.eigh(inner)
        kept = values > values[-1] * width * torch.finfo(values.dtype).eps
        vectors = vectors[:, kept] if basis is None else basis @ vectors[:, kept]
        return vectors * values[kept].sqrt()

    def to(self, device: torch.device) -> "Moments":
        """The same on another device."""
        return self if self.mean.device == device else Moments(self.n, self.mean.to(device), self.covariance.to(device))


def add_outer_(outer: Tensor, x: Tensor) -> None:
    """Add xᵀx to the blocks of ``outer`` (D, D) on and above the diagonal, in place."""
    width = -(-len(outer) // _BLOCKS)
    for start in range(0, len(outer), width):
        outer[start : start + width, start:].addmm_(x[:, start : start + width].T, x[:, start:])


def frechet_distance(real: Moments, fake: Moments) -> Tensor:
    """The squared distance between two Gaussians, a float64 scalar ≥ 0.

    Σ₁Σ₂ has the eigenvalues of the symmetric LᵀΣ₂L, where Σ₁ = LLᵀ: real, and not negative but by rounding.

    Example:
        >>> one, two = (Moments(9, torch.full((2,), mean).double(), torch.eye(2).double()) for mean in (0.0, 3.0))
        >>> frechet_distance(one, two)
        tensor(18., dtype=torch.float64)
    """
    inner = real.factor.T @ fake.covariance @ real.factor
    values = torch.linalg.eigvalsh((inner + inner.T) / 2)
    noise = values.max().clamp_min(0) * 10 * torch.finfo(values.dtype).eps if len(values) else values.sum()
    root = values.where(values > noise, 0).sqrt().sum()
    shift = (real.mean - fake.mean).square().sum()
    return (shift + real.covariance.trace() + fake.covariance.trace() - 2 * root).clamp_min(0)


class FrechetDistance(FeatureMetric):
    r"""Fréchet distance between Gaussians fitted to features of real and generated images; lower is better.

    .. math:: d^2 = \|μ_r - μ_g\|^2 + \operatorname{tr}\bigl(Σ_r + Σ_g - 2 (Σ_r Σ_g)^{1/2}\bigr)

    Heusel et al. 2017, equation 6. Moments are summed in float64, so that any number of processes and any batches give
    the same to some 12 digits. Called FID only with the extractor ``inception`` (``extractor.key`` tells).

    Args:
        extractor: What turns images into features: all that ``load_extractor`` takes.
        reference: Moments of the real images, in place of ``update(images, real=True)``.
        keep_features: Hold the features of generated images, which ``interval`` and ``infinity`` need.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: in ``compute``, if there are fewer than two images of a side.

    Example:
        >>> distance = FrechetDistance("digits")
        >>> images = torch.arange(256, dtype=torch.uint8).view(4, 1, 8, 8)
        >>> distance.update(images, real=True)
        >>> distance.update(images.flip(3), real=False)
        >>> bool(distance.compute() > 0)
        True
    """

    higher_is_better = False
    directions: ClassVar[Mapping[str, bool]] = {"fd": False, "fd_infinity": False}
    real_sum: Tensor
    real_outer: Tensor
    fake_sum: Tensor
    fake_outer: Tensor
    fake_features: list[Tensor]

    def __init__(
        self,
        extractor: str | nn.Module | FeatureExtractor,
        reference: Moments | None = None,
        keep_features: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(extractor, **kwargs)
        self.__dict__["reference"] = reference
        self.reference: Moments | None
        width = self.extractor.num_features or 0
        for side in ("real", "fake"):
            self.add_state(f"{side}_sum", torch.zeros(width, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{side}_outer", torch.zeros(width, width, dtype=torch.float64), dist_reduce_fx="sum")
        self.keep_features = keep_features
        if keep_features:
            self.add_set("fake_features", "fake")

    def add(self, seen: Features, side: str) -> None:
        """Add to the sums."""
        if side == "real" and self.reference is not None:
            raise ValueError("FrechetDistance has the moments of the real images as its reference: give it fakes alone")
        x = seen.features.double()
        self.size_states(x.shape[1], 0)
        getattr(self, f"{side}_sum").add_(x.sum(0))
        add_outer_(getattr(self, f"{side}_outer"), x)
        if side == "fake" and self.keep_features:
            self.fake_features.append(seen.features)

    def size_states(self, features: int, classes: int) -> None:
        """Give the sums the width of the features, once it is known."""
        for side in ("real", "fake"):
            if not getattr(self, f"{side}_sum").numel():
                for name, shape in (("sum", (features,)), ("outer", (features, features))):
                    setattr(self, f"{side}_{name}", torch.zeros(shape, dtype=torch.float64, device=self.device))

    def compute(self) -> Tensor:
        """The squared distance, a float64 scalar."""
        real, fake = self._real(), self._fake()
        for side in (real, fake):
            warn_of_few(side.n, len(side.mean), "a Fréchet distance")
        return frechet_distance(real, fake)

    def interval(self, level: float = 0.95, resamples: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Bootstrap interval of the distance, for the sampling of the generated images.

        They are drawn anew with replacement, the real ones are kept. A resample repeats images, which raises its
        distance; so what counts is how the resamples scatter about their own mean, by normal quantiles.

        Args:
            level: Share of such intervals that hold the distance's mean over many samples of this size.
            resamples: Number of bootstrap samples that are drawn.
            seed: Seed of these draws.

        Raises:
            ValueError: without ``keep_features``.
        """
        with self.sync_context():
            features, real = self._kept("interval"), self._real()
            value = frechet_distance(real, Moments.of_features(features))
            rng, n = np.random.default_rng(seed), len(features)
            draws = [
                frechet_distance(real, Moments.of_features(features, _counts(rng, n, features.device)))
                for _ in range(resamples)
            ]
        half = torch.stack(draws).std() * torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64)).to(
            features.device
        )
        return (value - half).clamp_min(0), value + half

    def values(self, distance: bool = True, resamples: int = 0, infinity: bool = False) -> dict[str, Value]:
        """The distance by the extractor's key, ``fid`` or ``fd_<extractor>``, and with ``_infinity`` after it.

        Args:
            distance: Whether the distance itself is wanted.
            resamples: Number of bootstrap samples for its interval; 0 for no interval.
            infinity: Whether the value for infinitely many images is wanted, too.
        """
        key, found = self.extractor.key, dict[str, Value]()
        if distance:
            value = float(self.compute())
            low, high = self.interval(resamples=resamples) if resamples else (None, None)
            found[key] = Value(value, None if low is None or high is None else (float(low), float(high)))
        if infinity:
            found[f"{key}_infinity"] = Value(float(self.infinity()))
        return found

    def infinity(self, points: int = 15, least: int = 5000, seed: int = 0) -> Tensor:
        """The distance that infinitely many generated images would have (Chong & Forsyth 2020, section 4).

        The distance's bias falls as 1/N: a line through the distances of ``points`` random subsets of different sizes,
        evenly spaced up to all, is read off at 1/N = 0.

        Args:
            points: Number of subsets through whose distances the line is drawn.
            least: Size of the smallest; half of the images if there are fewer than twice so many.
            seed: Seed by which the subsets are drawn.

        Raises:
            ValueError: without ``keep_features``.
        """
        with self.sync_context():
            features, real = self._kept("infinity"), self._real()
            n, rng = len(features), np.random.default_rng(seed)
            sizes = np.linspace(min(least, n // 2), n, points).round().astype(int)
            rows = [torch.from_numpy(rng.permutation(n)[:size]).to(features.device) for size in sizes]
            values = [float(frechet_distance(real, Moments.of_features(features[part]))) for part in rows]
        return torch.tensor(np.polyfit(1 / sizes, values, 1)[1], dtype=torch.float64)

    def _kept(self, method: str) -> Tensor:
        if not self.keep_features:
            raise ValueError(f"FrechetDistance.{method} needs FrechetDistance(..., keep_features=True)")
        self.need("fake", 4, "for resampling")
        return self.ordered("fake_features", "fake")

    def _real(self) -> Moments:
        if self.reference is not None:
            return self.reference.to(self.device)
        return Moments.of_sums(self.need("real", 2, "for a covariance"), self.real_sum, self.real_outer)

    def _fake(self) -> Moments:
        return Moments.of_sums(self.need("fake", 2, "for a covariance"), self.fake_sum, self.fake_outer)


def _counts(rng: np.random.Generator, n: int, device: torch.device) -> Tensor:
    """How often each of n samples is drawn in n draws."""
    return torch.from_numpy(rng.multinomial(n, np.full(n, 1 / n))).to(device)
