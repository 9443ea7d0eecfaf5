"""Time by part, so that the parts add up to the whole."""

from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

__all__ = ("REST", "Key", "Ledger")


class Key(NamedTuple):
    """A part of a step, and whose it is where several have a share in it."""

    part: str
    owner: str = ""


REST = Key("rest")
"""What no part accounts for: losses, noise, Lightning and Python."""


class Ledger:
    """Charges each moment to the innermost part that is open, and to the rest where none is.

    Args:
        clock: Seconds; on a GPU one that waits for it.
        mark: Called with the name of each part that begins; what it returns is entered and left with the part.

    Example:
        >>> ledger = Ledger(iter([0.0, 1.0, 3.0, 4.0, 6.0, 7.0]).__next__)
        >>> ledger.begin()
        >>> ledger.enter(Key("a"))  # at 1
        >>> ledger.enter(Key("b"))  # at 3
        >>> ledger.leave()  # at 4
        >>> ledger.leave()  # at 6
        >>> {key.part: seconds for key, seconds in ledger.end().items()}  # at 7
        {'rest': 2.0, 'a': 4.0, 'b': 1.0}
    """

    def __init__(
        self, clock: Callable[[], float], mark: Callable[[str], AbstractContextManager[object]] | None = None
    ) -> None:
        self.clock, self.mark = clock, mark
        self._marks: list[AbstractContextManager[object]] = []
        self._open: list[Key] = []
        self._times: defaultdict[Key, float] = defaultdict(float)
        self._since = 0.0

    @property
    def open(self) -> list[Key]:
        """Parts that are open, the innermost last; empty unless a step is measured."""
        return self._open

    def begin(self) -> None:
        """A step begins."""
        self._open, self._times, self._since = [REST], defaultdict(float), self.clock()

    def enter(self, key: Key) -> None:
        """A part begins."""
        self._charge()
        self._open.append(key)
        if self.mark is not None:
            self._marks.append(self.mark(": ".join(filter(None, key))))
            self._marks[-1].__enter__()

    def leave(self) -> None:
        """The innermost part ends."""
        if self._marks:
            self._marks.pop().__exit__(None, None, None)
        self._charge()
        self._open.pop()

    def end(self) -> dict[Key, float]:
        """The step ends: seconds of each part."""
        self._charge()
        self._open = []
        return dict(self._times)

    def _charge(self) -> None:
        now = self.clock()
        self._times[self._open[-1]] += now - self._since
        self._since = now
