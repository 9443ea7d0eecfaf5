"""One update of a player: its batches, and what the discriminator has said of them, so that it is asked once."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from lit_gans.functional import Batch, ask, input_gradient, logits_of
from lit_gans.modules import is_spectral

__all__ = ("Round", "playing_round")


class Round:
    """The two batches of an update of the discriminator, and its answers to them.

    An answer depends on whether gradients are recorded and on autocast: it is kept for each of these.

    Args:
        real: The batch of real samples.
        fake: The batch of generated samples.
        slopes: Whether slopes may be taken of these answers, if the images require gradients.
    """

    def __init__(self, real: Batch, fake: Batch, slopes: bool = False) -> None:
        self.real, self.fake, self.slopes = real, fake, slopes
        self._answers = dict[tuple[str, bool, bool], Any]()
        self._gradients = dict[str, Tensor]()

    def _name(self, batch: Batch) -> str | None:
        return "real" if batch is self.real else "fake" if batch is self.fake else None

    def answer(self, judge: Callable[..., Any], batch: Batch) -> Any:
        """The answer to a batch, kept if that is one of this round."""
        if (name := self._name(batch)) is None:
            return ask(judge, batch)
        question = (name, torch.is_grad_enabled(), torch.is_autocast_enabled(batch.x.device.type))
        if question not in self._answers:
            self._answers[question] = ask(judge, batch)
        return self._answers[question]

    def gradient(self, judge: Callable[..., Any], batch: Batch) -> Tensor | None:
        """``functional.input_gradient`` of the answer itself; None where it wants a forward pass of its own."""
        name = self._name(batch)
        if name is None or not (self.slopes and batch.x.is_leaf and batch.x.requires_grad):
            return None
        if name not in self._gradients:
            self._gradients[name] = input_gradient(lambda *_: self.answer(judge, batch), *batch)
        return self._gradients[name]

    def said_of_real(self, judge: Callable[..., Any]) -> Tensor:
        """The logits that were answered to the real images; asked for now if nobody has."""
        known = (answer for (name, *_), answer in self._answers.items() if name == "real")
        answer = next(known, None)
        return logits_of(self.answer(judge, self.real) if answer is None else answer)


@contextmanager
def playing_round(
    model: Any, player: str, penalties: Collection[Any], real: Batch, fake: Batch
) -> Iterator[tuple[Batch, Batch]]:
    """Within it the model's ``discriminate`` answers once to each of the two batches that it gives back.

    So it is for the discriminator's loss, if that has slopes or add-ons, or an adaptive augmentation that is told at
    the end, while the discriminator learns, what it answered to the real images. What changes with each forward pass,
    batch statistics and the vectors of spectral norm, changes once, too, and terms that share an answer share its
    dropout and its augmentation. The images at which slopes are taken come back as ones that require gradients, so
    that a slope needs no forward pass of its own. It still has one where that would give another slope: in half
    precision, as penalties are of float32, and where no pass is like another; and where the networks are compiled, as
    compiled code cannot be differentiated twice.

    Args:
        model: The model whose loss is computed.
        player: The player whose turn it is.
        penalties: The add-ons that are due in this turn.
        real: The batch of real samples.
        fake: Generated; without gradient in the discriminator's turn.
    """
    at = {*model.traits.slopes_at, *(place for penalty in penalties for place in penalty.slopes_at)}
    adaptive = model.adapts and model.turn is not None
    if player == "generator" or not (at or penalties or adaptive):
        yield real, fake
        return
    half = real.x.dtype.itemsize < 4 or torch.is_autocast_enabled(real.x.device.type)
    slopes = bool(at) and not half and model.compiled_input_gradient is None and _passes_are_alike(model)
    if slopes:
        real = Batch(real.x.detach().requires_grad_("real" in at), real.y)
        fake = Batch(fake.x.detach().requires_grad_("fake" in at), fake.y)
    model.round = Round(real, fake, slopes)
    try:
        yield real, fake
        if adaptive:
            with torch.no_grad():
                model.augment.observe(model.round.said_of_real(model.judge))
    finally:
        model.round = None


def _passes_are_alike(model: Any) -> bool:
    """Whether the discriminator says the same each time: it neither draws noise nor changes with a pass."""
    return model.augment is None and not any(
        isinstance(layer, (_DropoutNd, _BatchNorm)) or is_spectral(layer) for layer in model.discriminator.modules()
    )
