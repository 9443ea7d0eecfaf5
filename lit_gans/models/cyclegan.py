"""CycleGAN: Zhu et al. 2017, "Unpaired image-to-image translation using cycle-consistent adversarial networks", arXiv:1703.10593."""  # noqa: E501

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.functional import Batch, Terms
from lit_gans.game.arguments import at_least, not_negative
from lit_gans.game.pool import ImagePool
from lit_gans.game.traits import Traits
from lit_gans.models.translation import Translation, source_of
from lit_gans.modules import take_facts

__all__ = ("CycleGAN",)


class CycleGAN(Translation):
    r"""Two generators between two kinds of pictures, without pairs: there and back again leads to where one began.

    .. math::
        L_G = E_a (D_B(G(a)) - 1)^2 + E_b (D_A(F(b)) - 1)^2 + λ (\|F(G(a)) - a\|_1 + \|G(F(b)) - b\|_1)
        + λ_{id} (\|G(b) - b\|_1 + \|F(a) - a\|_1), \\
        2 L_D = E_b (D_B(b) - 1)^2 + E_a D_B(G(a))^2 + E_a (D_A(a) - 1)^2 + E_b D_A(F(b))^2

    A batch is (a, b): pictures of both kinds, which need not belong together. The discriminators see generated pictures
    of earlier steps, too: ``ImagePool``. Section 4 and 7.1; arXiv:1703.10593.

    ``real`` is ``Batch(b, a)`` and ``fake`` is ``Batch(G(a), F(b))``: both directions in one batch. ``generator`` and
    ``discriminator`` hold a network for each direction, ``there`` (A to B) and ``back``.

    Differs from the paper: none. The identity term, which it uses for paintings (section 5.2) and its published code
    by default, is on.

    When to use it: with two collections of pictures and no pairs: seasons, materials, the style of a painter.

    When not: with pairs (Pix2Pix); where shapes must change much; or where one direction is enough and time is short
    (CUT). Look at the results: colours can turn into their opposites, which a cycle cannot see.

    Family: images to images.

    Args:
        generator: G, from A to B; F is a copy of it with weights of its own, unless ``back_generator`` is given.
        discriminator: Of B; that of A is a copy with weights of its own, unless ``back_discriminator`` is given.
        back_generator: F, from B to A; needed where the two kinds differ in channels.
        back_discriminator: Of A.
        cycle_weight: λ, 10 in section 4.
        identity_weight: λ_id, 0.5 λ in section 5.2; 0 leaves it out. Needs kinds of equal channels.
        pool: Generated pictures of each kind that are kept; 50 in section 4.
        init_std: 0.02, section 7.1.
        **kwargs: All other arguments of ``Translation``.
    """

    traits = Traits(from_pictures=True, one_fake=True, generator_first=True, tells_by_sign=False)
    paired, shows_source, directions = False, False, ("a2b", "b2a")

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        back_generator: nn.Module | None = None,
        back_discriminator: nn.Module | None = None,
        cycle_weight: float = 10.0,
        identity_weight: float = 5.0,
        pool: int = 50,
        init_std: float | None = 0.02,
        **kwargs: Any,
    ) -> None:
        not_negative(cycle_weight=cycle_weight, identity_weight=identity_weight)
        at_least(0, pool=pool)
        name = type(self).__name__
        for penalty in kwargs.get("regularizers") or ():
            if penalty.player == "discriminator":
                raise ValueError(f"{type(penalty).__name__} knows one discriminator, and {name} has two: leave it out")
        channels = getattr(generator, "in_channels", 0), getattr(generator, "out_channels", 0)
        if channels[0] != channels[1] and (identity_weight or back_generator is None):
            raise ValueError(
                f"{name}: sources have {channels[0]} channels and targets {channels[1]}: give a back_generator that "
                "makes sources of targets, and identity_weight=0, or pictures of equal channels"
            )
        generators = Directions(generator, back_generator, both=False)
        discriminators = Directions(discriminator, back_discriminator, both=True)
        super().__init__(generators, discriminators, init_std=init_std, **kwargs)
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.pools = nn.ModuleList([ImagePool(pool), ImagePool(pool)])

    def make(self, inputs: Batch) -> Batch:
        """G(a) and F(b)."""
        return Batch(self.generator(source_of(inputs)), self.generator.back(inputs.x))  # type: ignore[operator]

    def shown(self, fake: Batch) -> Batch:
        """Section 4, "training details": pictures of a history of generated ones."""
        if self.turn is None:
            return fake
        there, back = self.pools
        return Batch(there(fake.x, self.rng), back(source_of(fake), self.rng))

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 1 in least squares, for both, divided by 2 (section 7.1) to slow them down."""
        real_b, real_a = self.discriminate(real)
        fake_b, fake_a = self.discriminate(fake)
        return {
            "real_b": (real_b - 1).square().mean() / 2,
            "fake_b": fake_b.square().mean() / 2,
            "real_a": (real_a - 1).square().mean() / 2,
            "fake_a": fake_a.square().mean() / 2,
        }

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 3, and the identity term of section 5.2."""
        there, back = self.generator, self.generator.back
        a, b, fake_a, fake_b = source_of(real), real.x, source_of(fake), fake.x
        says_b, says_a = self.discriminate(fake)
        terms = {
            "adversarial_b": (says_b - 1).square().mean(),
            "adversarial_a": (says_a - 1).square().mean(),
            "cycle_a": self.cycle_weight * F.l1_loss(back(fake_b), a),  # type: ignore[operator]
            "cycle_b": self.cycle_weight * F.l1_loss(there(fake_a), b),
        }
        if self.identity_weight:
            terms["identity_b"] = self.identity_weight * F.l1_loss(there(b), b)
            terms["identity_a"] = self.identity_weight * F.l1_loss(back(a), a)  # type: ignore[operator]
        return terms

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What each discriminator returns for pictures of its own kind, after ``augment``."""
        shown = [kind if self.augment is None or kind is None else self.augment(kind) for kind in (x, y)]
        return self.discriminator(*shown)

    def translator(self, ema: bool = True, direction: str = "a2b") -> nn.Module:
        """The generator of a direction."""
        both: Any = super().translator(ema, direction)
        network: nn.Module = both.there if direction == "a2b" else both.back
        return network


class Directions(nn.Module):
    """Two networks, one for each direction, as one player.

    Args:
        there: The network from A to B, or of B.
        back: The other one; None for a copy of the first with weights drawn anew where layers know how.
        both: Whether a call asks both networks, each about pictures of its own kind; else a call asks the first.
    """

    def __init__(self, there: nn.Module, back: nn.Module | None = None, both: bool = False) -> None:
        super().__init__()
        self.there = there
        self.back = anew(there) if back is None else back
        self.both = both
        take_facts(self, there)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the first network makes of ``x``; for both, what the first says of ``x`` and the second of ``y``."""
        return (self.there(x), self.back(y)) if self.both else self.there(x)


def anew(network: nn.Module) -> nn.Module:
    """A copy of a network whose layers draw their weights again, with torch's own initialisation."""
    other = copy.deepcopy(network)
    with torch.no_grad():
        for layer in other.modules():
            if callable(reset := getattr(layer, "reset_parameters", None)):
                reset()
    return other
