"""Checkpoints that name their class, hold plain values, and rebuild their model with ``weights_only=True``."""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from functools import partial
from typing import Any

import torch

from lit_gans.models.mechanics.sampling import SamplingModule

__all__ = ("CheckpointModule", "plain_arguments")

_INSTANTIATOR = "lightning.pytorch.cli.instantiate_module"


class CheckpointModule(SamplingModule):
    """A model whose checkpoints say which class wrote them and with which arguments."""

    images_seen: int

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the class and the count of images."""
        checkpoint["lit_gans"] = {
            "class_path": path_of(type(self)),
            "images_seen": self.images_seen,
            "seed_offset": self.seed_offset,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on counting images, with the same noise.

        Raises:
            ValueError: if the checkpoint is another model's.
        """
        ours = checkpoint.get("lit_gans", {})
        wrote = ours.get("class_path", "a model that is not of lit_gans")
        if wrote not in [path_of(cls) for cls in type(self).__mro__]:
            raise ValueError(f"the checkpoint was written by {wrote}, not by {path_of(type(self))}")
        self.images_seen, self.seed_offset = ours["images_seen"], ours.get("seed_offset", 0)

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Any:
        """The model of a checkpoint, of the class that wrote it; arguments as in Lightning, but ``weights_only=True``.

        Networks that are not ours must be given, ``generator=..., discriminator=...``.

        Raises:
            ValueError: if the checkpoint was written by a model that is no ``cls``.
        """
        weights_only = kwargs.setdefault("weights_only", True)
        checkpoint = torch.load(checkpoint_path, map_location="cpu", weights_only=weights_only)
        wrote = checkpoint.get("lit_gans", {}).get("class_path", "a model that is not of lit_gans")
        known = {path_of(subclass): subclass for subclass in subclasses(cls)}
        if wrote not in known:
            raise ValueError(f"{checkpoint_path} was written by {wrote}, which is no imported {cls.__name__}")
        saved = checkpoint.get("hyper_parameters", {})
        if "_instantiator" not in saved:  # Lightning then calls the class itself, with what is saved as it stands
            kwargs = {name: _rebuild(value) for name, value in saved.items() if _is_spec(value)} | kwargs
        model = super(CheckpointModule, known[wrote]).load_from_checkpoint(checkpoint_path, *args, **kwargs)
        model.hparams.update({name: value for name, value in saved.items() if name not in kwargs})
        return model

    def _set_hparams(self, hp: Any) -> None:
        super()._set_hparams(plain_arguments(type(self), hp))


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


def _is_spec(value: Any) -> bool:
    return isinstance(value, dict) and "class_path" in value


def _rebuild(spec: Mapping[str, Any]) -> Any:
    """A clipping rule, or a class or partial that is called later, from its plain form."""
    module, _, name = spec["class_path"].rpartition(".")
    cls, init_args = getattr(importlib.import_module(module), name), spec.get("init_args", {})
    later = partial(cls, **init_args)
    return later() if is_dataclass(cls) else later


def path_of(cls: type) -> str:
    """Where a class can be imported from."""
    return f"{cls.__module__}.{cls.__qualname__}"


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    """A class and all that are imported below it."""
    yield cls
    for subclass in cls.__subclasses__():
        yield from subclasses(subclass)
