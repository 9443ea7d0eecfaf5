"""Leaving in good order: a signal ends training after the step at hand, with a checkpoint."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lit_gans.internals import receive_sigterm, will_validate

__all__ = ("StopOnSignal",)

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name)]


class StopOnSignal(Callback):
    """Ends training at SIGTERM, SIGINT (Ctrl-C) or SIGUSR1, at the end of the step at hand; a second one, at once.

    What is in the trainer then saves the state (``LastCheckpoint`` does), and the process ends with the code that
    shells use for a signal: 143, 130 or 138. A validation that is due or running is left and done anew on resuming.
    With several processes it is enough that one of them is told: all end after the same step, or before the next
    validation; those that Lightning launched end with 0, the first with the code.

    Lightning's own handlers are replaced while training lasts: that for SIGTERM communicates from within the handler,
    which can wait for ever; that for Ctrl-C leaves in the middle of a step, without a checkpoint.

    Raises:
        SystemExit: with the code; ``SIGTERMException`` is one.

    Example:
        >>> from lightning import Trainer
        >>> from lit_gans.runs import LastCheckpoint
        >>> trainer = Trainer(callbacks=[LastCheckpoint(), StopOnSignal()], accelerator="cpu", logger=False)
    """

    def __init__(self) -> None:
        self.received = 0  # by any process, once all know of it
        self._mine = 0
        self._agreement: tuple[torch.Tensor, Any] | None = None
        self._kill_others: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen; Lightning puts back what was there before when it leaves."""
        self.received = self._mine = 0
        launcher: Any = trainer.strategy.launcher
        self._kill_others = getattr(launcher, "kill", None)
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                signal.signal(number, self.note)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler: remember the first signal, obey the second."""
        if not self._mine:
            self._mine = number
            return
        if self._kill_others is not None:
            self._kill_others(signal.SIGKILL)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ask the other processes, while the step is made."""
        if trainer.world_size > 1:
            told = torch.tensor(self._mine, device=trainer.strategy.root_device)
            self._agreement = told, dist.all_reduce(told, dist.ReduceOp.MAX, async_op=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Have Lightning's loop leave once this step is wholly done."""
        if self._agreement is None:
            self.received = self._mine
        else:
            told, work = self._agreement
            work.wait()
            self.received, self._agreement = int(told), None
        if self.received and not will_validate(trainer):
            receive_sigterm(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave before a validation."""
        if self.received and trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            raise SIGTERMException

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any) -> None:
        """Leave within a validation; not with several processes, which may have other numbers of its batches."""
        if self._mine and trainer.world_size == 1 and trainer.state.fn == TrainerFn.FITTING:
            self.received = self._mine
            raise SIGTERMException

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Set the code of the exit."""
        if isinstance(exception, SIGTERMException) and self.received:
            launched = isinstance(trainer.strategy, ParallelStrategy) and isinstance(
                trainer.strategy.cluster_environment, LightningEnvironment
            )  # by Lightning, which kills the first process where it stands once another ends with any code but 0
            exception.code = 0 if launched and trainer.local_rank else 128 + self.received
            rank_zero_info(f"{signal.Signals(self.received).name}: training ends after step {trainer.global_step}")
