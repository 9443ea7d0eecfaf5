"""Folders of runs: ``<root>/<model>-<data>/version_<n>``, each of one run, and written by one process at a time."""

import os
from contextlib import suppress
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from lit_gans.errors import UserError

__all__ = ("claim_version", "discard_unused", "keep", "lock", "newest_version", "next_version")

_locks: dict[Path, int] = {}  # held until the process ends
_claimed: dict[Path, list[Path]] = {}  # folders made for runs of this process, and those above that were made for them
_BEFORE_TRAINING = ("events.out.tfevents.*", "health.jsonl", "hparams.yaml", "metrics.csv")


def version_of(folder: Path) -> int:
    """The number of a run folder, -1 for any other."""
    number = folder.name.removeprefix("version_")
    return int(number) if number.isdigit() and folder.name != number else -1


def newest_version(folder: Path) -> Path | None:
    """The run folder that was begun last, or None."""
    found = [path for path in folder.glob("version_*") if version_of(path) >= 0]
    return max(found, key=version_of, default=None)


def next_version(folder: Path) -> Path:
    """``folder/version_<n>`` with the first n above those taken."""
    newest = newest_version(folder)
    return folder / f"version_{0 if newest is None else version_of(newest) + 1}"


def claim_version(folder: Path) -> Path:
    """The folder of the next version, made here and now, so that no other run takes it; by the first rank alone."""
    while True:
        path = next_version(folder)
        above = [parent.resolve() for parent in (folder, *folder.parents) if not parent.exists()]
        if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
            return path
        with suppress(FileExistsError):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                raise
            except OSError as error:
                raise UserError(
                    f"{path} cannot be made ({error.strerror}): choose another place with --trainer.default_root_dir"
                ) from error
            _claimed[path.resolve()] = above
            return path


def keep(folder: Path) -> None:
    """Training has begun in this folder: it is never taken away, whatever happens to the files in it."""
    _claimed.pop(folder.resolve(), None)


def discard_unused() -> None:
    """Take away the folder of a run that ended before training began: none can go on with it.

    Only what loggers make before the first step is deleted; a folder that anybody wrote anything else into stays.
    """
    while _claimed:
        folder, above = _claimed.popitem()
        found = sorted(folder.rglob("*"), reverse=True)
        with suppress(OSError):
            if all(path.is_dir() or any(path.match(name) for name in _BEFORE_TRAINING) for path in found):
                for path in found:
                    path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
                for path in (folder, *above):  # those above only if they are empty
                    path.rmdir()


@rank_zero_only
def lock(folder: Path) -> None:
    """Take a run folder for this process, until it ends.

    Raises:
        UserError: if another process that lives has it.
    """
    try:
        import fcntl
    except ImportError:  # no such locks here
        return
    place = folder.resolve()
    if place in _locks:
        return
    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = holder_of(handle)
        os.close(handle)
        raise UserError(f"{folder} is being written by {holder}: stop that, or start a run of its own") from error
    except OSError:  # a file system without locks
        os.close(handle)
        return
    _locks[place] = handle


def holder_of(handle: int) -> str:
    """Who has the lock, as far as the system tells."""
    with suppress(OSError):
        for line in Path("/proc/locks").read_text("utf-8").splitlines():
            words = line.split()
            if words[1] == "FLOCK" and words[5].endswith(f":{os.fstat(handle).st_ino}"):
                return f"process {words[4]}"
    return "another process"
