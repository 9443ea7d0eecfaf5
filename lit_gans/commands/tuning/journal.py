"""``tune.json``: what was asked for and what has come of it, so that a search that was stopped goes on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lit_gans.commands.files import staged
from lit_gans.commands.tuning.search import Outcome
from lit_gans.errors import UserError

__all__ = ("Journal",)


class Journal:
    """``tune.json``: what was asked for, and what came of each trial at each rung so far.

    Args:
        folder: The folder of the search.
        asked: All that decides what comes out.

    Raises:
        UserError: if the folder is that of another search, or of something else.
    """

    def __init__(self, folder: Path, asked: dict[str, Any]) -> None:
        self.path, self.asked = folder / "tune.json", json.loads(json.dumps(asked))
        self.outcomes: dict[tuple[int, int], Outcome] = {}
        self.overlay: str | None = None
        if self.path.exists():
            try:
                kept = json.loads(self.path.read_text(encoding="utf-8"))
                before, self.overlay = kept["asked"], kept["overlay"]
                self.outcomes = {(entry["trial"], entry["rung"]): Outcome(**entry) for entry in kept["outcomes"]}
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{self.path} cannot be read ({error}): give another --dir") from error
            if changed := changes(before, self.asked):
                raise UserError(f"{folder} holds another search ({changed}): give another --dir, or remove it")
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is something else than a search: give another --dir")

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome."""
        self.outcomes[outcome.trial, outcome.rung] = outcome
        self.write()

    def write(self) -> None:
        """All at once, or not at all."""
        kept = {
            "asked": self.asked,
            "outcomes": [asdict(outcome) for outcome in self.outcomes.values()],
            "overlay": self.overlay,
        }
        with staged(self.path) as target:
            target.write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def changes(before: Any, now: Any, name: str = "") -> str:
    """What differs between two searches, the first three of it, by dotted name."""

    def pairs(before: Any, now: Any, name: str) -> list[str]:
        if isinstance(before, dict) and isinstance(now, dict):
            keys = dict.fromkeys([*before, *now])
            return [pair for key in keys for pair in pairs(before.get(key), now.get(key), f"{name}.{key}".lstrip("."))]
        return [] if before == now else [f"{name.removeprefix('config.')} {before!r} → {now!r}"]

    found = pairs(before, now, name)
    return ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
