"""The words of a command line, read without importing anything: one spelling, and names of shipped configs."""

import importlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from lit_gans.commands.listing import CONFIGS
from lit_gans.errors import UserError

__all__ = ("IMPORT", "imported", "options", "shipped", "spelled", "values_of", "with_shipped")

IMPORT = (
    "a module of yours, in the current folder for example: its classes can be named, by checkpoints, too; "
    "may be given several times"
)
"""Help of ``--import``."""


def imported(words: list[str]) -> None:
    """Import the modules of ``--import``; the current folder is searched last, whichever way the program was started.

    Raises:
        UserError: if one cannot be imported.
    """
    if not sys.path or not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())
    for name in values_of(words, "import"):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise UserError(f"--import {name}: it imports {error.name}, which is not there") from error
            raise UserError(
                f"--import {name}: there is no such module in {os.getcwd()} or among the installed ones; "
                f"run the command where {name.partition('.')[0]}.py lies"
            ) from error
        except Exception as error:
            raise UserError(f"--import {name}: {type(error).__name__}: {error}") from error


def spelled(words: list[str]) -> list[str]:
    """Words with underscores within the names of options, where dashes are accepted, too."""
    return [
        re.sub(r"^--[A-Za-z][\w.-]*", lambda name: "--" + name[0][2:].replace("-", "_"), word)
        if " " not in word
        else word
        for word in words
    ]


def options(words: list[str]) -> Iterator[tuple[str, str | None]]:
    """Long options in order, each with its value, or None: the part after ``=``, else the next word if that is none."""
    for index, word in enumerate(words):
        if word == "--":
            return
        if not re.match(r"--[A-Za-z]", word):
            continue
        name, equals, value = word.partition("=")
        if " " in name:
            continue
        following = words[index + 1] if index + 1 < len(words) and not words[index + 1].startswith("--") else None
        yield name[2:], value if equals else following


def values_of(words: list[str], option: str) -> list[str]:
    """What was given to an option, each time."""
    return [value for name, value in options(words) if name == option and value is not None]


def shipped(name: str) -> Path | None:
    """The config that comes with the package under this name: ``configs/`` and ``.yaml`` may be left out."""
    inner = name.removeprefix("configs/")
    parts = inner.split("/")
    if not all(re.fullmatch(r"\w[\w.-]*", part) for part in parts):
        return None
    path = CONFIGS.joinpath(*parts)
    found = (path, path.with_name(f"{path.name}.yaml"))
    return next((file for file in found if file.suffix == ".yaml" and file.is_file()), None)


def with_shipped(words: list[str]) -> list[str]:
    """Words with the paths of shipped configs in the place of their names; a local file of that name wins.

    ``--trainer.logger wandb`` is short for ``--config logger/wandb``, and so with ``csv`` and ``tensorboard``.
    """
    words = list(words)
    for index, word in enumerate(words):
        name, equals, value = word.partition("=")
        value = value if equals else next(iter(words[index + 1 : index + 2]), "")
        if name == "--trainer.logger" and value in ("csv", "tensorboard", "wandb"):
            words[index : index + (1 if equals else 2)] = ["--config", f"logger/{value}"]
    changed = list(words)
    for index, word in enumerate(words):
        after = index > 0 and words[index - 1] == "--config"
        value = word.removeprefix("--config=")
        if (after or value != word) and not Path(value).exists() and (path := shipped(value)) is not None:
            changed[index] = str(path) if after else f"--config={path}"
    return changed
