"""What metrics do in a second on the device, and whether they see there what they see on the CPU."""

import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchmetrics.image.fid import NoTrainInceptionV3

from benchmarks.gpu.setting import Setting
from benchmarks.metrics import NAME, images, make_weights
from lit_gans.metrics import FeatureExtractor, Features, FrechetDistance, InceptionV3, load_extractor

BAR = 1e-3  # of the features' length


def rate(setting: Setting, work: Callable[[], Any], n: int, rounds: int) -> float:
    """Images or features per second, the median of some rounds after one that does not count."""
    clock, taken = setting.clock, []
    for _ in range(rounds + 1):
        clock.wait()
        start = clock.mark()
        work()
        taken.append(clock.between(start, clock.mark()))
    return n / statistics.median(taken[1:]) * 1e3


def looking(setting: Setting, extractor: FeatureExtractor, n: int) -> dict[str, Any]:
    """Images per second, and how far the features are from the CPU's."""
    torch.manual_seed(0)
    batch = images(n, 1)
    on_cpu = extractor(batch[:16]).features
    there = batch.to(setting.place)
    per_second = rate(setting, lambda: extractor(there), n, 1 if setting.quick else 5)
    here = extractor(there[:16]).features.cpu()
    apart = float(((here - on_cpu).norm(dim=1) / on_cpu.norm(dim=1)).max())
    found = {"images_per_second": round(per_second), "features_apart": float(f"{apart:.2g}")}
    return {**found, "pass": apart <= BAR}


def inception(setting: Setting) -> dict[str, Any]:
    """The FID's network with random weights, beside torchmetrics'."""
    torch.set_float32_matmul_precision("highest")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.pth")
        make_weights(path)
        ours, theirs = InceptionV3(path), NoTrainInceptionV3(NAME, ["2048"], str(path), antialias=False)
    found = looking(setting, ours, 256)
    theirs.to(setting.place)
    batch = images(256, 1).to(setting.place)

    @torch.no_grad()
    def other() -> None:
        for part in batch.split(64):
            theirs(part)

    found["torchmetrics"] = round(rate(setting, other, 256, 3))
    return found | {"ratio": round(found["images_per_second"] / found["torchmetrics"], 2)}


def moments(setting: Setting, dimensions: int, n: int) -> dict[str, Any]:
    """Features per second that are added to the moments of a distance, and seconds of the distance itself."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, dimensions))
    distance = FrechetDistance(FeatureExtractor(network, "given", image_size=1, channels=1)).to(setting.place)
    x = torch.randn(n, dimensions, device=setting.place).relu()

    def add() -> None:
        for part in x.split(250):
            distance.update(Features(part), real=True)
            distance.update(Features(part + 0.1), real=False)

    per_second = rate(setting, add, 2 * n, 1 if setting.quick else 3)
    clock = setting.clock
    start = clock.mark()
    value = distance.compute()
    taken = clock.between(start, clock.mark())
    value = float(value[0] if isinstance(value, tuple) else value)
    wanted = dimensions * 0.01  # the sides are equal but for a shift of each feature
    found = {"features_per_second": round(per_second), "distance_ms": round(taken, 1)}
    return {**found, "pass": abs(value / wanted - 1) < 0.01}


def features(setting: Setting) -> Iterator[dict[str, Any]]:
    """Extractors and distances."""
    warnings.filterwarnings("ignore")
    if not setting.quick:
        yield setting.row("Inception", lambda: inception(setting))
    n = 64 if setting.quick else 4096
    yield setting.row("classifier mnist", lambda: looking(setting, load_extractor("mnist"), n))
    wide = 64 if setting.quick else 2048
    yield setting.row(f"moments of {wide} dimensions", lambda: moments(setting, wide, 500 if setting.quick else 5000))
