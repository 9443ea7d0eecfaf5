"""Runs of ``fit`` that leave nothing: built from its words, in a folder that is thrown away, and stopped at will."""

import logging
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer
from lightning.pytorch.utilities import rank_zero_only

from lit_gans.callbacks import GenerativeMetrics, SampleGrid
from lit_gans.commands.parsing import Parser, explain, options_of
from lit_gans.commands.profiling.occasional import works_of
from lit_gans.commands.profiling.pace import clock_of
from lit_gans.commands.training import CommandLine, run
from lit_gans.errors import UserError
from lit_gans.metrics.reference import cache_folder

__all__ = ("Built", "Stepper", "build", "first", "room", "told", "without_output")

PLACES = ("dirpath", "save_dir", "dir", "log_dir", "filename_prefix")
LOGGERS = ("CSVLogger", "TensorBoardLogger")


class Built(CommandLine):
    """``fit``, built and not begun."""

    folder: Path
    arguments: dict[str, Any]
    left_out: tuple[str, ...] = ()
    max_seconds: float | None = None

    def before_instantiate_classes(self) -> None:
        """Have all that the run writes go to the folder."""
        super().before_instantiate_classes()
        options = self.config[str(self.subcommand)]
        trainer = options.trainer
        if trainer.fast_dev_run:
            raise UserError("--trainer.fast_dev_run is too short to be measured: leave it out")
        if trainer.max_time is not None:
            self.max_seconds, trainer.max_time = Timer(trainer.max_time).time_remaining(), None
        trainer.default_root_dir, trainer.profiler = str(self.folder), None
        self.left_out = keep_local_loggers(trainer)
        for entry in (*as_list(trainer.callbacks), *as_list(trainer.logger)):
            arguments: Any = (entry.get("init_args") if isinstance(entry, Namespace) else None) or {}
            for name in PLACES:
                if arguments.get(name) is not None:
                    arguments[name] = str(self.folder)

    def choose_folder(self, options: Namespace) -> None:
        """That which is thrown away: a run that would be gone on with is measured from its beginning."""
        self.run_folder, options.ckpt_path, options.resume = self.folder, None, False

    def fit(self, **kwargs: Any) -> None:
        """Remember what the trainer would be given."""
        self.arguments = kwargs

    def train(self) -> None:
        """Train, as ``fit`` does."""
        super().fit(**self.arguments)


def as_list(value: Any) -> list[Any]:
    """One entry or several."""
    return value if isinstance(value, list) else [value]


def keep_local_loggers(trainer: Namespace) -> tuple[str, ...]:
    """Leave out loggers that would tell another computer; their names."""
    entries = as_list(trainer.logger)
    away = [entry for entry in entries if isinstance(entry, Namespace) and not entry.class_path.endswith(LOGGERS)]
    if away:
        kept = [entry for entry in entries if entry not in away]
        trainer.logger = kept or False
    return tuple(entry.class_path.rpartition(".")[2] for entry in away)


def build(words: list[str], folder: Path, *callbacks: Callback) -> Built:
    """Read the words as ``fit`` does, and build all that they name.

    Args:
        words: Of the command line of ``fit``.
        folder: Where the run may write.
        callbacks: Besides those of the words, before them.
    """

    class Here(Built):
        pass

    Here.folder = folder
    built = run("fit", words, kind=Here, parser=Telling)
    assert isinstance(built, Built)
    built.trainer.callbacks[:0] = callbacks  # type: ignore[attr-defined]
    return built


class Telling(Parser):
    """Raises what it would print."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One sentence."""
        own = ("steps", "output", "json", "trace", "no_alternatives", "overwrite")
        raise UserError(explain(message, [*options_of(self), *own]))


class Closed(Exception):  # noqa: N818  # it ends a run, and is no error
    """The run has served."""


class Stepper(Callback):
    """A run that stands still until it is told to take some steps.

    It runs in a thread, so that its trainer is in the middle of its loop between two calls of ``advance``; only one
    thread of all ever works.

    Args:
        built: The run; work that is not done at every step is left out of it.
    """

    measures = True

    def __init__(self, built: Built) -> None:
        trainer: Any = built.trainer
        occasional = (SampleGrid, GenerativeMetrics, Checkpoint)
        trainer.callbacks = [self, *(c for c in trainer.callbacks if not isinstance(c, occasional))]
        trainer.loggers = []
        trainer.limit_val_batches = 0
        self.built = built
        self.error: BaseException | None = None
        self.images, self.seconds, self._left, self._began = 0, 0.0, 0, 0.0
        self._closed, self._seen = False, 0
        self._clock: Callable[[], float] | None = None
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        """Set all up, and come to the first step."""
        self._thread.start()
        self._wait()

    def advance(self, steps: int) -> float:
        """Take some steps.

        Returns:
            Seconds they took.
        """
        if self.error is not None:
            raise self.error
        self._left = steps
        self._go.release()
        self._wait()
        return self.seconds

    def close(self) -> None:
        """End the run."""
        if self._thread.is_alive():
            self._closed = True
            self._go.release()
            self._thread.join()
        self.built = None  # type: ignore[assignment]

    def _wait(self) -> None:
        self._done.acquire()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self.built.trainer.fit(**self.built.arguments)
            raise RuntimeError("training ended by itself")
        except Closed:
            pass
        except BaseException as error:
            self.error = error
        self._done.release()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No end, and nothing that is not done at every step."""
        trainer.check_val_every_n_epoch = None
        for work in works_of(trainer):
            work.rest()
        trainer.log_every_n_steps = 0  # type: ignore[attr-defined]
        trainer.fit_loop.epoch_loop.max_steps = trainer.fit_loop.max_epochs = -1
        self._clock = clock_of(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Stand still where the steps are done."""
        assert self._clock is not None
        if not self._left:
            self.seconds, self.images = self._clock() - self._began, pl_module.images_seen - self._seen
            self._done.release()
            self._go.acquire()
            if self._closed:
                raise Closed
            self._began, self._seen = self._clock(), pl_module.images_seen
        self._left -= 1


@contextmanager
def room() -> Iterator[Path]:
    """A folder for all that is written meanwhile, by this process and those that it starts; then it is gone."""
    folder = Path(tempfile.mkdtemp(prefix="lit_gans-profile-"))
    changed = {
        "TMPDIR": str(folder),  # of the processes that this one starts
        "LIT_GANS_CACHE": str(borrowed_cache(folder)),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled"),
        "WANDB_MODE": "disabled",
    }
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        with leaving_on_sigterm():
            yield folder
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(folder, ignore_errors=True)


def borrowed_cache(folder: Path) -> Path:
    """A cache of statistics with what is in the user's; what is computed now goes with the folder."""
    cache = folder / "cache"
    cache.mkdir()
    for file in cache_folder().glob("*") if cache_folder().is_dir() else ():
        with suppress(OSError):
            (cache / file.name).symlink_to(file.resolve())
    return cache


@contextmanager
def leaving_on_sigterm() -> Iterator[None]:
    """SIGTERM leaves through all that has to be put back."""

    def leave(number: int, frame: Any) -> NoReturn:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def without_output() -> Iterator[list[str]]:
    """Nothing is printed by what runs meanwhile; what would have been told is collected."""
    said: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    handler = Collect()
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    before = [(logger.handlers, logger.propagate) for logger in loggers]
    with ExitStack() as stack:
        sink = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        for redirect in (redirect_stdout, redirect_stderr):  # progress bars write to either
            stack.enter_context(redirect(sink))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.handlers, logger.propagate = [handler], False
        try:
            yield said
        finally:
            for logger, (handlers, propagate) in zip(loggers, before, strict=True):
                logger.handlers, logger.propagate = handlers, propagate


def told(error: BaseException) -> str:
    """The first sentence of an error."""
    if "out of memory" in str(error).lower():
        return "out of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0][:160] if lines else "") or type(error).__name__


def first() -> bool:
    """Whether this is the process that tells."""
    return bool(rank_zero_only.rank in (0, None))  # type: ignore[attr-defined]
