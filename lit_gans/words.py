"""Sentences on names that do not exist."""

import difflib
from collections.abc import Iterable

__all__ = ("nearest",)


def nearest(name: object, known: Iterable[str], cutoff: float = 0.4) -> str:
    """What may have been meant, as the end of a sentence: the most similar of the names that there are, or all.

    Args:
        name: A name that does not exist.
        known: The names that do.
        cutoff: How similar, in [0, 1], a name must be to be proposed.

    Example:
        >>> nearest("digit", ["digits", "mnist"]), nearest("x", ["digits", "mnist"])
        ("did you mean 'digits'?", 'there are digits, mnist')
    """
    known = list(known)
    if found := difflib.get_close_matches(str(name), known, n=1, cutoff=cutoff):
        return f"did you mean {found[0]!r}?"
    return f"there are {', '.join(known) or 'none'}"
