"""``profile``: how long a run will take, what takes the time, and what would help.

All options that are not listed here are those of ``fit``. The run is built as ``fit`` builds it, in a temporary folder,
and takes some steps, a validation, a grid of samples and a checkpoint; then alternatives take turns with it. Nothing
of the run is kept. What helps without changing what is trained becomes an overlay for ``fit --config``.
"""

import argparse
import time
from pathlib import Path
from typing import NoReturn

from lit_gans.commands.files import refuse_existing
from lit_gans.errors import UserError

__all__ = ("main",)


def main(command: str, words: list[str]) -> None:
    """Refuse what can be refused at once, measure, tell."""
    began = time.perf_counter()
    options, rest = parse(command, words)
    if options.steps < 1:
        raise UserError(f"--steps must be at least 1, got {options.steps}")
    for path in (options.output, options.trace, options.json):
        if path is not None:
            refuse_existing(Path(path), options.overwrite, parents=True)

    from lit_gans.commands.profiling.session import profile  # needs torch

    profile(options, [command, *words], rest, began)


class Options(argparse.ArgumentParser):
    """Fails in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Leave the telling to the command line."""
        raise UserError(message)


def parse(command: str, words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The command's own options, and the words that are left for ``fit``."""
    parser = Options(prog=f"python -m lit_gans {command}", description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=50, help="steps that are measured, after some to warm up (50)")
    parser.add_argument("-o", "--output", default="profile.yaml", help="overlay of what helps (profile.yaml)")
    parser.add_argument("--json", help="a file for all that was measured, in seconds and bytes")
    parser.add_argument("--trace", help="a file for a trace of three steps, which chrome://tracing and Perfetto show")
    parser.add_argument("--no_alternatives", action="store_true", help="only measure the run as configured")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at these paths")
    return parser.parse_known_args(words)
