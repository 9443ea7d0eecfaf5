"""Which errors are the user's to mend, and need no traceback."""

import sys

from lit_gans.errors import UserError

__all__ = ("mendable", "no_checkpoint")


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
