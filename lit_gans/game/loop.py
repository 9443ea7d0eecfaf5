"""One step of the game: what happens to a batch, from the loader to the log.

A batch becomes ``real``; noise, or a source picture, becomes ``fake``; the two losses of a paper, in
``lit_gans.models``, turn both into named terms; ``update`` sums them and steps the optimizer of one player. The
discriminator plays at every step, the generator at every ``n_critic``-th, after it, and each with fresh noise. A paper
may say otherwise in its traits: the generator first, or one fake for both.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, reduce
from operator import add
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lit_gans.functional import Batch, Terms, as_batch, ask, differentiable, input_gradient
from lit_gans.game.compiling import compiled_input_gradient
from lit_gans.game.module import PLAYERS, GameModule, Player, parts_of
from lit_gans.game.rounds import Round, playing_round
from lit_gans.internals import averaging
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("Closure", "Game")

Closure: TypeAlias = Callable[[], Terms]


class Game(GameModule):
    """Two players that take turns; a paper says what each of them loses."""

    round: Round | None = None  # what the discriminator has said in the update at hand

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a ``discriminate`` that would go past the answers that are shared."""
        super().__init_subclass__(**kwargs)
        if "discriminate" in vars(cls):
            raise TypeError(
                f"{cls.__name__} overrides discriminate(batch), which shares answers between loss and add-ons: "
                "override judge(x, y=None) in its place, which says how the discriminator is asked"
            )

    # what a paper says

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """What the discriminator minimises, as terms that are summed; each is logged as ``train/d_<term>``.

        Args:
            real: Images (N, C, H, W) of the batch, and their labels (N,), None for a model without.
            fake: As many generated images without gradient, and the labels that they were made for.
        """
        raise NotImplementedError(f"{type(self).__name__} must define discriminator_loss(real, fake)")

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """What the generator minimises; as above, ``fake`` with gradient. Logged as ``train/g_<term>``."""
        raise NotImplementedError(f"{type(self).__name__} must define generator_loss(real, fake)")

    def constrain(self, player: Player, terms: Terms | None = None) -> None:
        """What a paper does after a step of a player: nothing, here.

        Args:
            player: Who has made the step.
            terms: Of its loss, detached; None where a copy of the player is trained to learn how good it could become,
                and only what belongs to the network is to be done.
        """

    # a step

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One batch, one step on every axis: an update of D and, at every ``n_critic``-th, one of G."""
        step = self.trainer.global_step
        real = self.real_of(batch)
        self.reseed(step)
        self.reseed_global()
        self.batch_images = len(real.x) * self.trainer.world_size
        self.images_seen += self.batch_images
        terms, made = dict[str, Terms](), dict[int, Batch]()
        for player in reversed(PLAYERS) if self.traits.generator_first else PLAYERS:
            if player in self.resting:
                continue
            if player == "discriminator":
                terms[player] = self.update(player, *self.rounds(player, real, step, made))
            elif (step + 1) % self.n_critic == 0:
                scale = self.loss_scale
                terms[player] = self.update(player, *self.rounds(player, real, step, made))
                self.update_ema(self.batch_images * self.n_critic, scale)
        self.finish_step(terms, step)

    def rounds(
        self, player: Player, real: Batch, step: int | None, made: dict[int, Batch] | None = None
    ) -> list[Closure]:
        """Draw noise for the whole batch; return one closure for each part in which it is worked through.

        Args:
            player: Whose turn it is.
            real: The batch.
            step: Of the training; None to learn nothing.
            made: What was generated in this step, by the number of the part; for papers with one fake for both players.
        """
        real = self.batch_of(player, real)
        n, inputs = len(real.x), self.inputs_of(real)

        def play_part(number: int, rows: slice) -> Terms:
            part, given = real.part(rows), inputs.part(rows)
            if made is not None and self.makes_once and number not in made:
                self.take_turn(player, step)  # what is made may depend on it
                made[number] = self.make(given)
            terms = self.play(player, part, given, step, None if made is None else made.get(number))
            share = len(part.x) / n
            return terms if share == 1 else {name: term * share for name, term in terms.items()}

        return [partial(play_part, *part) for part in enumerate(parts_of(n, self.accumulate, self.pack))]

    @property
    def makes_once(self) -> bool:
        """Whether a step has one fake for both players.

        In parts with the discriminator first, that would hold the graphs of all parts at once: each makes its own then.
        """
        return self.traits.one_fake and (self.accumulate == 1 or self.traits.generator_first)

    def play(
        self, player: Player, real: Batch | Tensor, inputs: Batch, step: int | None, fake: Batch | None = None
    ) -> Terms:
        """Generate, and return the player's named loss terms, those of its add-ons included.

        Args:
            player: Whose turn it is.
            real: The batch, or a part of it.
            inputs: What the generator is given, as ``inputs_of`` has it.
            step: Of the training; None to learn nothing.
            fake: What the generator has made of the inputs already; None to make it now.
        """
        real, due = as_batch(real), self.take_turn(player, step)
        if fake is None:
            with torch.set_grad_enabled(player == "generator"):
                fake = self.make(inputs)
        if player == "discriminator":
            fake = self.shown(fake.detach())
        loss = self.generator_loss if player == "generator" else self.discriminator_loss
        with playing_round(self, player, due, real, fake) as (real, fake):
            terms = loss(real, fake)
            for penalty, factor in due.items():
                if penalty.name in terms:
                    raise ValueError(f"two loss terms are called {penalty.name!r}: leave the add-on out")
                terms[penalty.name] = factor * penalty.weight_of(self, real) * penalty(self, real, fake)
        return terms

    def update(self, player: Player, *closures: Closure) -> Terms:
        """Take one optimizer step of a player: zero_grad → backward → (average, unscale) → measure, clip → step.

        Args:
            player: "discriminator" or "generator".
            closures: Each plays a part of the batch and returns the player's named loss terms; all are summed.

        Returns:
            The summed terms by name, detached.
        """
        optimizer, totals = self.optimizer_of(player), Terms()
        optimizer.zero_grad()
        with self.frozen("discriminator") if player == "generator" else nullcontext():
            for count, closure in enumerate(closures, start=1):
                terms = closure()
                with averaging(self.trainer.strategy, count == len(closures)):
                    self.manual_backward(reduce(add, terms.values()))
                for name, term in terms.items():
                    totals[name] = totals[name] + term.detach() if name in totals else term.detach()
        optimizer.step()
        self.constrain(player, totals)
        return totals

    def take_turn(self, player: Player, step: int | None) -> dict[Regularizer, int]:
        """Note which of its updates a player is at; a step of None teaches nothing.

        Returns:
            The player's add-ons that are due, each with the factor of its laziness.
        """
        self.turn = step if step is None or player == "discriminator" else step // self.n_critic
        self.lazily = False
        factors = {penalty: self.lazy(penalty.every) for penalty in self.regularizers if penalty.player == player}
        return {penalty: factor for penalty, factor in factors.items() if factor}

    def lazy(self, every: int) -> int:
        """The factor of a penalty that is due at every so many updates: 0 at the others; 1 where nothing is learnt."""
        if self.turn is None:
            return 1
        due = self.turn % every == 0
        self.lazily |= due and every > 1
        return every if due else 0

    # what the generator makes

    def inputs_of(self, real: Batch, rng: torch.Generator | None = None) -> Batch:
        """What the generator is given for a batch: latents, and labels of the images that are to be made of them.

        Args:
            real: The batch.
            rng: Source of the noise; None for the model's own.
        """
        n, rng = len(real.x), self.rng if rng is None else rng
        return Batch(self.draw_latents(n, rng), self.labels_of_fakes(real.y, n, rng))

    def make(self, inputs: Batch) -> Batch:
        """What the generator makes of its inputs, and what goes with it."""
        return Batch(self.generate(*inputs), inputs.y)

    def shown(self, fake: Batch) -> Batch:
        """What the discriminator is shown of generated images in its turn: these, unless a paper keeps older ones."""
        return fake

    # what the discriminator says

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator returns for images, after ``augment``: how ``discriminate`` and ``slope`` ask it."""
        x = x if self.augment is None else self.augment(x)
        return self.discriminator(x) if y is None else self.discriminator(x, y)

    def discriminate(self, batch: Batch | Tensor) -> Any:
        """What the discriminator returns for a batch, after ``augment``; a tensor is a batch without labels.

        Asked again within an update of the discriminator about ``real`` or ``fake`` as the hooks got them, it gives the
        answer that it gave before. A paper that asks in another way overrides ``judge``.
        """
        batch = as_batch(batch)
        return ask(self.judge, batch) if self.round is None else self.round.answer(self.judge, batch)

    def slope(self, batch: Batch | Tensor) -> Tensor:
        r"""Slopes of the discriminator at samples, :math:`\|∇_x D(x)\|_2`, to be differentiated by its parameters.

        In float32 at least, whatever the precision of training; compiled where the networks are. At ``real`` and
        ``fake`` without a forward pass of its own where the loss has asked the same already.

        Returns:
            Shape (N,).
        """
        batch = as_batch(batch)
        with torch.enable_grad(), torch.autocast(batch.x.device.type, enabled=False):
            gradient = None if self.round is None else self.round.gradient(self.judge, batch)
            if gradient is None:
                differentiate = self.compiled_input_gradient or input_gradient
                gradient = differentiate(self.judge, differentiable(batch.x), batch.y)
        return torch.linalg.vector_norm(gradient.flatten(1), dim=1)

    @property
    def compiled_input_gradient(self) -> Callable[..., Tensor] | None:
        """How ``slope`` differentiates ``judge`` where the networks are compiled; None where they are not."""
        return compiled_input_gradient(self.discriminator)

    # on held-out data

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log both players' losses on held-out data as ``val/{d,g}_loss``."""
        self.log_losses("val", batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log both players' losses on held-out data as ``test/{d,g}_loss``."""
        self.log_losses("test", batch, batch_idx)

    def log_losses(self, prefix: str, batch: Any, batch_idx: int) -> None:
        """Play a round without learning from it, with noise of its own."""
        real = self.held_out(self.real_of(batch))
        self.reseed(batch_idx, -1)
        for player in PLAYERS if len(real.x) else ():
            with torch.inference_mode(False):  # a gradient penalty differentiates, here too
                real = Batch(real.x.clone(), None if real.y is None else real.y.clone())
                terms = self.play(player, real, self.inputs_of(real), step=None)
            self.log(f"{prefix}/{player[0]}_loss", reduce(add, terms.values()), batch_size=len(real.x), sync_dist=True)
