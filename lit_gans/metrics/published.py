"""Weights that others have published: found on this machine, or downloaded once."""

import os
from pathlib import Path

import torch

__all__ = ("find_weights",)


def find_weights(url: str, variable: str, hash_prefix: str, what: str, instead: str) -> Path:
    """A file of weights: the one that a variable names, that of torch hub's cache, or a download by one process.

    Args:
        url: Where they are published.
        variable: Environment variable that may name another place.
        hash_prefix: The first digits of the file's SHA-256, which a download must have.
        what: Whose weights they are, for the message: "FID needs Inception's weights" for example.
        instead: What can be done without them, the end of the message.

    Raises:
        FileNotFoundError: if it is nowhere, and cannot be downloaded.
    """
    if given := os.environ.get(variable):
        if not Path(given).is_file():
            raise FileNotFoundError(f"{variable} names {given}, where there is no file")
        return Path(given)
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    error = None
    if not path.is_file() and int(os.environ.get("LOCAL_RANK", 0)) == 0:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=hash_prefix)
        except (OSError, RuntimeError) as failed:
            error = failed
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
    if not path.is_file():
        raise FileNotFoundError(
            f"{what}, which are not at {path} and could not be downloaded ({error}): fetch {url} elsewhere, and let "
            f"the variable {variable} name the file; {instead}"
        )
    return path
