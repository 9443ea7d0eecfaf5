"""Gradients, losses and weights that explode or vanish."""

import math
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from lightning import LightningModule, Trainer
from torch.optim import Optimizer

from lit_gans.guard.detector import Detector
from lit_gans.guard.health import Finding
from lit_gans.guard.players import Player, values_of
from lit_gans.guard.rates import schedulers_of
from lit_gans.guard.readings import Reading
from lit_gans.guard.snapshots import first_not_finite
from lit_gans.guard.usual import Usual
from lit_gans.internals import accumulates

__all__ = ("ExplosionDetector",)

_LASTING = "the gradient norm, for 50 updates,"
_WRITTEN = "Look at what wrote it; if training did, lower the learning rate."
_FALL = 1000.0  # nobody learns at a thousandth of the rate
_JUMP = 10.0  # learning rates grow by less from one step to the next, in any warm-up
_STILL = 1e-3  # spread of a logarithm below which the past did not vary, and says nothing of what may come
_ACCUSTOMED = 20  # updates dropped in a row for a norm that stays high, after which it is learnt anew what is usual


class ExplosionDetector(Detector):
    """Finds an explosion in the very step, before it reaches the weights, and acts.

    Looked at before each update, after gradients were averaged over ranks and unscaled, and before they are clipped:

    - ``nan``, ``inf``: in a loss, a gradient or a weight;
    - ``spike``: the gradient norm is more than ``spike`` times, and ``sigmas`` spreads above, its running median, and
      three times its highest in the last 200 updates. Median and spread (median absolute deviation) are of logarithms,
      and of the same player's recent past: no absolute size counts;
    - ``rise``: nine tenths of the last 50 norms are more than ``rise`` times the median before;
    - ``vanish``: the same for less than one ``vanish``-th;
    - ``learning_rate``: something other than its schedule has changed the rate, to more than ten times its highest
      value so far (once 200 updates are known, its highest up to 100 updates ago, so that a steep warm-up at the start
      is allowed), or to less than a thousandth of it, as when a player is frozen.

    Each is answered by an action:

    - ``warn`` prints a warning, at most once in ``interval`` steps, an argument of ``Guard``;
    - ``skip`` drops the update (gradients become None, which optimizers pass over): weights, moments, buffers and the
      averaged generator stay as they are. After four in a row the other player waits, too. Where that cannot help,
      since weights are not finite or ``max_skips`` of ``Guard`` were dropped in a row, it becomes ``rollback``;
    - ``clip`` scales the gradients down to their usual norm; where there is none, it becomes ``skip``;
    - ``rollback`` drops the update and goes back to a snapshot at the end of the step; where that was done too often,
      it becomes ``stop``;
    - ``stop`` saves the last good and the present state, and raises ``TrainingDiverged``.

    How the guard recovers, and within which limits, is said by ``Guard``. One number is read from the device before
    each update; on a GPU the host waits there for the backward pass. Works with any LightningModule and any number of
    optimizers. With a gradient scaler (``16-mixed``), which drops overflowing updates itself, only thirty in a row
    count; what it does not see, in a loss, in weights, or in gradients after it has unscaled them, counts at once.

    Args:
        action: What to do: one action for all kinds, or a mapping from kinds to actions: ``{"nan": "rollback",
            "spike": "clip"}``.
        spike: Smallest factor between a norm and its running median that counts.
        sigmas: Smallest number of spreads that counts.
        rise: Factor of a lasting rise.
        vanish: Factor of a lasting fall.
        warmup: Updates of a player before its past counts as known; NaN and infinity count from the first.

    Raises:
        ValueError: a number out of range, an unknown kind or action; at the start, what ``Guard`` raises.
        TrainingDiverged: while training, if it has to stop.

    Example:
        >>> ExplosionDetector(action={"spike": "clip"}).actions["spike"]
        'clip'
    """

    kinds: ClassVar[Mapping[str, str]] = {
        "nan": "rollback",
        "inf": "rollback",
        "spike": "rollback",
        "rise": "warn",
        "vanish": "warn",
        "learning_rate": "warn",
    }

    def __init__(
        self,
        action: str | dict[str, str] = "rollback",
        spike: float = 10.0,
        sigmas: float = 8.0,
        rise: float = 10.0,
        vanish: float = 100.0,
        warmup: int = 25,
    ) -> None:
        for name, value in {"spike": spike, "rise": rise, "vanish": vanish}.items():
            if not value > 1:
                raise ValueError(f"{name} is a factor above 1, got {value}")
        if not sigmas > 0:
            raise ValueError(f"sigmas must be above 0, got {sigmas}")
        if warmup < 2:
            raise ValueError(f"warmup must be at least 2 updates, got {warmup}")
        super().__init__(action)
        self.spike, self.sigmas, self.warmup = math.log(spike), sigmas, warmup
        self.rise, self.vanish = math.log(rise), math.log(vanish)
        self._forget()

    def _forget(self) -> None:
        """Begin anew."""
        self._usual: dict[str, Usual] = {}
        self._rates: dict[str, deque[float]] = {}  # the highest learning rate so far, at each update
        self._suspects: set[str] = set()  # players whose last update was not made as it was
        self._overflows = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Join the trainer's guard; nothing is known of this run."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._forget()

    @property
    def suspects(self) -> bool:
        """Whether the last update of a player was dropped or scaled down."""
        return bool(self._suspects)

    def remember(self) -> dict[str, Any]:
        """The recent past of each player's gradient norm."""
        return {name: past.state() for name, past in self._usual.items()}

    def recall(self, state: Mapping[str, Any]) -> None:
        """Restore the past that ``remember`` returned."""
        self._usual = {name: Usual(warmup=self.warmup) for name in state}
        for name, past in state.items():
            self._usual[name].load(past["logs"], past["age"])

    def rates_changed(self) -> None:
        """Forget the learning rates seen so far, so that the guard's own change is not reported."""
        self._rates.clear()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Judge the update that is about to be made."""
        guard = self.guard
        if guard.passes_over(optimizer):
            return
        reading = guard.reading(optimizer)
        name, norm = reading.player.name, reading.values(trainer)[0]
        kind = f"{name}, with a lazy penalty" if getattr(pl_module, "lazily", False) else name
        usual = self._usual.setdefault(kind, Usual(warmup=self.warmup))
        for finding in self._judge(trainer, pl_module, reading, usual):
            action = self.respond(trainer, pl_module, finding, optimizer)
            if finding.kind == "spike" and action == "skip" and guard.streaks[name] >= _ACCUSTOMED:
                self._usual[kind] = Usual(warmup=self.warmup)  # it is no spike that stays: learn what is usual anew
            if action == "clip":  # the bound follows, slowly, if this is how it is to be
                usual.add(usual.value * math.exp(self.spike))
            if action != "warn":
                self._suspects.add(name)
                return
            if finding.kind == "learning_rate":
                self._rates[name].clear()
        guard.let_pass(name)
        self._suspects.discard(name)
        if math.isfinite(norm):
            usual.add(norm)

    def _judge(self, trainer: Trainer, module: LightningModule, reading: Reading, usual: Usual) -> Iterator[Finding]:
        """What is wrong with an update, if anything."""
        norm, loss, alike = reading.values(trainer)
        player = reading.player
        if not (math.isfinite(norm) and math.isfinite(loss)):
            self._overflows += 1
            scaled = _scaler_drops(getattr(trainer.precision_plugin, "scaler", None), player)
            if not scaled or not math.isfinite(loss) or self._overflows >= 30:
                yield self._not_finite(trainer, module, player, norm, loss)
            return
        self._overflows = 0
        yield from self._rate(trainer, player)
        if not usual.known:
            return
        deviation, varies = usual.deviation(norm), usual.spread > _STILL
        if (
            varies
            and deviation > max(self.spike, self.sigmas * usual.spread)
            and usual.beyond_highest(norm) > math.log(3)
        ):
            advice = "If it comes back: a lower learning rate, g_clip or d_clip, a gradient penalty."
            value = usual.value if alike else None  # ranks that differ must not be scaled, only dropped
            yield Finding("spike", player.name, norm, value, "the gradient norm", advice, _largest(player))
        elif usual.shift > self.rise:
            advice = "Try a lower learning rate, or a stronger penalty on the discriminator."
            yield Finding("rise", player.name, norm, usual.before, _LASTING, advice, age=150)
        elif usual.shift < -self.vanish:
            advice = (
                "Nothing is learned any more: if the discriminator has won, lower its learning rate or give it a "
                "gradient penalty (R1); if a network is frozen or dead, look at its layers."
            )
            yield Finding("vanish", player.name, norm, usual.before, _LASTING, advice, age=150)

    def _rate(self, trainer: Trainer, player: Player) -> Iterator[Finding]:
        """A learning rate that somebody has multiplied, other than its schedule."""
        rate = max(float(group.get("lr", 0.0)) for group in player.optimizer.param_groups)
        past = self._rates.setdefault(player.name, deque(maxlen=200))
        highest = past[100] if len(past) == 200 else past[-1] if past else 0.0
        scheduled = [last for s in schedulers_of(trainer, player.optimizer) for last in getattr(s, "_last_lr", ())]
        jumped = rate > _JUMP * highest or rate < highest / _FALL
        if highest and jumped and rate not in map(float, scheduled):
            advice = "Look at what sets it: a scheduler, a callback, a resumed optimizer."
            yield Finding("learning_rate", player.name, rate, highest, "the learning rate", advice)
        else:
            past.append(max(rate, past[-1] if past else 0.0))

    def _not_finite(
        self, trainer: Trainer, module: LightningModule, player: Player, norm: float, loss: float
    ) -> Finding:
        """Where NaN or infinity comes from: weights before gradients, gradients before the loss."""
        tensor, quantity, owner = first_not_finite(trainer, module, self.guard.meant), "a weight", player.name
        value = loss if math.isfinite(norm) else norm
        if tensor is not None:
            owner = self._owner(tensor) or owner
            advice = _WRITTEN
        elif not math.isfinite(norm):
            tensor, quantity = _first(player), "the gradient norm"
            advice = "Look for a bad batch, a division by zero, a logarithm of zero, an overflow in half precision."
        else:
            quantity, advice = "the loss", "Look for a bad batch, a logarithm of zero, an overflow in half precision."
        kind = "nan" if math.isnan(value) else "inf"
        usual = self._usual.get(owner) if quantity == "the gradient norm" else None
        known = usual.value if usual is not None and usual.known else None
        return Finding(kind, owner, value, known, quantity, advice, tensor)

    def _owner(self, tensor: str) -> str | None:
        """The player whose parameter, or buffer, a tensor is."""
        for player in self.guard.players:
            if tensor in player.names or tensor.startswith(f"{player.name}."):
                return player.name
        return None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Before a snapshot, see that all weights are finite: of some, such as rows of an embedding, no loss tells."""
        guard = self.guard
        last = trainer.global_step == trainer.max_steps  # what remains must be sound, too
        due = (guard.snapshot_due or last) and not guard.gave_up and not accumulates(trainer)
        if due and (tensor := first_not_finite(trainer, pl_module, guard.meant)) is not None:
            advice = _WRITTEN
            finding = Finding("nan", self._owner(tensor), math.nan, None, "a weight", advice, tensor)
            self.respond(trainer, pl_module, finding)

    def state_dict(self) -> dict[str, Any]:
        """The recent past of each player."""
        return {"usual": self.remember()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        super().load_state_dict(state_dict)
        self.recall(state_dict["usual"])


def _scaler_drops(scaler: Any, player: Player) -> bool:
    """Whether a gradient scaler will pass over this update: it has met the overflow, or will look after the callbacks.

    What stops being finite after the gradients were unscaled, it does not see.
    """
    if scaler is None:
        return False
    found = scaler._per_optimizer_states[id(player.optimizer)]["found_inf_per_device"]
    return not found or any(bool(value) for value in found.values())


def _first(player: Player) -> str | None:
    """Name of the first parameter whose gradient holds NaN or infinity."""
    for name, parameter in zip(player.names, player.parameters, strict=True):
        if parameter.grad is not None and not torch.isfinite(values_of(parameter.grad)).all():
            return name
    return None


def _largest(player: Player) -> str | None:
    """Name of the parameter with the largest gradient."""
    norms = {
        name: float(torch.linalg.vector_norm(values_of(parameter.grad)))
        for name, parameter in zip(player.names, player.parameters, strict=True)
        if parameter.grad is not None
    }
    return max(norms, key=norms.__getitem__, default=None)
