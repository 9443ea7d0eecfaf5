"""What an add-on penalty is."""

from typing import Any, Literal

from torch import Tensor

from lit_gans.functional import Batch
from lit_gans.recorded import Recorded

__all__ = ("Regularizer",)


class Regularizer(Recorded):
    """A penalty that any paper can be combined with: it knows no variant, and asks ``model.discriminate`` itself.

    In an update of the discriminator each batch is shown once: what the loss or another add-on has asked of ``real`` or
    ``fake`` costs no second forward pass. Nor do slopes, at batches that ``slopes_at`` names, where one pass is like
    another and in float32. For a second opinion, under other dropout or augmentation, ask about a batch of your own,
    ``Batch(real.x, real.y)``.

    A subclass sets ``player`` (whose loss it joins) and ``name`` (its log key ``train/{d,g}_<name>``), and defines
    ``forward(model, real, fake)`` → scalar, of batches as the hooks of the model get them. It is evaluated at every
    ``every``-th update of its player and then scaled by ``every``, so that its expected weight stays the same ("lazy
    regularisation", Karras et al. 2020, appendix B). Its buffers are saved with the model.

    Args:
        weight: Factor of the penalty in the player's loss.
        every: Updates between two evaluations, at least 1.

    Raises:
        ValueError: if ``every`` is no whole number of at least 1, or the weight is negative.
    """

    player: Literal["discriminator", "generator"] = "discriminator"
    name = "regularizer"
    double_backward = True  # whether it differentiates through a network's gradient (no compiled kernels then)
    asks_discriminator = True  # whether that may be the discriminator's; a penalty of the generator alone says no
    needs_latents = False  # whether it asks the generator about latents of its own
    moves_images = False  # whether it asks the discriminator about images that are flipped or shifted
    needs_pairs = False  # whether it holds each generated picture against its own target
    couples_samples = False  # whether it is no mean over samples, so that a batch cannot be worked through in parts
    slope_target: float | None = None  # the slope at which it holds the discriminator
    slopes_at: tuple[str, ...] = ()  # of "real" and "fake": where it takes slopes

    def __init__(self, weight: float, every: int = 1) -> None:
        super().__init__()
        if not isinstance(every, int) or every < 1:
            raise ValueError(f"{type(self).__name__}: every must be at least 1, a whole number, got {every}")
        if weight < 0:
            raise ValueError(f"{type(self).__name__}: weight must not be negative, got {weight}")
        self.weight, self.every = weight, every

    def prepare(self) -> None:
        """Fetch what is needed, before training starts: nothing, here."""

    def weight_of(self, model: Any, real: Batch) -> float:
        """The factor for these images."""
        return self.weight

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """The unweighted penalty, a scalar; ``model`` is the GAN."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(model, real, fake)")
