"""R1 and R2: Mescheder et al. 2018, "Which training methods for GANs do actually converge?", arXiv:1801.04406."""

from typing import Any

from torch import Tensor

from lit_gans.functional import Batch, as_batch, gamma_for
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("R1", "R2")


class R1(Regularizer):
    r"""Zero-centred gradient penalty at real samples.

    .. math:: R_1 = \frac{γ}{2} \, E_{x \sim p_{data}} \|∇_x D(x)\|^2

    Args:
        weight: γ, 10 in the paper. None: 0.0002 · resolution² / batch, the rule of StyleGAN2-ADA (Karras et al. 2020,
            "Training generative adversarial networks with limited data", appendix C).
        every: Updates between two evaluations; the penalty is scaled by it. 1 in the paper, 16 in StyleGAN2.
    """

    name, slope_target, slopes_at = "r1", 0.0, ("real",)

    def __init__(self, weight: float | None = None, every: int = 1) -> None:
        super().__init__(0.0 if weight is None else weight, every)
        self.by_rule = weight is None

    def weight_of(self, model: Any, real: Batch) -> float:
        """γ as given, or by the rule."""
        return gamma_for(as_batch(real).x, model.batch_images) if self.by_rule else self.weight

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """Equation 9 without γ."""
        slopes: Tensor = model.slope(real)
        return slopes.square().mean() / 2


class R2(R1):
    r"""Zero-centred gradient penalty at generated samples; arguments as of R1.

    .. math:: R_2 = \frac{γ}{2} \, E_{z} \|∇_x D(G(z))\|^2
    """

    name, slopes_at = "r2", ("fake",)

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """Equation 10 without γ."""
        slopes: Tensor = model.slope(fake)
        return slopes.square().mean() / 2
