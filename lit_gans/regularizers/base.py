"""What an add-on penalty is."""

from typing import Any, Literal

from torch import Tensor, nn

__all__ = ("Regularizer",)


class Regularizer(nn.Module):
    """A penalty that any paper can be combined with: it knows no variant and pays its own forward.

    A subclass sets ``player`` (whose loss it joins) and ``name`` (its log key ``train/{d,g}_<name>``), and defines
    ``forward(model, real, fake, y)`` → scalar. It is evaluated at every ``every``-th step and then scaled by ``every``,
    so that its expected weight stays the same ("lazy regularisation", Karras et al. 2020, appendix B).

    Args:
        weight: Factor of the penalty in the player's loss.
        every: Steps between two evaluations, at least 1.
    """

    player: Literal["discriminator", "generator"] = "discriminator"
    name = "regularizer"
    double_backward = True  # whether it differentiates through the discriminator's gradient (no compiled kernels then)

    def __init__(self, weight: float, every: int = 1) -> None:
        super().__init__()
        if every < 1:
            raise ValueError(f"{type(self).__name__}: every must be at least 1, got {every}")
        if weight < 0:
            raise ValueError(f"{type(self).__name__}: weight must not be negative, got {weight}")
        self.weight, self.every = weight, every

    def forward(self, model: Any, real: Tensor, fake: Tensor, y: Tensor | None) -> Tensor:
        """The unweighted penalty, a scalar; ``model`` is the GAN, ``y`` labels ``real``."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(model, real, fake, y)")
