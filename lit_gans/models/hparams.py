"""Arguments as plain values, so that a checkpoint can rebuild its model and loads with ``weights_only=True``."""

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from typing import Any

__all__ = ("path_of", "plain_arguments")

_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


def plain_arguments(model_class: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Turn the arguments of a model into numbers, strings, lists and dicts; leave out what has no such form.

    Networks that keep their ``init_args`` (ours do), classes, partials and clipping rules become
    ``{"class_path": ..., "init_args": ...}``, as in a config file. When both networks have that form, the model can be
    loaded with nothing but its checkpoint; otherwise ``load_from_checkpoint`` must be given the networks.

    Args:
        model_class: Recorded with the arguments where these suffice to rebuild the model.
        arguments: As given to ``model_class``.
    """
    plain = {name: _plain(value) for name, value in arguments.items()}
    plain = {name: value for name, value in plain.items() if value is not _plain}
    if "_instantiator" not in plain and {"generator", "discriminator"} <= plain.keys():
        plain |= {"_class_path": path_of(model_class), "_instantiator": _INSTANTIATOR}
    return plain


def _plain(value: Any) -> Any:
    """The plain form of a value, or this function itself where there is none."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (list, tuple)):
        items = [_plain(item) for item in value]
        return _plain if _plain in items else items
    if isinstance(value, Mapping):
        entries = {key: _plain(item) for key, item in value.items()}
        return _plain if _plain in entries.values() else entries
    if isinstance(value, type):
        return {"class_path": path_of(value)}
    if isinstance(value, partial) and not value.args:
        return _spec(value.func, value.keywords)
    if is_dataclass(value) and not isinstance(value, type):
        return _spec(type(value), asdict(value))
    return _spec(type(value), getattr(value, "init_args", None))


def _spec(cls: Any, init_args: Mapping[str, Any] | None) -> Any:
    entries = _plain(init_args) if isinstance(init_args, Mapping) else _plain
    if entries is _plain or not isinstance(cls, type) or "<locals>" in cls.__qualname__:
        return _plain
    return {"class_path": path_of(cls), "init_args": entries}


def path_of(cls: type) -> str:
    """Where a class can be imported from."""
    return f"{cls.__module__}.{cls.__qualname__}"
