"""How many modes a generator covers, where they are known: collapse as a number.

A. Srivastava et al., "VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational Learning", NeurIPS 2017,
arXiv:1705.07761.
Z. Lin et al., "PacGAN: The Power of Two Samples in Generative Adversarial Networks", NeurIPS 2018, arXiv:1712.04086.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_gans.metrics.extractors import FeatureExtractor, load_extractor
from lit_gans.metrics.values import Value

__all__ = (
    "Coverage",
    "ModeCoverage",
    "Modes",
    "PointModes",
    "StackedDigits",
    "modes_of",
    "nearest_modes",
    "reverse_kl",
)


class Modes(Protocol):
    """Tells which mode a sample is of."""

    count: int
    """How many modes there are."""

    def __call__(self, samples: Tensor) -> Tensor:
        """The mode of each sample, int64 (N,) in 0..count - 1; -1 for a sample that is of none."""
        ...

    def describe(self) -> dict[str, Any]:
        """All that the answers depend on, as plain values."""
        ...


class PointModes:
    """Modes of points in space: each belongs to the nearest centre, if it is within three standard deviations of it.

    Those are the samples of high quality of VEEGAN, section 4.1, and PacGAN, section 4.1.

    Args:
        centers: (M, D).
        std: Standard deviation of each mode, in each direction.
        within: How many standard deviations are near enough.

    Example:
        >>> PointModes(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), std=0.1)(torch.tensor([[0.9, 0.1], [0.5, 0.0]]))
        tensor([ 1, -1])
    """

    def __init__(self, centers: Tensor, std: float, within: float = 3.0) -> None:
        self.centers, self.std, self.within = centers, std, within
        self.count = len(centers)

    def __call__(self, samples: Tensor) -> Tensor:
        """The mode of each point (N, D)."""
        return nearest_modes(samples, self.centers.to(samples.device), self.within * self.std)

    def describe(self) -> dict[str, Any]:
        """Centres and reach."""
        return {"centers": self.centers.tolist(), "std": self.std, "within": self.within}


class StackedDigits:
    """The 1000 modes of stacked MNIST: what a classifier reads in the three channels, as the digits of a number.

    Every image is of some mode, since every channel is of some class.

    Args:
        classifier: A classifier of the ten digits; see ``load_extractor``.

    Raises:
        ValueError: if the classifier has other than ten classes; if images are not of three channels.

    Example:
        >>> StackedDigits()(torch.zeros(2, 3, 28, 28, dtype=torch.uint8)).unique().numel()
        1
    """

    count = 1000

    def __init__(self, classifier: str | FeatureExtractor = "mnist") -> None:
        self.classifier = load_extractor(classifier)
        if self.classifier.num_classes != 10:
            raise ValueError(
                f"the digits 0 to 9 are told by a classifier of ten classes, and {self.classifier.name!r} has "
                f"{self.classifier.num_classes}"
            )

    def __call__(self, samples: Tensor) -> Tensor:
        """The mode of each image, uint8 (N, 3, H, W)."""
        if samples.ndim != 4 or samples.shape[1] != 3:
            raise ValueError(f"stacked digits are images (N, 3, H, W), got shape {tuple(samples.shape)}")
        logits = self.classifier(samples.flatten(0, 1).unsqueeze(1)).logits
        assert logits is not None
        digits = logits.argmax(1).view(-1, 3)
        return 100 * digits[:, 0] + 10 * digits[:, 1] + digits[:, 2]

    def describe(self) -> dict[str, Any]:
        """The classifier."""
        return self.classifier.describe()


def nearest_modes(points: Tensor, centers: Tensor, reach: float) -> Tensor:
    """The centre (M, D) nearest to each point (N, D), int64 (N,); -1 where it is farther than ``reach``."""
    # by differences: the products that cdist prefers lose the digits that matter near a centre
    distance, mode = torch.linalg.vector_norm(points[:, None] - centers, dim=2).min(1)
    return torch.where(distance <= reach, mode, -1)


def reverse_kl(counts: Tensor) -> Tensor:
    r"""Divergence of the modes drawn from the uniform distribution over all M, in nats, from 0 to log M.

    .. math::
        KL(p \| u) = \log M + \sum_i p_i \log p_i, \qquad p_i = n_i / \sum_j n_j

    "Reverse" since the model stands first (VEEGAN, table 1). NaN where nothing was counted.

    Args:
        counts: Number of samples of each mode, (M,).

    Example:
        >>> reverse_kl(torch.tensor([5, 5, 5, 5])), reverse_kl(torch.tensor([7, 0, 0, 0]))
        (tensor(0., dtype=torch.float64), tensor(1.3863, dtype=torch.float64))
    """
    shares = counts.double() / counts.sum()
    return (math.log(len(counts)) + torch.xlogy(shares, shares).sum()).clamp_min(0)  # rounding may leave -1e-16


class Coverage(NamedTuple):
    """Float64."""

    modes: Tensor
    """Number of modes that at least one sample is of."""
    high_quality: Tensor
    """Share of the samples that are of any mode."""
    reverse_kl: Tensor
    """From those samples' modes to all modes alike."""
    counts: Tensor
    """Number of samples of each mode, (M,)."""


class ModeCoverage(Metric):
    """Modes covered, share of samples near one, and how evenly they are spread: PacGAN, section 4.

    The states are numbers of samples, so the result is exact over several processes and does not depend on batches. It
    does depend on how many samples there are: the literature takes 2,500 points, and 26,000 stacked digits.

    Args:
        modes: Which mode a sample is of.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: in ``compute``, if there are no samples.

    Example:
        >>> coverage = ModeCoverage(PointModes(torch.eye(2), std=0.1))
        >>> coverage.update(torch.tensor([[1.0, 0.0], [1.0, 0.1], [5.0, 5.0], [0.5, 0.5]]))
        >>> [round(float(value), 4) for value in coverage.compute()[:3]]
        [1.0, 0.5, 0.6931]
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = None
    directions: ClassVar[Mapping[str, bool]] = {"modes": True, "high_quality": True, "reverse_kl": False}
    counts: Tensor
    samples: Tensor

    def __init__(self, modes: Modes, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.modes = modes
        self.add_state("counts", torch.zeros(modes.count, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, samples: Tensor) -> None:
        """Count samples: points (N, D), or uint8 images."""
        found = self.modes(samples).to(self.counts.device)
        self.counts += torch.bincount(found[found >= 0], minlength=self.modes.count)
        self.samples += len(samples)

    def compute(self) -> Coverage:
        """The statistics."""
        if not self.samples:
            raise ValueError("ModeCoverage has no samples to count: update(samples) adds them")
        counts = self.counts.double()
        covered = (self.counts > 0).sum().double()
        return Coverage(covered, counts.sum() / self.samples, reverse_kl(self.counts), counts)

    def values(self, n: int) -> dict[str, Value]:
        """``modes``, ``reverse_kl`` and, where a sample may be of no mode, ``high_quality``.

        Args:
            n: Number of generated images, over all processes.
        """
        coverage = self.compute()
        names = [name for name in self.directions if name != "high_quality" or isinstance(self.modes, PointModes)]
        return {name: Value(float(getattr(coverage, name))) for name in names}


def modes_of(data: Any) -> Modes | None:
    """The modes of an ``ImageDataModule``; None where they are not known.

    Args:
        data: Has ``mixture`` → (centres, standard deviation), or is the ``dataset`` "stacked_mnist".
    """
    if (mixture := getattr(data, "mixture", None)) is not None:
        return PointModes(*mixture)
    return StackedDigits() if getattr(data, "dataset", None) == "stacked_mnist" else None
