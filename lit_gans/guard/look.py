"""A look at the game: what the discriminator says, what the generator draws. Training is not disturbed by it."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_gans.functional import Batch, ask, input_gradient_norm, logits_of, to_uint8
from lit_gans.game.loop import Game
from lit_gans.internals import trainer_of
from lit_gans.metrics.extractors import FeatureExtractor
from lit_gans.modules import kept_modes

__all__ = ("Look", "Sight", "discriminator_of", "images_of", "undisturbed")


@dataclass(frozen=True)
class Look:
    """What was seen, over all ranks; NaN where there is no discriminator or no extractor with classes.

    Args:
        gap: Mean logit of real less that of generated images.
        order: Share of pairs of a real and a generated image of which the real one has the higher logit: the area under
            the ROC curve, 1 if the discriminator tells all apart, 0.5 if it guesses, 0 if it is fooled throughout.
        accuracy_real: Share of real images with a logit above 0.
        accuracy_fake: Share of generated images with one below.
        finite: Whether all generated images are free of NaN and infinity.
        diversity: Mean distance of two generated images, of the same class where there are labels, over that of real.
        classes: Exponential of the entropy of the classes that are drawn: how many, in effect.
        likeness: Correlation of the brightness of generated pictures with that of their sources, its sign turned where
            the data's own is negative; NaN of other models, and where the data says nothing.
        change: Mean absolute difference between generated pictures and their sources, in 0..2; NaN of other models, and
            where pictures have pairs.
    """

    gap: float
    order: float
    accuracy_real: float
    accuracy_fake: float
    finite: bool
    diversity: float
    classes: float
    likeness: float = math.nan
    change: float = math.nan


class Sight:
    """Looks at a module with always the same latents.

    The module is one of ``lit_gans``, or any with ``sample(n)``; its discriminator is looked at, if it has one that
    takes images alone.

    Args:
        world_size: Number of ranks, whose looks are averaged.
        n: Number of images that are looked at, real and generated ones each.
        seed: Seed of the latents, which are the same at each look.
        extractor: Sees features and, if it has some, classes; without one, pixels are compared.
    """

    def __init__(self, world_size: int, n: int = 32, seed: int = 0, extractor: FeatureExtractor | None = None) -> None:
        self.n, self.seed, self.extractor, self.world_size = n, seed, extractor, world_size
        self._batches: deque[Any] = deque(maxlen=1)
        self._blind = False

    @staticmethod
    def possible(module: Any) -> bool:
        """Whether there are a generator and a discriminator to look at."""
        return isinstance(module, Game) or (
            isinstance(getattr(module, "discriminator", None), nn.Module) and callable(getattr(module, "sample", None))
        )

    def keep(self, module: Any, batch: Any) -> None:
        """Keep a batch, if one alone has too few images for a look."""
        size = len(images_of(module, batch)[0])
        needed = -(-self.n // max(1, size))
        if self._batches.maxlen != needed:
            self._batches = deque(self._batches, maxlen=needed)
        self._batches.append(batch)

    def look(self, module: Any) -> Look:
        """See how the game stands; buffers, random numbers and modes are left as they were."""
        with undisturbed(module), torch.no_grad(), precision(module):
            reals = [images_of(module, batch) for batch in self._batches]
            labels = [y for _, y in reals if y is not None]
            real = Batch(torch.cat([x for x, _ in reals]), torch.cat(labels) if labels else None).part(slice(self.n))
            fake = self._fakes(module, real)
            values = [*self._opinions(module, real, fake), torch.isfinite(fake.x).all(), *self._pictures(real, fake)]
            values += compared_with_sources(module, real, fake.x)
            seen = torch.stack([x.double() for x in values])
        if self.world_size > 1:
            seen = module.trainer.strategy.reduce(seen, reduce_op="mean")
        gap, order, accuracy_real, accuracy_fake, whole, diversity, classes, likeness, change = seen.tolist()
        return Look(gap, order, accuracy_real, accuracy_fake, whole == 1, diversity, classes, likeness, change)

    def input_gradients(self, module: Any, batch: Any) -> tuple[Tensor, Tensor]:
        """Mean norm of the discriminator's gradient at real and at generated images, float32 scalars."""
        with undisturbed(module), precision(module):
            with torch.no_grad():
                real = images_of(module, batch)
                fake = self._fakes(module, real)
            critic = discriminator_of(module)
            return tuple(  # type: ignore[return-value]
                input_gradient_norm(critic, *images.part(slice(self.n))).mean().detach() for images in (real, fake)
            )

    def _fakes(self, module: Any, real: Batch) -> Batch:
        if not isinstance(module, Game):
            torch.manual_seed(self.seed)
            return Batch(module.sample(self.n))
        return module.make(module.fixed_inputs(self.n, real, self.seed))

    def _opinions(self, module: Any, real: Batch, fake: Batch) -> list[Tensor]:
        """Gap, order and accuracies."""
        critic, unknown = discriminator_of(module), [torch.full((), torch.nan, device=real.x.device)] * 4
        if critic is None or self._blind:
            return unknown
        try:
            on_real, on_fake = (_logits(critic, batch) for batch in (real, fake))
        except TypeError as error:
            if isinstance(module, Game):
                raise
            self._blind = True
            rank_zero_warn(
                f"{type(module).__name__}.discriminator does not take images alone, so that it is not judged: {error}"
            )
            return unknown
        above = (on_real[:, None] > on_fake).double() + (on_real[:, None] == on_fake).double() / 2
        accuracies = [(on_real > 0).double().mean(), (on_fake < 0).double().mean()]
        return [on_real.mean() - on_fake.mean(), above.mean(), *accuracies]

    def _pictures(self, real: Batch, fake: Batch) -> list[Tensor]:
        """Diversity and classes."""
        classes = torch.full((), torch.nan, device=real.x.device)
        if self.extractor is not None:
            seen = self.extractor(to_uint8(fake.x))
            if seen.logits is not None:
                shares = F.one_hot(seen.logits.argmax(1), seen.logits.shape[1]).double().mean(0)
                classes = torch.special.entr(shares).sum().exp()
            real = Batch(self.extractor(to_uint8(real.x)).features, real.y)
            fake = Batch(seen.features, fake.y)
        return [_spread(real, fake), classes]


def compared_with_sources(module: Any, real: Batch, made: Tensor) -> list[Tensor]:
    """Likeness and change of pictures that are made of others; NaN where there is nothing to compare."""
    nothing = torch.full((), torch.nan, device=made.device)
    if not (isinstance(module, Game) and module.traits.from_pictures) or real.y is None:
        return [nothing, nothing]
    source, paired = real.y[: len(made)], getattr(module, "paired", True)
    if source.shape[2:] != made.shape[2:] or getattr(module, "takes_mask", False):
        return [nothing, nothing]
    light, ours, theirs = (x.float().mean(1).flatten(1) for x in (source, made, real.x[: len(made)]))
    if paired:
        wanted = _correlation(light, theirs)
        likeness = torch.where(wanted.abs() > 0.3, _correlation(light, ours) * wanted.sign(), nothing)
        return [likeness, nothing]
    between, turned = (theirs.mean() - light.mean()).abs(), (theirs.mean() + light.mean()).abs()
    likeness = torch.where(between <= turned + 0.1, _correlation(light, ours), nothing)  # else dark becomes bright
    same = source.shape == made.shape
    return [likeness, (source - made).abs().float().mean() if same else nothing]


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Mean over rows of the correlation of their numbers."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-8)).mean()


def _logits(critic: Any, batch: Batch) -> Tensor:
    """One an image; of a patch map its mean."""
    answer = logits_of(ask(critic, batch))
    return answer.flatten(1).mean(1) if answer.ndim > 1 else answer


def _spread(real: Batch, fake: Batch) -> Tensor:
    """Mean distance of pairs of fakes over that of reals; of pairs with one label where both sides have eight such."""
    distances = [torch.pdist(x.flatten(1).double()) for x in (fake.x, real.x)]
    if fake.y is not None and real.y is not None and fake.y.ndim == 1:
        pairs = [torch.combinations(y) for y in (fake.y, real.y)]
        alike = [pair[:, 0] == pair[:, 1] for pair in pairs]
        if min(int(same.sum()) for same in alike) >= 8:
            distances = [distance[same] for distance, same in zip(distances, alike, strict=True)]
    return distances[0].mean() / distances[1].mean().clamp_min(1e-12)


def discriminator_of(module: Any) -> Any:
    """What takes images and gives logits; None where a module has nothing of that name."""
    return module.judge if isinstance(module, Game) else getattr(module, "discriminator", None)


def images_of(module: Any, batch: Any) -> Batch:
    """Images of a batch, and their labels where the model uses them."""
    if isinstance(module, Game):
        return Batch(*module.unpack_batch(batch))
    if isinstance(batch, dict):
        batch = batch.get("image", next(iter(batch.values())))
    return Batch(batch if isinstance(batch, Tensor) else batch[0])


def precision(module: Any) -> Any:
    """What the trainer surrounds a training step with: autocast, or another default dtype."""
    return nullcontext() if trainer_of(module) is None else module.trainer.precision_plugin.forward_context()


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Put back buffers, such as running statistics, modes, and all random generators.

    Of a ``lit_gans`` model torch's, which is all that networks draw from; of others Python's and numpy's, too.
    """
    buffers = list(module.buffers())
    copies = [buffer.clone() for buffer in buffers]
    rng = getattr(module, "_rng", None)
    noise = None if rng is None else rng.get_state()
    devices = {x.device for x in (*module.parameters(), *buffers) if x.is_cuda}
    noises = torch.random.fork_rng(devices=list(devices)) if isinstance(module, Game) else isolate_rng()
    with noises, kept_modes(module):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, copy in zip(buffers, copies, strict=True):
                    buffer.copy_(copy)
            if rng is not None:
                rng.set_state(noise)
