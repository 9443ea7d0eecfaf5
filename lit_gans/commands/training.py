"""``fit``, ``validate``, ``test``: Lightning's command line, mended for two players and for people."""

import json
import logging
import os
import re
import signal
import subprocess
import warnings
from collections.abc import Iterable
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from lightning import Callback, LightningDataModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import StrategyRegistry
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.distributed import DistNetworkError

from lit_gans.callbacks import SampleGrid
from lit_gans.callbacks.progress import GameProgressBar
from lit_gans.commands.linking import link, options_of_data
from lit_gans.commands.parsing import Parser, explain
from lit_gans.commands.precheck import data_class
from lit_gans.commands.processes import refuse_too_many
from lit_gans.commands.restoring import data_class_of, data_of, description_of, named_checkpoint, read_checkpoint
from lit_gans.commands.verdict import verdict
from lit_gans.commands.words import IMPORT, values_of, with_shipped
from lit_gans.data import ImageDataModule
from lit_gans.errors import UserError, unknown
from lit_gans.game.checkpoint import begin_with
from lit_gans.game.rebuilding import check_trainer_state
from lit_gans.models import GAN
from lit_gans.runs.checkpoint_files import CheckpointError
from lit_gans.runs.checkpoints import BestCheckpoint, LastCheckpoint, SaveConfig
from lit_gans.runs.folders import discard_unused, keep, next_version
from lit_gans.runs.loggers import AppendingCSVLogger, PatientTensorBoardLogger, place_loggers
from lit_gans.runs.logs import LogPosition
from lit_gans.runs.resuming import OptionsOfConfig, changes, choose_run, refuse_other_class
from lit_gans.runs.signals import StopOnSignal

__all__ = ("CommandLine", "main")

DEFAULT_STEPS = 10_000
REQUEUE = 10  # SIGUSR1, by which SLURM warns a job of its end
TRAINER_DEFAULTS = {
    "use_distributed_sampler": False,  # the data module's loader deals the samples out to ranks itself
    "num_sanity_val_steps": 0,
    "check_val_every_n_epoch": None,  # all cadences count steps
    "val_check_interval": 1000,
    "enable_model_summary": False,
    "default_root_dir": "runs",
    "inference_mode": False,  # gradient penalties differentiate in validation too
}
EXPECTED_WARNINGS = (  # they tell of what is meant so
    ".*does not have many workers.*",
    ".*LeafSpec.*",
    ".*exists and is not empty.*",
    ".*is smaller than the logging interval.*",
    ".*callbacks used to create the checkpoint need to be provided.*",
    ".*dirpath has changed from.*",
    ".*Total length of `?[A-Za-z]*`? across ranks is zero.*",
)


def main(command: str, words: list[str]) -> None:
    """Run the command on the words that follow it."""
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip:" not in record.getMessage()
    )
    run(command, of_checkpoint(command, resume_folder(words), values_of(words, "import")))


def run(
    command: str,
    words: list[str],
    *callbacks: Callback,
    kind: "type[CommandLine] | None" = None,
    parser: type[Parser] = Parser,
) -> "CommandLine":
    """Parse, build, and call the trainer.

    Args:
        command: Name of the command: ``fit``, ``validate`` or ``test``.
        words: The words that follow it on the command line.
        callbacks: Besides those of the words.
        kind: The command line, if another than ``CommandLine``.
        parser: Class of the parser that reads the words.
    """
    named = data_class(words)
    try:
        return (kind or CommandLine)(
            command,
            GAN,
            LightningDataModule if named else ImageDataModule,
            save_config_callback=None,
            trainer_defaults=TRAINER_DEFAULTS | ({"callbacks": list(callbacks)} if callbacks else {}),
            seed_everything_default=0,
            parser_class=parser,
            subclass_mode_model=True,
            subclass_mode_data=named is not None,
            auto_configure_optimizers=False,
            args=[command, *with_shipped(words)],
        )
    except ValueError as error:  # raised by a class while jsonargparse built it, wrapped in pages of its own
        raise UserError(explain(str(error))) if "Does not validate" in str(error) else error from None
    except MisconfigurationException as error:
        if "No supported gpu backend" not in str(error):
            raise
        raise UserError(
            "--trainer.accelerator asks for a GPU, and torch finds none: give cpu, or leave it out"
        ) from error
    finally:
        discard_unused()


class CommandLine(LightningCLI):
    """LightningCLI with a run folder, and without its surprises."""

    resumed: dict[str, Any] | None = None  # of the checkpoint that the run of this folder goes on from

    def __init__(self, command: str, *args: Any, **kwargs: Any) -> None:
        self.command = command
        super().__init__(*args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning asks an instance
        """The one that is run: a parser takes half a second to build."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of our own."""
        parser.add_argument("--checkpoint_every", type=int, default=1000, help="steps between two writes of last.ckpt")
        parser.add_argument(
            "--resume",
            action="store_true",
            help="go on with the newest run of this model and data, in its folder; begin one if there is none",
        )
        parser.add_argument(
            "--init_from", type=str | None, default=None, help="begin with the weights of this checkpoint or run folder"
        )
        parser.add_argument("--import", action="append", default=[], help=IMPORT)
        parser.add_argument("--sample_every", type=int, default=500, help="steps between two sample grids")
        parser.add_argument("--monitor", type=str | None, default=None, help="metric that best.ckpt is judged by")
        parser.add_argument(
            "--monitor_mode", type=Literal["min", "max"], default="min", help="min if lower is better, else max"
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse the words given, whatever else the process was started with."""
        self.config: Namespace = parser.parse_args(args)  # type: ignore[arg-type]
        self.given: Namespace = parser.parse_args(args, defaults=False)  # type: ignore[arg-type]

    def _parse_ckpt_path(self) -> None:
        """Resuming: the config wins over the arguments in the checkpoint; differences are told, not merged."""
        options = self.config[self.config.subcommand]
        path = options.get("ckpt_path")
        if not path or self.config.subcommand != "fit" or path == "last" or Path(path).is_dir():
            return
        checkpoint = read_checkpoint(path)
        check_trainer_state(checkpoint, path)
        saved, wrote = checkpoint.get("hyper_parameters", {}), checkpoint["lit_gans"]["class_path"]
        given = json.loads(json.dumps(options.model.as_dict()))
        refuse_other_class(f"{path} holds a", wrote, given["class_path"])
        for key, value in given["init_args"].items():
            if key in saved and saved[key] != value:
                rank_zero_info(f"resume: {key} {saved[key]!r} → {value!r}")

    def before_instantiate_classes(self) -> None:
        """Make the options those of a run: complete, possible, and with a folder of its own."""
        options, name = self.config[str(self.subcommand)], str(self.subcommand)
        link(options, self.given[name])
        refuse_impossible(options, name)
        complete(options)
        self.choose_folder(options)
        place_loggers(options.trainer.logger, self.run_folder, Path(options.trainer.default_root_dir), self.resumed)
        self.tell_changes(options)

    def choose_folder(self, options: Namespace) -> None:
        """Where this run leaves its files: in a new folder, or in that of the run it goes on with."""
        data = re.sub(r"[^\w.]+", ".", options_of_data(options).dataset)  # of one's own: module:function
        name = f"{options.model.class_path.rpartition('.')[2]}-{data}".lower()
        root = Path(options.trainer.default_root_dir) / name
        if self.subcommand == "fit":
            chosen = choose_run(root, options.ckpt_path, options.resume)
            self.run_folder, options.ckpt_path, self.resumed = chosen.folder, chosen.checkpoint, chosen.goes_on_from
        else:
            self.run_folder = next_version(root)

    def tell_changes(self, options: Namespace) -> None:
        """One line for each option that is not what it was; another model is refused."""
        if self.resumed is not None:
            wrote = self.resumed["lit_gans"].get("class_path", "a foreign model")
            refuse_other_class(f"{self.run_folder} is a run of", wrote, options.model.class_path)
            for change in changes(self.run_folder, self.config_text()):
                rank_zero_info(f"resume: {change}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Add what a user gets without asking, where the config brings none of its kind."""
        options = self.config[str(self.subcommand)]
        trainer = self._get(self.config_init, "trainer")
        if self.subcommand == "fit":
            if trainer.logger in (None, True) and not trainer.fast_dev_run:
                kwargs["logger"] = self.default_loggers()
            trainer.callbacks = self.callbacks(options, trainer.callbacks)
        elif trainer.logger in (None, True):
            kwargs["logger"] = False
        return super().instantiate_trainer(**kwargs)

    def default_loggers(self) -> list[Logger]:
        """TensorBoard and CSV, side by side in the run folder."""
        folder = str(self.run_folder)
        return [
            PatientTensorBoardLogger(folder, name="", version="", default_hp_metric=False),
            AppendingCSVLogger(folder, name="", version=""),
        ]

    def callbacks(self, options: Namespace, given: Any) -> list[Callback]:
        """Those of the config, and ours where the config has none of that kind."""
        callbacks = [] if given is None else given if isinstance(given, list) else [given]
        folder, trainer = self.run_folder, options.trainer
        text = self.config_text()
        ours: list[Callback] = [SaveConfig(text, yaml.safe_load(text), folder)]
        if trainer.enable_progress_bar is not False:
            ours.append(GameProgressBar())
        ours += [StopOnSignal(), LogPosition(folder, self.resumed and self.resumed["logs"])]
        ours.append(SampleGrid(every_n_steps=options.sample_every, dirpath=str(folder / "samples")))
        if trainer.enable_checkpointing is not False:
            if options.monitor is not None:
                ours.append(BestCheckpoint(options.monitor, options.monitor_mode, str(folder / "checkpoints")))
            ours.append(LastCheckpoint(str(folder / "checkpoints"), options.checkpoint_every))
        names = [type(callback).__name__ for callback in callbacks if callback.state_key == type(callback).__qualname__]
        for name in (name for name in names if names.count(name) > 1):
            raise UserError(
                f"there are two {name}: an overlay adds its callbacks to those that the config has; leave one out"
            )
        kinds = {ProgressBar if isinstance(callback, ProgressBar) else type(callback) for callback in callbacks}
        first: list[Callback] = [OptionsOfConfig()] if options.ckpt_path else []  # the guard looks at what it leaves
        ours = [callback for callback in ours if not any(isinstance(callback, kind) for kind in kinds)]
        return [*first, *callbacks, *ours]

    def config_text(self) -> str:
        """The resolved config, as it can be given to ``--config``."""
        parser = self._parser(self.subcommand)
        config = self.config[str(self.subcommand)].clone()
        if self.subcommand == "fit" and self.resumed is not None:  # the config of the run, not of this part of it
            config.resume, config.ckpt_path = False, None
        return parser.dump(config, skip_none=False, format="yaml")

    def fit(self, **kwargs: Any) -> None:
        """Train, and say where the results are."""
        self.tell_start()
        if (first := self.config[str(self.subcommand)].init_from) is not None and not kwargs.get("ckpt_path"):
            try:
                rank_zero_info(f"{type(self.model).__name__} {begin_with(self.model, named_checkpoint(first))}")
            except (ValueError, CheckpointError) as error:
                raise UserError(f"--init_from: {error}") from error
        try:
            self.trainer.fit(**kwargs)
        except BaseException as error:
            launcher: Any = self.trainer.strategy.launcher
            if hasattr(launcher, "kill"):  # the other processes would wait for this one
                launcher.kill(signal.SIGTERM)
                launcher.kill(getattr(signal, "SIGCONT", signal.SIGTERM))  # one that is stopped, too, learns of it
            if isinstance(error, DistNetworkError) and "EADDRINUSE" in str(error):
                port = os.environ.get("MASTER_PORT")
                raise UserError(f"port {port} is in use: set MASTER_PORT to a free one, or leave it out") from error
            if isinstance(error, SIGTERMException) and error.code == 128 + REQUEUE and "SLURM_JOB_ID" in os.environ:
                requeue()
            raise
        finally:
            if any(isinstance(callback, SaveConfig) and callback.began for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
                keep(self.run_folder)
            if self.trainer.global_step:
                rank_zero_info(f"run folder: {self.run_folder}")
        if self.trainer.is_global_zero and self.trainer.global_step and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_info(verdict(self.trainer, self.model, self.run_folder))

    def tell_start(self) -> None:
        """What trains, on what, and which of the options that change speed and precision are on."""
        trainer, model = self.trainer, self.model
        processes = f"{trainer.world_size} process{'es' * (trainer.world_size > 1)}"
        words = {True: "on", False: "off", None: "off"}
        switches = {"compile": model.hparams.get("compile"), "channels_last": model.hparams.get("channels_last")}
        rank_zero_info(
            f"{type(model).__name__} on {trainer.strategy.root_device.type}, {processes}, "
            f"{type(trainer.strategy).__name__}, precision {trainer.precision}, "
            + ", ".join(f"{name} {words.get(value, value)}" for name, value in switches.items())
        )


def refuse_impossible(options: Namespace, command: str) -> None:
    """Raise if an option is out of range, or asks for what this machine or Lightning does not have."""
    for name in ("checkpoint_every", "sample_every"):
        if options[name] < 1:
            raise UserError(f"--{name} must be at least 1, got {options[name]}")
    if options.init_from is not None:
        named_checkpoint(options.init_from)
    refuse_too_many("--trainer.devices", options.trainer.devices, options.trainer.accelerator)
    strategies = ["auto", *StrategyRegistry.available_strategies()]
    if isinstance(options.trainer.strategy, str) and options.trainer.strategy not in strategies:
        raise UserError(unknown("strategy", options.trainer.strategy, strategies))
    if command == "fit" and options.trainer.max_epochs == 0:
        raise UserError("--trainer.max_epochs 0 would train nothing: give 1 or more, or -1 and --trainer.max_steps")


def complete(options: Namespace) -> None:
    """Give a run an end, and one cadence of validation, by steps or by epochs."""
    trainer = options.trainer
    give_an_end(trainer)
    if trainer.check_val_every_n_epoch is not None:
        every = trainer.val_check_interval
        trainer.val_check_interval = None if every == TRAINER_DEFAULTS["val_check_interval"] else every


def give_an_end(trainer: Any) -> None:
    """Where nothing says how long to train, train for ``DEFAULT_STEPS``; of options, or of the same as a dict."""
    if (trainer["max_steps"], trainer["max_epochs"], trainer["max_time"]) == (-1, None, None):
        trainer["max_steps"] = DEFAULT_STEPS


def requeue() -> None:
    """Have SLURM start this job again."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
    if rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        done = subprocess.run(["scontrol", "requeue", job], check=False, capture_output=True, text=True)
        failed = f" failed: {done.stderr.strip()}" if done.returncode else ""
        rank_zero_info(f"scontrol requeue {job}{failed}")


def resume_folder(words: list[str]) -> list[str]:
    """``--resume FOLDER`` is another way to say ``--ckpt_path FOLDER``."""
    for index, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag == "--resume" and equals and Path(value).is_dir():
            return [*words[:index], f"--ckpt_path={value}", *words[index + 1 :]]
        if word == "--resume" and index + 1 < len(words) and Path(words[index + 1]).is_dir():
            return [*words[:index], "--ckpt_path", *words[index + 1 :]]
    return words


def of_checkpoint(command: str, words: list[str], trust: Iterable[str]) -> list[str]:
    """The words after those that describe the model and, without a config, the data of ``--ckpt_path``.

    The user's own win. ``fit`` with a config or a model takes nothing from the checkpoint but its state, and goes on in
    a folder that is named; other commands take the best or last checkpoint of a folder.
    """
    flags = [word.partition("=")[0] for word in words]
    at = flags.index("--ckpt_path") if "--ckpt_path" in flags else None
    if at is None or (command == "fit" and {"--config", "--model"} & set(flags)):
        return words
    inline = "=" in words[at]
    path = words[at].partition("=")[2] if inline else next(iter(words[at + 1 : at + 2]), "")
    if path in ("", "last"):
        return words
    found = named_checkpoint(path)
    if command != "fit":
        words = [*words[:at], f"--ckpt_path={found}", *words[at + (1 if inline else 2) :]]
    checkpoint, told = read_checkpoint(found), []
    described = description_of(checkpoint, found, trust)
    if described is not None:
        told += ["--model", json.dumps(described)]
    if not any(flag == "--config" or flag.startswith("--data") for flag in flags):
        kind = data_class_of(checkpoint)
        data = data_of(checkpoint, signature(kind).parameters)
        told += [] if kind is ImageDataModule else [f"--data={kind.__name__}"]
        told += [
            f"--data.{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in data.items()
        ]
    return told + words
