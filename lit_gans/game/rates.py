"""Schedules of learning rates that torch.optim lacks."""

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = ("HoldThenDecay",)


class HoldThenDecay(LRScheduler):
    """Holds a learning rate, then takes it to zero on a straight line.

    The schedule of pix2pix, CycleGAN and CUT: Zhu et al. 2017, section 7.1, arXiv:1703.10593, count in epochs; here, as
    everywhere, a step is a batch. The rate of a step is a function of its number and of the first rate alone, so that a
    resumed run goes on with it exactly. Name it in a config as ``g_scheduler`` and ``d_scheduler``.

    Args:
        optimizer: Whose learning rates are set.
        hold: Steps with the first rate.
        decay: Steps from there to zero, where the rate stays; as many as ``hold`` in the papers.
        last_epoch: Number of the last step, where a run goes on; -1 for the first.

    Raises:
        ValueError: if ``hold`` is negative, or ``decay`` not at least 1.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=0.5)
        >>> schedule = HoldThenDecay(optimizer, hold=100, decay=100)
        >>> schedule.share(99), schedule.share(150), schedule.share(200), schedule.share(300)
        (1.0, 0.5, 0.0, 0.0)
    """

    def __init__(self, optimizer: Optimizer, hold: int, decay: int, last_epoch: int = -1) -> None:
        if hold < 0 or decay < 1:
            raise ValueError(f"HoldThenDecay: hold must be at least 0, decay at least 1, got {hold} and {decay}")
        self.hold, self.decay = hold, decay
        super().__init__(optimizer, last_epoch)

    def share(self, step: int) -> float:
        """What is left of the first rate at a step, counted from 0."""
        return 1 - min(max(step - self.hold, 0) / self.decay, 1.0)

    def get_lr(self) -> list[Any]:
        """The rates of this step, one for each group."""
        return [base * self.share(self.last_epoch) for base in self.base_lrs]
