"""Norms of gradients and updates, in the right hook."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from lit_gans.guard.detector import Observer
from lit_gans.guard.look import Sight
from lit_gans.guard.players import Player, find_players, total_norm
from lit_gans.internals import batches_done

__all__ = ("GradientNormMonitor",)


class GradientNormMonitor(Observer):
    """Logs, for each player, how large its gradients and updates are.

    Measured just before the optimizer's step: after gradients were averaged over ranks and unscaled, before they are
    clipped. Only on the trainer's logging steps; on others nothing is computed and nothing waited for. A player is an
    optimizer, named by the attribute that owns its parameters, so that this works with any LightningModule and any
    number of optimizers. Keys, by example of a player called ``generator``:

    ================================ ==================================================================================
    ``grad_norm/generator``          Euclidean norm over all its gradients
    ``grad_norm_clipped/generator``  the same as the optimizer used it, after clipping
    ``grad_zero_share/generator``    share of elements that are exactly zero, in [0, 1]
    ``update_ratio/generator``       norm of the update over the norm of the weights; 1e-3 is customary
    ``grad_norm/generator/<name>``   norm of each parameter's gradient, with ``per_layer``
    ``input_grad_norm/real``         mean norm of the discriminator's gradient at real images, with ``input_every``
    ``input_grad_norm/fake``         the same at generated images: the signal that reaches the generator
    ================================ ==================================================================================

    Args:
        per_layer: Log each parameter's norm, too.
        histogram: Log a histogram of each player's gradients, and of each parameter's with ``per_layer``, to
            TensorBoard and Weights & Biases.
        input_every: Logging steps between two looks at the discriminator's gradient at its inputs; None for none. Needs
            a module with ``generator`` and ``discriminator``.

    Raises:
        ValueError: ``input_every`` is less than 1.
        TypeError: ``input_every`` is given, but the module has no discriminator.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(callbacks=[GradientNormMonitor()], accelerator="cpu", logger=False)
    """

    def __init__(self, per_layer: bool = False, histogram: bool = False, input_every: int | None = None) -> None:
        if input_every is not None and input_every < 1:
            raise ValueError(f"input_every must be at least 1, got {input_every}")
        self.per_layer, self.histogram, self.input_every = per_layer, histogram, input_every
        self._values: dict[str, Tensor] = {}
        self._before: dict[int, list[Tensor]] = {}
        self._handles: list[RemovableHandle] = []
        self._looks = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the trainer's guard; look for what is needed."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.input_every is not None and not Sight.possible(pl_module):
            raise TypeError(
                f"input_every looks at module.discriminator's gradient, and {type(pl_module).__name__} has no "
                "generator and discriminator: leave it out"
            )
        self._sight = Sight(trainer.world_size)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the players, and ask to be called after each of their steps."""
        self._handles = [
            player.optimizer.register_step_post_hook(lambda *_, player=player: self._after_step(player))
            for player in find_players(pl_module, trainer.optimizers)
        ]

    @staticmethod
    def _logs_now(trainer: Trainer) -> bool:
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return every > 0 and (batches_done(trainer) + 1) % every == 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Measure, on logging steps."""
        if not self._logs_now(trainer):
            return
        reading = self.guard.reading(optimizer)
        player, gradients = reading.player, reading.player.gradients()
        self._values[f"grad_norm/{player.name}"] = reading.norm
        if not gradients:
            return
        zeros = torch.stack([gradient.numel() - torch.count_nonzero(gradient) for gradient in gradients]).sum()
        self._values[f"grad_zero_share/{player.name}"] = zeros / sum(gradient.numel() for gradient in gradients)
        if self.per_layer:
            for name, parameter in zip(player.names, player.parameters, strict=True):
                if parameter.grad is not None:
                    self._values[f"grad_norm/{player.name}/{_within(name, player)}"] = total_norm([parameter.grad])
        if self.histogram and trainer.is_global_zero:
            self._draw(trainer, player)
        self._before[id(optimizer)] = [parameter.detach().clone() for parameter in player.parameters]

    def _after_step(self, player: Player) -> None:
        """Measure what the step has done."""
        before = self._before.pop(id(player.optimizer), None)
        if before is None:
            return
        with torch.no_grad():
            now = [parameter.detach() for parameter in player.parameters]
            update = total_norm(torch._foreach_sub(now, before))
            self._values[f"update_ratio/{player.name}"] = update / total_norm(before).clamp_min(1e-30)
            self._values[f"grad_norm_clipped/{player.name}"] = total_norm([g.detach() for g in player.gradients()])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log all in one call."""
        if self._logs_now(trainer):
            if self.input_every is not None and self._looks % self.input_every == 0:
                real, fake = self._sight.input_gradients(pl_module, batch)
                self._values |= {"input_grad_norm/real": real, "input_grad_norm/fake": fake}
            self._looks += 1
            if self._values:
                pl_module.log_dict(self._values, batch_size=1)
            self._values, self._before = {}, {}

    def _draw(self, trainer: Trainer, player: Player) -> None:
        """Histograms of gradients."""
        named = {
            f"gradients/{player.name}/{_within(name, player)}": parameter.grad.detach().flatten()
            for name, parameter in zip(player.names, player.parameters, strict=True)
            if parameter.grad is not None and not parameter.grad.is_sparse
        }
        if not self.per_layer:
            named = {f"gradients/{player.name}": torch.cat(list(named.values()))} if named else {}
        step = batches_done(trainer)
        for key, values in named.items():
            finite = values[torch.isfinite(values)].float().cpu()
            for logger in trainer.loggers if len(finite) else ():
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_histogram(key, finite, step)
                elif isinstance(logger, WandbLogger):
                    import wandb

                    logger.experiment.log({key: wandb.Histogram(finite.tolist()), "trainer/global_step": step})

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop listening to the optimizers."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Stop listening to the optimizers."""
        self._release()

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def state_dict(self) -> dict[str, Any]:
        """How often the inputs were looked at."""
        return {"looks": self._looks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self._looks = state_dict["looks"]


def _within(name: str, player: Player) -> str:
    """A parameter's name below its player's."""
    return name.removeprefix(f"{player.name}.")
