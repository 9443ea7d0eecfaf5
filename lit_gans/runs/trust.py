"""What a checkpoint may name, and the one place where what it names becomes an object.

A checkpoint is a file of a stranger. It describes networks, optimizers and add-ons by ``class_path`` and
``init_args``, and whoever imports or calls what such a description says runs that stranger's code. So classes are
looked up here and nowhere else, by rules that do not depend on what happens to be imported:

- ``nn.Module`` classes, clipping rules and schedulers that lit_gans defines, ``nn.Module`` classes that ``torch.nn``
  defines, and optimizers and schedulers that ``torch.optim`` defines;
- classes of modules that the caller names, ``trust=["my_gan"]``;
- where a class says that it would import what a text names (``imports``), no more than what is published under a name
  of torchvision or timm;
- nothing else: no functions, no class that a module merely imported, no names beginning with an underscore.

All names are looked at before the first of them is imported. No general parser sees the values, since such parsers turn
text into objects: text stays text here, and where an argument takes something to call, text is refused.
"""

import importlib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

__all__ = (
    "Call",
    "UntrustedError",
    "calls",
    "check_names",
    "class_named",
    "is_trusted",
    "make",
    "parameters_of",
    "resolve",
    "trusted_modules",
)

_ROOTS = ("lit_gans", "torch.nn", "torch.optim")
_DEFINED_IN: dict[str, Any] = {  # the classes that may be named, and where they must be defined
    **dict.fromkeys(("lit_gans.augment", "lit_gans.models", "lit_gans.networks", "lit_gans.regularizers"), nn.Module),
    "torch.nn.modules": nn.Module,
    "lit_gans.game.rates": LRScheduler,
    "torch.optim": (Optimizer, LRScheduler),
}
_RULES = ("lit_gans.game.clipping", "lit_gans.game.schedules")  # dataclasses that models take
_MOVED = {  # where checkpoints of before say that these are
    "lit_gans.models.mechanics.clipping": "lit_gans.game.clipping",
    "lit_gans.models.mechanics.schedules": "lit_gans.game.schedules",
}
_TEXT = (str, int, float, bool, type(None), Path)  # kinds of arguments in which text cannot stand for anything else


class UntrustedError(ValueError):
    """A checkpoint names something that reading it must neither import nor call."""


@dataclass(frozen=True)
class Call:
    """A class with checked arguments, not yet called.

    Attributes:
        cls: The class.
        arguments: Its keyword arguments, themselves resolved.
        later: Whether the class, or a partial of it, is wanted, and not an instance.
    """

    cls: Any
    arguments: dict[str, Any]
    later: bool


def trusted_modules(trust: str | Iterable[str]) -> tuple[str, ...]:
    """The modules that a caller names, one or several."""
    return (trust,) if isinstance(trust, str) else tuple(trust)


def is_trusted(module: str, trust: Iterable[str]) -> bool:
    """Whether a module is one of those named, or lies in one of them."""
    return any(module == name or module.startswith(f"{name}.") for name in trust)


def check_names(value: Any, trust: Iterable[str] = ()) -> None:
    """Look at every ``class_path`` within plain values, at any depth, importing nothing.

    Raises:
        UntrustedError: naming the first that a checkpoint may not hold.
    """
    for name in _names(value):
        parts = name.split(".") if isinstance(name, str) else []
        sound = len(parts) > 1 and all(part.isidentifier() for part in parts)
        named = is_trusted(name, trust) if sound else False
        known = sound and is_trusted(name, _ROOTS) and not any(part.startswith("_") for part in parts)
        if not (named or known):
            raise _refused(name)


def class_named(path: str, trust: Iterable[str] = ()) -> Any:
    """The class of that name, once its module may be imported.

    Raises:
        UntrustedError: if it is no class that a checkpoint may name.
    """
    check_names({"class_path": path}, trust)
    room, _, name = path.rpartition(".")
    parts = f"{_MOVED.get(room, room)}.{name}".split(".")
    found: Any = None
    for cut in range(len(parts) - 1, 0, -1):  # the longest part that is a module; classes may lie within classes
        name = ".".join(parts[:cut])
        if not (is_trusted(name, trust) or is_trusted(name, _ROOTS)):
            break
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # a module lacks one of its own
                raise UntrustedError(f"{name} cannot be imported: {error}") from error
            continue
        for part in parts[cut:]:
            found = getattr(found, part, None)
            if not isinstance(found, type):  # what a module merely imported leads no further
                raise _refused(path)
        break
    if found is None and is_trusted(path, trust):
        raise ValueError(f"{path} cannot be imported: {parts[0]} is not on the path, or has no such module")
    if not isinstance(found, type) or not _may_be_named(found, trust):
        raise _refused(path)
    return found


def resolve(cls: Any, arguments: Mapping[str, Any], trust: Iterable[str] = (), where: str = "") -> dict[str, Any]:
    """Find the classes within a class's arguments, and hold the arguments against its signature; calls nothing.

    Args:
        cls: The class that takes the arguments.
        arguments: Plain values, as a checkpoint keeps them.
        trust: Modules beyond ours and torch's whose classes may be named.
        where: What the message of an error calls the place, "generator." for example.

    Raises:
        UntrustedError: for a name that a checkpoint may not hold, and for text where something is to be called.
        ValueError: if the class has no such argument.
    """
    check_names(arguments, trust)
    hints, open_ended = parameters_of(cls)
    resolved = {}
    for name, value in arguments.items():
        if not isinstance(name, str) or (name not in hints and not open_ended):
            raise ValueError(f"{where.rstrip('.') or 'the model'}: {cls.__name__} has no argument {str(name)[:99]!a}")
        resolved[name] = _resolved(value, hints.get(name, Any), trust, f"{where}{name}")
    for name in getattr(cls, "imports", ()):
        _check_import(resolved.get(name), trust)
    return resolved


def calls(value: Any) -> Iterator[Call]:
    """All classes within what was resolved."""
    if isinstance(value, Call):
        yield value
        value = value.arguments
    if isinstance(value, (list, tuple, dict)):
        for part in value.values() if isinstance(value, dict) else value:
            yield from calls(part)


def make(value: Any) -> Any:
    """Build what was resolved, from the inside out."""
    if isinstance(value, Call):
        arguments = {name: make(part) for name, part in value.arguments.items()}
        if value.later:
            return partial(value.cls, **arguments) if arguments else value.cls
        return value.cls(**arguments)
    if isinstance(value, (list, tuple)):
        return type(value)(map(make, value))
    return {key: make(part) for key, part in value.items()} if isinstance(value, dict) else value


def _names(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield value["class_path"]
        value = value.values()
    elif not isinstance(value, (list, tuple, set, frozenset)):
        return
    for part in value:
        yield from _names(part)


def _may_be_named(cls: type, trust: Iterable[str]) -> bool:
    if is_trusted(cls.__module__, trust):
        return True
    if cls.__module__ in _RULES:
        return is_dataclass(cls)
    return any(is_trusted(cls.__module__, [room]) and issubclass(cls, kinds) for room, kinds in _DEFINED_IN.items())


def _refused(name: Any) -> UntrustedError:
    told = ascii(str(name)[:200])
    module = told.strip("'\"").rpartition(".")[0]
    return UntrustedError(
        f"it names {told}, and a checkpoint may name no more than networks and add-ons of lit_gans, modules of "
        "torch.nn, and optimizers and schedulers of torch.optim; for a class of your own, and a file that you trust: "
        f"trust=['{module}'] in Python, --import {module} on the command line, "
        f"where {module.partition('.')[0]}.py lies"
    )


def parameters_of(cls: Any) -> tuple[dict[str, Any], bool]:
    """Keyword arguments of a class with their annotations, and whether it takes any others.

    Those that ``**kwargs`` hands on are the next class's in the order of inheritance.
    """
    hints: dict[str, Any] = {}
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        if base in (object, nn.Module):
            return hints, False
        try:
            known = get_type_hints(base.__init__)
        except Exception:  # annotations that cannot be evaluated say nothing
            known = {}
        kinds = list(inspect.signature(base.__init__).parameters.values())[1:]
        named = [p.name for p in kinds if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        hints = {name: known.get(name, Any) for name in named} | hints
        if not any(p.kind == p.VAR_KEYWORD for p in kinds):
            return hints, False
    return hints, True


def _resolved(value: Any, hint: Any, trust: Iterable[str], where: str) -> Any:
    leaves = list(_leaves(hint))
    if isinstance(value, Mapping):
        if "class_path" in value:
            return _call(value, leaves, trust, where)
        rule = next(
            (leaf for leaf in leaves if getattr(leaf, "__module__", None) in _RULES and is_dataclass(leaf)), None
        )
        if rule is not None:  # as a config writes it, whose parser knows the one class that it can be
            return Call(rule, resolve(rule, value, trust, f"{where}."), later=False)
        return {key: _resolved(part, hint, trust, where) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        kinds = [get_origin(part) or part for part in _alternatives(hint)]
        whole = tuple if tuple in kinds and list not in kinds else list
        return whole(_resolved(part, hint, trust, where) for part in value)
    plain_text = all(leaf in _TEXT or get_origin(leaf) is Literal for leaf in leaves)
    if isinstance(value, str) and not plain_text and not re.fullmatch(r"[\w -]*", value):
        raise UntrustedError(
            f"{where} is the text {value[:200]!a}, where something else than text may be meant; a checkpoint may not "
            "name what is to be called by text"
        )
    return value


def _check_import(value: Any, trust: Iterable[str]) -> None:
    """Refuse text for which a class would import, or read as a program, what a stranger names."""
    if isinstance(value, str) and not re.fullmatch(r"[\w-]*|(torchvision|timm):[\w.-]+(\?.*)?", value):
        named = value.partition("?")[0]
        if not is_trusted(named, trust):
            raise _refused(named)


def _call(spec: Mapping[str, Any], leaves: list[Any], trust: Iterable[str], where: str) -> Call:
    if unknown := sorted(map(str, spec.keys() - {"class_path", "init_args", "dict_kwargs"})):
        raise ValueError(f"{where}: a description of a class has no {unknown[0]!a}")
    cls = class_named(spec["class_path"], trust)
    arguments: dict[str, Any] = {}
    for key in ("init_args", "dict_kwargs"):
        if not isinstance(part := spec.get(key) or {}, Mapping):
            raise ValueError(f"{where}: {key} of {spec['class_path']} must be a dict, not {type(part).__name__}")
        arguments |= part
    return Call(cls, resolve(cls, arguments, trust, f"{where}."), _is_wanted_later(cls, leaves, "init_args" in spec))


def _is_wanted_later(cls: type, leaves: list[Any], has_arguments: bool) -> bool:
    """Whether the class itself is the value: one that makes optimizers, or ``nn.ReLU`` in ``Callable[[], nn.Module]``.

    Where an annotation does not say, a description without ``init_args`` is a class: so checkpoints write them.
    """
    if issubclass(cls, (Optimizer, LRScheduler)):
        return True
    if any(isinstance(leaf, type) and leaf is not type and issubclass(cls, leaf) for leaf in leaves if leaf is not Any):
        return False
    for leaf in leaves:
        if get_origin(leaf) is type:
            return True
        results = get_args(leaf)[1:] if get_origin(leaf) is Callable or get_origin(leaf) is _CALLABLE else ()
        if any(isinstance(result, type) and issubclass(cls, result) for result in results):
            return True
    return not has_arguments


_CALLABLE = get_origin(Callable[[], None])


def _alternatives(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        for part in get_args(hint):
            yield from _alternatives(part)
    else:
        yield hint


def _leaves(hint: Any) -> Iterator[Any]:
    """Kinds of values that an annotation speaks of, within unions and containers."""
    for part in _alternatives(hint):
        origin = get_origin(part)
        if origin is None or origin in (Literal, type, _CALLABLE):
            yield part
        else:
            for inner in get_args(part):
                yield from () if inner is Ellipsis else _leaves(inner)
