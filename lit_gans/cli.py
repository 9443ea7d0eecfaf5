"""The command line, ``python -m lit_gans``: what can be answered at once is, without importing torch."""

import importlib
import os
import sys
from collections.abc import Sequence

from lit_gans.commands.errors import fail, mendable
from lit_gans.errors import UserError, unknown
from lit_gans.version import __version__

__all__ = ("main",)

COMMANDS = {
    "fit": ("training", "train a model: fit --config configs/quickstart.yaml"),
    "validate": ("training", "both players' losses on held-out data"),
    "test": ("training", "the same on the test split"),
    "tune": ("tuning", "learning rates and batch size: tune --config ... --g_lr 1e-4 2e-3 --batch_size 32 64"),
    "profile": ("profiling", "how long a run will take, and what would help: profile --config ..."),
    "sample": ("sampling", "images from a checkpoint: sample last.ckpt -n 64 --seed 0 -o samples.png"),
    "translate": ("translation", "pictures from pictures: translate last.ckpt my_photos -o made"),
    "evaluate": ("evaluation", "FID and its kin: evaluate last.ckpt --protocol quick -o result.json"),
    "compare": ("comparison", "which of two results is better: compare one.json other.json"),
    "check-data": ("data", "examine a data set: check-data --data.dataset folder --data.root DIR"),
    "list": ("listing", "models, data sets and configs"),
}

USAGE = "\n".join(
    [
        f"lit_gans {__version__}: generative adversarial networks for PyTorch Lightning",
        "",
        "usage: python -m lit_gans COMMAND [options]        COMMAND --help tells its options",
        "",
        *(f"  {name:<12}{line}" for name, (_, line) in COMMANDS.items()),
        "",
        "  --version   print the version",
        "",
        "A model of your own in my_gan.py: --model my_gan.MyGAN where that file lies; later --import my_gan",
        "lets sample, evaluate, validate and test build it from its checkpoint.",
    ]
)


def main(args: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        args: Words of the command line; those of the process if left out.

    Raises:
        SystemExit: with code 2 and one message for input that cannot work.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
    elif words[0] in ("--version", "-V"):
        print(__version__)
    elif words[0] not in COMMANDS:
        fail(unknown("command", words[0], COMMANDS))
    else:
        run(words[0], words[1:])


def run(command: str, words: list[str]) -> None:
    """Import a command's module and run it; what the user can mend is told in one message."""
    from lit_gans.commands.precheck import check
    from lit_gans.commands.words import imported, spelled

    words = spelled(words)
    try:
        check(command, words)
        imported(words)
        module = importlib.import_module(f"lit_gans.commands.{COMMANDS[command][0]}")
        module.main(command, words)
    except Exception as error:
        if os.environ.get("LIT_GANS_TRACEBACK") or not mendable(error):
            raise
        hint = "" if isinstance(error, UserError) else "\n(LIT_GANS_TRACEBACK=1 shows where)"
        fail(f"{command}: {error}{hint}")
