"""What is usual: running median and median absolute deviation of a positive quantity, in log space."""

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

__all__ = ("Usual",)

_FLOOR = 1e-30  # a norm of exactly zero has a logarithm, too


class Usual:
    """The recent past of a quantity that varies over orders of magnitude.

    No absolute scale enters: a healthy run may have norms of 1e-3 or of 60,000. The median and the spread, 1.4826 times
    the median absolute deviation, which is a normal distribution's standard deviation, are taken of logarithms over the
    last ``window`` values, and anew after every 25th value.

    Args:
        window: Values that the median and the spread are of.
        warmup: Values before anything counts as known.
        recent: Values at the end that make up "now", when a lasting change is looked for.
        memory: Values that are kept; "before" is all of them but the recent ones.

    Example:
        >>> usual = Usual(warmup=4)
        >>> for value in (1.0, 2.0, 1.0, 2.0, 1.5):
        ...     usual.add(value)
        >>> round(usual.value, 2), round(usual.deviation(150.0) / math.log(100), 2)
        (1.41, 1.01)
    """

    refresh = 25

    def __init__(self, window: int = 200, warmup: int = 25, recent: int = 50, memory: int = 1000) -> None:
        self.window, self.warmup, self.recent = window, warmup, recent
        self._logs: deque[float] = deque(maxlen=memory)
        self._age = 0
        self._center, self._spread, self._shift, self._highest, self._before = 0.0, 0.0, 0.0, 0.0, 0.0

    def __len__(self) -> int:
        return len(self._logs)

    def add(self, value: float) -> None:
        """Count a healthy value in."""
        self._logs.append(math.log(max(value, _FLOOR)))
        self._age += 1
        if self._age == self.warmup or self._age % self.refresh == 0:
            self._update()

    def _update(self) -> None:
        logs = list(self._logs)
        near = logs[-self.window :]
        self._center = median(near)
        self._spread = 1.4826 * median(abs(log - self._center) for log in near)
        self._highest = sorted(near)[-1 - max(1, len(near) // 40)]  # of the highest few one may have been an outlier
        now, before = sorted(logs[-self.recent :]), logs[: -self.recent]
        self._shift, self._before = 0.0, self._center
        if len(before) >= 2 * self.recent:
            # by how much nearly all that is now differs from what was
            self._before, margin = median(before), self.recent // 10
            low, high = now[margin] - self._before, now[-1 - margin] - self._before
            self._shift = low if low > 0 else min(high, 0.0)

    @property
    def known(self) -> bool:
        """Whether enough has been seen to judge, and it was not mostly zero."""
        return self._age >= self.warmup and self._center > math.log(_FLOOR) / 2

    @property
    def value(self) -> float:
        """The median."""
        return math.exp(self._center)

    @property
    def spread(self) -> float:
        """Standard deviation of the logarithm, estimated robustly."""
        return self._spread

    @property
    def shift(self) -> float:
        """Logarithm of the factor by which nine tenths of the recent values have left the earlier median."""
        return self._shift

    @property
    def before(self) -> float:
        """The earlier median."""
        return math.exp(self._before)

    def deviation(self, value: float) -> float:
        """Logarithm of the factor between a value and the median."""
        return math.log(max(value, _FLOOR)) - self._center

    def beyond_highest(self, value: float) -> float:
        """Logarithm of the factor between a value and nearly the highest of the window, the fortieth part left out."""
        return math.log(max(value, _FLOOR)) - self._highest

    def load(self, logs: Iterable[float], age: int) -> None:
        """Go on from :meth:`state`."""
        self._logs.clear()
        self._logs.extend(logs)
        self._age = age
        if self._logs:
            self._update()

    def state(self) -> dict[str, object]:
        """Plain values, for a checkpoint."""
        return {"logs": list(self._logs), "age": self._age}
