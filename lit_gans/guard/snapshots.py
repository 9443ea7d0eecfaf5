"""Copies of a training state in memory, to go back to."""

import copy
import os
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lit_gans.guard.players import total_norm

__all__ = (
    "Buffers",
    "Snapshots",
    "bytes_needed",
    "bytes_there",
    "check_memory",
    "check_replicated",
    "first_not_finite",
    "infinite_buffers",
)


class Snapshots:
    """The last states known to be good: weights, buffers, averages, optimizers, schedules, loss scale.

    Held in main memory by every process for itself, and never written to a file.

    Args:
        depth: Number of snapshots that are held.
    """

    def __init__(self, depth: int = 2) -> None:
        self._held: deque[tuple[int, dict[str, Any]]] = deque()
        self.depth = depth

    @property
    def steps(self) -> list[int]:
        """When they were taken, oldest first."""
        return [step for step, _ in self._held]

    @property
    def sizes(self) -> list[int]:
        """Bytes that each holds, oldest first."""
        found: list[int] = []
        for _, state in self._held:
            found.append(0)
            apply_to_collection(state, Tensor, lambda x: found.append(found.pop() + x.numel() * x.element_size()))
        return found

    def take(self, trainer: Trainer, module: LightningModule, step: int, note: dict[str, Any]) -> None:
        """Copy the state as it is before step ``step``, with a note; the oldest copy makes room."""
        while len(self._held) >= self.depth:
            self._held.popleft()
        state: dict[str, Any] = {
            "module": module.state_dict(),
            "buffers": dict(module.named_buffers()),  # those that no checkpoint holds, too
            "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
            "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
            "precision": trainer.precision_plugin.state_dict(),
        }
        state["note"] = copy.deepcopy(note)
        self._held.append((step, apply_to_collection(state, Tensor, lambda x: x.detach().to("cpu", copy=True))))

    def restore(self, trainer: Trainer, module: LightningModule, before: int) -> tuple[int, dict[str, Any]]:
        """Put a copy back; copies younger than it are given up, it is kept.

        Args:
            trainer: Whose optimizers, schedules and loss scale are put back.
            module: Whose weights and buffers are.
            before: The youngest of this step or an earlier one is taken; the oldest, if all are younger.

        Returns:
            The step before which it was taken, and its note.
        """
        while len(self._held) > 1 and self._held[-1][0] > before:
            self._held.pop()
        step, state = self._held[-1]
        module.load_state_dict(state["module"])
        for name, buffer in dict(module.named_buffers()).items():
            if name in state["buffers"]:
                path, _, leaf = name.rpartition(".")
                _put(module.get_submodule(path), leaf, buffer, state["buffers"][name])
        for optimizer, saved in zip(trainer.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(saved))  # it keeps what it is given, and would train on in it
        for config, saved in zip(trainer.lr_scheduler_configs, state["schedulers"], strict=True):
            config.scheduler.load_state_dict(copy.deepcopy(saved))
        if state["precision"]:
            trainer.precision_plugin.load_state_dict(state["precision"])
        return step, copy.deepcopy(state["note"])

    def clear(self) -> None:
        """Free the memory."""
        self._held.clear()


class Buffers:
    """Copies of a module's buffers, such as batch statistics, as they were when the batch at hand began."""

    def __init__(self) -> None:
        self._owners: list[tuple[str, torch.nn.Module]] = []
        self._copies: dict[str, Tensor] = {}

    def find(self, module: torch.nn.Module) -> None:
        """Note which parts of a module hold buffers, so that no step walks through all of them."""
        self._owners = [(path, part) for path, part in module.named_modules() if part._buffers]

    def _named(self) -> dict[str, Tensor]:
        return {name: buffer for name, _, _, buffer in self._places()}

    def _places(self) -> list[tuple[str, torch.nn.Module, str, Tensor]]:
        """Each buffer with its whole name, its owner and its name there."""
        return [
            (f"{path}.{leaf}".lstrip("."), part, leaf, buffer)
            for path, part in self._owners
            for leaf, buffer in part._buffers.items()
            if buffer is not None
        ]

    def copy(self) -> None:
        """Copy all of them, into the same memory as the last time where their shapes are the same."""
        buffers = self._named()
        if buffers and [x.shape for x in buffers.values()] == [x.shape for x in self._copies.values()]:
            torch._foreach_copy_(list(self._copies.values()), list(buffers.values()))
        else:
            self._copies = {name: buffer.clone() for name, buffer in buffers.items()}

    def put_back(self, owners: Collection[str], of: Collection[str]) -> None:
        """Put back the copies of some players' buffers, and of those that belong to no player.

        Args:
            owners: Names of the players whose buffers are put back.
            of: Names of all players.
        """
        for name, owner, leaf, buffer in self._places():
            players = {player for player in of if name.startswith(f"{player}.")}
            if name in self._copies and (not players or players & set(owners)):
                _put(owner, leaf, buffer, self._copies[name])

    def clear(self) -> None:
        """Free the memory."""
        self._owners, self._copies = [], {}


def _put(owner: torch.nn.Module, name: str, buffer: Tensor, copy: Tensor) -> None:
    """Give a buffer its former values; one of another shape since then, as a pool of images may be, is replaced."""
    if buffer.shape == copy.shape:
        buffer.copy_(copy)
    else:
        setattr(owner, name, copy.to(buffer.device, copy=True))


def infinite_buffers(module: torch.nn.Module) -> frozenset[str]:
    """Names of buffers that hold infinity, before training a mask, or the best so far."""
    named = module.named_buffers()
    return frozenset(name for name, x in named if x.is_floating_point() and bool(torch.isinf(x).any()))


def first_not_finite(trainer: Trainer, module: torch.nn.Module, meant: Collection[str] = ()) -> str | None:
    """Name of the first parameter or buffer that holds NaN or infinity, on any rank; None if none does.

    All ranks must call this, and get the same answer.

    Args:
        trainer: The trainer, all of whose ranks are asked.
        module: Whose parameters and buffers are looked at.
        meant: Buffers that may hold infinity, since they held it from the start.
    """
    named = [(name, x) for name, x in (*module.named_parameters(), *module.named_buffers()) if x.is_floating_point()]
    found = len(named)
    if named and not torch.isfinite(total_norm([x.detach() for _, x in named])):
        # the norm of finite values may overflow, so that each is looked at before one is blamed
        bad = ((torch.isnan(x) if name in meant else ~torch.isfinite(x)).any() for name, x in named)
        found = next((n for n, is_bad in enumerate(bad) if is_bad), found)
    if trainer.world_size > 1:
        mine = torch.tensor(found, device=trainer.strategy.root_device)
        found = int(trainer.strategy.reduce(mine, reduce_op="min"))
    return named[found][0] if found < len(named) else None


def bytes_needed(module: torch.nn.Module, depth: int) -> int:
    """Memory for ``depth`` snapshots, if optimizers hold two numbers a parameter, as Adam does."""
    saved = {id(x): x for x in (*module.state_dict().values(), *module.buffers()) if isinstance(x, Tensor)}
    state = sum(x.numel() * x.element_size() for x in saved.values())
    moments = 2 * sum(p.numel() * p.element_size() for p in module.parameters() if p.requires_grad)
    return depth * (state + moments)


def bytes_there() -> int | None:
    """Main memory of the machine, or of the container if that is less; None where it cannot be told."""
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
        return min(there, int(limit)) if limit.isdigit() else there
    except OSError:
        return there


def check_memory(module: torch.nn.Module, depth: int, share: float, processes: int) -> None:
    """Refuse snapshots that would take more than their share of memory.

    Raises:
        ValueError: naming the need, the limit and the remedy.
    """
    there, needed = bytes_there(), bytes_needed(module, depth) * processes
    if there is not None and needed > share * there:
        of = f" of {processes} processes" if processes > 1 else ""
        raise ValueError(
            f"{depth} snapshots{of} need {needed / 2**30:.3g} GiB, more than max_memory={share:g} of the "
            f"{there / 2**30:.3g} GiB there are: raise max_memory, or use action='warn', which needs none"
        )


def check_replicated(trainer: Trainer) -> None:
    """Refuse strategies under which no process holds the whole state.

    Raises:
        ValueError: naming the strategy.
    """
    if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
        raise ValueError(
            f"{type(trainer.strategy).__name__} shards the state, of which snapshots need the whole on each process: "
            "use one device or strategy='ddp', or action='warn'"
        )
