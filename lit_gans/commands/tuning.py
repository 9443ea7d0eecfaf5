"""``tune``: learning rates, batch size and penalty weights, found by a short search with a bounded number of steps.

All options that are not listed here go to ``fit`` unchanged. Each trial is a run of ``fit`` in a folder of its own;
some begin, the better ones go on; trial 0 has the config's own values. Best is who needed the fewest rollbacks by the
guard, then who has the best ``monitor``; who diverged, or had half of the updates skipped, comes last. The same command
goes on where it was stopped; with the same command, on the same machine, comes the same table.
"""

import argparse
import json
import math
import re
import shlex
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from lit_gans.commands.files import refuse_existing, staged
from lit_gans.errors import UserError, unknown

if TYPE_CHECKING:
    from lit_gans.commands.halving import Outcome, Parameters, Rung, Space

__all__ = ("main",)

ARGUMENTS = ("g_lr", "d_lr", "gp_weight")  # of models


def main(command: str, words: list[str]) -> None:
    """Check all that can be checked, search, tell what was found."""
    options, ours, rest = parse(command, words)
    space = space_of(options)

    from lit_gans.commands import halving

    config = halving.understood(rest, ours)
    check(space, config)
    seed = config["seed_everything"] if type(config["seed_everything"]) is int else 0
    plan = halving.rungs(options.trials, options.max_steps, options.eta)
    if options.max_steps < (least := options.eta ** (len(plan) - 1)):
        raise UserError(f"--max_steps {options.max_steps} cannot be split into {len(plan)} rungs: at least {least}")
    sampler: halving.Sampler = halving.RandomSampler(space, seed)
    if options.sampler == "optuna":
        sampler = halving.OptunaSampler(space, seed, options.trials)
    if max(space.get("batch_size", [0])) > (images := halving.training_images(config)) and config["data"]["drop_last"]:
        raise UserError(f"--batch_size {max(space['batch_size'])} is larger than the data set of {images} images")
    folder = Path(options.dir or Path(config["trainer"]["default_root_dir"], f"tune-{name_of(config)}"))
    bounds = {name: getattr(options, name) for name in ("trials", "max_steps", "eta", "sampler")}
    journal = Journal(folder, {**bounds, "ranges": space, "config": config})
    output = Path(options.output)
    if not (output.is_file() and output.read_text(encoding="utf-8") == journal.overlay):
        refuse_existing(output, options.overwrite, parents=True)

    print(announcement(plan, space, config, seed, options.sampler, journal), flush=True)
    journal.write()
    try:
        trials = Trials(rest, config, seed, plan, journal)
        ranked = halving.search(plan, sampler, trials, config["monitor_mode"], own_values(space, config))
    except (KeyboardInterrupt, SystemExit):
        print(f"stopped: {len(journal.outcomes)} of {runs_of(plan)} runs are kept; the same command goes on from there")
        raise
    best = ranked[0]
    print(table(ranked, config["monitor"]))
    if best.diverged:
        raise UserError(f"all trials diverged ({best.diverged}): give lower ranges, or mend the config")
    print(estimates(best, config))
    told = shlex.join(["python", "-m", "lit_gans", command, *words]).replace("\n", " ")
    journal.overlay = f"# {told}\n{overlay_text(best, config, len(ranked), seed)}"
    journal.write()
    with staged(output) as target:
        target.write_text(journal.overlay, encoding="utf-8")
    print(f"→ {output}: give fit the same options, and --config {output} after them")


class Trials:
    """Trains trials as runs of ``fit``, each but once.

    Args:
        words: Of the command line of ``fit``.
        config: The config that ``fit`` makes of the words.
        seed: Seed of the training runs of all trials.
        plan: The rungs: how many trials train until which step.
        journal: The outcomes that are known already; new ones are added.
    """

    def __init__(
        self, words: list[str], config: dict[str, Any], seed: int, plan: "list[Rung]", journal: "Journal"
    ) -> None:
        self.words, self.config, self.seed, self.plan, self.journal = words, config, seed, plan, journal

    def __call__(self, trial: int, rung: int, parameters: "Parameters", before: "Outcome | None") -> "Outcome":
        """Train a trial until the end of a rung, going on from ``before``."""
        from lit_gans.commands import halving

        if (kept := self.journal.outcomes.get((trial, rung))) is not None:
            return kept
        folder, monitor = self.journal.path.parent / f"trial_{trial}" / f"rung_{rung}", self.config["monitor"]
        shutil.rmtree(folder, ignore_errors=True)  # a run that was interrupted
        folder.mkdir(parents=True)
        overlay = folder / "overlay.yaml"
        content = settings(parameters, self.config, self.plan[rung].steps, self.seed, folder)
        overlay.write_text(yaml_of(content), encoding="utf-8")
        go_on = [] if before is None else ["--ckpt_path", str(before.checkpoint)]
        outcome = halving.Outcome(trial, rung, parameters, 0, events=before.events if before else None)
        halving.train([*self.words, "--config", str(overlay), *go_on], folder, monitor, outcome)
        self.journal.add(outcome)
        print(f"{len(self.journal.outcomes):>3}/{runs_of(self.plan)} {line_of(outcome, monitor)}", flush=True)
        return outcome


# what is asked for


class Options(argparse.ArgumentParser):
    """Fails in one sentence."""

    def error(self, message: str) -> NoReturn:
        """Leave the telling to the command line."""
        raise UserError(message)


def parse(command: str, words: list[str]) -> tuple[argparse.Namespace, list[str], list[str]]:
    """The search's own options, their names, and the words that are left for ``fit``."""
    parser = Options(prog=f"python -m lit_gans {command}", description=__doc__, allow_abbrev=False)
    low_high: dict[str, Any] = {"nargs": 2, "type": float, "metavar": ("LOW", "HIGH")}
    parser.add_argument("--g_lr", **low_high, help="range of the generator's learning rate, log-uniform")
    parser.add_argument("--d_lr", **low_high, help="the same for the discriminator")
    parser.add_argument("--batch_size", nargs="+", type=int, metavar="N", help="batch sizes to choose from")
    parser.add_argument("--gp_weight", **low_high, help="range of the penalty's weight, for models that take one")
    for name in dict.fromkeys(found[1] for word in words if (found := re.match(r"--weight\.(\w+)(=|$)", word))):
        parser.add_argument(f"--weight.{name}", **low_high, help=f"range of the weight of {name}")
    parser.add_argument_group("regularizers", "--weight.NAME LOW HIGH: range of the weight of one that the config has")
    parser.add_argument("--trials", type=int, default=9, help="number of trials that begin (9)")
    parser.add_argument("--max_steps", type=int, default=500, help="steps of the trials that come farthest (500)")
    parser.add_argument(
        "--eta", type=int, default=3, help="of each rung one in so many goes on, so many times as far (3)"
    )
    parser.add_argument("--sampler", choices=["random", "optuna"], default="random", help="where trials come from")
    parser.add_argument("--dir", help="folder of the search (<default_root_dir>/tune-<model>-<data>)")
    parser.add_argument("-o", "--output", default="best.yaml", help="overlay for fit --config (best.yaml)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output path")
    options, rest = parser.parse_known_args(words)
    for name, least in {"trials": 1, "max_steps": 1, "eta": 2}.items():
        if getattr(options, name) < least:
            raise UserError(f"--{name} must be at least {least}, got {getattr(options, name)}")
    return options, [action.option_strings[-1].lstrip("-") for action in parser._actions] + ["weight.R1"], rest


def space_of(options: argparse.Namespace) -> "Space":
    """Ranges and choices by name.

    Raises:
        UserError: if there is one that no value can be drawn from.
    """
    given = {name: value for name, value in vars(options).items() if value is not None}
    space: Space = {}
    for name in (*ARGUMENTS, *(name for name in given if name.startswith("weight."))):
        if name in given:
            low, high = given[name]
            if not 0 < low < high < math.inf:
                raise UserError(f"--{name} {low:g} {high:g}: LOW must be above 0, and HIGH above LOW")
            space[name] = (low, high)
    if "batch_size" in given:
        if (least := min(given["batch_size"])) < 1:
            raise UserError(f"--batch_size must be at least 1, got {least}")
        space["batch_size"] = list(dict.fromkeys(given["batch_size"]))
    if list(space) == ["batch_size"] and options.trials > len(space["batch_size"]):
        raise UserError(
            f"--batch_size alone makes {len(space['batch_size'])} trials, --trials asks for {options.trials}"
        )
    return space


def check(space: "Space", config: dict[str, Any]) -> None:
    """Refuse what the config does not have, and what a search cannot work with.

    Raises:
        UserError: naming it.
    """
    trainer, model = config["trainer"], config["model"]["init_args"]
    if not space:
        raise UserError("say what to search, for example --g_lr 1e-4 2e-3 --d_lr 1e-4 2e-3 --batch_size 32 64 128")
    for name in ARGUMENTS:
        if name in space and name not in model:
            there = ", ".join(["g_lr", "d_lr", *(f"weight.{short(entry)}" for entry in model["regularizers"] or ())])
            raise UserError(f"{short(config['model'])} takes no {name}; there are {there}")
        player = name.removesuffix("_lr")
        if name in space and player != name and model[f"{player}_optimizer"] is not None:
            raise UserError(f"--{name} would change nothing: {player}_optimizer brings its own learning rate")
    listed = [short(entry) for entry in model["regularizers"] or ()]
    for name in (name.removeprefix("weight.") for name in space if name.startswith("weight.")):
        if listed.count(name) != 1:
            raise UserError(
                f"the config has {listed.count(name)} regularizers {name}: a weight needs one"
                if listed.count(name) or not listed
                else unknown("regularizer", name, listed)
            )
    devices = trainer["devices"]
    if (devices not in ("auto", 1, "1") and not (isinstance(devices, list) and len(devices) == 1)) or (
        trainer["num_nodes"] != 1
    ):
        raise UserError("a search trains on one device: --trainer.devices 1 --trainer.num_nodes 1")
    if config["ckpt_path"]:
        raise UserError("a search starts from the beginning: leave out --ckpt_path")
    if trainer["fast_dev_run"]:
        raise UserError("a search needs results to compare: leave out --trainer.fast_dev_run")
    if trainer["enable_checkpointing"] is False:
        raise UserError("trials are continued from checkpoints: leave out --trainer.enable_checkpointing false")


def short(entry: dict[str, Any]) -> str:
    """The name of a class in a config."""
    return str(entry["class_path"]).rpartition(".")[2]


def name_of(config: dict[str, Any]) -> str:
    """What is trained, on what."""
    return f"{short(config['model'])}-{config['data']['dataset']}".lower()


# what is kept


class Journal:
    """``tune.json``: what was asked for, and what came of each trial at each rung so far.

    Args:
        folder: The folder of the search.
        asked: All that decides what comes out.

    Raises:
        UserError: if the folder is that of another search, or of something else.
    """

    def __init__(self, folder: Path, asked: dict[str, Any]) -> None:
        from lit_gans.commands.halving import Outcome

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

    def add(self, outcome: "Outcome") -> None:
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


def own_values(space: "Space", config: dict[str, Any]) -> "Parameters":
    """What the config says of all that is searched; the middle of the range of a weight that a rule would give."""
    model, regularizers = config["model"]["init_args"], config["model"]["init_args"]["regularizers"]
    weights = {f"weight.{short(entry)}": entry["init_args"]["weight"] for entry in regularizers or ()}
    there = {**model, **weights, "batch_size": config["data"]["batch_size"]}
    return {name: _middle(allowed) if there[name] is None else there[name] for name, allowed in space.items()}


def _middle(allowed: Any) -> float:
    """The geometric mean of a range."""
    low, high = allowed
    return float(math.sqrt(low * high))


def overlay_of(parameters: "Parameters", config: dict[str, Any]) -> dict[str, Any]:
    """The parameters as they stand in a config."""
    model: dict[str, Any] = {name: parameters[name] for name in ARGUMENTS if name in parameters}
    weights = {name.removeprefix("weight."): parameters[name] for name in parameters if name.startswith("weight.")}
    if weights:
        model["regularizers"] = [
            {**entry, "init_args": {**entry["init_args"], "weight": weights[short(entry)]}}
            if short(entry) in weights
            else entry
            for entry in config["model"]["init_args"]["regularizers"]
        ]
    overlay: dict[str, Any] = {"model": {"init_args": model}} if model else {}
    return overlay | ({"data": {"batch_size": parameters["batch_size"]}} if "batch_size" in parameters else {})


def overlay_text(best: "Outcome", config: dict[str, Any], trials: int, seed: int) -> str:
    """The overlay, and what speaks for it."""
    score = "no metric" if best.metric is None else f"{config['monitor']} {best.metric:.5g}"
    return (
        f"# trial {best.trial}, the best of {trials}: {score} after {best.steps} steps, guard: {guard_of(best)}; "
        f"seed {seed}\n{yaml_of(overlay_of(best.parameters, config))}"
    )


def settings(parameters: "Parameters", config: dict[str, Any], steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """The overlay of one run: its parameters, its end, its folder."""
    before = config["trainer"]
    trainer: dict[str, Any] = {
        "max_steps": steps,
        "max_epochs": -1,
        **dict.fromkeys(("max_time", "min_steps", "min_epochs")),
        "devices": 1 if before["devices"] == "auto" else before["devices"],
        "enable_progress_bar": False,
        "default_root_dir": str(folder),
    }
    loggers = before["logger"] if isinstance(before["logger"], list) else [before["logger"]]
    if all(isinstance(entry, dict) for entry in loggers):
        trainer["logger"] = [relocated(entry, before["default_root_dir"]) for entry in loggers]
    return {"seed_everything": seed, "trainer": trainer, **overlay_of(parameters, config)}


def relocated(logger: dict[str, Any], root: str) -> dict[str, Any]:
    """A logger that goes to the folder of each run, where it would have gone to the folder of all runs."""
    arguments = logger.get("init_args") or {}
    here = Path(arguments.get("save_dir") or ".") in (Path("."), Path(root))
    return {**logger, "init_args": {**arguments, "save_dir": "."}} if here else logger


def yaml_of(config: dict[str, Any]) -> str:
    """A config as text."""
    import yaml

    return yaml.safe_dump(config, sort_keys=False)


# what is told


def runs_of(plan: "list[Rung]") -> int:
    """How many runs of ``fit`` the search takes."""
    return sum(rung.trials for rung in plan)


def announcement(
    plan: "list[Rung]", space: "Space", config: dict[str, Any], seed: int, sampler: str, journal: Journal
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


def line_of(outcome: "Outcome", monitor: str | None) -> str:
    """One run."""
    drawn = ", ".join(f"{name} {value:g}" for name, value in outcome.parameters.items())
    metric = "" if outcome.metric is None else f"{monitor} {outcome.metric:.5g}, "
    return f"trial {outcome.trial}, {outcome.steps} steps: {drawn} → {metric}{remark_of(outcome)}"


def remark_of(outcome: "Outcome") -> str:
    """Whether it diverged, and what the guard did."""
    return f"diverged: {outcome.diverged}" if outcome.diverged else f"guard: {guard_of(outcome)}"


def guard_of(outcome: "Outcome") -> str:
    """What the guard did, gravest first."""
    if outcome.events is None:
        return "none"
    names = {"stop": "stop", "rollback": "rollback", "skip": "skip", "clip": "clip", "warn": "warning"}
    counts = {names[key]: outcome.events[key] for key in names if outcome.events.get(key)}
    return ", ".join(f"{count} {name}{'s' if count > 1 else ''}" for name, count in counts.items()) or "quiet"


def table(ranked: "list[Outcome]", monitor: str | None) -> str:
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


def estimates(best: "Outcome", config: dict[str, Any]) -> str:
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
