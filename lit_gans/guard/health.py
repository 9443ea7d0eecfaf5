"""What was seen and done: one JSON object a line in ``health.jsonl``, ``health/*`` in the loggers, a summary.

Each line has these keys:

========== ==========================================================================================================
step       ``global_step`` of the batch concerned, counted from 0
kind       ``nan``, ``inf``, ``spike``, ``rise``, ``vanish``, ``learning_rate``, ``collapse``, ``dead``, ``mode_loss``,
           ``saturation``, ``overpowered``, ``oscillation``, ``inversion``, ``unchanged``, ``regression``
player     name of the network concerned, null if no single network is
value      what was measured; null where it is no finite number
usual      what is usual, in the same unit; null where nothing is
action     ``warn``, ``skip``, ``clip``, ``rollback`` or ``stop``: what was done
quantity   what was measured, in words
tensor     the first parameter concerned, null where none is
detector   class of the callback
message    the whole in a sentence
========== ==========================================================================================================
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_gans.internals import batches_done

__all__ = ("Event", "Finding", "HealthLog")


@dataclass(frozen=True)
class Event:
    """A line of ``health.jsonl``."""

    step: int
    kind: str
    player: str | None
    value: float | None
    usual: float | None
    action: str
    quantity: str
    tensor: str | None
    detector: str
    message: str

    def line(self) -> str:
        """As strict JSON."""
        values = {key: _finite(value) for key, value in asdict(self).items()}
        return json.dumps(values, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Finding:
    """What a detector has found.

    Args:
        kind: One of the detector's kinds, such as ``nan``.
        player: Name of the network concerned; None if no single network is.
        value: The quantity that is out of the ordinary, in its own unit; it may be NaN or infinite.
        usual: The same quantity as it was before; None where nothing is usual.
        quantity: What was measured, in words.
        advice: What the user may try, in a sentence.
        tensor: Name of the first parameter concerned; None where none is.
        age: Number of steps for which it may have gone on unseen.
        detector: Class of the callback that has found it.
    """

    kind: str
    player: str | None
    value: float
    usual: float | None
    quantity: str
    advice: str
    tensor: str | None = None
    age: int = 0
    detector: str = ""

    def event(self, step: int, action: str, message: str) -> Event:
        """What was found at a step, what was done about it, and the whole in a sentence."""
        shared = {name: getattr(self, name) for name in ("kind", "player", "value", "usual", "quantity", "tensor")}
        return Event(step=step, action=action, detector=self.detector, message=message, **shared)


class HealthLog:
    """The events of one run, in the folder of the run."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.counts: Counter[tuple[str, str]] = Counter()
        self.first: dict[str, int] = {}
        self._told: dict[tuple[str, str, str | None], int] = {}
        self._written = False

    def open(self, trainer: Trainer, folder: Path | None) -> None:
        """Make the file ``health.jsonl`` in a folder, so that an empty one says that nothing was found.

        Args:
            trainer: The trainer; its first process alone writes.
            folder: The folder of the run; None to write no file.
        """
        self.path = None if folder is None else folder / "health.jsonl"
        if self.path is not None and trainer.is_global_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()

    def is_due(self, kind: str, player: str | None, action: str, step: int, interval: int) -> bool:
        """Whether to tell of this now: once in ``interval`` steps for each kind, player and action."""
        last = self._told.get((kind, action, player))
        if last is not None and step - last < interval:
            return False
        self._told[kind, action, player] = step
        return True

    def record(self, trainer: Trainer, event: Event, tell: bool = True) -> None:
        """Write an event down; tell the user of it, too, if so wished."""
        self.counts[event.kind, event.action] += 1
        self.first.setdefault(event.kind, event.step)
        if self.path is not None and trainer.is_global_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(event.line() + "\n")
            self._written = True
        batches = batches_done(trainer)
        of_kind = sum(count for (kind, _), count in self.counts.items() if kind == event.kind)
        of_action = sum(count for (_, action), count in self.counts.items() if action == event.action)
        for logger in trainer.loggers:
            counts = {f"health/{event.kind}": float(of_kind), f"health/{event.action}": float(of_action)}
            logger.log_metrics(counts, step=batches)
        if tell:
            rank_zero_warn(event.message)

    def summarise(self, steps: int) -> None:
        """Tell at the end what there was."""
        if not self.counts:
            rank_zero_info(f"health: nothing found in {steps} steps")
            return
        by_kind: dict[str, list[str]] = {}
        for (kind, action), count in self.counts.items():
            by_kind.setdefault(kind, []).append(f"{action} × {count}")
        told = "; ".join(f"{kind} (first at step {self.first[kind]}): {', '.join(by_kind[kind])}" for kind in by_kind)
        rank_zero_info(f"health: {told}" + (f"; see {self.path}" if self._written else ""))

    def state(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {
            "counts": [[kind, action, count] for (kind, action), count in self.counts.items()],
            "first": dict(self.first),
            "told": [[kind, action, player, step] for (kind, action, player), step in self._told.items()],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`."""
        self.counts = Counter({(kind, action): count for kind, action, count in state["counts"]})
        self.first = dict(state["first"])
        self._told = {(kind, action, player): step for kind, action, player, step in state["told"]}
