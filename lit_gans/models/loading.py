"""A model from its file alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lit_gans.models.gan import GAN
from lit_gans.runs.checkpoint_files import checkpoint_in

__all__ = ("load",)


def load(path: str | Path, trust: str | Iterable[str] = (), **kwargs: Any) -> GAN:
    """The model of a checkpoint, of the class that wrote it, on the CPU and in eval mode.

    Args:
        path: A checkpoint, or the folder of a run, whose best checkpoint is taken, else the last.
        trust: Modules, such as your own ``my_gan``, whose classes the file may name beside ours and torch's; they are
            imported.
        **kwargs: Those of ``load_from_checkpoint``: networks that are not ours, arguments that shall be others.

    Returns:
        ``load(path).sample(16)`` are images.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint of ours, or names what it may not.
    """
    model: GAN = GAN.load_from_checkpoint(checkpoint_in(path), map_location="cpu", trust=trust, **kwargs)
    return model.eval()
