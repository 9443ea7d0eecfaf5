"""The same question to the discriminator is asked once: the terms of an update share their forward passes."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_gans.functional import input_gradient

if TYPE_CHECKING:
    from lit_gans.models.gan import GAN
    from lit_gans.regularizers.base import Regularizer

__all__ = ("Answers", "shared_answers")

_Question = tuple[int, int, bool]  # identities of images and labels, and whether the answer can be differentiated


class Answers:
    """Stands in for ``discriminate`` while the terms of the discriminator's loss are gathered.

    Args:
        discriminate: ``discriminate(x, y=None)`` → logits, or a tuple that begins with them.
    """

    def __init__(self, discriminate: Callable[..., Any]) -> None:
        self.ask = discriminate
        self._answers = dict[_Question, tuple[Any, ...]]()
        self._gradients = dict[_Question, Tensor]()

    def __call__(self, x: Tensor, y: Tensor | None = None) -> Any:
        """The answer to these very tensors, which is known from the second time on."""
        question = (id(x), id(y), torch.is_grad_enabled())
        if question not in self._answers:
            answer = self.ask(x) if y is None else self.ask(x, y)
            self._answers[question] = (answer, x, y)  # while they are kept no other tensors have their identities
        return self._answers[question][0]

    def input_gradient(self, x: Tensor, y: Tensor | None = None) -> Tensor | None:
        """Gradient of the answer at images that it can be differentiated by; None for any others."""
        if not (x.is_leaf and x.requires_grad):
            return None
        question = (id(x), id(y), True)
        if question not in self._gradients:
            self._gradients[question] = input_gradient(self, x, y)
        return self._gradients[question]


@contextmanager
def shared_answers(
    model: "GAN", player: str, penalties: Collection["Regularizer"], real: Tensor, fake: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Within it the model's ``discriminate`` answers once to the same images under the same labels.

    So it is for the discriminator's loss, if that has slopes or add-ons. The images at which slopes are taken come back
    as ones that require gradients, so that a slope needs no forward pass of its own. It still has one where the loss is
    gathered in half precision, as penalties are of float32, and where the networks are compiled, as compiled code
    cannot be differentiated twice.

    Args:
        model: Whose loss it is.
        player: Whose turn it is.
        penalties: Add-ons that are due.
        real: Images of the batch.
        fake: Generated ones; without gradient in the discriminator's turn.
    """
    at = {*model.slopes_at, *(place for penalty in penalties for place in penalty.slopes_at)}
    if player == "generator" or not (at or penalties):
        yield real, fake
        return
    half = real.dtype.itemsize < 4 or torch.is_autocast_enabled(real.device.type)
    if not half and model.compiled_input_gradient is None:
        real, fake = (real.detach().requires_grad_("real" in at), fake.detach().requires_grad_("fake" in at))
    model.__dict__["discriminate"] = Answers(model.discriminate)
    try:
        yield real, fake
    finally:
        del model.__dict__["discriminate"]
