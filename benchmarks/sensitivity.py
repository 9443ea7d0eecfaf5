"""Do the distances rise as images get worse?

    python -m benchmarks.sensitivity --root DIR [--resnet20 FILE] [--images 10000]

Training images are compared with test images, which are disturbed more and more: by Gaussian noise, by Gaussian blur,
and by leaving out classes, the last ones first. MNIST is seen through the extractor ``mnist``, and CIFAR-10 through a
ResNet-20 (benchmarks/resnet20.py; ``--resnet20``: its weights, by github.com/akamaster/pytorch_resnet_cifar10), if they
are given. The noise is the same at all strengths, only stronger; with classes left out, all sets are as large as the
smallest. The kernel distance is that of all images at once; where it is not above zero, the picture leaves it out.

Writes benchmarks/results/sensitivity.png and sensitivity.json; exit code 1 if a curve falls anywhere.
"""

import argparse
import json
import os
import time
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torchvision.transforms.functional import gaussian_blur

from lit_gans.data import ImageDataModule
from lit_gans.metrics import Features, FrechetDistance, KernelDistance, ModuleExtractor, Moments, load_extractor

RESULTS = Path(__file__).parent / "results"
TITLES = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
STRENGTHS = {
    "noise": (0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4),
    "blur": (0, 0.5, 0.75, 1, 1.25, 1.5, 2),
    "classes": (0, 1, 2, 4, 6, 8, 9),
}
LABELS = {
    "noise": ("Gaussian noise", "standard deviation (black 0, white 1)"),
    "blur": ("Gaussian blur", "standard deviation in pixels"),
    "classes": ("dropped classes", "classes left out, of 10"),
}
MEASURES = {"frechet": "Fréchet distance", "kernel": "kernel distance"}


def read(data, root, train, n):
    """The first images of a split and their labels."""
    source = ImageDataModule(data, root=root, download=False).open("train" if train else "test")
    return source.images(torch.arange(n)), source.labels[:n]


def add_noise(images, strength):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images + 255 * strength * noise).round().clamp(0, 255).byte()


def blur(images, strength):
    return gaussian_blur(images, kernel_size=2 * round(4 * strength) + 1, sigma=strength)


def disturbed(extractor, images, labels, seen):
    """Kind, strength, and what the extractor sees, worse and worse; ``seen``: in undisturbed images."""
    for kind, change in (("noise", add_noise), ("blur", blur)):
        for strength in STRENGTHS[kind]:
            yield kind, strength, extractor(change(images, strength)) if strength else seen
    fewest = int((labels < 10 - max(STRENGTHS["classes"])).sum())
    for dropped in STRENGTHS["classes"]:
        rows = torch.nonzero(labels < 10 - dropped).flatten()[:fewest]
        yield "classes", dropped, Features(*(part[rows] for part in seen))


def measure(extractor, data, root, n):
    """Curves by kind of disturbance, and the share of undisturbed test images that the extractor reads rightly."""
    real = extractor(read(data, root, True, n)[0]).features
    images, labels = read(data, root, False, n)
    undisturbed = extractor(images)
    accuracy = (undisturbed.logits.argmax(1) == labels).double().mean()
    curves = {kind: {"strength": [], **{name: [] for name in MEASURES}} for kind in STRENGTHS}
    for kind, strength, seen in disturbed(extractor, images, labels, undisturbed):
        metrics = {
            "frechet": FrechetDistance(extractor, Moments.of_features(real)),
            "kernel": KernelDistance(extractor, subsets=None, reference=real),
        }
        for metric in metrics.values():
            metric.update(seen, real=False)
        values = float(metrics["frechet"].compute()), float(metrics["kernel"].compute().mean)
        for name, value in zip(curves[kind], (strength, *values), strict=True):
            curves[kind][name].append(float(f"{value:.5g}"))
        print(f"{data:8} {kind:8}{strength:>6}{values[0]:>12.5g}{values[1]:>12.4g}", flush=True)
    return curves, round(float(accuracy), 4)


def draw(found, path):
    """A row for each data set, a column for each disturbance."""
    figure = Figure((13, 3.6 * len(found)), layout="constrained")
    panels = figure.subplots(len(found), len(STRENGTHS), squeeze=False)
    for row, (data, result) in zip(panels, found.items(), strict=True):
        for left, (kind, curve) in zip(row, result["curves"].items(), strict=True):
            title, label = LABELS[kind]
            left.set(title=f"{TITLES[data]}: {title}", xlabel=label)
            for axis, (name, measure), color, marker in zip(
                (left, left.twinx()), MEASURES.items(), ("C0", "C1"), ("o", "s"), strict=True
            ):
                x, y = zip(*((x, y) for x, y in zip(curve["strength"], curve[name], strict=True) if y > 0), strict=True)
                axis.semilogy(x, y, color=color, marker=marker)
                axis.set_ylabel(measure, color=color)
                axis.tick_params(axis="y", colors=color, which="both")
            left.grid(alpha=0.3)
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder that holds MNIST and CIFAR-10")
    parser.add_argument("--resnet20", type=Path, help="weights of the ResNet-20; without, MNIST alone")
    parser.add_argument("--images", type=int, default=10_000, help="of each side (default: 10000)")
    options = parser.parse_args()
    extractors = {"mnist": load_extractor("mnist")}
    if options.resnet20:
        extractors["cifar10"] = ModuleExtractor(
            "benchmarks.resnet20.ResNet20",
            weights=options.resnet20,
            name="resnet20",
            image_size=32,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        )
    found = {}
    print(f"{'data':8} {'kind':8}{'':>6}{'Fréchet':>12}{'kernel':>12}", flush=True)
    for data, extractor in extractors.items():
        start = time.perf_counter()
        curves, accuracy = measure(extractor, data, options.root, options.images)
        found[data] = {"extractor": extractor.describe(), "accuracy": accuracy, "curves": curves}
        found[data]["seconds"] = round(time.perf_counter() - start)
        print(f"{extractor.name}: {accuracy:.2%} right on test images; {found[data]['seconds']} s", flush=True)
    draw(found, RESULTS / "sensitivity.png")
    threads = os.environ.get("OMP_NUM_THREADS")
    result = {
        "command": f"{f'OMP_NUM_THREADS={threads} ' if threads else ''}python -m benchmarks.sensitivity --root DIR"
        f"{' --resnet20 FILE' if options.resnet20 else ''} --images {options.images}",
        "torch": torch.__version__,
        **found,
    }
    (RESULTS / "sensitivity.json").write_text(json.dumps(result, indent=2) + "\n")
    falling = [
        f"{data}: the {MEASURES[name]} falls or rests as {LABELS[kind][0]} rise: {curve[name]}"
        for data, result in found.items()
        for kind, curve in result["curves"].items()
        for name in MEASURES
        if any(b <= a for a, b in zip(curve[name], curve[name][1:], strict=False))
    ]
    print(*falling or ["all curves rise"], sep="\n")
    return 1 if falling else 0


if __name__ == "__main__":
    raise SystemExit(main())
