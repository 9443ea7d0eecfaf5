"""Ranges of models' arguments."""

__all__ = ("at_least", "not_negative")


def at_least(least: int, **values: int) -> None:
    """Refuse whole numbers below a bound.

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value}")


def not_negative(**values: float) -> None:
    """Refuse numbers below 0.

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
