"""``tune``: learning rates, batch size and penalty weights, found by a short search with a bounded number of steps.

All options that are not listed here go to ``fit`` unchanged. Each trial is a run of ``fit`` in a folder of its own;
some begin, the better ones go on; trial 0 has the config's own values. The best trial is the one with the fewest
rollbacks by the guard; among equals, the one with the best ``monitor``. Trials that diverged, or had half of their
updates skipped, come last. The same command
goes on where it was stopped; with the same command, on the same machine, comes the same table.
"""

import argparse
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NoReturn

from lit_gans.commands.files import refuse_existing, staged
from lit_gans.commands.tuning.journal import Journal
from lit_gans.commands.tuning.overlays import overlay_text, settings, yaml_of
from lit_gans.commands.tuning.report import announcement, estimates, line_of, runs_of, table
from lit_gans.commands.tuning.search import (
    OptunaSampler,
    Outcome,
    Parameters,
    RandomSampler,
    Rung,
    Sampler,
    rungs,
    search,
)
from lit_gans.commands.tuning.space import check, data_options, name_of, own_values, space_of
from lit_gans.errors import UserError

__all__ = ("main",)


def main(command: str, words: list[str]) -> None:
    """Check all that can be checked, search, tell what was found."""
    options, ours, rest = parse(command, words)
    space = space_of(options)

    from lit_gans.commands.tuning.trial import training_images, understood  # needs torch: what can be is refused before

    config = understood(rest, ours)
    check(space, config)
    seed = config["seed_everything"] if type(config["seed_everything"]) is int else 0
    plan = rungs(options.trials, options.max_steps, options.eta)
    if options.max_steps < (least := options.eta ** (len(plan) - 1)):
        raise UserError(f"--max_steps {options.max_steps} cannot be split into {len(plan)} rungs: at least {least}")
    sampler: Sampler = RandomSampler(space, seed)
    if options.sampler == "optuna":
        sampler = OptunaSampler(space, seed, options.trials)
    if max(space.get("batch_size", [0])) > (images := training_images(config)) and data_options(config)["drop_last"]:
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
        ranked = search(plan, sampler, trials, config["monitor_mode"], own_values(space, config))
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

    def __init__(self, words: list[str], config: dict[str, Any], seed: int, plan: list[Rung], journal: Journal) -> None:
        self.words, self.config, self.seed, self.plan, self.journal = words, config, seed, plan, journal

    def __call__(self, trial: int, rung: int, parameters: Parameters, before: Outcome | None) -> Outcome:
        """Train a trial until the end of a rung, going on from ``before``."""
        from lit_gans.commands.tuning.trial import train

        if (kept := self.journal.outcomes.get((trial, rung))) is not None:
            return kept
        folder, monitor = self.journal.path.parent / f"trial_{trial}" / f"rung_{rung}", self.config["monitor"]
        shutil.rmtree(folder, ignore_errors=True)  # a run that was interrupted
        folder.mkdir(parents=True)
        overlay = folder / "overlay.yaml"
        content = settings(parameters, self.config, self.plan[rung].steps, self.seed, folder)
        overlay.write_text(yaml_of(content), encoding="utf-8")
        go_on = [] if before is None else ["--ckpt_path", str(before.checkpoint)]
        outcome = Outcome(trial, rung, parameters, 0, events=before.events if before else None)
        train([*self.words, "--config", str(overlay), *go_on], folder, monitor, outcome)
        self.journal.add(outcome)
        print(f"{len(self.journal.outcomes):>3}/{runs_of(self.plan)} {line_of(outcome, monitor)}", flush=True)
        return outcome


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
        "--eta", type=int, default=3, help="after each rung the best 1/eta of the trials go on, eta times as far (3)"
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
