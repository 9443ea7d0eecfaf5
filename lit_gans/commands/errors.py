"""Which errors are the user's to mend, and need no traceback."""

import sys
from typing import NoReturn

from lit_gans.errors import UserError

__all__ = ("fail", "mendable", "no_checkpoint")


def mendable(error: Exception) -> bool:
    """Whether a sentence is worth more than a traceback: bad values, missing files, flags, the guard's verdict."""
    if isinstance(error, (UserError, ValueError, OSError)):
        return True
    if type(error).__name__ == "TrainingDiverged":
        return True
    exceptions = sys.modules.get("lightning.fabric.utilities.exceptions")
    return exceptions is not None and isinstance(error, exceptions.MisconfigurationException)


def no_checkpoint(path: object) -> str:
    """What is said of a checkpoint that is not there."""
    return f"no checkpoint at {path}; fit writes them to runs/<model>-<data>/version_<n>/checkpoints/"


def fail(message: str) -> NoReturn:
    """Print one message and leave with code 2."""
    printable = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    print(f"lit_gans: {printable}", file=sys.stderr)
    raise SystemExit(2)
