"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ("aside",)


@contextmanager
def aside(path: Path, mark: str = "") -> Iterator[Path]:
    """A path beside another to write to: it takes the other's place at the end, and is gone after an error.

    Args:
        path: Where the file is to appear; its folder is there.
        mark: Part of the name aside, where several processes may write the same file.
    """
    partial = path.with_name(f".{path.name}{mark}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
