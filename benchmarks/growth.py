"""How time and memory grow with what is asked for, beside the work that it is.

    OMP_NUM_THREADS=1 python -m benchmarks.growth [--only resolution loader] [--quick] [--output FOLDER]

Each point is measured in a process of its own, one after another. Times are the fastest of some repetitions; memory is
the peak of resident memory beyond what the process had when all was imported, and at least 1 MiB. An exponent is the
slope of a least squares line through the logarithms of all points, ``end`` that of the last two; those of the work are
found in the same way. The exit code is 1 if something grows faster than its work, by more than 0.15 over all points.

- resolution, batch, width: a step of ``DCGAN`` and its memory. The work is counted: floating-point operations of the
  step, and the bytes that autograd keeps for the backward pass, with weights, gradients and Adam's two averages.
- processes: a step in two processes, under ``ddp`` and ``gan_ddp``, beside one process; the work is a step of two that
  have nothing to do with each other, which is what the machine allows, and a sum of all gradients over both.
- metrics: all that a metric does with so many images of each side, their features given (32 dimensions). Neighbours
  are sought among all pairs, subsets have always the same size, all else looks at each image once.
- loader: a batch of 64 in the middle of an epoch, the start of an epoch, in which the order is drawn, and memory;
  images held in memory, 8×8 in one channel, and images streamed from files. The latter are 1,000 files of which each is
  named as often as it takes, since the loader knows names only.
- startup: from a folder of so many files (links to 100 small PNG files) to a data module that has looked at each file's
  header, and to one that has all images in memory.

Writes growth.json, growth.md and growth.png into benchmarks/results. With ``--only``, other parts stay as they are.
"""

import argparse
import itertools
import json
import logging
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from lightning import Callback, Trainer
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from PIL import Image
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measuring import Peak, in_process
from lit_gans.data import ImageDataModule
from lit_gans.data.files import ImageFiles
from lit_gans.data.loader import ResumableLoader
from lit_gans.data.sources import ArrayImages, FileImages
from lit_gans.metrics import (
    ClassStatistics,
    FeatureExtractor,
    Features,
    FrechetDistance,
    InceptionScore,
    KernelDistance,
    PrecisionRecall,
)
from lit_gans.models import DCGAN
from lit_gans.networks import DCGANDiscriminator, DCGANGenerator

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
TOLERANCE = 0.15
SMALL = 2**20  # bytes; less counts as so much
LIMIT = 600  # seconds of a point
ENOUGH = 5  # seconds after which a step is not repeated
SIZES: dict[str, tuple[int, ...]] = {
    "resolution": (16, 32, 64, 128),
    "batch": (8, 16, 32, 64, 128, 256),
    "width": (16, 32, 64, 128),
    "processes": (1, 2),
    "metrics": (1_000, 3_000, 10_000, 50_000),
    "loader": (1_000, 10_000, 100_000, 1_000_000),
    "startup": (1_000, 10_000, 100_000),
}
QUICK = {
    "resolution": (8, 16),
    "batch": (2, 4),
    "width": (4, 8),
    "processes": (1, 2),
    "metrics": (200, 400),
    "loader": (1_000, 2_000),
    "startup": (200, 400),
}


class Point(NamedTuple):
    """What was measured of a curve at one size; the work in any unit, None where nothing is said of it."""

    curve: str
    seconds: float | None = None
    work: float | None = None
    bytes: float | None = None
    work_bytes: float | None = None


# a step


class Steps(Callback):
    """Seconds of each step, until there are enough."""

    def __init__(self, enough: float = ENOUGH) -> None:
        self.seconds, self.enough = list[float](), enough

    def on_train_batch_start(self, *_: Any) -> None:
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.start)
        trainer.should_stop = len(self.seconds) > 3 and sum(self.seconds) > self.enough


class Work(Callback):
    """Floating-point operations of a step, and the most bytes that autograd keeps in it for a backward pass."""

    def __init__(self) -> None:
        self.held, self.kept = dict[int, int](), 0
        self.flops = FlopCounterMode(display=False)
        self.saved = saved_tensors_hooks(self.keep, lambda x: x)

    def keep(self, x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        self.held[storage.data_ptr()] = storage.nbytes()
        self.kept = max(self.kept, sum(self.held.values()))
        return x

    def on_train_batch_start(self, *_: Any) -> None:
        self.flops.__enter__()
        self.saved.__enter__()

    def on_before_optimizer_step(self, *_: Any) -> None:
        self.held.clear()

    def on_train_batch_end(self, *_: Any) -> None:
        self.saved.__exit__(None, None, None)
        self.flops.__exit__(None, None, None)


def dcgan(resolution: int = 32, width: int = 32) -> DCGAN:
    torch.manual_seed(0)
    networks = (
        DCGANGenerator(image_size=resolution, width=width),
        DCGANDiscriminator(image_size=resolution, width=width),
    )
    return DCGAN(*networks, latent_dim=100)


def train(model: DCGAN, resolution: int, batch: int, steps: int, *callbacks: Callback, **kwargs: Any) -> None:
    data = ImageDataModule("fake", image_size=resolution, batch_size=batch, fake_length=4 * batch)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            accelerator="cpu",
            max_steps=steps,
            logger=False,
            default_root_dir=folder,
            callbacks=list(callbacks),
            enable_progress_bar=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            limit_val_batches=0,
            **kwargs,
        ).fit(model, data)


def step(resolution: int, batch: int, width: int, steps: int) -> Iterator[Point]:
    """One kind of step, its work counted afterwards."""
    train(dcgan(8, 4), 8, 2, 2, devices=1)  # all is imported that a run imports
    model, timer = dcgan(resolution, width), Steps()
    peak = Peak(CPU)
    train(model, resolution, batch, steps, timer, devices=1)
    taken = peak.read()
    work, state = Work(), 4 * sum(p.nbytes for p in model.parameters())
    train(dcgan(resolution, width), resolution, batch, 1, work, devices=1)
    yield Point("step", min(timer.seconds[1:]), work.flops.get_total_flops(), taken, work.kept + state)


def of_resolution(n: int, quick: bool) -> Iterator[Point]:
    """Batches of 8."""
    yield from step(n, 2 if quick else 8, 4 if quick else 32, 3 if quick else 40)


def of_batch(n: int, quick: bool) -> Iterator[Point]:
    """Images of 32 × 32."""
    yield from step(8 if quick else 32, n, 4 if quick else 32, 3 if quick else 40)


def of_width(n: int, quick: bool) -> Iterator[Point]:
    """Channels of the layer next to the image; the others have two and four times as many."""
    yield from step(8 if quick else 32, 2 if quick else 16, n, 3 if quick else 40)


# processes


def rank(number: int, strategy: str, port: int, quick: bool) -> Iterator[float]:
    """One of two processes, or one that stands alone; seconds of its fastest step, or of summing up its gradients."""
    torch.set_num_threads(1)
    resolution, batch, steps, width = (8, 2, 4, 4) if quick else (32, 16, 12, 32)
    model, timer, kwargs = dcgan(resolution, width), Steps(LIMIT), {"devices": 1}  # none may stop before its fellow
    if strategy != "alone":
        os.environ |= {"LOCAL_RANK": str(number), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ |= {"MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        kwargs = {"devices": 2, "strategy": strategy, "use_distributed_sampler": False}
    if strategy == "sums":
        dist.init_process_group("gloo", rank=number, world_size=2)
        yield min(seconds_of_sums(model) for _ in range(steps))
        return
    train(model, resolution, batch, steps, timer, **kwargs)
    yield min(timer.seconds[1:])


def seconds_of_sums(model: DCGAN) -> float:
    """As many numbers as the networks have weights, network by network."""
    start = time.perf_counter()
    for network in (model.discriminator, model.generator):
        dist.all_reduce(torch.zeros(sum(p.numel() for p in network.parameters())))
    return time.perf_counter() - start


def together(strategy: str, quick: bool, count: int) -> float:
    """Seconds of a step, of the slowest process."""
    port = find_free_network_port()
    running = [in_process(rank, number, strategy, port, quick, seconds=LIMIT / 2) for number in range(count)]
    return max(itertools.chain(*map(list, running)))


def of_processes(n: int, quick: bool) -> Iterator[Point]:
    """A batch of 16 for each; one process has no fellow to wait for."""
    alone = together("alone", quick, n)
    sums = 0.0 if n == 1 else together("sums", quick, n)
    for strategy in ("ddp", "gan_ddp"):
        yield Point(strategy, alone if n == 1 else together(strategy, quick, n), alone + sums)


# metrics


def extractor(dimensions: int) -> FeatureExtractor:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.flatten(1).repeat(1, dimensions), x.flatten(1).repeat(1, 10)

    return FeatureExtractor(Both(), "given", weights="none", image_size=1, channels=1)


def of_metrics(n: int, quick: bool) -> Iterator[Point]:
    """Each metric in turn, in a process of its own."""
    for name in METRICS:
        yield from in_process(of_metric, name, n, quick, seconds=LIMIT)


DIMENSIONS = 32
METRICS: dict[str, tuple[Callable[..., Any], Callable[[int], float], Callable[[int], float]]] = {
    # how it is made; how many images, or pairs of images, it looks at; how many it must hold
    "Fréchet distance": (lambda seen, quick: FrechetDistance(seen), lambda n: n, lambda n: 1),
    "Fréchet distance, infinity": (
        lambda seen, quick: FrechetDistance(seen, keep_features=True),
        lambda n: n,
        lambda n: n,
    ),
    "kernel distance": (
        lambda seen, quick: KernelDistance(seen, subsets=10, subset_size=100 if quick else 1000),
        lambda n: n,
        lambda n: n,
    ),
    "Inception score": (lambda seen, quick: InceptionScore(seen), lambda n: n, lambda n: n),
    "class statistics": (lambda seen, quick: ClassStatistics(seen), lambda n: n, lambda n: 1),
    "precision and recall": (lambda seen, quick: PrecisionRecall(seen), lambda n: n * n, lambda n: n),
}


def of_metric(name: str, n: int, quick: bool) -> Iterator[Point]:
    """One of them."""
    make, work, held = METRICS[name]
    seen, taken = extractor(DIMENSIONS), list[float]()
    value_of(KernelDistance(seen, subsets=1, subset_size=100), 250)  # all is imported
    peak = Peak(CPU)
    while not taken or (sum(taken) < ENOUGH / 5 and len(taken) < 3):
        start = time.perf_counter()
        value_of(make(seen, quick), n)
        taken.append(time.perf_counter() - start)
    yield Point(name, min(taken), work(n), peak.read(), held(n))


def value_of(metric: Any, n: int) -> None:
    """Features of both sides in batches of 250, then the value."""
    rng = torch.Generator().manual_seed(0)
    for real, start in itertools.product((True, False), range(0, n, 250)):
        features = torch.randn(min(250, n - start), DIMENSIONS, generator=rng)
        metric.update(Features(features, features[:, :10]), real=real)
    metric.compute()
    if getattr(metric, "keep_features", False):
        metric.infinity()


# data


def small_files(folder: Path, n: int) -> None:
    """PNG files of 8 × 8 random pixels."""
    rng = np.random.default_rng(0)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / f"{i:06}.png")


def of_loader(n: int, quick: bool) -> Iterator[Point]:
    """In memory and streamed."""
    for name in ("memory", "files"):
        yield from in_process(of_source, name, n, seconds=LIMIT)


def of_source(name: str, n: int) -> Iterator[Point]:
    """A batch, the start of an epoch, and memory; labels are held, too."""
    with tempfile.TemporaryDirectory() as folder:
        small_files(Path(folder), 100 if n < 10_000 else 1_000)
        names = sorted(os.listdir(folder))
        next(iter(ResumableLoader(FileImages(ImageFiles(Path(folder), names), 1, 8), batch_size=64)))
        peak = Peak(CPU)
        if name == "memory":
            rng = torch.Generator().manual_seed(0)
            images = torch.randint(256, (n, 1, 8, 8), generator=rng, dtype=torch.uint8)
            source: Any = ArrayImages(images, torch.arange(n) % 10)
        else:
            source = FileImages(ImageFiles(Path(folder), list(itertools.islice(itertools.cycle(names), n))), 1, 8)
        loader = ResumableLoader(source, batch_size=64)
        starts, batches = [], []
        for _ in range(3):
            start = time.perf_counter()
            iterator = iter(loader)
            next(iterator)
            starts.append(time.perf_counter() - start)
            for _ in range(14):
                start = time.perf_counter()
                next(iterator)
                batches.append(time.perf_counter() - start)
            iterator.close()
        taken = peak.read()
    yield Point(f"a batch, {name}", min(batches), 1)
    yield Point(f"start of an epoch, {name}", min(starts), n, taken, n)


def of_startup(n: int, quick: bool) -> Iterator[Point]:
    """From a folder; both ways look at the same files."""
    with tempfile.TemporaryDirectory() as folder:
        originals, root = Path(folder, "originals"), Path(folder, "images")
        originals.mkdir()
        small_files(originals, 100)
        for i in range(n):
            place = root / f"class-{i % 10}"
            place.mkdir(parents=True, exist_ok=True)
            os.link(originals / f"{i % 100:06}.png", place / f"{i:07}.png")
        for name, in_memory in (("headers alone", False), ("into memory", True)):
            yield from in_process(of_folder, root, name, in_memory, n, seconds=LIMIT)


def of_folder(root: Path, name: str, in_memory: bool, n: int) -> Iterator[Point]:
    """Seconds until a data module is ready to give batches."""
    with tempfile.TemporaryDirectory() as folder:
        small_files(Path(folder), 1)  # all is imported that reading imports
        ImageDataModule("folder", root=folder, batch_size=1, in_memory=in_memory).setup("fit")
    peak, start = Peak(CPU), time.perf_counter()
    ImageDataModule("folder", root=root, in_memory=in_memory).setup("fit")
    yield Point(name, time.perf_counter() - start, n, peak.read(), n)


PARTS: dict[str, tuple[Callable[[int, bool], Iterator[Point]], str]] = {
    "resolution": (of_resolution, "pixels of a side"),
    "batch": (of_batch, "images in a batch"),
    "width": (of_width, "channels"),
    "processes": (of_processes, "processes"),
    "metrics": (of_metrics, "images of each side"),
    "loader": (of_loader, "images"),
    "startup": (of_startup, "files"),
}


# what comes of it


def measure(part: str, n: int, quick: bool) -> Iterator[Point]:
    """All curves of a part at one size; in a process of its own."""
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    yield from PARTS[part][0](n, quick)


def slope(x: list[float], y: list[float]) -> float:
    """Of the least squares line through the logarithms."""
    return round(float(np.polyfit(np.log(x), np.log(y), 1)[0]), 3)


def exponents(sizes: tuple[int, ...], points: list[Point]) -> dict[str, dict[str, Any]]:
    """Of time and memory, each beside its work's."""
    found = {}
    for what, work in (("seconds", "work"), ("bytes", "work_bytes")):
        values, works = ([getattr(point, key) for point in points] for key in (what, work))
        values = [value if value is None or what == "seconds" else max(value, SMALL) for value in values]
        if None in values:
            continue
        exponent, expected = slope(list(sizes), values), slope(list(sizes), works)
        found[what] = {
            "exponent": exponent,
            "of_the_work": expected,
            "end": slope(list(sizes[-2:]), values[-2:]),
            "end_of_the_work": slope(list(sizes[-2:]), works[-2:]),
            "pass": exponent <= expected + TOLERANCE,
        }
    return found


def curves_of(part: str, sizes: tuple[int, ...], quick: bool) -> list[dict[str, Any]]:
    """Measure a part."""
    rows: dict[str, list[Point]] = {}
    for n in sizes:
        for point in in_process(measure, part, n, quick, seconds=2 * LIMIT):
            rows.setdefault(point.curve, []).append(point)
    keys = ("seconds", "work", "bytes", "work_bytes")
    curves = []
    for curve, points in rows.items():
        values = {key: [_short(getattr(point, key)) for point in points] for key in keys}
        kept = {key: value for key, value in values.items() if None not in value}
        curves.append({"curve": curve, "sizes": list(sizes), **kept, "exponents": exponents(sizes, points)})
    return curves


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def table(parts: dict[str, list[dict[str, Any]]]) -> str:
    """In markdown, a line for time and one for memory."""
    lines = ["| part | curve | of | exponent | of its work | at the end | of its work | |", f"|{'---|' * 8}"]
    for part, curves in parts.items():
        for curve in curves:
            for what, found in curve["exponents"].items():
                title = f"{part} ({curve['sizes'][0]:,} to {curve['sizes'][-1]:,})"
                kind = "time" if what == "seconds" else "memory"
                numbers = (found[key] for key in ("exponent", "of_the_work", "end", "end_of_the_work"))
                cells = [title, curve["curve"], kind, *(f"{value:.2f}" for value in numbers)]
                lines.append(f"| {' | '.join(cells)} | {'' if found['pass'] else 'faster than its work'} |")
    return "\n".join(lines) + "\n"


def plot(parts: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Time above memory for each part, and in grey its work, from where the curve begins."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(4, 4, figsize=(15, 16), layout="constrained")
    for axis in axes.flat:
        axis.set_visible(False)
    for number, part in enumerate(parts):
        for below, (what, work, unit, scale) in enumerate(
            (("seconds", "work", "milliseconds", 1e3), ("bytes", "work_bytes", "MiB", 2**-20))
        ):
            curves = [curve for curve in parts[part] if what in curve["exponents"]]
            axis = axes[2 * (number // 4) + below, number % 4]
            if curves:
                axis.set_visible(True)
                axis.set_title(f"{part}, {'time' if what == 'seconds' else 'memory'}", fontsize=10)
                axis.set(xlabel=PARTS[part][1], ylabel=unit)
                _draw(axis, curves, what, work, scale)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _draw(axis: Any, curves: list[dict[str, Any]], what: str, work: str, scale: float) -> None:
    """Curves of one part, on axes of whole decades."""
    sizes, seen = curves[0]["sizes"], []
    for curve in curves:
        values = np.array(curve[what]) * scale
        expected = np.array(curve[work]) / curve[work][0] * values[0]
        axis.plot(sizes, expected, color="0.85", lw=3, zorder=0)
        exponent, of_work = (curve["exponents"][what][key] for key in ("exponent", "of_the_work"))
        axis.plot(sizes, values, marker="o", ms=4, label=f"{curve['curve']}: {exponent:.2f}, its work {of_work:.2f}")
        seen += [*values, *expected]
    axis.set(xscale="log", yscale="log")
    axis.set_ylim(10 ** np.floor(np.log10(min(seen))), 10 ** np.ceil(np.log10(max(seen))))
    axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
    axis.minorticks_off()
    axis.yaxis.set_major_formatter("{x:,g}")
    axis.grid(axis="y", color="0.95")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8, frameon=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="two small sizes of each, which tell that it runs")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder (default: benchmarks/results)")
    options = parser.parse_args()
    path, result = options.output / "growth.json", dict[str, Any]()
    with suppress(FileNotFoundError):
        result = json.loads(path.read_text("utf-8"))
    threads = os.environ.get("OMP_NUM_THREADS")
    result["command"] = f"{f'OMP_NUM_THREADS={threads} ' if threads else ''}python -m benchmarks.growth"
    result |= {"torch": torch.__version__, "tolerance": TOLERANCE}
    known, failed = result.setdefault("parts", {}), list[str]()
    for part in options.only:
        start = time.monotonic()
        try:
            known[part] = curves_of(part, (QUICK if options.quick else SIZES)[part], options.quick)
        except (RuntimeError, TimeoutError) as error:
            print(f"{part}: {error}", flush=True)
            failed.append(part)
            continue
        print(f"{part}: {time.monotonic() - start:.0f} s\n{table({part: known[part]})}", flush=True)
        result["parts"] = {name: known[name] for name in PARTS if name in known}
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")
    measured = result["parts"]
    (options.output / "growth.md").write_text(f"`{result['command']}`\n\n{table(measured)}", "utf-8")
    plot(measured, options.output / "growth.png")
    every = [found for curves in measured.values() for curve in curves for found in curve["exponents"].values()]
    return int(bool(failed) or (not options.quick and not all(found["pass"] for found in every)))


if __name__ == "__main__":
    raise SystemExit(main())
