"""Path length: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", CVPR, arXiv:1912.04958."""

from typing import Any

import torch
from torch import Tensor

from lit_gans.functional import Batch, as_batch, path_lengths
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("PathLength",)


class PathLength(Regularizer):
    r"""A step in w of fixed length moves the image by a fixed amount (section 3.2).

    .. math:: E_{w, \, y \sim N(0, I)} \left( \|J_w^T y\|_2 - a \right)^2

    with a the moving average of the lengths, which has a gradient by the share that this batch has in it, as in the
    published code. For a generator with ``mapping`` and ``synthesis``; one without is taken
    as a function of z. It pays its own forward, on a part of the batch.

    Args:
        weight: γ_pl, 2 in the published code.
        every: Updates of the generator between two evaluations; 8 in appendix B.
        shrink: The batch is divided by it; 2 in appendix B.
        decay: Decay of the moving average a, 0.99 in appendix B.
    """

    player, name, couples_samples, needs_latents = "generator", "path_length", True, True
    asks_discriminator = False
    mean_length: Tensor

    def __init__(self, weight: float = 2.0, every: int = 8, shrink: int = 2, decay: float = 0.99) -> None:
        super().__init__(weight, every)
        if shrink < 1 or not 0 <= decay < 1:
            raise ValueError(f"PathLength: shrink must be at least 1 and decay in [0, 1), got {shrink} and {decay}")
        self.shrink, self.decay = shrink, decay
        self.register_buffer("mean_length", torch.zeros(()))

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """Equation 4 without γ_pl; the average includes this batch."""
        images, labels = as_batch(fake)
        n = max(-(-len(images) // self.shrink), min(len(images), 2))  # two at least, for batch norm
        z = model.draw_latents(n, model.rng)
        lengths = path_lengths(model.generator, z, None if labels is None else labels[:n], model.rng)
        mean = model.follow(self.mean_length, model.joint(lengths).mean(), rate=1 - self.decay)
        return (lengths - mean).square().mean()
