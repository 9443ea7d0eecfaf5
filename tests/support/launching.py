"""Programs that a test starts and waits for: real processes, forked from one that has imported torch already.

Python takes ten seconds of a core to import torch, Lightning and this package. One process does it for all programs of
a test session, and touches nothing else; each program is a fork of it, with memory, signals and exit code of its own.
"""

import multiprocessing
import os
import runpy
import sys
import tempfile
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from types import ModuleType

from lightning.fabric.plugins.environments.lightning import find_free_network_port
from lightning.fabric.utilities.rank_zero import rank_zero_only

PLACES = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]  # this checkout and its helpers to import
ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(PLACES), "OMP_NUM_THREADS": "1"}
WARM = ("lit_gans.cli", "lit_gans.commands.training", "lit_gans.commands.evaluation", "faults", "interrupted")

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload([*WARM, "evaluated", "launching"])


def warm():
    """Start the process that all others are forked from; it is no test's child and sees no test's variables."""
    from multiprocessing.forkserver import ensure_running

    before = dict(os.environ)
    try:
        os.environ.update(ENVIRONMENT)
        ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def become(words, cwd, environment, out, err):
    """What ``python *words`` does, in a process that is there."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, path in ((1, out), (2, err)):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(target, number)
        os.close(target)
    rank_zero_only.rank = int(environment.get("LOCAL_RANK", 0))
    first, *rest = words
    sys.path[:] = [*PLACES, *(place for place in sys.path if place not in PLACES)]
    if first == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *rest[1:]]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), vars(main))
    elif first == "-m":
        sys.path.insert(0, cwd)
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, str(Path(first).resolve().parent))
        sys.argv = [str(first), *rest]
        runpy.run_path(first, run_name="__main__")


class Program:
    """A running program; a part of what ``subprocess.Popen`` offers, with output in files."""

    def __init__(self, *words, cwd, **variables):
        self.words = [str(word) for word in words]
        self.folder = tempfile.TemporaryDirectory(prefix="program-")  # gone with the program
        self.streams = [Path(self.folder.name, name) for name in ("out.txt", "err.txt")]
        environment = os.environ | ENVIRONMENT | variables
        warm()
        self.process = _forks.Process(target=become, args=(self.words, str(cwd), environment, *self.streams))
        self.process.start()
        self.pid = self.process.pid

    def poll(self):
        """Its code, or None while it runs."""
        return self.process.exitcode

    def kill(self):
        """At once."""
        self.process.kill()

    def told(self):
        """What it wrote so far."""
        return tuple(path.read_text("utf-8") if path.exists() else "" for path in self.streams)

    def finished(self, timeout=300):
        """Wait, and say what it came to; one that takes too long is killed."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.kill()
            self.process.join()
            raise TimeoutExpired(self.words, timeout, *self.told())
        return CompletedProcess(self.words, self.process.exitcode, *self.told())


def python(*words, cwd, timeout=300, **variables):
    """Python on these words, on one core; what it came to."""
    return Program(*words, cwd=cwd, **variables).finished(timeout)


def ranks(*words, cwd, timeout=300, **variables):
    """Python on these words as two ranks, as ``torchrun`` would start them; the first that failed, or the first."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(find_free_network_port()), "NODE_RANK": "0"}
    both = [Program(*words, cwd=cwd, LOCAL_RANK=str(rank), **meeting, **variables) for rank in (0, 1)]
    try:
        done = [program.finished(timeout) for program in both]
    finally:
        for program in both:
            program.kill()  # if it still runs
    return next((one for one in done if one.returncode), done[0])
