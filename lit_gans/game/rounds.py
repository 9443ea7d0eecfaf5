"""One update of a player: its batches, and what the discriminator has said of them, so that it is asked once."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from lit_gans.functional import Batch, ask, input_gradient, logits_of
from lit_gans.game.compiling import is_compiled
from lit_gans.modules import buffers_kept, is_spectral

__all__ = ("Round", "playing_round")


class Round:
    """The two batches of an update of the discriminator, and its answers to them.

    An answer depends on whether gradients are recorded and on autocast: it is kept for each of these.

    Args:
        real: The batch of real samples.
        fake: The batch of generated samples.
        slopes: Whether slopes may be taken of these answers, if the images require gradients.
        together: Whether both are shown in one pass, the first time that either is asked about.
    """

    def __init__(self, real: Batch, fake: Batch, slopes: bool = False, together: bool = False) -> None:
        self.real, self.fake, self.slopes = real, fake, slopes
        self.together = together
        self._answers = dict[tuple[str, tuple[bool, bool]], Any]()
        self._gradients = dict[str, Tensor]()

    def _name(self, batch: Batch) -> str | None:
        return "real" if batch is self.real else "fake" if batch is self.fake else None

    def answer(self, judge: Callable[..., Any], batch: Batch) -> Any:
        """The answer to a batch, kept if that is one of this round."""
        if (name := self._name(batch)) is None:
            return ask(judge, batch)
        state = torch.is_grad_enabled(), torch.is_autocast_enabled(batch.x.device.type)
        if (name, state) not in self._answers:
            if self.together:
                both = ask(judge, _joined(self.real, self.fake))
                self._answers["real", state], self._answers["fake", state] = halves(both)
            else:
                self._answers[name, state] = ask(judge, batch)
        return self._answers[name, state]

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
        known = (answer for (name, _), answer in self._answers.items() if name == "real")
        answer = next(known, None)
        return logits_of(self.answer(judge, self.real) if answer is None else answer)


def _joined(real: Batch, fake: Batch) -> Batch:
    """The samples of both, the real ones first."""
    y = None if real.y is None or fake.y is None else torch.cat([real.y, fake.y])
    return Batch(torch.cat([real.x, fake.x]), y)


def halves(answer: Any) -> tuple[Any, Any]:
    """What was answered to the first half of a batch, and to the second: of logits, or of logits and a head."""
    leaves, shape = tree_flatten(answer)
    pairs = [leaf.chunk(2) for leaf in leaves]
    first, second = (tree_unflatten([pair[k] for pair in pairs], shape) for k in (0, 1))
    return first, second


@contextmanager
def playing_round(
    model: Any, player: str, penalties: Collection[Any], real: Batch, fake: Batch
) -> Iterator[tuple[Batch, Batch]]:
    """Within it the model's ``discriminate`` answers once to each of the two batches that it gives back.

    So it is while the discriminator learns, where there is something to share: a penalty or an add-on asks again about
    the same images; an adaptive augmentation is told at the end what was said of the real ones; or real and generated
    images may be shown together, in one pass. What changes with each forward pass, batch statistics and the vectors of
    spectral norm, changes once, too, and terms that share an answer share its dropout and its augmentation. The images
    at which slopes are taken come back as ones that require gradients, so that a slope needs no forward pass of its
    own. It still has one where that would give another slope: in half precision, as penalties are of float32, and where
    no pass is like another; and where the networks are compiled, as compiled code cannot be differentiated twice.

    Args:
        model: The model whose loss is computed.
        player: The player whose turn it is.
        penalties: The add-ons that are due in this turn.
        real: The batch of real samples.
        fake: Generated; without gradient in the discriminator's turn.
    """
    at = {*model.traits.slopes_at, *(place for penalty in penalties for place in penalty.slopes_at)}
    learning = player == "discriminator" and model.turn is not None
    adaptive = learning and model.adapts
    together = learning and not at and may_show_together(model, real, fake)
    if player == "generator" or not (at or penalties or adaptive or together):
        yield real, fake
        return
    half = real.x.dtype.itemsize < 4 or torch.is_autocast_enabled(real.x.device.type)
    slopes = bool(at) and not half and model.compiled_input_gradient is None and passes_are_alike(model)
    if slopes:
        real = Batch(real.x.detach().requires_grad_("real" in at), real.y)
        fake = Batch(fake.x.detach().requires_grad_("fake" in at), fake.y)
    model.round = Round(real, fake, slopes, together)
    try:
        yield real, fake
        if adaptive:
            with torch.no_grad():
                model.augment.observe(model.round.said_of_real(model.judge))
    finally:
        model.round = None


def passes_are_alike(model: Any) -> bool:
    """Whether the discriminator says the same each time: it neither draws noise nor changes with a pass."""
    return model.augment is None and not any(
        isinstance(layer, (_DropoutNd, _BatchNorm)) or is_spectral(layer) for layer in model.discriminator.modules()
    )


def may_show_together(model: Any, real: Batch, fake: Batch) -> bool:
    """Whether the discriminator says of real and generated images in one pass what it says of them apart.

    Not so where a layer mixes the samples of a batch, such as batch norm or the standard deviation of a minibatch, or
    changes with a pass. Looked for once in a run, by showing a batch in both ways, since it may be anybody's network.
    Networks with convolutions are left aside: their passes are not faster for larger batches.

    So are batches of no power of two, and losses that compare samples. A loss that stays the same when all logits move
    gives the last bias no gradient, but only if its sums over both kinds cancel to the last bit, as sums of fractions
    of a power of two do: Adam would make whole steps of what is left of them.
    """
    n = len(real.x)
    if model.traits.couples_samples or n & (n - 1) or n != len(fake.x) or (real.y is None) != (fake.y is None):
        return False
    if model.together is None:
        convolves = any(weight.ndim > 2 for weight in model.discriminator.parameters())
        model.together = not (convolves or is_compiled(model.discriminator)) and passes_are_alike(model)
        model.together = model.together and _says_the_same(model, real, fake)
    return bool(model.together)


@torch.no_grad()
def _says_the_same(model: Any, real: Batch, fake: Batch) -> bool:
    fake = Batch(fake.x.to(real.x.dtype), fake.y)
    with isolate_rng(), buffers_kept(model.discriminator), torch.autocast(real.x.device.type, enabled=False):
        apart = tree_leaves([ask(model.judge, batch) for batch in (real, fake)])
        joined = tree_leaves(ask(model.judge, _joined(real, fake)))
    pairs = zip(apart[: len(joined)], apart[len(joined) :], joined, strict=True)
    return all(_is_made_of(both, torch.cat([one, other])) for one, other, both in pairs)


def _is_made_of(both: Tensor, parts: Tensor) -> bool:
    """Whether answers are equal but for rounding; not if they are all the same, which tells nothing."""
    if both.shape != parts.shape or len(both) % 2:
        return False
    rounding = 2e-5 * float(parts.abs().max())
    spread = float((parts.amax(0) - parts.amin(0)).max())
    return spread > 10 * rounding and float((both - parts).abs().max()) < rounding
