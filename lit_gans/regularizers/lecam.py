"""LeCam: Tseng et al. 2021, "Regularizing generative adversarial networks under limited data", arXiv:2104.03310."""

from typing import Any

import torch
from torch import Tensor

from lit_gans.functional import Batch, logits_of
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("LeCam",)


class LeCam(Regularizer):
    r"""Holds the discriminator's answers to real and generated images near moving averages of the other kind's.

    .. math:: R_{LC} = E_{x \sim p_{data}} \|D(x) - α_F\|^2 + E_{z} \|D(G(z)) - α_R\|^2

    with :math:`α_R, α_F` the moving averages of the answers to real and to generated images. They begin with the first
    answers; over all processes they are one.

    Differs from the paper: none. Its published code for BigGAN on CIFAR differs from its equation 3: there λ = 0.3 goes
    with ``decay=0.9``, ``start=1000`` and ``rectify=True``; for StyleGAN2 it is 1e-6 or 3e-7, with 0.99.

    Args:
        weight: λ, the factor of the penalty.
        decay: Decay of the moving averages, in [0, 1).
        start: Updates of the discriminator before the penalty begins; the averages move from the first on.
        rectify: Whether only answers on the far side of the other kind's average cost: D(x) above α_F, D(G(z)) below
            α_R.
        every: Updates between two evaluations; the penalty is scaled by it.

    Raises:
        ValueError: A decay outside of [0, 1); a negative start.
    """

    name, double_backward, couples_samples = "lecam", False, True
    anchors: Tensor
    begun: Tensor

    def __init__(
        self, weight: float = 0.3, decay: float = 0.99, start: int = 0, rectify: bool = False, every: int = 1
    ) -> None:
        super().__init__(weight, every)
        if start < 0:
            raise ValueError(f"LeCam: start must not be negative, got {start}")
        if not 0 <= decay < 1:
            raise ValueError(f"LeCam: decay must be in [0, 1), got {decay}")
        self.decay, self.start, self.rectify = decay, start, rectify
        self.register_buffer("anchors", torch.zeros(2))  # of real and of generated images
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """Equation 3, with averages that include this batch."""
        of_real = logits_of(model.discriminate(real)).to(self.anchors.dtype)
        of_fake = logits_of(model.discriminate(fake)).to(self.anchors.dtype)
        means = model.mean_of_ranks(torch.stack([of_real.mean(), of_fake.mean()]))
        anchors = torch.where(self.begun, self.anchors.lerp(means, 1 - self.decay), means)
        if model.turn is not None:
            self.anchors.copy_(anchors)
            self.begun.fill_(True)
        distances = of_real - anchors[1], anchors[0] - of_fake
        total = torch.stack([(d.relu() if self.rectify else d).square().mean() for d in distances]).sum()
        return torch.zeros_like(total) if model.turn is not None and model.turn < self.start else total
