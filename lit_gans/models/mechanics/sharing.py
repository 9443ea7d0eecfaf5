"""The same question to the discriminator is asked once: the terms of an update share their forward passes."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lit_gans.functional import fresh_input_gradient, input_gradient, logits_of
from lit_gans.models.mechanics.spectral import is_spectral

if TYPE_CHECKING:
    from lit_gans.models.gan import GAN
    from lit_gans.regularizers.base import Regularizer

__all__ = ("Answers", "shared_answers")


class Answers:
    """Stands in for ``discriminate`` while the terms of the discriminator's loss are gathered.

    Args:
        discriminate: ``discriminate(x, y=None)`` → logits, or a tuple that begins with them.
        slopes: Whether slopes may be taken of these answers.
    """

    def __init__(self, discriminate: Callable[..., Any], slopes: bool = True) -> None:
        self.discriminate, self.slopes = discriminate, slopes
        self._answers = dict[tuple[int, int, bool, bool], tuple[Any, ...]]()
        self._gradients = dict[tuple[int, int], Tensor]()

    def __call__(self, x: Tensor, y: Tensor | None = None, **others: Any) -> Any:
        """The answer to these very tensors, which is known from the second time on unless somebody has changed it."""
        if others:  # the model's own ``discriminate`` takes more
            return self.discriminate(x, y, **others)
        question = (id(x), id(y), torch.is_grad_enabled(), torch.is_autocast_enabled(x.device.type))
        answer, version, *_ = self._answers.get(question, (None, None))
        if answer is None or logits_of(answer)._version != version:
            answer = self.discriminate(x) if y is None else self.discriminate(x, y)
            # while images and labels are kept, no others have their identities
            self._answers[question] = (answer, logits_of(answer)._version, x, y)
        return answer

    def about(self, x: Tensor, y: Tensor | None) -> Tensor:
        """The logits that were answered to these images; asked for now if nobody has."""
        known = (logits_of(answer) for answer, _, asked, _ in self._answers.values() if asked is x)
        logits = next(known, None)
        return logits_of(self(x, y)) if logits is None else logits

    def shared_input_gradient(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """``functional.input_gradient``, of the answer itself where that can be differentiated by the images."""
        if not (self.slopes and x.is_leaf and x.requires_grad):
            return fresh_input_gradient(self.discriminate, x, y)
        question = (id(x), id(y))
        if question not in self._gradients:
            self._gradients[question] = input_gradient(self, x, y)
        return self._gradients[question]


@contextmanager
def shared_answers(
    model: "GAN",
    player: str,
    penalties: Collection["Regularizer"],
    real: Tensor,
    fake: Tensor,
    y: Tensor | None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Within it the model's ``discriminate`` answers once to the same images under the same labels.

    So it is for the discriminator's loss, if that has slopes or add-ons, or an adaptive augmentation that is told at
    the end, while the discriminator learns, what it answered to the real images. What changes with each forward pass,
    batch statistics and the vectors of spectral norm, changes once, too, and terms that share an answer share its
    dropout and its augmentation. The images at which slopes are taken come back as ones that require gradients, so
    that a slope needs no forward pass of its own. It still has one where that would give another slope: in half
    precision, as penalties are of float32, and where no pass is like another; and where the networks are compiled, as
    compiled code cannot be differentiated twice.

    Args:
        model: Whose loss it is.
        player: Whose turn it is.
        penalties: Add-ons that are due.
        real: Images of the batch.
        fake: Generated ones; without gradient in the discriminator's turn.
        y: Labels of ``real``.
    """
    at = {*model.slopes_at, *(place for penalty in penalties for place in penalty.slopes_at)}
    adaptive = model.adapts and model.turn is not None
    if player == "generator" or not (at or penalties or adaptive):
        yield real, fake
        return
    half = real.dtype.itemsize < 4 or torch.is_autocast_enabled(real.device.type)
    slopes = bool(at) and not half and model.compiled_input_gradient is None and _passes_are_alike(model)
    if slopes:
        real, fake = (real.detach().requires_grad_("real" in at), fake.detach().requires_grad_("fake" in at))
    before = model.__dict__.get("discriminate")
    answers = model.__dict__["discriminate"] = Answers(model.discriminate, slopes)
    try:
        yield real, fake
        if adaptive:
            with torch.no_grad():
                model.augment.observe(answers.about(real, y))
    finally:
        del model.__dict__["discriminate"]
        if before is not None:
            model.__dict__["discriminate"] = before


def _passes_are_alike(model: "GAN") -> bool:
    """Whether the discriminator says the same each time: it neither draws noise nor changes with a pass."""
    return model.augment is None and not any(
        isinstance(layer, (_DropoutNd, _BatchNorm)) or is_spectral(layer) for layer in model.discriminator.modules()
    )
