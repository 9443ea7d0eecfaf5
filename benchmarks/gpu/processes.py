"""Strategies for several processes, in one: the same numbers as without, through NCCL."""

import statistics
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from lightning import Callback
from torch import nn

from benchmarks.gpu.games import numbers
from benchmarks.gpu.setting import Noise, Setting, exact
from lit_gans.strategies import BatchNormSync

BAR = 1e-5  # of the way that the weights have gone


class Times(Callback):
    """Milliseconds of each step, on the device."""

    def __init__(self, setting: Setting) -> None:
        self.clock, self.marks = setting.clock, []

    def on_train_batch_start(self, *_: Any) -> None:
        self.marks.append(self.clock.mark())

    def on_train_end(self, *_: Any) -> None:
        self.marks.append(self.clock.mark())

    def median(self) -> float:
        """Of all steps but the first ones."""
        return statistics.median(self.clock.between(*pair) for pair in pairwise(self.marks[3:]))


def trained(setting: Setting, name: str, strategy: str, steps: int) -> tuple[torch.Tensor, torch.Tensor, float, str]:
    """Weights before and after some steps, milliseconds of one, and what the processes talk through."""
    workload, backend = setting.workloads()[name], []

    class Ask(Callback):
        def on_train_start(self, *_: Any) -> None:
            backend.append(dist.get_backend() if dist.is_initialized() else "none")

    times = Times(setting)
    model = workload.model(*workload.build(), seed=1)
    before = numbers(model)
    with tempfile.TemporaryDirectory() as folder:
        trainer = setting.trainer(folder, times, Ask(), max_steps=steps, strategy=strategy)
        trainer.fit(model, Noise(workload, 4 if setting.quick else 16))
    return before, numbers(model), times.median(), backend[0]


def compared(setting: Setting, name: str, strategy: str, steps: int, alone: list[Any]) -> dict[str, Any]:
    """How far a run under a strategy is from one without."""
    if not alone:
        alone += trained(setting, name, "auto", steps)
    before, after, ms, _ = alone
    _, there, ms_there, backend = trained(setting, name, strategy, steps)
    wanted = "nccl" if setting.cuda else "gloo"
    apart = float((there - after).norm() / (after - before).norm())
    found = {"backend": backend, "weights_apart": float(f"{apart:.2g}"), "step_ms": round(ms_there, 2)}
    return {**found, "alone_ms": round(ms, 2), "pass": apart <= BAR and backend == wanted}


def derivatives(network: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """What a network gives, its gradient, and the gradient of a penalty of that."""
    x = x.detach().clone().requires_grad_()
    y = network(x)
    (slope,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    second = torch.autograd.grad(slope.square().sum(), list(network.parameters()))
    return [y.detach(), slope.detach(), *second, *(b.clone() for b in network.buffers() if b.is_floating_point())]


def synchronised(setting: Setting) -> dict[str, Any]:
    """The synchronised batch norm as if there were a second process, whose part is empty, against torch's own."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Tanh(), nn.Conv2d(8, 4, 3))
    x = torch.randn(8, 3, 12, 12)
    with tempfile.TemporaryDirectory() as folder:
        meeting = {"init_method": f"file://{folder}/store", "rank": 0, "world_size": 1}
        dist.init_process_group("nccl" if setting.cuda else "gloo", **meeting)
        try:
            start = {key: value.clone() for key, value in network.state_dict().items()}
            network.to(setting.place)
            ours = derivatives(network, x.to(setting.place))
            network.load_state_dict(start)
            BatchNormSync().apply(network)
            with mock.patch("torch.distributed.get_world_size", return_value=2):
                others = derivatives(network, x.to(setting.place))
        finally:
            dist.destroy_process_group()
    apart = max(float((a - b).norm() / a.norm()) for a, b in zip(ours, others, strict=True))
    return {"apart": float(f"{apart:.2g}"), "pass": apart < 1e-4}


def processes(setting: Setting) -> Iterator[dict[str, Any]]:
    """``ddp`` and ``gan_ddp`` in one process, which talks to itself through NCCL, gloo on a CPU; SyncBatchNorm."""
    exact()
    yield setting.row("SyncBatchNorm, to the second derivative", lambda: synchronised(setting))
    for name in setting.workloads() if setting.quick else ("w1", "w3"):
        alone: list[Any] = []
        for strategy in ("ddp", "gan_ddp"):
            case = (name, strategy, 6 if setting.quick else 25, alone)
            yield setting.row(f"{name}, {strategy}", lambda case=case: compared(setting, *case))
