"""Reading checkpoints: ours or not, whole or truncated, never executing what they hold."""

from argparse import ArgumentError
from pathlib import Path
from typing import Any

import lit_gans.networks  # noqa: F401 - Lightning rebuilds classes that are imported, no others
from lit_gans.commands.errors import UserError
from lit_gans.models import GAN
from lit_gans.plugins import CheckpointError, newest_whole

__all__ = ("load_model", "read_checkpoint")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint on the CPU, loaded with ``weights_only=True``.

    Raises:
        UserError: if the file is missing, truncated, holds objects that would execute code, or is not one of ours.
    """
    try:
        checkpoint = newest_whole(path, "cpu")[1]
    except (FileNotFoundError, IsADirectoryError) as error:
        raise UserError(
            f"no checkpoint at {path}; fit writes them to runs/<model>-<data>/version_<n>/checkpoints/"
        ) from error
    except CheckpointError as error:
        raise UserError(str(error)) from error
    if not isinstance(checkpoint, dict) or "lit_gans" not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(f"{path} is a file of torch, but not a checkpoint of a lit_gans model")
    return checkpoint


def load_model(path: str | Path) -> GAN:
    """The model of a checkpoint, of the class that wrote it, on the CPU.

    Raises:
        UserError: as ``read_checkpoint``, and if the checkpoint cannot rebuild its networks.
    """
    checkpoint = read_checkpoint(path)
    if "_instantiator" not in checkpoint.get("hyper_parameters", {}):
        raise UserError(
            f"{path} does not say how to build its networks: in Python, "
            "load_from_checkpoint(path, generator=..., discriminator=...) of the model's class takes them"
        )
    try:
        return GAN.load_from_checkpoint(path, map_location="cpu")
    except (RuntimeError, ValueError, TypeError, ImportError, ArgumentError, SystemExit) as error:
        raise UserError(f"{path} cannot be rebuilt as {checkpoint['lit_gans']['class_path']}: {error}") from error
