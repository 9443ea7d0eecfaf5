r"""Inception score (Salimans et al. 2016): are images clear, and of all classes?"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lit_gans.metrics.extractors import FeatureExtractor, Features
from lit_gans.metrics.feature_metric import FeatureMetric
from lit_gans.metrics.values import Value, about

__all__ = ("InceptionScore", "Score", "inception_score")

_SEED = 2020  # torch-fidelity's, so that the same images give the same splits


class Score(NamedTuple):
    """Mean and (population) standard deviation over splits or subsets, float64 scalars."""

    mean: Tensor
    std: Tensor


def inception_score(logits: Tensor, splits: int = 10, shuffle: bool = True) -> Score:
    r"""Exponential of the mean divergence of each image's classes from those of all, over splits.

    .. math:: \exp \mathbb{E}_x\, \mathrm{KL}\bigl(p(y|x) \,\|\, p(y)\bigr)

    Salimans et al. 2016, section 4. Between 1 (all images alike, or none clear) and the number of classes.

    Args:
        logits: Class logits of the images, shape (N, K) for N images and K classes.
        splits: Parts of equal size that are scored on their own.
        shuffle: Whether to mix the images before, always in the same way: images sorted by class would score 1.

    Example:
        >>> inception_score(100 * torch.eye(4).repeat(5, 1), splits=1).mean
        tensor(4., dtype=torch.float64)
    """
    n = len(logits)
    if shuffle:
        logits = logits[torch.from_numpy(np.random.RandomState(_SEED).permutation(n)).to(logits.device)]
    log_p = logits.double().log_softmax(1)
    scores = []
    for split in range(splits):
        part = log_p[split * n // splits : (split + 1) * n // splits]
        marginal = part.exp().mean(0).log()
        divergence = torch.where(part.exp() > 0, part.exp() * (part - marginal), 0)
        scores.append(divergence.sum(1).mean().exp())
    return Score(torch.stack(scores).mean(), torch.stack(scores).std(correction=0))


class InceptionScore(FeatureMetric):
    """Inception score of generated images, by an extractor with logits; higher is better.

    See ``inception_score``. Real images are passed over, so that all metrics can be fed alike. Named after Inception,
    whose 1008 classes the published scores are by; with another extractor it is that classifier's score.

    Args:
        extractor: What turns images into features: all that ``load_extractor`` takes.
        splits: Parts of equal size that are scored on their own.
        kwargs: Those of ``torchmetrics.Metric``.

    Raises:
        ValueError: if the extractor has no logits; in ``compute``, if there are fewer images than splits.

    Example:
        >>> score = InceptionScore("digits", splits=2)
        >>> score.update(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), real=False)
        >>> round(float(score.compute().mean), 6)
        1.0
    """

    higher_is_better = True
    directions: ClassVar[Mapping[str, bool]] = {"is": True}
    fake_logits: list[Tensor]

    def __init__(self, extractor: str | nn.Module | FeatureExtractor, splits: int = 10, **kwargs: Any) -> None:
        super().__init__(extractor, **kwargs)
        self.splits = splits
        self.add_set("fake_logits", "fake")

    def add(self, seen: Features, side: str) -> None:
        """Keep the logits of generated images."""
        if side == "fake":
            self.fake_logits.append(logits_of(seen, self.extractor, "InceptionScore"))

    def compute(self) -> Score:
        """Mean and standard deviation over the splits."""
        self.need("fake", max(2, self.splits), f"for {self.splits} splits")
        return inception_score(self.ordered("fake_logits", "fake"), self.splits)

    def values(self, n: int) -> dict[str, Value]:
        """``is``, with an interval by the spread of its splits, and ``is_std``.

        Args:
            n: Number of generated images, over all processes.
        """
        mean, std = (float(value) for value in self.compute())
        return {"is": about(mean, std / math.sqrt(self.splits)), "is_std": Value(std)}


def logits_of(seen: Features, extractor: FeatureExtractor, metric: str) -> Tensor:
    """The logits.

    Raises:
        ValueError: if the extractor has none.
    """
    if seen.logits is None:
        raise ValueError(
            f"{metric} needs class logits, and the extractor {extractor.name!r} has none: "
            "let its network return (features, logits)"
        )
    return seen.logits
