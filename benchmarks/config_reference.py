"""The page that lists what can be configured, written from signatures, docstrings, parsers and config files.

    python -m benchmarks.config_reference

Writes docs/configuration.md, which tests/test_docs.py compares with the sources.
"""

import argparse
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jsonargparse
from lightning import Callback

import lit_gans.augment
import lit_gans.callbacks
import lit_gans.guard
import lit_gans.networks
import lit_gans.regularizers
import lit_gans.runs
from benchmarks.model_pages import FAMILIES, capital, inline, meaning, shown, stem_of
from lit_gans.commands import comparison, data, evaluation, profiling, sampling, training, translation, tuning
from lit_gans.data import ImageDataModule, PairedImageDataModule, UnpairedImageDataModule
from lit_gans.game.module import GameModule
from lit_gans.models import AdaptiveClip, HoldThenDecay, NormClip, Schedule, ValueClip

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"
MODULES = {
    "sample": sampling,
    "translate": translation,
    "evaluate": evaluation,
    "compare": comparison,
    "check-data": data,
    "tune": tuning,
    "profile": profiling,
}
VARIABLES = {
    "LIT_GANS_CACHE": "where statistics of real images are kept; `~/.cache/lit_gans` if it is not set",
    "LIT_GANS_INCEPTION": "a file with the weights of Inception, which are fetched if it is not set",
    "LIT_GANS_TRACEBACK": "`1` shows where an error came from, in place of one sentence",
    "LIT_GANS_VGG19": "a file with the weights of VGG19, which are fetched if it is not set",
}
TRAINER = {
    "use_distributed_sampler": "the data module's loader deals the samples out to processes itself",
    "num_sanity_val_steps": "no validation before the first step",
    "check_val_every_n_epoch": "all cadences count steps, not epochs",
    "val_check_interval": "steps between two validations",
    "enable_model_summary": "",
    "default_root_dir": "runs lie in `runs/<model>-<data>/version_<n>`",
    "inference_mode": "gradient penalties differentiate in validation, too",
}


class Caught(Exception):  # noqa: N818
    """Carries the parser that a command was about to use."""

    def __init__(self, parser: Any) -> None:
        self.parser = parser


def parser_of(command: str) -> Any:
    """The parser of a command, caught before it parses."""

    def catch(self: Any, *args: Any, **kwargs: Any) -> None:
        raise Caught(self)

    with (
        mock.patch.object(argparse.ArgumentParser, "parse_args", catch),
        mock.patch.object(argparse.ArgumentParser, "parse_known_args", catch),
        mock.patch.object(jsonargparse.ArgumentParser, "parse_args", catch),
    ):
        try:
            MODULES[command].main(command, [])
        except Caught as caught:
            return caught.parser
    raise LookupError(f"{command} uses no parser")


def options(parser: Any) -> Iterator[tuple[str, str, str]]:
    """Names, default and meaning of the options of a parser, but for those of the data and of help."""
    for action in parser._actions:
        if action.dest in ("help", "config", "print_config") or action.dest.split(".")[0] == "data":
            continue
        names = ", ".join(f"`{name}`" for name in action.option_strings) or f"`{action.metavar or action.dest}`"
        switch = action.nargs == 0 or not action.option_strings
        default = "" if action.default in (None, argparse.SUPPRESS, []) or switch else action.default
        yield names, "" if default == "" else f"`{default}`", plain(action.help or "")


def plain(text: str) -> str:
    """A help text without the types that a parser adds, fit for a table."""
    text = re.sub(r" \((?:required, )?(?:type|default): .*\)$", "", " ".join(text.split()))
    return text.replace("%%", "%").replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def table(rows: Iterable[tuple[str, str, str]], head: str = "option") -> list[str]:
    """Rows of three cells."""
    return [f"| {head} | default | |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows), ""]


def arguments(cls: Any, prefix: str = "") -> list[tuple[str, str, str]]:
    """Each argument of a class, with its default and its line in the docstring."""
    rows = []
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            rows.append((f"`{prefix}{name}`", shown(parameter.default), meaning(cls, name)))
    return rows


def classes(heading: str, room: Any, base: type, intro: str) -> list[str]:
    """The arguments of all public classes of a room that are of a kind, a heading each."""
    lines = [f"## {heading}", "", intro, ""]
    for name in room.__all__:
        cls = getattr(room, name)
        if not isinstance(cls, type) or not issubclass(cls, base) or cls is base or name == "SaveConfig":
            continue
        if rows := arguments(cls):
            lines += [f"### {name}", "", *table(rows, "argument")]
    return lines


def fit_options() -> list[tuple[str, str, str]]:
    """The options that fit, validate and test have besides Lightning's."""
    parser = jsonargparse.ArgumentParser()
    training.CommandLine.add_arguments_to_parser(None, parser)  # type: ignore[arg-type]  # it looks at its parser alone
    return list(options(parser))


def configs() -> list[str]:
    """Every config that comes with the package, with what its header says before the command."""
    lines = []
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        name = path.relative_to(ROOT / "configs").with_suffix("").as_posix()
        header = re.match(r"(?:# .*\n)+", path.read_text("utf-8"))
        assert header is not None, f"{path} has no header"
        told = " ".join(line[2:] for line in header[0].splitlines() if not line.startswith("# python -m"))
        lines.append(f"| `{name}` | {told} |")
    return ["| config | |", "|---|---|", *lines, ""]


def reference() -> str:
    """The page."""
    models = ", ".join(f"[{name}](models/{stem_of(name)}.md)" for names in FAMILIES.values() for name in names)
    lines = [
        "# Configuration",
        "",
        "<!-- written by python -m benchmarks.config_reference -->",
        "",
        "All that can be set, in config files and on the command line. In a config file the dots of an option are "
        "levels: `--data.batch_size 64` is `batch_size: 64` under `data:`. [Command line](cli.md) tells how files and "
        "flags go together.",
        "",
        "## Data",
        "",
        *table(arguments(ImageDataModule, "data.")),
        "For [pairs of pictures](pairs.md) name a class by `--data`; in a config file it is `class_path`, its options "
        "`init_args`.",
        "",
        "### PairedImageDataModule",
        "",
        *table(arguments(PairedImageDataModule, "data.")),
        "### UnpairedImageDataModule",
        "",
        *table(arguments(UnpairedImageDataModule, "data.")),
        "## Model",
        "",
        "Name a class by `--model`, and give its arguments as `--model.<argument>`. These are common to all:",
        "",
        *table(arguments(GameModule, "model.")),
        f"Defaults and further arguments of each paper are on its page: {models}.",
        "",
        "`g_clip` and `d_clip` take a number or one of these, `schedules` a list of `Schedule`:",
        "",
    ]
    for cls in (NormClip, ValueClip, AdaptiveClip, Schedule):
        lines += [f"### {cls.__name__}", "", *table(arguments(cls), "argument")]
    lines += [
        "`g_scheduler` and `d_scheduler` take the schedulers of torch.optim and this one:",
        "",
        "### HoldThenDecay",
        "",
        *table([row for row in arguments(HoldThenDecay) if row[0] in ("`hold`", "`decay`")], "argument"),
    ]
    lines += ["## `fit`, `validate`, `test`", "", *table(fit_options())]
    lines += [
        "`--trainer.…` are the arguments of "
        "[Lightning's Trainer](https://lightning.ai/docs/pytorch/stable/common/trainer.html). "
        "These have another default here:",
        "",
        *table([(f"`trainer.{key}`", f"`{value}`", TRAINER[key]) for key, value in training.TRAINER_DEFAULTS.items()]),
        f"`trainer.max_steps` is {training.DEFAULT_STEPS:,} if nothing says how long to train.",
        "",
    ]
    for command in MODULES:
        first = (MODULES[command].__doc__ or "").partition("\n\n")[0].partition("``: ")[2]
        lines += [f"## `{command}`", "", capital(inline(" ".join(first.split()))), ""]
        lines += table(options(parser_of(command)))
        if command in ("evaluate", "check-data"):
            lines += ["The options of [the data](#data) go with it.", ""]
        if command in ("tune", "profile"):
            lines += ["All other options go to `fit` unchanged.", ""]
    lines += classes(
        "Networks",
        lit_gans.networks,
        lit_gans.networks.Network,
        "Given to `model.generator` and `model.discriminator` by name; their arguments follow as "
        "`--model.generator.<argument>`.",
    )
    lines += classes(
        "Regularizers",
        lit_gans.regularizers,
        lit_gans.regularizers.Regularizer,
        "Given to `model.regularizers`, a list; `--model.regularizers+=NAME` adds one.",
    )
    lines += classes("Augmentation", lit_gans.augment, object, "Given to `model.augment`.")
    given = "Given to `trainer.callbacks`, a list; `callbacks+` in a file adds to it."
    lines += classes("The guard", lit_gans.guard, Callback, given)
    lines += classes("Callbacks", lit_gans.callbacks, Callback, given)
    lines += classes("Callbacks of a run", lit_gans.runs, Callback, given)
    lines += ["## Configs that are shipped", "", *configs()]
    lines += ["## Environment variables", "", "| variable | |", "|---|---|"]
    lines += [f"| `{name}` | {text} |" for name, text in VARIABLES.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    PAGE.write_text(reference(), "utf-8")


if __name__ == "__main__":
    main()
