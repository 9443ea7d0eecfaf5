"""A step taken apart: methods of this trainer and this model are wrapped while it lasts, and put back after it."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.profilers import Profiler
from torch import nn

from lit_gans.callbacks import SampleGrid
from lit_gans.commands.profiling.ledger import Key, Ledger
from lit_gans.models import GAN

__all__ = ("DATA", "LOGGING", "PARTS", "VALIDATION", "Apart", "key_of_callback")

DATA, PENALTIES, OPTIMIZERS, LOGGING = Key("data"), Key("penalties"), Key("optimizers"), Key("logging")
AVERAGE, AUGMENTATION, VALIDATION = Key("average"), Key("augmentation"), Key("validation")
FORWARD = {"generator": Key("generator forward"), "discriminator": Key("discriminator forward")}
BACKWARD = {"generator": Key("generator backward"), "discriminator": Key("discriminator backward")}

PARTS = {
    "data": "data",
    "generator forward": "generator, forward",
    "discriminator forward": "discriminator, forward",
    "discriminator backward": "backward of the discriminator's loss",
    "generator backward": "backward of the generator's loss",
    "penalties": "penalties, forward",
    "optimizers": "optimizers, clipping",
    "average": "average of the generator",
    "augmentation": "augmentation",
    "logging": "logging",
    "callbacks": "callbacks",
    "rest": "other: losses, noise, Lightning and Python",
}
"""Parts of every step, with what a reader sees."""

CLOSED = ("penalties", "logging", "callbacks", "samples", "checkpoints", "validation")
"""Parts whose inner workings are not told apart."""

TO_DEVICE = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer", "batch_to_device")


class Apart:
    """Takes the steps of a run apart.

    Networks are watched through their hooks, or, once they are compiled, where the game calls them: a hook would be
    compiled with them.

    Args:
        trainer: Of the run, which has begun.
        model: The model that this run trains.
        ledger: What the parts are charged to.
    """

    def __init__(self, trainer: Trainer, model: GAN, ledger: Ledger) -> None:
        self.trainer, self.model, self.ledger = trainer, model, ledger
        self._keys: dict[str, Key | None] = {}
        self.player = "discriminator"

    def key_of_state(self, state_key: str) -> Key | None:
        """The part of the callback that Lightning knows by this name, which changes with its arguments."""
        if state_key not in self._keys:
            self._keys |= {callback.state_key: key_of_callback(callback) for callback in self.trainer.callbacks}  # type: ignore[attr-defined]
        return self._keys.get(state_key)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within it parts are told apart, as long as the ledger has begun a step."""
        with ExitStack() as stack:
            stack.enter_context(replaced(self.trainer, "profiler", Sections(self)))
            self._watch_step(stack)
            self._watch_networks(stack)
            yield

    @contextmanager
    def section(self, key: Key) -> Iterator[None]:
        """A part of the step, unless it lies within one that is not taken apart."""
        if not self.ledger.open or self.ledger.open[-1].part in CLOSED:
            yield
            return
        self.ledger.enter(key)
        try:
            yield
        finally:
            self.ledger.leave()

    def _watch_step(self, stack: ExitStack) -> None:
        model, trainer = self.model, self.trainer
        stack.enter_context(replaced(model, "update", self._updating(model.update)))
        stack.enter_context(replaced(model, "manual_backward", self._timed(model.manual_backward, BACKWARD)))
        stack.enter_context(replaced(model, "update_ema", self._timed(model.update_ema, AVERAGE)))
        stack.enter_context(replaced(model, "log_step", self._timed(model.log_step, LOGGING)))
        stack.enter_context(replaced(model, "constrain", self._timed(model.constrain, OPTIMIZERS)))
        optimizers: Any = model.optimizers()
        for optimizer in optimizers:
            for name in ("step", "zero_grad"):
                stack.enter_context(replaced(optimizer, name, self._timed(getattr(optimizer, name), OPTIMIZERS)))
        for logger in trainer.loggers:
            for name in ("log_metrics", "save"):
                stack.enter_context(replaced(logger, name, self._timed(getattr(logger, name), LOGGING)))
        loop = trainer.fit_loop.epoch_loop.val_loop
        stack.enter_context(replaced(loop, "run", self._timed(loop.run, VALIDATION)))

    def _watch_networks(self, stack: ExitStack) -> None:
        model = self.model
        for penalty in model.regularizers:
            stack.enter_context(self._hooked(penalty, PENALTIES))
        inner = stack.enter_context(ExitStack())
        self._watch_forward(inner)
        stack.enter_context(replaced(model, "slope", self._unwatched(model.slope, inner)))

    def _watch_forward(self, stack: ExitStack) -> None:
        model = self.model
        if model.compile_networks:
            stack.enter_context(replaced(model, "generate", self._timed(model.generate, FORWARD["generator"])))
            stack.enter_context(replaced(model, "judge", self._timed(model.judge, FORWARD["discriminator"])))
        else:
            for name, key in FORWARD.items():
                stack.enter_context(self._hooked(getattr(model, name), key))
        if isinstance(model.augment, nn.Module):
            stack.enter_context(self._hooked(model.augment, AUGMENTATION))

    def _unwatched(self, slope: Callable[..., Any], watching: ExitStack) -> Callable[..., Any]:
        """Slopes are a penalty's; what they are compiled with must not be watched while they are taken."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.section(PENALTIES):
                watching.close()
                try:
                    return slope(*args, **kwargs)
                finally:
                    self._watch_forward(watching)

        return timed

    def _updating(self, update: Callable[..., Any]) -> Callable[..., Any]:
        """Knows whose turn it is."""

        def updating(player: str, *closures: Any) -> Any:
            self.player = player
            return update(player, *closures)

        return updating

    def _timed(self, function: Callable[..., Any], key: Key | dict[str, Key]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.section(key[self.player] if isinstance(key, dict) else key):
                return function(*args, **kwargs)

        return timed

    @contextmanager
    def _hooked(self, module: nn.Module, key: Key) -> Iterator[None]:
        """A module whose calls are a part."""
        entered: list[ExitStack] = []

        def begin(*_: Any) -> None:
            entered.append(ExitStack())
            entered[-1].enter_context(self.section(key))

        def end(*_: Any) -> None:
            if entered:
                entered.pop().close()

        handles = module.register_forward_pre_hook(begin), module.register_forward_hook(end, always_call=True)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Sections(Profiler):
    """What Lightning tells its profilers, the hooks of callbacks among it, as parts of a step."""

    def __init__(self, apart: Apart) -> None:
        super().__init__()
        self.apart, self._entered = apart, list[bool]()

    def start(self, action_name: str) -> None:
        """An action of Lightning's begins."""
        key, ledger = self.key_of(action_name), self.apart.ledger
        entered = key is not None and bool(ledger.open)
        if entered and ledger.open[-1].part in CLOSED:  # of validation callbacks are told apart
            entered = ledger.open[-1] == VALIDATION and key != DATA
        if entered and key is not None:
            within = VALIDATION in ledger.open and key.part == "callbacks"
            ledger.enter(Key("validation", key.owner) if within else key)
        self._entered.append(entered)

    def stop(self, action_name: str) -> None:
        """It ends."""
        if self._entered and self._entered.pop() and self.apart.ledger.open:
            self.apart.ledger.leave()

    def key_of(self, action: str) -> Key | None:
        """The part that an action belongs to; None for those that are taken apart themselves."""
        if found := re.match(r"\[Callback\](.*)\.\w+$", action, re.DOTALL):
            return self.apart.key_of_state(found[1])
        inner = action.rpartition(".")[2]
        return DATA if inner in TO_DEVICE or inner == "train_dataloader_next" else None


def key_of_callback(callback: Any) -> Key | None:
    """The part that a callback's hooks belong to; None for our own."""
    name = type(callback).__name__
    if getattr(callback, "measures", False):
        return None
    part = "checkpoints" if isinstance(callback, Checkpoint) else "callbacks"
    return Key("samples" if isinstance(callback, SampleGrid) else part, name)


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another method, or attribute, for one object."""
    own = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own is None:
            delattr(owner, name)
        else:
            setattr(owner, name, own)
