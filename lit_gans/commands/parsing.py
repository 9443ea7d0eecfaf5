"""A parser whose errors are one short message with the nearest right name, in place of pages of usage."""

import difflib
import importlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser
from torch import optim

import lit_gans.augment
import lit_gans.callbacks
import lit_gans.guard
import lit_gans.models
import lit_gans.networks
import lit_gans.regularizers
from lit_gans.commands.errors import fail
from lit_gans.errors import UserError, unknown
from lit_gans.regularizers import Regularizer

__all__ = ("Parser", "explain")

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "64-true")
"""What to recommend for a misspelt precision; Lightning takes more."""


class Parser(LightningArgumentParser):
    """LightningArgumentParser that fails in one sentence, with exit code 2, and accepts no abbreviations."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parse words.

        jsonargparse hands the argument of a class on as a word, and writes null as Python does, ``--norm=None``.
        """
        if args is not None:
            args = [re.sub(r"^(--[\w.]+)=None$", r"\1=null", word) if isinstance(word, str) else word for word in args]
        return super().parse_args(args, *others, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the explanation and leave."""
        fail(explain(message, options_of(self)))

    def parse_path(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Parse a config file, once it is one; else the message names it."""
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            detail = " ".join(str(error).replace('in "<unicode string>", ', "").split())
            raise UserError(f"{path} is no YAML: {detail}") from error
        if not isinstance(content, dict):
            raise UserError(f"{path} is no config: it holds no options")
        return super().parse_path(path, *args, **kwargs)


def options_of(parser: ArgumentParser) -> list[str]:
    """Names of the options of a parser and of its subcommands."""
    names = [option.lstrip("-") for option in parser._option_string_actions if option[-1] != "+"]
    commands = parser._subcommands_action.choices if parser._subcommands_action else {}
    return [*dict.fromkeys(names + [name for command in commands.values() for name in options_of(command)])]


def explain(message: str, options: Iterable[str] = ()) -> str:
    """The cause in a parser's message, as one sentence.

    Args:
        message: Many nested lines, the cause among the innermost.
        options: Names that the parser itself knows.
    """
    options = list(options)
    where = ".".join(re.findall(r"[Pp]arser key \"([^\"]+)\"", message)) or "options"
    class_path = re.findall(r"given class_path '([^']+)'", message)
    if class_path and (reason := not_importable(class_path[-1])):
        return f"{where}: {reason}"
    if found := re.search(r"unrecognized arguments: --(\S+)", message):
        return unknown("option", found[1].split("=")[0], options)
    if found := re.search(r"(?:[Kk]ey|does not accept option) '([^']+)'(?: is not expected)?", message):
        return unknown("key", found[1], options)
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        known = arguments_of(class_path[-1]) if class_path else options
        return unknown(
            f"argument of {class_path[-1].rpartition('.')[2]}" if class_path else "argument", found[1], known
        )
    if found := re.search(r"Expected a dot import path string: (\S+)", message):
        return f"{where}: " + unknown("class", found[1], known_classes())
    if found := re.search(r"arguments? (?:is|are) required: (.+)", message):
        if found[1] == "num_classes":
            return "missing num_classes: the model learns from labels; give their number, --model.num_classes N"
        instead = "" if found[1].startswith("fit") else ", or a checkpoint: --ckpt_path last.ckpt"
        return f"missing {found[1]}: give a config, for example --config configs/quickstart.yaml{instead}"
    if found := re.search(r"File does not exist: (.+)|does not exist: (.+)", message):
        return f"no such file: {found[1] or found[2]}"
    value = re.search(r"(?:Got value|Given value): (?!NestedArg|Namespace)(.+)", message)
    if (choices := re.findall(r"Literal\[([^\]]+)\]", message)) and value:
        allowed = dict.fromkeys(word.strip(" '") for choice in choices for word in choice.split(","))
        if where.endswith("precision"):
            stems = {word.partition("-")[0]: word for word in PRECISIONS}
            near = difflib.get_close_matches(value[1].strip(), stems, n=1)  # bf15 is nearer to bf16 than to bf16-mixed
            hint = f"did you mean {stems[near[0]]}?" if near else f"one of {', '.join(PRECISIONS)}"
            return f"{where}: unknown value {value[1].strip()!r}: {hint}"
        return f"{where}: " + unknown("value", value[1].strip(), list(allowed))
    phrases = ("Expected", "Not a valid", "a class path", "a dict with")  # of the parser's own, beside the cause
    if reasons := [line for line in re.findall(r"^ *- (.+)$", message, re.MULTILINE) if not line.startswith(phrases)]:
        return reasons[-1]
    expected = list(dict.fromkeys(re.findall(r"Expected (?:a |an )?(?:<class ')?([^'>\n.]+)", message)))
    if value:
        kinds = " or ".join("null" if kind == "NoneType" else kind for kind in expected) or "another value"
        return f"{where}: {value[1].strip()!r} is not valid, expected {kinds}"
    return " ".join(message.split())[:400]


def not_importable(class_path: str) -> str | None:
    """Why a class cannot be imported, with the nearest names that its module has; None if it can be."""
    room, _, name = class_path.rpartition(".")
    if not room:
        return None
    try:
        module = importlib.import_module(room)
    except Exception as error:  # a module of the user's may raise anything
        return f"{class_path} cannot be imported: {type(error).__name__}: {error}"
    if hasattr(module, name):
        return None
    return unknown(f"class of {room}", name, [other for other, kind in vars(module).items() if isinstance(kind, type)])


def arguments_of(class_path: str) -> list[str]:
    """Names of the arguments of a class."""
    try:
        module, _, name = class_path.rpartition(".")
        cls = getattr(__import__(module, fromlist=[name]), name)
    except (ImportError, AttributeError, ValueError):
        return []
    parser = ArgumentParser()
    parser.add_class_arguments(cls, fail_untyped=False)
    return [
        action.dest
        for action in parser._actions
        if action.dest.isidentifier() and action.dest not in ("help", "config")
    ]


def known_classes() -> list[str]:
    """Short names that can be given where a class is asked for."""
    rooms = (lit_gans.models, lit_gans.augment, lit_gans.callbacks, lit_gans.guard)
    names = {name for room in rooms for name in room.__all__}
    for room, base in ((lit_gans.networks, lit_gans.networks.Network), (lit_gans.regularizers, Regularizer)):
        names |= {name for name in room.__all__ if issubclass(cls := getattr(room, name), base) and cls is not base}
    return sorted(names | {name for name in dir(optim) if isinstance(getattr(optim, name), type)})
