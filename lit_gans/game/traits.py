"""What the engine must know of a paper."""

from dataclasses import dataclass

__all__ = ("Traits",)


@dataclass(frozen=True)
class Traits:
    """What holds of all models of a class, for what is looked at before training and for what may share a pass.

    A subclass states all of its own, ``traits = Traits(needs_labels=True)``; one that adds to its parent's writes
    ``dataclasses.replace(Parent.traits, ...)``, and so does a model whose arguments decide, on itself.
    """

    needs_labels: bool = False
    """Whether there is no such model without classes."""
    shows_labels: bool = True
    """Whether the discriminator of a conditional model is given the labels."""
    double_backward: bool = False
    """Whether the paper's own loss differentiates through a gradient of the discriminator."""
    g_double_backward: bool = False
    """Whether it differentiates through a gradient of the generator."""
    couples_samples: bool = False
    """Whether a loss is no mean over samples, so that a batch cannot be worked through in parts."""
    least_batch: int = 1
    """Real images that a loss needs at once."""
    slope_target: float | None = None
    """The slope at which the paper's own penalty holds the discriminator; None without such a penalty."""
    slopes_at: tuple[str, ...] = ()
    """Of "real" and "fake": where each update of the discriminator takes slopes."""
    tells_by_sign: bool = True
    """Whether logits above 0 mean real."""
    from_pictures: bool = False
    """Whether the generator is given a picture in the place of noise."""
    one_fake: bool = False
    """Whether both players of a step get the same generated images."""
    generator_first: bool = False
    """Whether the generator is updated before the discriminator."""
    weight_bound: float | None = None
    """Where the discriminator's weights are clipped after each of its updates; None where they are not."""
