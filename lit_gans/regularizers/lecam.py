"""LeCam: Tseng et al. 2021, "Regularizing generative adversarial networks under limited data", arXiv:2104.03310."""

from typing import Any

import torch
from torch import Tensor

from lit_gans.functional import logits_of
from lit_gans.regularizers.base import Regularizer

__all__ = ("LeCam",)


class LeCam(Regularizer):
    r"""Holds the discriminator's answers to real and generated images near moving averages of the other kind's.

    .. math:: R_{LC} = E_{x \sim p_{data}} \|D(x) - α_F\|^2 + E_{z} \|D(G(z)) - α_R\|^2

    with :math:`α_R, α_F` the moving averages of the answers to real and to generated images. They begin with the first
    answers; over all processes they are one.

    Differs from the paper: the published code rectifies both distances; here they are squared as in equation 3.

    Args:
        weight: λ; in the published code 0.3 for BigGAN on CIFAR, 1e-6 and 3e-7 for StyleGAN2.
        decay: Of the moving averages; 0.99 in the published code for StyleGAN2, 0.9 in that for BigGAN, after 1,000
            steps without the penalty.
        every: Updates between two evaluations; the penalty is scaled by it.

    Raises:
        ValueError: A decay outside of [0, 1).
    """

    name, double_backward, couples_samples = "lecam", False, True
    anchors: Tensor
    begun: Tensor

    def __init__(self, weight: float = 0.3, decay: float = 0.99, every: int = 1) -> None:
        super().__init__(weight, every)
        if not 0 <= decay < 1:
            raise ValueError(f"LeCam: decay must be in [0, 1), got {decay}")
        self.decay = decay
        self.register_buffer("anchors", torch.zeros(2))  # of real and of generated images
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def forward(self, model: Any, real: Tensor, fake: Tensor, y: Tensor | None, y_fake: Tensor | None = None) -> Tensor:
        """Equation 3, with averages that include this batch."""
        of_real = logits_of(model.discriminate(real, y)).to(self.anchors.dtype)
        of_fake = logits_of(model.discriminate(fake, y if y_fake is None else y_fake)).to(self.anchors.dtype)
        means = model.mean_of_ranks(torch.stack([of_real.mean(), of_fake.mean()]))
        anchors = torch.where(self.begun, self.anchors.lerp(means, 1 - self.decay), means)
        if model.turn is not None:
            self.anchors.copy_(anchors)
            self.begun.fill_(True)
        return (of_real - anchors[1]).square().mean() + (of_fake - anchors[0]).square().mean()
