"""Ranges of models' arguments."""

__all__ = ("at_least", "not_negative")


def at_least(least: int, **values: int) -> None:
    """Refuse whole numbers below a bound.

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, value in values.items():
        if not isinstance(value, int) or value < least:
            whole = "" if isinstance(value, int) else ", which is no whole number"
            raise ValueError(f"{name} must be at least {least}, got {value}{whole}")


def not_negative(**values: float) -> None:
    """Refuse numbers below 0.

    Raises:
        ValueError: naming the argument and its value.
    """
    for name, value in values.items():
        if value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")
