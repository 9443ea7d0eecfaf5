"""GAN: Goodfellow et al. 2014, "Generative adversarial nets", arXiv:1406.2661; and the loop that all papers share."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial, reduce
from operator import add
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_gans.models.mechanics.base import PLAYERS, Player, TwoPlayerModule, parts_of
from lit_gans.models.mechanics.sharing import shared_answers

__all__ = ("GAN",)

Closure: TypeAlias = Callable[[], dict[str, Tensor]]


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

    def discriminator_loss(
        self, real: Tensor, fake: Tensor, y: Tensor | None, y_fake: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Equation 1, as terms to be minimised; they are summed, and each is logged as ``train/d_<term>``.

        Args:
            real: Images (N, C, H, W) of the batch.
            fake: Generated images of the same shape, without gradient.
            y: Labels (N,) of ``real``, and of ``fake`` unless those are given; None for a model without.
            y_fake: Labels of ``fake`` where they differ from ``y``.
        """
        real_logits = self.discriminate(real, y)
        fake_logits = self.discriminate(fake, y if y_fake is None else y_fake)
        return {"real": F.softplus(-real_logits).mean(), "fake": F.softplus(fake_logits).mean()}

    def generator_loss(
        self, real: Tensor, fake: Tensor, y: Tensor | None, y_fake: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Section 3, last paragraph; arguments as above, ``fake`` with gradient. Logged as ``train/g_<term>``."""
        return {"adversarial": F.softplus(-self.discriminate(fake, y if y_fake is None else y_fake)).mean()}

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Any:
        """What the discriminator returns for images, after ``augment``."""
        x = x if self.augment is None else self.augment(x)
        return self.discriminator(x) if y is None else self.discriminator(x, y)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """One batch, one step on every axis: an update of D and, at every ``n_critic``-th, one of G."""
        step = self.trainer.global_step
        real, y = self.images_and_labels(batch)
        self.reseed(step)
        self.reseed_global()
        self.batch_images = len(real) * self.trainer.world_size
        terms = {"discriminator": self.update("discriminator", *self.rounds("discriminator", real, y, step))}
        self.images_seen += self.batch_images
        if (step + 1) % self.n_critic == 0:
            scale = self.loss_scale
            terms["generator"] = self.update("generator", *self.rounds("generator", real, y, step))
            self.update_ema(self.batch_images * self.n_critic, scale)
        self.finish_step(terms, step)

    def rounds(self, player: Player, real: Tensor, y: Tensor | None, step: int) -> list[Closure]:
        """Draw noise for the whole batch; return one closure for each part in which it is worked through."""
        real, y = self.batch_of(player, real, y)
        z, y_fake = self.draw_latents(len(real), self.rng), self.labels_of_fakes(y, len(real))

        def play_part(part: slice) -> dict[str, Tensor]:
            cut = [None if tensor is None else tensor[part] for tensor in (y, y_fake)]
            terms = self.play(player, real[part], z[part], cut[0], cut[0] if y_fake is y else cut[1], step)
            share = len(real[part]) / len(real)
            return terms if share == 1 else {name: term * share for name, term in terms.items()}

        return [partial(play_part, part) for part in parts_of(len(real), self.accumulate, self.pack)]

    def play(
        self, player: Player, real: Tensor, z: Tensor, y: Tensor | None, y_fake: Tensor | None, step: int | None
    ) -> dict[str, Tensor]:
        """Generate, and return the player's named loss terms, those of its regularizers included."""
        due = self.take_turn(player, step)
        with torch.set_grad_enabled(player == "generator"):
            fake = self.generate(z, y_fake)
        loss = self.generator_loss if player == "generator" else self.discriminator_loss
        labels = (y,) if y_fake is y else (y, y_fake)
        with shared_answers(self, player, due, real, fake, y) as (real, fake):
            terms = loss(real, fake, *labels)
            for penalty, factor in due.items():
                if penalty.name in terms:
                    raise ValueError(f"two loss terms are called {penalty.name!r}: leave the add-on out")
                terms[penalty.name] = factor * penalty.weight_of(self, real) * penalty(self, real, fake, *labels)
        return terms

    def update(self, player: Player, *closures: Closure) -> dict[str, Tensor]:
        """Take one optimizer step of a player: zero_grad → backward → (average, unscale) → measure, clip → step.

        Args:
            player: "discriminator" or "generator".
            closures: Each plays a part of the batch and returns the player's named loss terms; all are summed.

        Returns:
            The summed terms by name, detached.
        """
        optimizer, totals = self.optimizer_of(player), dict[str, Tensor]()
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
        real, y = self.whole_packs(*self.images_and_labels(batch))
        self.reseed(batch_idx, -1)
        for player in PLAYERS if len(real) else ():
            with torch.inference_mode(False):  # a gradient penalty differentiates, here too
                real, y = real.clone(), None if y is None else y.clone()
                z, y_fake = self.draw_latents(len(real), self.rng), self.labels_of_fakes(y, len(real))
                terms = self.play(player, real, z, y, y_fake, step=None)
            self.log(f"{prefix}/{player[0]}_loss", reduce(add, terms.values()), batch_size=len(real), sync_dist=True)
