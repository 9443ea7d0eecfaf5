"""Generative adversarial networks for PyTorch Lightning: one game, many papers.

Public names are those of ``__init__.pyi``. They are imported when they are first used (PEP 562), so that
``import lit_gans`` costs nothing.
"""

import ast
import importlib
from pathlib import Path
from typing import Any

from lit_gans.version import __version__ as __version__

_TABLE = ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8")).body
_ROOM_OF = {name.name: line.module for line in _TABLE if isinstance(line, ast.ImportFrom) for name in line.names}

__all__ = tuple(sorted(_ROOM_OF))  # ruff cannot count it


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module 'lit_gans' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(str(_ROOM_OF[name])), name)


def __dir__() -> list[str]:
    return list(__all__)
