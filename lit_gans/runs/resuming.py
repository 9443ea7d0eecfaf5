"""Going on with a run: in which folder, from which checkpoint, with which changes."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lit_gans.errors import UserError
from lit_gans.files import aside
from lit_gans.preflight.agreement import flat
from lit_gans.runs.checkpoint_files import CheckpointError, read
from lit_gans.runs.folders import claim_version, lock, newest_version
from lit_gans.runs.logs import logs

__all__ = ("ChosenRun", "OptionsOfConfig", "changes", "choose_run", "newest_checkpoint", "refuse_other_class")

_SCHEDULED = ("lr", "betas", "momentum")  # what schedules change


@dataclass(frozen=True)
class ChosenRun:
    """A run that begins or goes on.

    Args:
        folder: Where its files are.
        checkpoint: Path of the checkpoint whose state is taken; None for none.
        goes_on_from: The entries ``lit_gans``, ``logs`` and ``global_step`` of that checkpoint, if this folder's run is
            continued; None for a new run.
    """

    folder: Path
    checkpoint: str | None
    goes_on_from: dict[str, Any] | None = None


def choose_run(root: Path, checkpoint: str | None, resume: bool) -> ChosenRun:
    """A new folder, or that of the run that is gone on with; either is locked for this process.

    Args:
        root: Folder of all runs of this model and data.
        checkpoint: A checkpoint whose state is to be taken, the folder of a run, ``last``, or None.
        resume: Go on with the newest run, if there is one.

    Raises:
        UserError: if a folder was given that holds no checkpoint, or another process writes in it.
    """
    path = Path(checkpoint) if checkpoint and checkpoint != "last" else None
    given = path if path is not None and path.is_dir() else None
    restarted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0
    resumes = resume or restarted or given is not None or checkpoint == "last"
    folder = (given.parent if given and given.name == "checkpoints" else given) or newest_version(root)
    if resumes and folder is not None:
        found = newest_checkpoint(folder)
        if found is not None:
            newest, state = found
            lock(folder)
            make_last(newest)
            rank_zero_info(f"resume: {newest}, step {state.get('global_step')}")
            kept = {key: state.get(key, {}) for key in ("lit_gans", "logs", "global_step")}
            return ChosenRun(folder, str(newest), kept)
        if given is not None:
            raise UserError(f"{given} holds no checkpoint to go on from")
    if folder is None or not resumes or next(logs(folder), None):
        folder = claim_version(root)
    lock(folder)
    if resumes:
        rank_zero_info(f"resume: there is no checkpoint in {folder} yet, the run begins")
        checkpoint = None if path is None else str(path)
    return ChosenRun(folder, checkpoint)


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint of a run folder that was written last and is whole, with its content; None if there is none.

    States from the middle of a step and those of the guard are none that a run could go on from.

    Raises:
        UserError: if there are checkpoints, but none is whole.
    """
    paths = [*folder.glob("checkpoints/*.ckpt"), *folder.glob("checkpoints/*.ckpt.previous")]
    paths = [path for path in paths if not path.name.startswith(("exception.", "health-"))]
    damaged = None
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            return path, read(path, "cpu")
        except CheckpointError as error:
            rank_zero_info(f"resume: {error}")
            damaged = error
    if damaged is not None:
        raise UserError(f"none of the checkpoints in {folder / 'checkpoints'} is whole") from damaged
    return None


@rank_zero_only
def make_last(path: Path) -> None:
    """Have ``last.ckpt`` be the state that the run goes on from, so that it is the newest even if no step follows."""
    last = path.with_name("last.ckpt")
    if path != last:
        with aside(last) as partial:
            shutil.copyfile(path, partial)


def changes(folder: Path, config: str) -> Iterator[str]:
    """What a config says otherwise than that of the run folder, one line for each."""
    path = folder / "config.yaml"
    if not path.is_file():
        return
    before, now = (flat(yaml.safe_load(text)) for text in (path.read_text("utf-8"), config))
    for name in sorted(before | now):
        of_logger = name.startswith("trainer.logger") and name.endswith((".id", ".resume"))
        if before.get(name) != now.get(name) and name not in ("resume", "ckpt_path") and not of_logger:
            yield f"{name.removeprefix('model.init_args.')} {before.get(name)!r} → {now.get(name)!r}"


def refuse_other_class(found: str, wrote: str, asked: str) -> None:
    """Raise if a model of one class is to go on as one of another."""
    if wrote.rpartition(".")[2] != asked.rpartition(".")[2]:
        raise UserError(f"{found} {wrote}, the config asks for a {asked}")


class OptionsOfConfig(Callback):
    """After resuming, optimizers have the options of the config, not those of the checkpoint; schedules go on.

    A schedule goes on from where it was, with its learning rates in the proportion of the config's to those before.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the options that the optimizers begin with."""
        self.options = [
            [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
            for optimizer in trainer.optimizers
        ]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put them in the place of those that Lightning restored with the optimizers' states."""
        schedulers = {id(config.scheduler.optimizer): config.scheduler for config in trainer.lr_scheduler_configs}
        for optimizer, groups in zip(trainer.optimizers, self.options, strict=True):
            scheduler: Any = schedulers.get(id(optimizer))
            for group, options in zip(optimizer.param_groups, groups, strict=True):
                if scheduler is not None:
                    before, now = group.get("initial_lr"), options.get("initial_lr")
                    if before and now and before != now:
                        group["lr"] *= now / before
                        rescale(scheduler, now / before)
                    options = {key: value for key, value in options.items() if key not in _SCHEDULED}
                group.update(options)


def rescale(scheduler: Any, ratio: float) -> None:
    """Multiply what a schedule, or those it is made of, starts from."""
    scheduler.base_lrs = [lr * ratio for lr in getattr(scheduler, "base_lrs", [])]
    for part in getattr(scheduler, "_schedulers", []):
        rescale(part, ratio)
