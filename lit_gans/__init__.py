"""Generative adversarial networks for PyTorch Lightning: one game, many papers.

Public names are those of ``__init__.pyi``. They are imported when they are first used (PEP 562), so that
``import lit_gans`` costs nothing.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_gans.version import __version__ as __version__

_HERE = Path(__file__).parent


def _public(table: Path) -> Iterator[tuple[str, str]]:
    """Each name of the table and the module it comes from; of a ``*`` all names in that module's ``__all__``."""
    for line in ast.parse(table.read_text("utf-8")).body:
        if isinstance(line, ast.ImportFrom) and line.module:
            for name in line.names:
                found = (name.name,) if name.name != "*" else _all_of(line.module.partition(".")[2])
                yield from ((each, line.module) for each in found)


def _all_of(room: str) -> tuple[str, ...]:
    """``__all__`` of a room, which is not imported."""
    for line in ast.parse((_HERE / room / "__init__.py").read_text("utf-8")).body:
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__":
            return tuple(ast.literal_eval(line.value))
    raise ImportError(f"lit_gans.{room} has no __all__")


_ROOM_OF = dict(_public(_HERE / "__init__.pyi"))
__all__ = tuple(sorted(_ROOM_OF))  # ruff cannot count it


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'lit_gans' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_ROOM_OF[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
