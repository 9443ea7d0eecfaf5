"""What a search tells: what it will do, each run, a table, and what the full run would cost."""

from typing import Any

from lit_gans.commands.tuning.journal import Journal
from lit_gans.commands.tuning.search import Outcome, Rung, Space

__all__ = ("announcement", "estimates", "guard_of", "line_of", "runs_of", "table")


def announcement(
    plan: list[Rung], space: Space, config: dict[str, Any], seed: int, sampler: str, journal: Journal
) -> str:
    """What will be done, at most, and who judges it."""
    starts = [0, *(rung.steps for rung in plan)]
    total = sum(rung.trials * (rung.steps - start) for rung, start in zip(plan, starts, strict=False))
    first, *others = plan
    counts = ", ".join([f"{first.trials} of {first.steps} steps", *(f"{r.trials} of {r.steps}" for r in others)])
    ranges = ", ".join(
        f"{name} {allowed[0]:g} to {allowed[1]:g}" if isinstance(allowed, tuple) else f"{name} {allowed}"
        for name, allowed in space.items()
    )
    better = "lower" if config["monitor_mode"] == "min" else "higher"
    judged = f"then by {config['monitor']}, {better} is better" if config["monitor"] else "there is no monitor"
    lines = [
        f"{first.trials} trial{'s' if first.trials > 1 else ''}: {counts}: {total:,} steps in all",
        f"of {ranges}, drawn by {sampler} with seed {seed}",
        f"{'judged by the guard (rollbacks), ' if config['monitor'] else 'only the guard judges: '}{judged}",
        f"folder: {journal.path.parent}",
    ]
    decay = config["model"]["init_args"].get("ema_decay")
    if decay and config["monitor"] and (reach := 1 / (1 - decay)) > first.steps:
        lines.append(
            f"note: ema_decay {decay:g} averages over some {reach:,.0f} steps, the first rung has {first.steps}: there "
            "metrics of averaged weights tell mostly of the beginning; --model.ema_decay null judges the live ones"
        )
    if journal.outcomes:
        lines.append(f"{len(journal.outcomes)} of {runs_of(plan)} runs are there already")
    return "\n".join(lines)


def runs_of(plan: list[Rung]) -> int:
    """How many runs of ``fit`` the search takes."""
    return sum(rung.trials for rung in plan)


def line_of(outcome: Outcome, monitor: str | None) -> str:
    """One run."""
    drawn = ", ".join(f"{name} {value:g}" for name, value in outcome.parameters.items())
    metric = "" if outcome.metric is None else f"{monitor} {outcome.metric:.5g}, "
    return f"trial {outcome.trial}, {outcome.steps} steps: {drawn} → {metric}{remark_of(outcome)}"


def remark_of(outcome: Outcome) -> str:
    """Whether it diverged, and what the guard did."""
    return f"diverged: {outcome.diverged}" if outcome.diverged else f"guard: {guard_of(outcome)}"


def guard_of(outcome: Outcome) -> str:
    """What the guard did, gravest first."""
    if outcome.events is None:
        return "none"
    names = {"stop": "stop", "rollback": "rollback", "skip": "skip", "clip": "clip", "warn": "warning"}
    counts = {names[key]: outcome.events[key] for key in names if outcome.events.get(key)}
    return ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items()) or "quiet"


def table(ranked: list[Outcome], monitor: str | None) -> str:
    """All trials, best first."""
    names = list(ranked[0].parameters)
    rows = [["trial", *names, "steps", "ms/step", *([monitor] if monitor else []), "guard", ""]]
    for outcome in ranked:
        metric = [] if monitor is None else ["-" if outcome.metric is None else f"{outcome.metric:.5g}"]
        rows.append(
            [
                str(outcome.trial),
                *(f"{outcome.parameters[name]:g}" for name in names),
                str(outcome.steps),
                "-" if outcome.seconds is None else f"{outcome.seconds * 1000:.3g}",
                *metric,
                guard_of(outcome),
                f"diverged: {outcome.diverged}" if outcome.diverged else "",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    lines = ["  ".join([*map(str.rjust, row, widths), row[-1]]).rstrip() for row in rows]
    return "\n".join(["", *lines, ""])


def estimates(best: Outcome, config: dict[str, Any]) -> str:
    """Time and memory of the full run, as far as the search can tell."""
    trainer = config["trainer"]
    limits = [trainer["max_steps"]] if trainer["max_steps"] > 0 else []
    if trainer["max_epochs"] not in (None, -1) and best.batches:
        limits.append(trainer["max_epochs"] * best.batches)
    each = best.seconds or 0.0
    told = f"time: {each * 1000:.3g} ms a step of trial {best.trial}, with all that happened in between"
    if limits:
        told += f"; × {min(limits):,} steps of the full run = about {duration(each * min(limits))}"
    if limits and min(limits) > 2 * best.steps:
        told += (
            f"\nnote: judged after {best.steps:,} steps, where high learning rates and large batches lead; "
            "compare a full run with one of the config as it is"
        )
    peak = "unknown" if best.memory is None else f"{best.memory / 2**20:,.0f} MiB"
    of = "of tensors on the GPU, in its last run" if best.device == "cuda" else "of this process, all its trials so far"
    return f"{told}\nmemory: {peak} at the peak, {of}"


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
