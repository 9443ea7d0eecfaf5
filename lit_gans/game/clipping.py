"""Gradient clipping for one player: by norm, by value, or adaptive, under the names the field uses."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from lit_gans.functional import clip_grad_adaptive_

__all__ = ("AdaptiveClip", "Clip", "NormClip", "ValueClip", "as_clip")


class Clip:
    """A rule that changes the gradients of the parameters it is called with, in place, just before the step."""

    def __call__(self, parameters: Iterable[Tensor]) -> None:
        """Clip the ``grad`` of each parameter."""
        raise NotImplementedError(f"{type(self).__name__} must define __call__")

    def require_positive(self, **values: float) -> None:
        """Raise ValueError for a limit that would freeze or blow up the player."""
        for name, value in values.items():
            if not value > 0:
                raise ValueError(f"{type(self).__name__}: {name} must be above 0, got {value}")


@dataclass(frozen=True)
class NormClip(Clip):
    """Scale all gradients of the player so that their joint norm is at most ``max_norm`` (Pascanu et al. 2013).

    Args:
        max_norm: Largest Euclidean norm over all parameters of the player.
    """

    max_norm: float

    def __post_init__(self) -> None:
        self.require_positive(max_norm=self.max_norm)

    def __call__(self, parameters: Iterable[Tensor]) -> None:
        """Clip in place."""
        clip_grad_norm_(parameters, self.max_norm)


@dataclass(frozen=True)
class ValueClip(Clip):
    """Clamp each element of the gradients to [-clip_value, clip_value].

    Args:
        clip_value: Largest absolute value of an element.
    """

    clip_value: float

    def __post_init__(self) -> None:
        self.require_positive(clip_value=self.clip_value)

    def __call__(self, parameters: Iterable[Tensor]) -> None:
        """Clip in place."""
        clip_grad_value_(parameters, self.clip_value)


@dataclass(frozen=True)
class AdaptiveClip(Clip):
    """Adaptive gradient clipping, AGC (Brock et al. 2021, equation 3): see ``functional.clip_grad_adaptive_``.

    Args:
        clip_factor: λ, largest ratio of a unit's gradient norm to its weight norm.
        eps: Lower bound of the weight norm, so that weights that begin at zero can move.
    """

    clip_factor: float = 0.01
    eps: float = 1e-3

    def __post_init__(self) -> None:
        self.require_positive(clip_factor=self.clip_factor, eps=self.eps)

    def __call__(self, parameters: Iterable[Tensor]) -> None:
        """Clip in place."""
        clip_grad_adaptive_(parameters, self.clip_factor, self.eps)


def as_clip(rule: float | Clip | None) -> Callable[[Iterable[Tensor]], None] | None:
    """A plain number means clipping by norm, as in ``Trainer(gradient_clip_val=...)``."""
    if not (rule is None or isinstance(rule, (int, float)) or callable(rule)):
        raise ValueError(f"g_clip and d_clip take a number, NormClip, ValueClip or AdaptiveClip, got {rule!r}")
    return NormClip(float(rule)) if isinstance(rule, (int, float)) else rule
