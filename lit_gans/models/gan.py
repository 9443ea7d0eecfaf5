"""GAN: Goodfellow et al. 2014, "Generative adversarial nets", arXiv:1406.2661; and the loop that all papers share."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, reduce
from operator import add
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.functional import Batch, Terms, as_batch
from lit_gans.models.mechanics.base import PLAYERS, Player, TwoPlayerModule, parts_of
from lit_gans.models.mechanics.rounds import playing_round

__all__ = ("GAN",)

Closure: TypeAlias = Callable[[], Terms]


class GAN(TwoPlayerModule):
    r"""The non-saturating GAN, and the root of all models: a paper is a subclass that says its two losses.

    .. math::
        L_D = -E_{x \sim p_{data}} \log D(x) - E_{z} \log(1 - D(G(z))), \qquad L_G = -E_{z} \log D(G(z))

    with :math:`D = σ(\text{logits})`. One batch is one training step: an update of the discriminator, then, at steps
    n_critic, 2·n_critic, ..., one of the generator, each with fresh noise.

    Differs from the paper: Adam in place of SGD with momentum; the generator's loss is the non-saturating one that
    section 3 recommends, from the first step on.

    Example:
        >>> from torch import nn
        >>> model = GAN(nn.Linear(4, 2), nn.Linear(2, 1), latent_dim=4)
        >>> model.sample(3, seed=0).shape
        torch.Size([3, 2])
    """

    def discriminator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Equation 1, as terms to be minimised; they are summed, and each is logged as ``train/d_<term>``.

        Args:
            real: Images (N, C, H, W) of the batch, and their labels (N,), None for a model without.
            fake: As many generated images without gradient, and the labels that they were made for.
        """
        real_logits = self.discriminate(real)
        fake_logits = self.discriminate(fake)
        return {"real": F.softplus(-real_logits).mean(), "fake": F.softplus(fake_logits).mean()}

    def generator_loss(self, real: Batch, fake: Batch) -> Terms:
        """Section 3, last paragraph; arguments as above, ``fake`` with gradient. Logged as ``train/g_<term>``."""
        return {"adversarial": F.softplus(-self.discriminate(fake)).mean()}

    def judge(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator returns for images, after ``augment``: how ``discriminate`` and ``slope`` ask it."""
        x = x if self.augment is None else self.augment(x)
        return self.discriminator(x) if y is None else self.discriminator(x, y)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One batch, one step on every axis: an update of D and, at every ``n_critic``-th, one of G."""
        step = self.trainer.global_step
        real = self.real_of(batch)
        self.reseed(step)
        self.reseed_global()
        self.batch_images = len(real.x) * self.trainer.world_size
        terms = {"discriminator": self.update("discriminator", *self.rounds("discriminator", real, step))}
        self.images_seen += self.batch_images
        if (step + 1) % self.n_critic == 0:
            scale = self.loss_scale
            terms["generator"] = self.update("generator", *self.rounds("generator", real, step))
            self.update_ema(self.batch_images * self.n_critic, scale)
        self.finish_step(terms, step)

    def rounds(self, player: Player, real: Batch, step: int) -> list[Closure]:
        """Draw noise for the whole batch; return one closure for each part in which it is worked through."""
        real = self.batch_of(player, real)
        n = len(real.x)
        z, y = self.draw_latents(n, self.rng), self.labels_of_fakes(real.y, n)

        def play_part(rows: slice) -> Terms:
            part = real.part(rows)
            terms = self.play(player, part, z[rows], None if y is None else y[rows], step)
            share = len(part.x) / n
            return terms if share == 1 else {name: term * share for name, term in terms.items()}

        return [partial(play_part, rows) for rows in parts_of(n, self.accumulate, self.pack)]

    def play(self, player: Player, real: Batch, z: Tensor, y: Tensor | None, step: int | None) -> Terms:
        """Generate from latents and labels, and return the player's named loss terms, those of its add-ons included."""
        real, due = as_batch(real), self.take_turn(player, step)
        with torch.set_grad_enabled(player == "generator"):
            fake = Batch(self.generate(z, y), y)
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
                with self.averaging(count == len(closures)):
                    self.manual_backward(reduce(add, terms.values()))
                for name, term in terms.items():
                    totals[name] = totals[name] + term.detach() if name in totals else term.detach()
        optimizer.step()
        return totals

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log both players' losses on held-out data as ``val/{d,g}_loss``."""
        self.log_losses("val", batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Log both players' losses on held-out data as ``test/{d,g}_loss``."""
        self.log_losses("test", batch, batch_idx)

    def log_losses(self, prefix: str, batch: Any, batch_idx: int) -> None:
        """Play a round without learning from it, with noise of its own."""
        real = self.whole_packs(self.real_of(batch))
        self.reseed(batch_idx, -1)
        for player in PLAYERS if len(real.x) else ():
            with torch.inference_mode(False):  # a gradient penalty differentiates, here too
                real = Batch(real.x.clone(), None if real.y is None else real.y.clone())
                z, y = self.draw_latents(len(real.x), self.rng), self.labels_of_fakes(real.y, len(real.x))
                terms = self.play(player, real, z, y, step=None)
            self.log(f"{prefix}/{player[0]}_loss", reduce(add, terms.values()), batch_size=len(real.x), sync_dist=True)
