"""Are games on a GPU those of the CPU? Parity of all models, exact resuming, and the guard's eye for faults."""

import copy
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.overrides import TorchFunctionMode
from torch.utils.data import DataLoader

from benchmarks.gpu.setting import Noise, Setting, exact
from lit_gans.game.sampling import SamplingModule

STEPS = 12
ROUNDING = 2**-22  # relative change of the weights that stands for other rounding
BAR = 1e-3  # or ten times as far as rounding alone leads
QUICK = ("WGANGP", "StyleGAN2")


class DrawnOnCPU(TorchFunctionMode):
    """Random numbers come from the CPU's generators and go to the device from there."""

    draws = (torch.randn, torch.rand, torch.randint, torch.randperm, torch.randn_like, torch.rand_like)

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function not in self.draws:
            return function(*args, **kwargs)
        args = tuple(a.cpu() if isinstance(a, torch.Tensor) else a for a in args)
        return function(*args, **{**kwargs, "device": "cpu"}).to(self.device)


@contextmanager
def noise_of_the_cpu(device: torch.device) -> Iterator[None]:
    """What a model draws while training is the same on all devices."""

    def rng(model: Any) -> torch.Generator:
        if model._rng is None:
            model._rng = torch.Generator()
        return model._rng

    with mock.patch.object(SamplingModule, "rng", property(rng)), DrawnOnCPU(device):
        yield


class Losses(Callback):
    """Both players' losses after each step."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        metrics = trainer.callback_metrics
        self.rows.append({key: float(value) for key, value in metrics.items() if key.endswith("_loss")})


def numbers(model: Any) -> torch.Tensor:
    """All weights and buffers in one vector."""
    values = [value for value in model.state_dict().values() if value.is_floating_point()]
    return torch.cat([value.detach().cpu().double().flatten() for value in values])


def play(setting: Setting, model: Any, batches: Any, rounding: float = 0.0) -> tuple[torch.Tensor, list[Any]]:
    """Weights after some steps, and the losses of each."""
    losses = Losses()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for parameter in model.parameters():
            parameter.mul_(1 + rounding * torch.randn_like(parameter))
    # other kernels than usual stand for another device where there is none
    other = nullcontext() if setting.cuda or rounding else torch.backends.mkldnn.flags(enabled=False)
    with tempfile.TemporaryDirectory() as folder, noise_of_the_cpu(setting.place), other:
        setting.trainer(folder, losses, max_steps=STEPS, log_every_n_steps=1).fit(model, batches)
    return numbers(model), losses.rows


def parity_of(setting: Setting, build: Callable[[], Any], batches: Any) -> dict[str, Any]:
    """How far two devices are apart after some steps, as a share of the way that both have gone."""
    cpu = Setting("cpu", setting.quick, setting.until)
    start = numbers(build())
    with torch.backends.mkldnn.flags(enabled=True):
        here, losses = play(cpu, build(), batches, rounding=1e-30)
        near, _ = play(cpu, build(), batches, rounding=ROUNDING)
    there, others = play(setting, build(), batches)
    way = (here - start).norm()
    apart, rounding = float((there - here).norm() / way), float((near - here).norm() / way)
    worst = max(
        abs(a[key] - b[key]) / max(1.0, abs(a[key]))
        for a, b in zip(losses, others, strict=True)
        for key in a
        if math.isfinite(a[key])
    )
    bar = max(BAR, 10 * rounding)
    kept = {"weights_apart": apart, "by_rounding": rounding, "losses_apart": worst}
    return {**{key: float(f"{value:.2g}") for key, value in kept.items()}, "pass": apart <= bar}


def parity(setting: Setting) -> Iterator[dict[str, Any]]:
    """Twelve steps of each model on small networks, and of the workloads on their own, against the CPU's.

    The noise of both is drawn on the CPU. Weights may be apart by a thousandth of the way that they have gone, or by
    ten times as much as a change of the first weights by 2⁻²² moves those on the CPU.
    """
    from toys import MODELS, build, loader

    exact()
    for name in QUICK if setting.quick else MODELS:

        def make(name: str = name) -> Any:
            return build(name, seed=1)

        batches = loader(n=8 * STEPS, labels=make().num_classes is not None)
        yield setting.row(name, lambda make=make, batches=batches: parity_of(setting, make, batches))
    for name, workload in setting.workloads().items():

        def make(workload: Any = workload) -> Any:
            return workload.model(*workload.build(), seed=1)

        batches = Noise(workload, 4, STEPS)
        title = f"{name}, its own networks"
        needed = 0 if setting.quick else 30  # with few cores
        yield setting.row(title, lambda make=make, batches=batches: parity_of(setting, make, batches), needed)


def run(setting: Setting, build: Callable[[], Any], batches: Any, steps: int, start: Path | None = None) -> Any:
    """A checkpoint after so many steps, gone on from another one if there is one."""
    with tempfile.TemporaryDirectory() as folder:
        saver = ModelCheckpoint(folder, filename="end", every_n_train_steps=steps, save_top_k=-1)
        trainer = setting.trainer(folder, saver, max_steps=steps, enable_checkpointing=True)
        trainer.fit(build(), batches, ckpt_path=start)
        return torch.load(Path(folder, "end.ckpt"), map_location="cpu", weights_only=True)


def differences(one: Any, other: Any) -> int:
    """How many of the tensors of two checkpoints are not the same bits."""
    if isinstance(one, torch.Tensor):
        return int(not torch.equal(one.nan_to_num(), other.nan_to_num()))
    if isinstance(one, dict):
        return sum(differences(one[key], other[key]) for key in one)
    return sum(map(differences, one, other)) if isinstance(one, list) else 0


def resumed(setting: Setting, build: Callable[[], Any], batches: Any) -> dict[str, Any]:
    """Tensors of a checkpoint that differ after going on from the middle, and between two runs without a stop."""
    kept = ("state_dict", "optimizer_states")
    whole, again = (run(setting, build, batches, STEPS) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        middle = Path(folder, "middle.ckpt")
        torch.save(run(setting, build, batches, STEPS // 2), middle)
        gone_on = run(setting, build, batches, STEPS, middle)
    found = {
        "resumed_differ": sum(differences(whole[key], gone_on[key]) for key in kept),
        "two_runs_differ": sum(differences(whole[key], again[key]) for key in kept),
    }
    return {**found, "pass": not found["resumed_differ"]}


def resume(setting: Setting) -> Iterator[dict[str, Any]]:
    """Six steps, a checkpoint and six more, against twelve: bit by bit, with deterministic kernels."""
    from toys import LATENT, MODELS, Generator, build, loader, networks

    from benchmarks.workloads import WORKLOADS

    exact()

    def with_dropout() -> Any:
        torch.manual_seed(0)
        return MODELS["GAN"](
            Generator(dropout=0.2, norm=True), networks("GAN")[1], latent_dim=LATENT, ema_decay=0.9, n_critic=2
        )

    def of_workload(name: str) -> Callable[[], Any]:
        return lambda: WORKLOADS[name].model(*WORKLOADS[name].build(), seed=1, ema_decay=0.9)

    batches = loader(n=8 * STEPS // 2, labels=False)  # the second half is the second epoch
    cases = {"GAN with dropout and batch norm": (with_dropout, batches)}
    for name in () if setting.quick else ("WGANGP", "StyleGAN2", "R3GAN"):
        cases[name] = (lambda name=name: build(name, seed=1), batches)
    for name in () if setting.quick else ("w1", "w2"):
        images = torch.cat([x for (x,) in Noise(WORKLOADS[name], 8, STEPS // 2)])
        cases[f"{name}, its own networks"] = (of_workload(name), DataLoader(images, batch_size=8))
    for name, (make, given) in cases.items():
        yield setting.row(name, lambda make=make, given=given: resumed(setting, make, given))


def fault_found(setting: Setting, what: Any, player: str, wanted: Sequence[str]) -> dict[str, Any]:
    """The step and kind of the first event after a fault at step 41."""
    from faults import Fault, events
    from toys import Batches, build, loader

    from lit_gans import ExplosionDetector

    batches = Batches(*(tuple(copy.deepcopy(x) for x in batch) for batch in list(loader(n=80)) * 5))
    with tempfile.TemporaryDirectory() as folder:
        guard = ExplosionDetector(action={"nan": "skip", "inf": "skip", "spike": "skip"})
        model = build("GAN", seed=1, ema_decay=0.9)
        setting.trainer(folder, Fault(what, 41, player=player), guard, max_steps=44).fit(model, batches)
        found = [(event["step"], event["kind"]) for event in events(Path(folder))]
    finite = all(bool(value.isfinite().all()) for value in model.state_dict().values())
    first = found[0] if found else (None, None)
    passed = first[0] == 41 and first[1] in wanted and finite
    return {"step": first[0], "kind": first[1], "finite": finite, "pass": passed}


def guard(setting: Setting) -> Iterator[dict[str, Any]]:
    """Is each fault found in the very step, and kept from the weights?"""
    exact()
    faults = {
        "NaN in a gradient": (math.nan, ["nan"]),
        "infinity in a gradient": (math.inf, ["inf"]),
        "gradients times 1e3": (1e3, ["spike"]),
        "gradients times 1e6": (1e6, ["spike"]),
        "NaN in a batch": ("batch", ["nan"]),
        "NaN in a weight": ("weight", ["nan"]),
    }
    for name in list(faults)[:1] if setting.quick else faults:
        what, wanted = faults[name]
        for player in ("discriminator", "generator"):
            if what != "batch" or player == "discriminator":
                title = f"{name}, {player}"
                yield setting.row(title, lambda f=(what, player, wanted): fault_found(setting, *f))
