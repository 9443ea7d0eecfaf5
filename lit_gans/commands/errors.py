"""Which errors are the user's to mend, and need no traceback."""

import difflib
import re
import sys
from collections.abc import Iterable

__all__ = ("UserError", "mendable", "no_checkpoint", "unknown")


class UserError(Exception):
    """Input that cannot work; the message says what to change."""


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


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence on a name that does not exist, with the nearest that do."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    near = near or [other for other in known if re.search(rf"[._]{re.escape(name)}$", other)][:2]  # lr: g_lr
    if near := sorted(near, key=lambda other: sorted(other) != sorted(name)):  # letters that changed places first
        hint = f"did you mean {' or '.join(near)}?"
    else:
        hint = f"one of {', '.join(known)}" if len(known) < 20 else "see --help"
    return f"unknown {kind} {name!r}: {hint}"
