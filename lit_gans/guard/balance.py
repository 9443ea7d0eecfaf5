"""Reports who is winning, and by how much."""

from collections import deque
from typing import Any

import torch
from lightning import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lit_gans.game.loop import Game
from lit_gans.guard.detector import Observer
from lit_gans.guard.duality import duality_gap
from lit_gans.guard.look import Sight, images_of
from lit_gans.internals import accumulates, batches_done

__all__ = ("BalanceReport",)


class BalanceReport(Observer):
    """Logs how the game stands, every ``every_n_steps`` steps; training is not disturbed by it.

    ============================ ======================================================================================
    ``balance/order``            share of pairs of a real and a generated image that the discriminator puts in order;
                                 0.5 is a draw, 1 is its victory, 0 the generator's
    ``balance/logit_gap``        mean logit of real less that of generated images
    ``balance/accuracy_real``    share of real images with a logit above 0 (of no meaning for a Wasserstein critic)
    ``balance/accuracy_fake``    share of generated images with a logit below 0
    ``balance/diversity``        mean distance of two generated images over that of two real ones
    ``balance/gradient_ratio``   gradient norm of the generator over the discriminator's
    ``balance/duality_gap``      with ``duality_every``: by how much either player could still win (Grnarova et al.
                                 2019); 0 at an equilibrium
    ============================ ======================================================================================

    Works with any LightningModule that has ``sample(n)`` and ``discriminator(x)`` → logits; the duality gap needs a
    ``lit_gans`` model, whose losses define the game, and is computed by each rank on its own data and averaged.

    Args:
        every_n_steps: Training steps between two reports.
        n: Images looked at, at least 8.
        duality_every: Reports between two estimates of the duality gap, each of which costs twice ``duality_steps``
            updates; None for none.
        duality_steps: Updates of each worst-case player.
        seed: Seed of the latents, which are the same in each report.

    Raises:
        ValueError: a number below its least.
        TypeError: the module has nothing to look at.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[BalanceReport(every_n_steps=200)], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        n: int = 64,
        duality_every: int | None = None,
        duality_steps: int = 20,
        seed: int = 0,
    ) -> None:
        for name, value, least in (
            ("every_n_steps", every_n_steps, 1),
            ("n", n, 8),
            ("duality_every", 1 if duality_every is None else duality_every, 1),
            ("duality_steps", duality_steps, 1),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}, got {value}")
        self.every_n_steps, self.n, self.seed = every_n_steps, n, seed
        self.duality_every, self.duality_steps = duality_every, duality_steps
        self._norms: dict[str, Tensor] = {}
        self._batches: deque[Any] = deque(maxlen=9)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look for what is needed."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if not Sight.possible(pl_module):
            raise TypeError(
                f"BalanceReport looks at module.sample(n) and module.discriminator, which {type(pl_module).__name__} "
                "does not have both"
            )
        if self.duality_every is not None and not isinstance(pl_module, Game):
            raise TypeError(f"the duality gap needs a lit_gans model, and {type(pl_module).__name__} is none")
        self._sight = Sight(trainer.world_size, self.n, self.seed)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Before a report, note how large the gradients are."""
        if self.guard.is_due_soon(self.every_n_steps):
            reading = self.guard.reading(optimizer)
            self._norms[reading.player.name] = reading.norm

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Report, if it is time."""
        if self.duality_every is not None:
            self._batches.append(batch)
        self._sight.keep(pl_module, batch)
        if self.guard.is_due(self.every_n_steps) and not self.guard.gave_up and not accumulates(trainer):
            look = self._sight.look(pl_module)
            values: dict[str, Any] = {
                "order": look.order,
                "logit_gap": look.gap,
                "accuracy_real": look.accuracy_real,
                "accuracy_fake": look.accuracy_fake,
                "diversity": look.diversity,
            }
            if {"generator", "discriminator"} <= self._norms.keys():
                ratio = self._norms["generator"] / self._norms["discriminator"].clamp_min(1e-30)
                values["gradient_ratio"] = ratio.item()
            if self.duality_every is not None and self.guard.is_due(self.every_n_steps * self.duality_every):
                values["duality_gap"] = self._duality_gap(trainer, pl_module)
            values = {f"balance/{key}": value for key, value in values.items()}
            pl_module.log_dict(values, logger=False, batch_size=1)
            for logger in trainer.loggers:  # whatever the trainer's logging steps
                logger.log_metrics(values, step=batches_done(trainer))
            self._norms.clear()

    def _duality_gap(self, trainer: Trainer, module: Any) -> float:
        seen = [images_of(module, batch) for batch in self._batches]
        gap = duality_gap(module, seen[:-1] or seen, seen[-1], self.duality_steps)
        return float(trainer.strategy.reduce(torch.tensor(gap, device=module.device), reduce_op="mean"))
