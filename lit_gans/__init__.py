"""Generative adversarial networks for PyTorch Lightning: one game, many papers.

Public names are those of ``__init__.pyi``. They are imported when they are first used (PEP 562), so that
``import lit_gans`` costs nothing.
"""

import importlib
from functools import cache
from typing import Any

from lit_gans.version import __version__ as __version__


@cache
def _rooms() -> dict[str, str]:
    """Each public name and the module it comes from; a ``*`` in the table stands for the names in ``__all__`` there."""
    import ast
    from pathlib import Path

    here = Path(__file__).parent

    def all_of(room: str) -> tuple[str, ...]:
        """``__all__`` of a room, which is not imported."""
        for line in ast.parse((here / room / "__init__.py").read_text("utf-8")).body:
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "__all__":
                return tuple(ast.literal_eval(line.value))
        raise ImportError(f"lit_gans.{room} has no __all__")

    rooms = {}
    for line in ast.parse((here / "__init__.pyi").read_text("utf-8")).body:
        if isinstance(line, ast.ImportFrom) and line.module:
            for name in line.names:
                found = (name.name,) if name.name != "*" else all_of(line.module.partition(".")[2])
                rooms |= dict.fromkeys(found, line.module)
    return rooms


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return tuple(sorted(_rooms()))
    if name not in _rooms():
        raise AttributeError(f"module 'lit_gans' has no attribute {name!r}; it has {', '.join(sorted(_rooms()))}")
    return getattr(importlib.import_module(_rooms()[name]), name)


def __dir__() -> list[str]:
    return sorted(_rooms())
