"""What was measured, as people read it, as programs do, and as an overlay."""

import shlex
from collections.abc import Sequence
from typing import Any

import yaml

from lit_gans.commands.profiling.alternatives import Alternative, merged
from lit_gans.commands.profiling.pace import Measured
from lit_gans.commands.profiling.parts import PARTS

__all__ = ("alternatives_table", "as_plain", "duration", "estimate_text", "overlay_text", "parts_table")

LEAST = 0.005
"""Milliseconds below which nothing is told."""


def parts_table(measured: Measured) -> str:
    """Milliseconds of a step by part, then what most steps are without, spread over those that it serves."""
    sums: dict[str, float] = {}
    for key, seconds in measured.usual_parts().items():
        part = key.part if key.part in PARTS else "callbacks"
        sums[part] = sums.get(part, 0.0) + seconds
    rows = [(PARTS[part], sums.get(part, 0.0) * 1e3, "") for part in PARTS]
    rows = [row for row in rows if row[1] >= LEAST]
    rows.append(("a step", measured.step * 1e3, f"{measured.images / measured.step:,.0f} images/s"))
    whole = measured.step
    for work in measured.works:
        if not work.seconds:
            continue
        each = work.cost(10**6) / 10**6
        whole += each / work.period
        if each / work.period * 1e3 >= LEAST:
            often = "at most every" if work.follows else "every"
            rows.append((work.name, each / work.period * 1e3, f"{milliseconds(each)}, {often} {work.period:,} steps"))
    rows.append(("a step with its share of these", whole * 1e3, f"{measured.images / whole:,.0f} images/s"))
    share = [f"{time / whole / 10:5.1f} %" for _, time, _ in rows]
    lines = [
        f"  {name:<44}{time:>10.2f} ms {part}  {remark}".rstrip()
        for (name, time, remark), part in zip(rows, share, strict=True)
    ]
    return "\n".join(["Milliseconds per step, by part:", *lines])


def milliseconds(seconds: float) -> str:
    """A time of its own, in a fitting unit."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def estimate_text(measured: Measured, limit: float | None, left_out: Sequence[str] = ()) -> str:
    """Memory, and how long the whole run will take."""
    device = (
        "" if measured.device is None else f", {measured.device / 2**20:,.0f} MiB of tensors on {measured.device_name}"
    )
    host = "unknown" if measured.host is None else f"{measured.host / 2**20:,.0f} MiB"
    lines = [f"Memory at the peak: {host} of this process{device}"]
    costs = measured.estimate()
    if measured.total is None:
        lines.append(f"The run ends when --trainer.max_time is over, in {duration(limit or 0.0)}")
        return "\n".join(lines)
    whole = sum(costs.values())
    counts = {work.name: work.count(measured.total) for work in measured.works}
    spread = [
        f"{name}{f' × {counts[name]}' if name in counts else ''} {duration(seconds)}"
        for name, seconds in costs.items()
        if seconds >= 0.05
    ]
    lines.append(f"The whole run of {measured.total:,} steps will take about {duration(whole)}: {', '.join(spread)}")
    lines.append(
        "Included: start of the program, reading data, validation with its metrics, samples, checkpoints, logs; "
        "those of the last step are in the end"
    )
    if limit is not None and limit < whole:
        lines.append(f"--trainer.max_time ends it before, after {duration(limit)}")
    if left_out:
        lines.append(f"Left out, as it would be told to another computer: {', '.join(left_out)}")
    return "\n".join(lines)


def alternatives_table(alternatives: Sequence[Alternative]) -> str:
    """How many times as fast each alternative is."""
    rows = []
    for one in alternatives:
        if one.speed is None or one.step is None:
            rows.append(f"  {one.name:<20} {one.failed or 'not measured'}")
            continue
        compiling = f"compiles for {duration(one.compiling)} at first" if one.compiling is not None else ""
        remark = ", ".join(part for part in (compiling, one.remark) if part)
        rows.append(f"  {one.name:<20} {one.speed:>6.2f} × {one.step * 1e3:>10.2f} ms  {remark}".rstrip())
    title = "Alternatives: images per second over those of the run as configured, and a step of theirs, in turns:"
    return "\n".join([title, *rows])


def overlay_text(words: Sequence[str], chosen: Sequence[Alternative]) -> str:
    """The overlay of those that are recommended, and what speaks for them."""
    command = shlex.join(["python", "-m", "lit_gans", *words]).replace("\n", " ")
    lines = [f"# {command}"]
    for one in chosen:
        remark = f"; {one.remark}" if one.remark else ""
        lines.append(f"# {one.name}: {one.speed or 0:.2f} times as fast{remark}")
    return "\n".join([*lines, yaml.safe_dump(merged([one.overlay for one in chosen]), sort_keys=False)])


def as_plain(
    measured: Measured, alternatives: Sequence[Alternative] | None, chosen: Sequence[Alternative]
) -> dict[str, Any]:
    """All of it as plain values: seconds, bytes and counts."""
    parts: dict[str, float] = {}
    for key, seconds in measured.usual_parts().items():
        name = f"{key.part}/{key.owner}" if key.owner else key.part
        parts[name] = parts.get(name, 0.0) + seconds
    costs, total = measured.estimate(), measured.total
    return {
        "step": measured.step,
        "parts": parts,
        "images": measured.images,
        "processes": measured.processes,
        "occasional": [
            {
                "name": work.name,
                "period": work.period,
                "count": None if total is None else work.count(total),
                "seconds": work.seconds,
            }
            for work in measured.works
        ],
        "memory": {"host": measured.host, "device": measured.device},
        "run": {"steps": total, "seconds": None if total is None else sum(costs.values()), "by": costs},
        "alternatives": None
        if alternatives is None
        else [
            {
                "name": one.name,
                "speed": one.speed,
                "step": one.step,
                "compiling": one.compiling,
                "failed": one.failed,
                "overlay": one.overlay,
            }
            for one in alternatives
        ],
        "recommended": merged([one.overlay for one in chosen]),
    }


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
