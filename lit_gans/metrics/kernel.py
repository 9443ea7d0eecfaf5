"""Kernel distance (Bińkowski et al. 2018): KID, where the features are Inception's."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lit_gans.metrics.extractors import FeatureExtractor, Features
from lit_gans.metrics.feature_metric import FeatureMetric
from lit_gans.metrics.inception_score import Score
from lit_gans.metrics.values import Value, about

__all__ = ("KernelDistance", "kernel_distance", "unbiased_mmd")

_SEED = 2020  # torch-fidelity's, so that the same images give the same subsets
_ROWS = 2048


def unbiased_mmd(x: Tensor, y: Tensor) -> Tensor:
    r"""Unbiased estimate of the squared maximum mean discrepancy, a float64 scalar, negative at times.

    .. math:: \frac{\sum_{i≠j} k(x_i, x_j)}{m(m-1)} + \frac{\sum_{i≠j} k(y_i, y_j)}{n(n-1)}
        - \frac{2 \sum_{ij} k(x_i, y_j)}{mn}, \qquad k(x, y) = \left(x^\top y / D + 1\right)^3

    Bińkowski et al. 2018, equation 4, with the kernel of section 3.

    Args:
        x: Features (M, D), M ≥ 2.
        y: Features (N, D), N ≥ 2.

    Example:
        >>> unbiased_mmd(torch.zeros(3, 2), torch.ones(3, 2))
        tensor(7., dtype=torch.float64)
    """
    x, y = x.double(), y.double()
    m, n = len(x), len(y)
    within = (_kernel_sum(x, x) - _kernel(x.square().sum(1), x.shape[1]).sum()) / (m * (m - 1)) + (
        _kernel_sum(y, y) - _kernel(y.square().sum(1), y.shape[1]).sum()
    ) / (n * (n - 1))
    return within - 2 * _kernel_sum(x, y) / (m * n)


def _kernel(product: Tensor, dimensions: int) -> Tensor:
    return (product / dimensions + 1) ** 3


def _kernel_sum(x: Tensor, y: Tensor) -> Tensor:
    """Sum of the kernel over all pairs, in blocks."""
    return torch.stack([_kernel(rows @ y.T, x.shape[1]).sum() for rows in x.split(_ROWS)]).sum()


def kernel_distance(fake: Tensor, real: Tensor, subsets: int = 100, subset_size: int = 1000) -> Score:
    """Mean and standard deviation of ``unbiased_mmd`` over random subsets, drawn by a generator of its own.

    Args:
        fake: Features of the generated images, shape (M, D).
        real: Features of the real images, shape (N, D).
        subsets: Number of random subsets over which the mean is taken.
        subset_size: Images of each side in one, at most M and N.
    """
    rng = np.random.RandomState(_SEED)
    values = []
    for _ in range(subsets):
        parts = [
            features[torch.from_numpy(rng.choice(len(features), subset_size, replace=False)).to(features.device)]
            for features in (fake, real)
        ]
        values.append(unbiased_mmd(*parts))
    return Score(torch.stack(values).mean(), torch.stack(values).std(correction=0))


class KernelDistance(FeatureMetric):
    """Squared maximum mean discrepancy between features of real and generated images; lower is better.

    Unlike the Fréchet distance it assumes no Gaussians and has no bias from few samples; see ``unbiased_mmd``.

    Args:
        extractor: What turns images into features: all that ``load_extractor`` takes.
        subsets: Number of random subsets; None for one estimate from all images (its standard deviation is then 0).
        subset_size: Images of each side in a subset.
        reference: Features (N, D) of the real images, in place of ``update(images, real=True)``.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: in ``compute``, if there are fewer images than a subset takes.

    Example:
        >>> distance = KernelDistance("digits", subsets=None)
        >>> distance.update(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), real=True)
        >>> distance.update(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), real=False)
        >>> abs(round(float(distance.compute().mean), 6))
        0.0
    """

    higher_is_better = False
    directions: ClassVar[Mapping[str, bool]] = {"kid": False, "mmd": False}
    real_features: list[Tensor]
    fake_features: list[Tensor]

    def __init__(
        self,
        extractor: str | nn.Module | FeatureExtractor,
        subsets: int | None = 100,
        subset_size: int = 1000,
        reference: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(extractor, **kwargs)
        if subset_size < 2 or (subsets is not None and subsets < 1):
            raise ValueError(f"subsets={subsets} must be at least 1, subset_size={subset_size} at least 2")
        self.subsets, self.subset_size = subsets, subset_size
        self.__dict__["reference"] = reference
        self.reference: Tensor | None
        self.add_set("real_features", "real")
        self.add_set("fake_features", "fake")

    def add(self, seen: Features, side: str) -> None:
        """Keep the features."""
        getattr(self, f"{side}_features").append(seen.features)

    def compute(self) -> Score:
        """Mean and standard deviation over the subsets."""
        fake = self.ordered("fake_features", "fake")
        real = self.ordered("real_features", "real") if self.reference is None else self.reference.to(self.device)
        least = 2 if self.subsets is None else self.subset_size
        for side, n in (("fake", len(fake)), ("real", len(real))):
            if n < least:
                raise ValueError(
                    f"KernelDistance draws subsets of {least} images, but there are only {n} {side} ones: "
                    f"set subset_size (kid_subset_size) to at most {n}, or give more images"
                )
        if self.subsets is None:
            return Score(unbiased_mmd(fake, real), torch.zeros((), dtype=torch.float64, device=self.device))
        return kernel_distance(fake, real, self.subsets, self.subset_size)

    def values(self, n: int) -> dict[str, Value]:
        """``kid``, with an interval by the spread of its subsets, and ``kid_std``; of all images at once ``mmd``.

        Args:
            n: Number of generated images, over all processes.
        """
        mean, std = (float(value) for value in self.compute())
        if self.subsets is None:
            return {"mmd": Value(mean)}
        independent = min(self.subsets, max(1, n // self.subset_size))
        return {"kid": about(mean, std / math.sqrt(independent)), "kid_std": Value(std)}
