"""What a metric says of itself: names of its values, which way is better, and how sure they are."""

from dataclasses import dataclass

__all__ = ("Value", "about")


@dataclass(frozen=True)
class Value:
    """A measured value.

    Args:
        value: The number itself, in the unit of its metric.
        interval: Its 95 % interval, for the sampling of the generated images; None where it is not known.
    """

    value: float
    interval: tuple[float, float] | None = None


def about(value: float, error: float, low: float | None = None, high: float | None = None) -> Value:
    """A value with the 95 % interval that a standard error gives, within the bounds that it has."""
    below, above = value - 1.96 * error, value + 1.96 * error
    return Value(value, (below if low is None else max(low, below), above if high is None else min(high, above)))
