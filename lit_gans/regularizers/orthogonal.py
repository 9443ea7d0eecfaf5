"""Orthogonal: Brock et al. 2019, "Large scale GAN training for high fidelity natural image synthesis", 1809.11096."""

from typing import Any, Literal

import torch
from torch import Tensor

from lit_gans.functional import Batch, off_diagonal_gram
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("Orthogonal",)


class Orthogonal(Regularizer):
    r"""Filters of a layer that do not resemble one another (equation 3); their norms are left free.

    .. math:: β \sum_W \|W^T W ⊙ (1 - I)\|_F^2

    Over all weights of two dimensions or more, each taken as a matrix of one row a filter. The authors' code writes the
    gradient of half of this: its β of 1e-4 is 5e-5 here.

    Args:
        weight: β, 1e-4 in the paper.
        player: The player whose network is penalised: ``generator``, as in the paper, or ``discriminator``.
        every: Updates between two evaluations; the penalty is scaled by it.
    """

    name, double_backward = "orthogonal", False

    def __init__(
        self, weight: float = 1e-4, player: Literal["discriminator", "generator"] = "generator", every: int = 1
    ) -> None:
        super().__init__(weight, every)
        if player not in ("discriminator", "generator"):
            raise ValueError(f"Orthogonal: player must be discriminator or generator, got {player!r}")
        self.player = player

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """Equation 3 without β."""
        penalty = off_diagonal_gram(model.network(self.player))
        if torch.is_grad_enabled() and not penalty.requires_grad:
            raise ValueError(
                f"Orthogonal: the {self.player} has no linear or convolutional layer of torch's own to learn"
            )
        return penalty
