"""The words of a command line, read without importing anything: one spelling, and names of shipped configs."""

import re
from collections.abc import Iterator
from pathlib import Path

from lit_gans.commands.listing import CONFIGS

__all__ = ("options", "shipped", "spelled", "values_of", "with_shipped")


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
    """Words with the paths of shipped configs in the place of their names; a local file of that name wins."""
    changed = list(words)
    for index, word in enumerate(words):
        after = index > 0 and words[index - 1] == "--config"
        value = word.removeprefix("--config=")
        if (after or value != word) and not Path(value).exists() and (path := shipped(value)) is not None:
            changed[index] = str(path) if after else f"--config={path}"
    return changed
