"""Gradient penalties of every kind.

Gulrajani et al. 2017, arXiv:1704.00028 (between samples); Petzka et al. 2018, arXiv:1709.08894 (one-sided); Kodali et
al. 2017, arXiv:1705.07215 (about real samples); Thanh-Tung et al. 2019, arXiv:1902.03984 (zero-centred).
"""

from typing import Any, Literal, get_args

from torch import Tensor

from lit_gans.functional import Batch, interpolate, perturb
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("GradientPenalty",)

Place = Literal["fake", "interpolated", "perturbed", "real"]


class GradientPenalty(Regularizer):
    r"""Holds the discriminator's slope at, or below, a target.

    .. math:: λ \, E_{\hat x} (\|∇_{\hat x} D(\hat x)\|_2 - c)^2, \quad\text{or}\quad
        λ \, E_{\hat x} \max(0, \|∇_{\hat x} D(\hat x)\|_2 - c)^2

    Args:
        weight: λ, the factor of the penalty.
        center: c, the slope aimed at, 0 or more.
        one_sided: Slopes below c cost nothing.
        at: Where the slope is taken: ``interpolated`` on lines between real and generated samples, ``real``, ``fake``,
            or ``perturbed``, real samples with noise.
        noise: Of ``perturbed``: standard deviation of the noise, in the units of the data.
        every: Updates between two evaluations; the penalty is scaled by it.

    Raises:
        ValueError: An unknown place, a negative centre or noise; ``one_sided`` with centre 0, which is two-sided.
    """

    name = "slope"

    def __init__(
        self,
        weight: float = 10.0,
        center: float = 1.0,
        one_sided: bool = False,
        at: Place = "interpolated",
        noise: float = 0.3,
        every: int = 1,
    ) -> None:
        super().__init__(weight, every)
        if at not in get_args(Place):
            raise ValueError(f"GradientPenalty: at={at!r} is no place; choose one of {', '.join(get_args(Place))}")
        if center < 0 or noise < 0:
            raise ValueError(f"GradientPenalty: center and noise must not be negative, got {center} and {noise}")
        if one_sided and center == 0:
            raise ValueError("GradientPenalty: no slope is below center=0, so one_sided changes nothing: leave it out")
        self.center, self.one_sided, self.at, self.noise = center, one_sided, at, noise
        self.slope_target = None if one_sided else center
        self.slopes_at = (at,) if at in ("real", "fake") else ()

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """The penalty without λ; points between samples take the labels of the real ones."""
        match self.at:
            case "real":
                points = real
            case "fake":
                points = fake
            case "interpolated":
                points = interpolate(real, fake, model.rng)
            case "perturbed":
                points = perturb(real, self.noise, model.rng)
        excess = model.slope(points) - self.center
        penalty: Tensor = (excess.relu() if self.one_sided else excess).square().mean()
        return penalty
