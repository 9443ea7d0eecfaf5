"""What several measurements share: the clock and the memory of a device, and work in a process of its own."""

import ctypes
import gc
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

MIB = 2**20


class Clock:
    """Time on a device: by events in its own stream on CUDA, which nothing waits for until they are read."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def mark(self) -> Any:
        """A moment."""
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def wait(self) -> None:
        """Until the device has done all that it was given."""
        if self.cuda:
            torch.cuda.synchronize()

    def between(self, first: Any, second: Any) -> float:
        """Milliseconds from one moment to another."""
        self.wait()
        return first.elapsed_time(second) if self.cuda else (second - first) * 1e3


def resident(field: str = "VmRSS") -> int:
    """Bytes of this process in main memory: ``VmRSS`` now, ``VmHWM`` at most so far. Read from Linux's /proc."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) * 1024


class Peak:
    """The most memory that is in use at a time from its making on, beyond what was in use then; in bytes."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        gc.collect()
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            with suppress(OSError, AttributeError):  # glibc gives back what is free, which would hide what is taken
                ctypes.CDLL(None).malloc_trim(0)
            with suppress(OSError):  # the peak is then that of the whole process, which is a young one
                Path("/proc/self/clear_refs").write_text("5")
            self.before = resident()

    def read(self) -> int:
        """So far."""
        return (torch.cuda.max_memory_allocated() if self.cuda else resident("VmHWM")) - self.before


def in_process(function: Callable[..., Iterator[Any]], *arguments: Any, seconds: float) -> Iterator[Any]:
    """What a generator function yields, in a process of its own: a fork of this one, which must not have computed.

    It begins at once; what is returned must be read to its end.

    Raises:
        TimeoutError: if it takes longer; the process, and those that it has started, are killed.
        RuntimeError: if it raises, or the process ends without having come to its end.
    """
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(there, function, arguments))
    process.start()
    there.close()
    return _received(process, here, seconds)


def _received(process: Any, pipe: Connection, seconds: float) -> Iterator[Any]:
    until = time.monotonic() + seconds
    try:
        while pipe.poll(max(0.0, until - time.monotonic())):
            try:
                kind, value = pipe.recv()
            except EOFError:
                process.join()
                raise RuntimeError(f"the process ended with code {process.exitcode}") from None
            if kind == "end":
                process.join(10)
                return
            if kind == "error":
                raise RuntimeError(value)
            yield value
        raise TimeoutError(f"it took longer than {seconds:.0f} s")
    finally:
        if process.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.join()
        pipe.close()


def _send(pipe: Connection, function: Callable[..., Iterator[Any]], arguments: tuple[Any, ...]) -> None:
    os.setsid()  # a group of its own, to be ended with all that it starts
    gc.freeze()  # what was there before is no garbage, and to look at it would copy it
    try:
        for value in function(*arguments):
            pipe.send(("value", value))
        pipe.send(("end", None))
    except BaseException as error:
        pipe.send(("error", said(error)))


def said(error: BaseException) -> str:
    """Kind and first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0][:300]}"
