"""What is read of a checkpoint before its model is built: its parts, its class, the sizes it asks for."""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from lit_gans.runs.trust import (
    UntrustedError,
    calls,
    check_names,
    class_named,
    is_trusted,
    make,
    parameters_of,
    resolve,
)

__all__ = (
    "FORMAT",
    "arguments_of_file",
    "check_trainer_state",
    "class_that_wrote",
    "contents",
    "described",
    "explained",
    "path_of",
    "stay_where_possible",
)

FORMAT = 1  # of what is under "lit_gans" in a checkpoint

_KINDS: dict[str, type] = {
    "class_path": str,
    "format": int,
    "images_seen": int,
    "seed_offset": int,
    "measured": dict,
    "world_size": int,
    "left_out": list,
    "optimizers": list,
    "arithmetic": dict,
    "pools": list,
}
_REQUIRED = ("class_path", "images_seen")


def contents(checkpoint: Any, path: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Of a checkpoint what is ours, the model's arguments, and its weights.

    Raises:
        ValueError: if one of them is not what it should be, or the checkpoint is of a later version.
    """
    parts = dict(checkpoint) if isinstance(checkpoint, dict) else {}
    if "state_dict" not in parts:
        raise ValueError(f"{path} is no checkpoint: it holds no state_dict")
    ours = parts.get("lit_gans", {"class_path": "a model that is not of lit_gans", "images_seen": 0})
    saved, state = parts.get("hyper_parameters", {}), parts["state_dict"]
    for name, value in {"lit_gans": ours, "hyper_parameters": saved, "state_dict": state}.items():
        if not isinstance(value, dict):
            raise ValueError(f"{path} is damaged: {name} is {type(value).__name__}, not dict")
    for key, kind in _KINDS.items():
        if key in ours or key in _REQUIRED:
            told = type(ours[key]).__name__ if key in ours else "missing"
            if not isinstance(ours.get(key), kind):
                raise ValueError(f"{path} is damaged: {key} under lit_gans is {told}, not {kind.__name__}")
    if bad := [name for name, tensor in state.items() if not isinstance(tensor, Tensor)]:
        raise ValueError(f"{path} is damaged: {str(bad[0])[:99]!a} among its weights is no tensor")
    if bad := [name for name in (*ours.get("left_out", ()), *ours.get("optimizers", ())) if not isinstance(name, str)]:
        raise ValueError(f"{path} is damaged: {str(bad[0])[:99]!a} under lit_gans is no name")
    check_format(ours)
    return ours, {str(name): value for name, value in saved.items()}, state


def check_trainer_state(checkpoint: Mapping[str, Any], path: Any, training: bool = True) -> None:
    """Refuse a checkpoint that lacks what Lightning's Trainer restores without asking.

    Args:
        checkpoint: The content of the checkpoint.
        path: Of the file, for messages.
        training: Whether training is to go on, and not only validation.

    Raises:
        ValueError: naming the first that is missing, or of another kind.
    """
    kinds: dict[str, type] = {"loops": dict, "pytorch-lightning_version": str, "callbacks": dict}
    kinds |= {"global_step": int, "lr_schedulers": list, "optimizer_states": list} if training else {}
    for key, kind in kinds.items():
        value = checkpoint.get(key)
        if not isinstance(value, kind) and not (value is None and key == "callbacks" and not training):
            told = "missing" if value is None else type(value).__name__
            raise ValueError(f"{path} is damaged: its {key} is {told}, not {kind.__name__}")
    if lost := [loop for loop in ("fit_loop", "validate_loop", "test_loop") if loop not in checkpoint["loops"]]:
        raise ValueError(f"{path} is damaged: it lacks the state of the {lost[0]}")
    named, there = checkpoint.get("lit_gans", {}).get("optimizers"), checkpoint.get("optimizer_states", ())
    if training and named is not None and len(named) != len(there):
        raise ValueError(f"{path} is damaged: it holds the states of {len(there)} of its {len(named)} optimizers")


def arguments_of_file(path: Any) -> dict[str, Any]:
    """A model's arguments from a YAML file.

    Raises:
        ValueError: if it holds none.
    """
    content = yaml.safe_load(Path(path).read_text("utf-8")) if Path(path).suffix in (".yaml", ".yml") else None
    if not isinstance(content, dict):
        raise ValueError(f"hparams_file {path} holds no arguments: it must be a .yaml with the name and value of each")
    return {str(name): value for name, value in content.items()}


def known_arguments(model_class: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a class takes: Lightning records, besides, what a class below hands on by itself."""
    hints, open_ended = parameters_of(model_class)
    return {name: value for name, value in arguments.items() if open_ended or name in hints}


@dataclass(frozen=True)
class Described:
    """A model that a checkpoint describes, checked but not yet built.

    Attributes:
        cls: The class of the model.
        arguments: The arguments of the model; classes in them are looked up, and nothing is built yet.
        path: Of the file, for messages.
    """

    cls: Any
    arguments: dict[str, Any]
    path: Any

    def build(self, **given: Any) -> Any:
        """The model, with untrained weights; ``given`` are further arguments."""
        return self.cls(**{name: make(value) for name, value in self.arguments.items()}, **given)

    def check_sizes(self, state: Mapping[str, Tensor], strict: bool = True, **given: Any) -> None:
        """Refuse networks of other sizes than those of the weights saved, before memory is asked for.

        Who trusts a module trusts its sizes, too: only classes of ours and torch's are looked at.

        Raises:
            ValueError: naming what differs.
        """
        classes = [self.cls, *(call.cls for call in calls(self.arguments))]
        if {"generator", "discriminator"} & given.keys():
            return
        if all(is_trusted(one.__module__, ("lit_gans", "torch")) for one in classes):
            with explained(self.path, self.cls):
                check_sizes(lambda: self.build(**given), state, strict)


@contextmanager
def explained(path: Any, cls: Any) -> Iterator[None]:
    """Whatever the values and weights of a file lead to, in one sentence.

    Raises:
        ValueError: naming the file, the class and the reason.
    """
    try:
        yield
    except Exception as error:
        told = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be rebuilt as {path_of(cls)}: {told[:600]}") from error


def described(
    cls: type[Any], wrote: str, arguments: Mapping[str, Any], path: Any, trust: Iterable[str] = ()
) -> Described:
    """The model that a checkpoint describes, of ``cls`` or a class below it.

    Args:
        cls: The class of model that is asked for.
        wrote: The class that the checkpoint names.
        arguments: The arguments of the model, as plain values.
        path: Of the file, for messages.
        trust: Modules whose classes may be named, beside ours and torch's.

    Raises:
        UntrustedError: if the checkpoint names what it may not.
        ValueError: if it is no ``cls``, or has not such arguments.
    """
    try:
        check_names(arguments, trust)
        found = class_that_wrote(cls, wrote, trust)
        return Described(found, resolve(found, known_arguments(found, arguments), trust), path)
    except UntrustedError as error:
        raise UntrustedError(f"{path} is refused: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def class_that_wrote(cls: type[Any], wrote: str, trust: Iterable[str]) -> Any:
    """The class of that path, ``cls`` or one below it."""
    for known in subclasses(cls):
        if path_of(known) == wrote and is_trusted(known.__module__, ("lit_gans.models", *trust)):
            return known
    found = class_named(wrote, trust) if is_trusted(wrote, ("lit_gans", *trust)) or "." in wrote else None
    if found is None or not issubclass(found, cls):
        raise ValueError(f"it was written by {wrote[:200]}, which is no {cls.__name__}")
    return found


def check_sizes(build: Callable[[], nn.Module], state: Mapping[str, Tensor], strict: bool = True) -> None:
    """Build a model without memory for its weights, and hold their shapes against those saved.

    A file may ask for networks of any size: those that it holds no weights of are not built.

    Raises:
        ValueError: naming the first that differ.
    """
    saved = {name: tuple(tensor.shape) for name, tensor in state.items()}
    held = sum(tensor.untyped_storage().nbytes() // tensor.element_size() for tensor in state.values())
    with torch.device("meta"), _quiet(), _at_most(1000 + 100 * len(state)):
        model: Any = build()
    if model.latent_dim > held:
        raise ValueError(f"latent_dim is {model.latent_dim}, and all its weights are {held} numbers")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    missing = [name for name in shapes if name not in saved]
    if strict and (missing or (missing := [name for name in saved if name not in shapes])):
        where = "the checkpoint" if missing[0] in shapes else "the model"
        raise ValueError(f"{len(missing)} weights are not in {where}: {', '.join(map(ascii, missing[:3]))}")
    for name, shape in shapes.items():
        if saved.get(name, shape) != shape:
            raise ValueError(f"{name} is {saved[name]} in the checkpoint, {shape} in the model it describes")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the messages that building a model anew would repeat."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


@contextmanager
def _at_most(modules: int) -> Iterator[None]:
    """Refuse to go on once so many modules were put together."""
    left = iter(range(modules))

    def count(*of: Any) -> None:
        if next(left, None) is None:
            raise ValueError(f"it describes more than {modules} layers and tensors, for which it holds no weights")

    watch = register_module_module_registration_hook, register_module_parameter_registration_hook
    hooks = [register(count) for register in watch]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def stay_where_possible(storage: Any, location: str) -> Any:
    """For ``torch.load``: tensors of a device that is not here go to the CPU."""
    kind = location.partition(":")[0]
    here = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return storage if kind == "cpu" or here is None or kind != here.type else None


def check_format(ours: Mapping[str, Any]) -> None:
    """Refuse a checkpoint of a later version.

    Raises:
        ValueError: naming both formats.
    """
    if ours.get("format", FORMAT) > FORMAT:
        raise ValueError(
            f"the checkpoint has format {ours['format']}, of a later lit_gans; this version reads up to {FORMAT}: "
            "upgrade lit_gans"
        )


def path_of(cls: type) -> str:
    """Where a class can be imported from."""
    return f"{cls.__module__}.{cls.__qualname__}"


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    """A class and all that are imported below it."""
    yield cls
    for subclass in cls.__subclasses__():
        yield from subclasses(subclass)
