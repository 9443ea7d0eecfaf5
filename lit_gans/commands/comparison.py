"""``compare``: which of two results is better, if they were measured alike."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from lit_gans.errors import UserError

__all__ = ("main",)


def main(command: str, words: list[str]) -> None:
    """Parse the words, refuse unlike results, print the differences."""
    parser = argparse.ArgumentParser(prog=f"python -m lit_gans {command}", description=__doc__)
    for name in ("one", "other"):
        parser.add_argument(name, metavar=f"{name.upper()}.json", help="written by evaluate -o")
    arguments = parser.parse_args(words)
    one, other = read(arguments.one), read(arguments.other)

    from lit_gans.metrics.protocol import differences

    if unlike := differences(one["protocol"], other["protocol"]):
        fields = "; ".join(f"{key}: {a!r} and {b!r}" for key, (a, b) in unlike.items())
        raise UserError(f"the two were measured by different protocols, which differ in {fields}")
    shared = [key for key in one["metrics"] if key in other["metrics"]]
    if not shared:
        raise UserError("the two have no metric in common")
    versions = differences(one["protocol"].get("versions", {}), other["protocol"].get("versions", {}))
    for key, (a, b) in versions.items():
        print(f"note: measured with {key} {a} and {b}")
    names = Path(arguments.one).name, Path(arguments.other).name
    print(f"{'':<20}{names[0]:>16}{names[1]:>16}  difference")
    for key in shared:
        if not key.endswith("_std"):
            print(line(key, one, other, names))


def read(path: str) -> dict[str, Any]:
    """A result with its stamp.

    Raises:
        UserError: if the file is missing or holds none.
    """
    try:
        result = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    parts = [result.get(key) for key in ("metrics", "protocol")] if isinstance(result, dict) else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise UserError(f"{path} is no result of evaluate: it has no metrics with their protocol")
    return result


def line(key: str, one: dict[str, Any], other: dict[str, Any], names: tuple[str, str]) -> str:
    """One metric of both, the difference with its 95 % interval, and which is better."""
    from lit_gans.metrics.evaluation import higher_is_better

    a, b = (math.nan if value is None else float(value) for value in (one["metrics"][key], other["metrics"][key]))
    difference = b - a
    text = f"{key:<20}{a:>16.5g}{b:>16.5g}  {difference:+.4g}"
    intervals = [result.get("intervals", {}).get(key) for result in (one, other)]
    if None in intervals:
        return text
    half = math.hypot(*((high - low) / 2 for low, high in intervals))
    text += f" ± {half:.2g}"
    if not abs(difference) > half:  # NaN is no difference either
        return f"{text}  no clear difference"
    return f"{text}  {names[1] if (difference > 0) == bool(higher_is_better(key)) else names[0]} is better"
