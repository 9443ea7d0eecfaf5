"""Output files: never half written, never overwritten unasked."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_gans.errors import UserError

__all__ = ("refuse_existing", "staged", "write_json")


def refuse_existing(path: Path, overwrite: bool, parents: bool = False) -> None:
    """Raise unless the path is free, an empty directory, or may be overwritten; a file needs a folder that is there.

    Args:
        path: Of what is to be written.
        overwrite: Whether it may take the place of what is there.
        parents: Whether folders above it are made, too.

    Raises:
        UserError: naming the path and the flag.
    """
    taken = any(path.iterdir()) if path.is_dir() else path.exists()
    if taken and not overwrite:
        raise UserError(f"{path} exists: choose another path, or add --overwrite")
    if not parents and not path.parent.is_dir():
        raise UserError(f"there is no folder {path.parent} to write {path.name} to: make it, or choose another path")


@contextmanager
def staged(path: Path, directory: bool = False) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; moved to its place at the end, removed after an error.

    Args:
        path: Where the file or directory is to appear.
        directory: Stage a directory, whose files are moved one by one into ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    room = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    target = room / path.name
    if directory:
        target.mkdir()
    try:
        yield target
        if directory:
            path.mkdir(exist_ok=True)
            for file in sorted(target.iterdir()):
                os.replace(file, path / file.name)
        else:
            os.replace(target, path)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write plain values to a file, and tell where they are."""
    with staged(path) as target:
        target.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    print(f"→ {path}")
