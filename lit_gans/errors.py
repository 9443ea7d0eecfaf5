"""Input that cannot work, and what may have been meant."""

import difflib
import re
from collections.abc import Iterable

__all__ = ("UserError", "nearest", "unknown")


class UserError(Exception):
    """Input that cannot work; the message says what to change."""


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """One sentence on a name that does not exist, with the nearest that do.

    Args:
        kind: What the name is one of, such as ``option``.
        name: The name that does not exist.
        known: The names that do.

    Example:
        >>> unknown("dataset", "digit", ["digits", "mnist"])
        "unknown dataset 'digit': did you mean digits?"
    """
    return f"unknown {kind} {name!r}: {nearest(name, known)}"


def nearest(name: object, known: Iterable[str]) -> str:
    """The end of a sentence on a name that does not exist: the nearest that do, or all of them.

    Args:
        name: The name that does not exist.
        known: The names that do.

    Example:
        >>> nearest("lr", ["g_lr", "d_lr"]), nearest("x", ["digits", "mnist"])
        ('did you mean g_lr or d_lr?', 'one of digits, mnist')
    """
    known, name = list(known), str(name)
    near = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    near = near or [other for other in known if re.search(rf"[._]{re.escape(name)}$", other)][:2]  # lr: g_lr
    if near := sorted(near, key=lambda other: sorted(other) != sorted(name)):  # letters that changed places first
        return f"did you mean {' or '.join(near)}?"
    if not known:
        return "there are none"
    return f"one of {', '.join(known)}" if len(known) < 20 else "see --help"
