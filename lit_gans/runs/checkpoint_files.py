"""Checkpoints that are never half: written aside, flushed, renamed; read without executing; two generations kept."""

import io
import os
import pickletools
import re
import shutil
import zipfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.strategies import Strategy
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lit_gans.files import aside

__all__ = ("CheckpointError", "SafeCheckpointIO", "checkpoint_in", "newest_whole", "read", "use_safe_io")


class CheckpointError(ValueError):
    """A file that is cut off, holds other bytes than were written, or would execute code."""


class SafeCheckpointIO(TorchCheckpointIO):
    """Writes and reads checkpoints so that neither a crash nor a full disk leaves anyone without one.

    A checkpoint is written to a hidden file beside its place, flushed to the disk and renamed, so that the name stands
    for a whole file at every moment. The file that was there is kept as ``<name>.previous``. Each record of the file
    carries a checksum (CRC-32), which is compared on reading; a file that is not whole gives way to its previous
    generation, with a warning. Reading never unpickles anything but tensors and plain values.

    A path that is no local file (``s3://...``) is left to Lightning.

    Args:
        asynchronous: Write in a thread of its own, from a copy of the state made at once; an error in writing is raised
            by the next call, once that has begun its own writing, with ``late`` set; ``teardown`` waits, and warns.

    Example:
        >>> from lightning import Trainer
        >>> trainer = Trainer(plugins=[SafeCheckpointIO(asynchronous=True)], accelerator="cpu", logger=False)
    """

    def __init__(self, asynchronous: bool = False) -> None:
        self.asynchronous = asynchronous
        self._thread: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: if the file cannot be written; names it, the space it needs and the space there is. What was at
                ``path`` is untouched.
        """
        if is_remote(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        if not self.asynchronous:
            write(checkpoint, Path(path))
            return
        copied = apply_to_collection(checkpoint, Tensor, lambda tensor: tensor.detach().to("cpu", copy=True))
        self._thread = self._thread or ThreadPoolExecutor(1, "checkpoint")
        try:
            self.wait()
        finally:
            self._pending = self._thread.submit(write, copied, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read a checkpoint, or the previous generation of it if it is not whole; always with ``weights_only=True``.

        Raises:
            FileNotFoundError: if there is neither.
            CheckpointError: if neither is whole, or the file would execute code.
        """
        self.wait()
        if is_remote(path):
            loaded: dict[str, Any] = super().load_checkpoint(path, map_location, weights_only=True)
            return loaded
        return newest_whole(path, map_location)[1]

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a checkpoint and its previous generation."""
        self.wait()
        super().remove_checkpoint(path)
        if not is_remote(path):
            previous_of(Path(path)).unlink(missing_ok=True)

    def wait(self) -> None:
        """Let what is being written become a file.

        Raises:
            OSError: if it could not.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            try:
                pending.result()
            except OSError as error:
                error.late = True  # type: ignore[attr-defined]  # of an earlier call
                raise

    def teardown(self) -> None:
        """Finish writing, and end the thread."""
        try:
            self.wait()
        except OSError as error:  # raised here, it would take the place of what ended the run
            rank_zero_warn(f"the last checkpoint could not be written: {error}")
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None


def use_safe_io(strategy: Strategy) -> None:
    """Have a strategy write and read as above, unless it was given a way of its own."""
    if type(strategy.checkpoint_io) is TorchCheckpointIO:
        strategy.checkpoint_io = SafeCheckpointIO()


def is_remote(path: Any) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def previous_of(path: Path) -> Path:
    """Where the generation before the newest is kept."""
    return path.with_name(f"{path.name}.previous")


def write(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write aside, flush, keep the previous generation, rename."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as partial:
            with partial.open("wb") as file:
                _save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                _keep(path)
        _flush_folder(path.parent)
    except OSError as error:
        raise type(error)(error.errno, f"{error.strerror}; {_space(checkpoint, path.parent)}", str(path)) from error


class _Sink:
    """A file that remembers why it could not be written: torch tells only that it could not."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def _save(checkpoint: Mapping[str, Any], file: IO[bytes]) -> None:
    sink = _Sink(file)
    try:
        torch.save(checkpoint, sink)  # type: ignore[arg-type]  # all that torch asks of a file
    except Exception as error:
        raise sink.error or error from None


def _keep(path: Path) -> None:
    """A second name for the file, which ``path`` then leaves; where there are no links, it is moved."""
    linked = path.with_name(f".{path.name}.linked")
    linked.unlink(missing_ok=True)
    try:
        os.link(path, linked)
        linked.replace(previous_of(path))
    except OSError:
        path.replace(previous_of(path))


def _flush_folder(folder: Path) -> None:
    """Make the renaming last through a power cut, where folders can be flushed."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _space(checkpoint: Mapping[str, Any], folder: Path) -> str:
    """Needed and free space, in words."""
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    apply_to_collection(checkpoint, Tensor, note)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    return f"it needs about {sum(sizes.values()) / 2**20:.1f} MiB, {free / 2**20:.1f} MiB are free"


def read(path: Path, map_location: Any = None) -> dict[str, Any]:
    """Read one file, comparing its checksums.

    Raises:
        FileNotFoundError: if it is not there.
        CheckpointError: if it is not whole, or would execute code.
    """
    with path.open("rb") as file:
        zipped = file.read(2) == b"PK"
    try:
        if zipped:
            with zipfile.ZipFile(path) as archive:
                unpacked, there = sum(record.file_size for record in archive.infolist()), path.stat().st_size
                if unpacked > there:  # torch packs nothing
                    raise _RefusedError(
                        f"{path} is refused: its records unpack to {unpacked} bytes, the file holds {there}. If you "
                        "trust its origin, save it anew with torch.save"
                    )
                record = archive.testzip()
            if record is not None:
                raise CheckpointError(f"{path} is damaged: {record} has another checksum than was written")
        loaded: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch raises what zip, pickle and itself happen to meet in a broken file
        if called := _called(str(error), path, zipped):
            raise _RefusedError(
                f"{path} is refused: it holds objects other than tensors and plain values, and loading it would call "
                f"{called}. If you trust its origin, save its tensors anew with torch.save and load those"
            ) from error
        if not zipped and "weights_only" in str(error):  # torch's advice on how to read it nevertheless
            raise CheckpointError(f"{path} is truncated or is not a checkpoint at all") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} is truncated or is not a checkpoint at all: {reason[:160]}") from error
    return loaded


def _called(error: str, path: Path, zipped: bool) -> str | None:
    """What a file would call on being unpickled, if that is why it was not."""
    if named := re.search(r"(?:GLOBAL|class) +`?([\w.]+\.[\w.]+)", error):
        return named[1]
    with suppress(Exception):  # read as far as it can be
        if not zipped:
            with path.open("rb") as file:
                return _first_called(file)
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
            found = (_first_called(io.BytesIO(archive.read(name))) for name in pickles)
            return next((name for name in found if name is not None), None)
    return None


def _first_called(file: IO[bytes]) -> str | None:
    """The first name in a file of pickles, one after another, that is none of those tensors are made with."""
    words: list[str] = []
    with suppress(Exception):
        while True:  # the format before torch 1.6 has five
            for code, argument, _ in pickletools.genops(file):
                name = None
                if code.name in ("GLOBAL", "INST"):
                    name = str(argument).replace(" ", ".")
                if code.name == "STACK_GLOBAL":
                    name = ".".join(words[-2:])
                if name is not None and not _OF_TENSORS.fullmatch(name):
                    return name
                words += [argument] if isinstance(argument, str) else []
    return None


_OF_TENSORS = re.compile(
    r"torch\._utils\._rebuild\w*|torch\.(storage\.)?\w*Storage|collections\.OrderedDict|torch\.Size"
)


class _RefusedError(CheckpointError):
    """Code in the file: no accident, so no other generation is tried."""


def checkpoint_in(path: Any) -> Path:
    """The checkpoint that a path stands for: of a run folder its best one, else its last one, which is told.

    Raises:
        FileNotFoundError: if a folder holds neither.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    for place in (path / "checkpoints", path):
        for name in ("best.ckpt", "last.ckpt"):
            if (place / name).is_file():
                rank_zero_info(f"{path}: {name}")
                return place / name
    raise FileNotFoundError(f"{path} is a folder with neither checkpoints/best.ckpt nor checkpoints/last.ckpt")


def newest_whole(path: Any, map_location: Any = None) -> tuple[Path, dict[str, Any]]:
    """The file at ``path`` and its content; those of its previous generation, with a warning, if it is not whole.

    Raises:
        FileNotFoundError: if there is neither.
        CheckpointError: if neither is whole, or the file would execute code.
    """
    path = Path(path)
    previous = previous_of(path)
    try:
        return path, read(path, map_location)
    except _RefusedError:
        raise
    except (CheckpointError, FileNotFoundError) as error:
        if not previous.is_file():
            if isinstance(error, FileNotFoundError):
                raise FileNotFoundError(f"no checkpoint at {path}") from error
            raise
        reason = f"{path} is missing" if isinstance(error, FileNotFoundError) else str(error)
        try:
            loaded = read(previous, map_location)
        except CheckpointError as other:
            raise CheckpointError(f"{reason}; nor is its previous generation whole: {other}") from error
        rank_zero_warn(f"{reason}; the previous generation, {previous.name}, is used")
        return previous, loaded
