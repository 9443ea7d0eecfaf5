"""Reading checkpoints: ours or not, whole or truncated, never executing what they hold."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lit_gans.commands.errors import no_checkpoint
from lit_gans.data import ImageDataModule, PairedImageDataModule, UnpairedImageDataModule
from lit_gans.errors import UserError
from lit_gans.game.rebuilding import check_trainer_state, contents, described
from lit_gans.models import GAN
from lit_gans.runs.checkpoint_files import CheckpointError, checkpoint_in, newest_whole

__all__ = ("data_class_of", "data_of", "description_of", "load_model", "named_checkpoint", "read_checkpoint")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU, loaded with ``weights_only=True``.

    Raises:
        UserError: if the file is missing, truncated, holds objects that would execute code, or is not one of ours.
    """
    try:
        checkpoint = newest_whole(path, "cpu")[1]
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(no_checkpoint(path)) from error
    except CheckpointError as error:
        raise UserError(str(error)) from error
    if not isinstance(checkpoint, dict) or "lit_gans" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path} is a file of torch, but not a checkpoint of a lit_gans model")
    try:
        contents(checkpoint, path)
    except ValueError as error:
        raise UserError(str(error)) from error
    return checkpoint


def named_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a path stands for; of a run folder its best one, else its last one, which is told.

    Raises:
        UserError: if a folder holds neither.
    """
    try:
        return checkpoint_in(path)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error


def load_model(path: str | Path, trust: Iterable[str] = ()) -> GAN:
    """The model of a checkpoint, of the class that wrote it, on the CPU.

    Args:
        path: Path of the checkpoint.
        trust: Modules whose classes it may name, beside ours and torch's.

    Raises:
        UserError: as ``read_checkpoint``, if the checkpoint names anything else, and if it cannot be rebuilt.
    """
    saved = read_checkpoint(path).get("hyper_parameters", {})
    if not {"generator", "discriminator"} <= saved.keys():
        raise UserError(
            f"{path} does not say how to build its networks: in Python, "
            "load_from_checkpoint(path, generator=..., discriminator=...) of the model's class takes them"
        )
    try:
        model: GAN = GAN.load_from_checkpoint(path, map_location="cpu", trust=trust)
    except ValueError as error:
        raise UserError(str(error)) from error
    if model.num_classes is not None:
        try:
            model.sample(1, torch.tensor([model.num_classes - 1]), seed=0)
        except IndexError as error:
            raise UserError(
                f"{path}: its generator knows fewer than the num_classes={model.num_classes} classes"
            ) from error
    return model


def description_of(checkpoint: dict[str, Any], path: str | Path, trust: Iterable[str] = ()) -> dict[str, Any] | None:
    """The model of a checkpoint as a config names it; None if the checkpoint does not say how to build its networks.

    What a config parser is given must have passed here: it imports and calls what text and ``class_path`` name.

    Args:
        checkpoint: What ``read_checkpoint`` gives.
        path: Path of the checkpoint, which messages name.
        trust: Modules whose classes it may name, beside ours and torch's.

    Raises:
        UserError: if the checkpoint names anything else, and if the model cannot be rebuilt.
    """
    check_trainer_state(checkpoint, path, training=False)
    ours, saved, state = contents(checkpoint, path)
    if not {"generator", "discriminator"} <= saved.keys():
        return None
    arguments = {name: value for name, value in saved.items() if not name.startswith("_")}
    try:
        described(GAN, ours["class_path"], arguments, path, trust).check_sizes(state)
    except ValueError as error:
        raise UserError(str(error)) from error
    return {"class_path": ours["class_path"], "init_args": arguments}


def data_class_of(checkpoint: dict[str, Any]) -> type:
    """The data module of ours that a checkpoint's data came from, told by the arguments it had."""
    saved = checkpoint.get("datamodule_hyper_parameters", {})
    saved = saved if isinstance(saved, dict) else {}
    kinds = {"side_by_side": PairedImageDataModule, "classes_a": UnpairedImageDataModule}
    return next((kind for name, kind in kinds.items() if name in saved), ImageDataModule)


def data_of(checkpoint: dict[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """What the data module was built with: plain values alone, none of which names anything to import or to call."""
    saved = checkpoint.get("datamodule_hyper_parameters", {})
    plain = {key: saved[key] for key in known if isinstance(saved, dict) and key in saved}
    kind = data_class_of(checkpoint)
    pairs = kind is not ImageDataModule
    nested = _NESTED if pairs else ()
    plain = {
        key: value
        for key, value in plain.items()
        if value is None or type(value) in (bool, int, float, str) or (key in nested and _is_plain(value))
    }
    words = [key for key, value in plain.items() if type(value) is str and not (pairs and _is_word(key, value))]
    if texts := [key for key in words if key not in ("dataset", "root")]:
        raise UserError(f"the checkpoint is damaged: its data had {texts[0]}={plain[texts[0]][:99]!a}, no number")
    for key in ("dataset", "dataset_b"):
        if plain.get(key) is not None and not str(plain[key]).isidentifier():
            raise UserError(
                f"the checkpoint names the data set {str(plain[key])[:200]!a}, which reading it must not import: "
                f"give --data.{key}"
            )
    return plain


_NESTED = ("task", "task_a", "task_b", "classes_a", "classes_b")
_PATHS = ("source_root", "val_root", "val_source_root", "root_b", "val_root_b")


def _is_word(key: str, value: str) -> bool:
    """Whether a text is the path or the name that an argument of pairs may be; a parser would read others as YAML."""
    names = ("dataset_b", "side_by_side", "val_view", "task", "task_a", "task_b")
    return key in _PATHS or (key in names and value.isidentifier())


def _is_plain(value: Any) -> bool:
    """Whether a value holds nothing but numbers and texts, none of them the description of a class."""
    if type(value) is dict:
        return all(type(key) is str and key != "class_path" and _is_plain(v) for key, v in value.items())
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
