"""R1: Mescheder et al. 2018, "Which training methods for GANs do actually converge?", ICML, arXiv:1801.04406."""

from typing import Any

from torch import Tensor

from lit_gans.functional import input_gradient_norm
from lit_gans.regularizers.base import Regularizer

__all__ = ("R1",)


class R1(Regularizer):
    r"""Zero-centred gradient penalty at real samples.

    .. math:: R_1 = \frac{γ}{2} \, E_{x \sim p_{data}} \|∇_x D(x)\|^2

    Args:
        weight: γ, 10 in the paper.
        every: Steps between two evaluations; the penalty is scaled by it. 1 in the paper, 16 in StyleGAN2.
    """

    name = "r1"

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def forward(self, model: Any, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        """Equation 9 without γ."""
        return input_gradient_norm(model.discriminate, real, y).square().mean() / 2
