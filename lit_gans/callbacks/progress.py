"""A progress bar that does not slow the step."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm.auto import tqdm

__all__ = ("GameProgressBar",)


class GameProgressBar(ProgressBar):
    """One bar over all training steps, with both players' last logged losses.

    The losses are read only when the bar is redrawn; ``log(prog_bar=True)`` would wait for the device at every step.
    Works with any LightningModule; losses are shown if logged as ``train/d_loss`` and ``train/g_loss``.

    Args:
        refresh_rate: Steps between two redraws.
    """

    def __init__(self, refresh_rate: int = 20) -> None:
        super().__init__()
        if refresh_rate < 1:
            raise ValueError(f"refresh_rate must be at least 1, got {refresh_rate}")
        self.refresh_rate = refresh_rate
        self._enabled = True
        self._bar: Any = None

    def disable(self) -> None:
        """Draw nothing; Lightning calls this on all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Draw again."""
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar, at the step where training goes on."""
        epochs = trainer.max_epochs if trainer.max_epochs is not None else -1
        total = min(
            trainer.max_steps if trainer.max_steps > -1 else float("inf"),
            trainer.num_training_batches * epochs if epochs > -1 else float("inf"),
        )
        self._bar = tqdm(
            total=None if total == float("inf") else int(total),
            initial=trainer.global_step,
            disable=not self._enabled,
            unit="step",
            dynamic_ncols=True,
            smoothing=0.1,
        )
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Redraw, once in a while."""
        self._seen += 1
        if self._enabled and self._seen % self.refresh_rate == 0:
            self._draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the last state and close."""
        if self._enabled and self._bar is not None:
            self._draw(trainer)
            self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the bar as it is and free the line."""
        if self._bar is not None:
            self._bar.close()

    def _draw(self, trainer: Trainer) -> None:
        losses = {key: trainer.logged_metrics.get(f"train/{key}") for key in ("d_loss", "g_loss")}
        shown = {key: f"{float(value):.3f}" for key, value in losses.items() if value is not None}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(self._seen - self._bar.n)
