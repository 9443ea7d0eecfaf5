"""What metrics cost, beside what one would use without lit_gans: both in one process, taking turns.

    python -m benchmarks.metrics [--features 50000] [--rounds 5] [--cases inception sums distance neighbours]

- inception: images of 32 pixels per second through ``InceptionV3``, over those of torchmetrics' and torch-fidelity's
  extractors, in batches of 32 and 64, all with one file of weights, which is made here, at random: that changes neither
  times nor rounding. Bar 1.4; and its features, and the Fréchet distance between what was seen in batches of 32 and of
  64, may differ from theirs by no more than a thousandth.
- sums: seconds of ``FrechetDistance.update`` with features of 2048 dimensions, in batches of 64, 250 and 500, over
  those of the bare float64 products xᵀx of the same batches, converted beforehand and added in place. Bar 1.2.
- distance: seconds of ``frechet_distance`` between moments of 2048 dimensions, nothing known beforehand, over those of
  torchmetrics' ``_compute_fid``, for covariances of full rank (5,000 features) and of lower rank (500). Bar 0.7.
- neighbours: seconds of ``precision_recall``, and the memory that it takes beyond the features, in a process of its own
  (read from Linux's /proc). Bar 2 GiB for 50,000 images of each side.

Ratios are medians over the rounds, with the lowest and highest beside them; seconds are of one round. Writes
benchmarks/results/metrics.json; exit code 1 if a bar is missed.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
import torchmetrics
from torch import nn
from torchmetrics.image.fid import NoTrainInceptionV3, _compute_fid

from benchmarks.measuring import resident
from lit_gans.metrics import (
    FeatureExtractor,
    Features,
    FrechetDistance,
    InceptionV3,
    Manifold,
    Moments,
    frechet_distance,
    precision_recall,
)

NAME = "inception-v3-compat"
DIMENSIONS = 2048
BLOCK = 5000  # features summed before it is the other's turn


def seconds(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def row(name, ours, theirs, bar, at_least=False):
    """A ratio, of seconds or (``at_least``) of the images seen in a second, round by round."""
    ratios = [b / a if at_least else a / b for a, b in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    return {
        "name": name,
        "seconds": round(statistics.median(ours), 3),
        "other_seconds": round(statistics.median(theirs), 3),
        "ratio": round(ratio, 3),
        "range": [round(min(ratios), 3), round(max(ratios), 3)],
        "bar": f"{'≥' if at_least else '≤'} {bar}",
        "pass": ratio >= bar if at_least else ratio <= bar,
    }


def limit(name, value, bar):
    """A number that must not exceed a bar."""
    return {"name": name, "value": float(f"{value:.3g}"), "bar": f"≤ {bar}", "pass": value <= bar}


def images(n, contrast):
    """Smooth colours, uint8 (N, 3, 32, 32)."""
    return (127.5 + 127.5 * contrast * F.interpolate(torch.rand(n, 3, 8, 8) * 2 - 1, 32, mode="bicubic")).byte()


def make_weights(path):
    """Weights of the FID's Inception: He et al. 2015 for convolutions, statistics of some images for batch norms."""
    build = fidelity.FeatureExtractorInceptionV3
    with mock.patch.object(fidelity, "load_state_dict_from_url"), mock.patch.object(build, "load_state_dict"):
        network = build(NAME, ["2048"])
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = None
    with torch.no_grad():
        network.train()(images(16, 1))
    torch.save(network.state_dict(), path)


def inception(options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.pth"
        make_weights(path)
        ours = InceptionV3(path)
        theirs = fidelity.FeatureExtractorInceptionV3(NAME, ["2048"], str(path))
        networks = {
            "ours": lambda x: ours(x).features,
            "torchmetrics": NoTrainInceptionV3(NAME, ["2048"], str(path), antialias=False),
            "torch-fidelity": lambda x: theirs(x)[0],
        }
    seen = {who: {32: [], 64: []} for who in networks}
    times = {who: {32: [], 64: []} for who in networks}
    with torch.no_grad():
        for who in networks:
            networks[who](images(32, 1))
        for _ in range(options.rounds):
            for size, contrast in ((32, 1), (64, 0.8)):
                batch = images(size, contrast)
                for who, network in networks.items():
                    taken, features = seconds(lambda network=network, batch=batch: network(batch))
                    times[who][size].append(taken)
                    seen[who][size].append(features)
    features = {who: {size: torch.cat(parts) for size, parts in sides.items()} for who, sides in seen.items()}
    distances = {
        who: float(frechet_distance(*map(Moments.of_features, sides.values()))) for who, sides in features.items()
    }
    for who in ("torchmetrics", "torch-fidelity"):
        for size in (32, 64):
            yield row(f"inception, batches of {size}, over {who}", times["ours"][size], times[who][size], 1.4, True)
        x, y = (torch.cat([*features[name].values()]) for name in ("ours", who))
        yield limit(f"features' difference from {who}", float(((x - y).norm(dim=1) / y.norm(dim=1)).max()), 1e-3)
        yield limit(f"distance's difference from {who}", abs(distances["ours"] / distances[who] - 1), 1e-3)


def sums(options):
    extractor = FeatureExtractor(
        nn.Sequential(nn.Flatten(), nn.Linear(1, DIMENSIONS)), "given", image_size=1, channels=1
    )
    x = torch.randn(BLOCK, DIMENSIONS).relu()
    for size in (64, 250, 500):
        distance, outer = FrechetDistance(extractor), torch.zeros(DIMENSIONS, DIMENSIONS, dtype=torch.float64)
        parts, converted = x.split(size), x.double().split(size)

        def ours(distance=distance, parts=parts):
            for part in parts:
                distance.update(Features(part), real=True)

        def bare(outer=outer, converted=converted):
            for part in converted:
                outer.addmm_(part.T, part)

        turns = [(seconds(ours)[0], seconds(bare)[0]) for _ in range(-(-options.features // BLOCK))]
        torch.testing.assert_close(distance.real_outer.triu(), outer.triu())
        yield row(f"sums, batches of {size}, {len(turns)} × {BLOCK:,} features", *zip(*turns, strict=True), 1.2)


def distance(options):
    basis = torch.randn(DIMENSIONS, DIMENSIONS) * torch.linspace(1, 0.02, DIMENSIONS)  # variances fall, as Inception's
    for n, rank in ((5000, "full"), (500, "low")):
        times = {"ours": [], "theirs": [], "known": []}
        for _ in range(options.rounds):
            sides = [(torch.randn(n, DIMENSIONS) @ basis.T * scale).relu() / 20 for scale in (1, 1.1)]
            real, fake = map(Moments.of_features, sides)
            taken, mine = seconds(lambda pair=(real, fake): frechet_distance(*pair))
            times["ours"].append(taken)
            moments = real.mean, real.covariance, fake.mean, fake.covariance
            taken, other = seconds(lambda moments=moments: _compute_fid(*moments))
            times["theirs"].append(taken)
            times["known"].append(seconds(lambda pair=(real, fake): frechet_distance(*pair))[0])
        title = f"distance, {rank} rank"
        yield row(title, times["ours"], times["theirs"], 0.7)
        yield {"name": f"{title}, factor of the reals known", "seconds": round(statistics.median(times["known"]), 3)}
        yield limit(f"{title}, difference from torchmetrics", abs(float(mine / other) - 1), 1e-3)


def neighbours_of(n, dimensions, pipe):
    """Seconds, and GiB beyond the features."""
    torch.manual_seed(0)
    real, fake = (torch.randn(n, dimensions) for _ in range(2))
    before = resident()
    taken, _ = seconds(lambda: precision_recall(Manifold(real), Manifold(fake)))
    pipe.send((taken, (resident("VmHWM") - before) / 2**30))


def neighbours(options):
    context = multiprocessing.get_context("spawn")
    for n, dimensions in ((10_000, 512), (50_000, 64)):
        here, there = context.Pipe()
        process = context.Process(target=neighbours_of, args=(n, dimensions, there))
        process.start()
        there.close()
        taken, extra = here.recv()
        process.join()
        title = f"neighbours, {n:,} × {n:,} × {dimensions}"
        yield {"name": title, "seconds": round(taken, 1)}
        yield limit(f"{title}, GiB", extra, 2)


CASES = {"inception": inception, "sums": sums, "distance": distance, "neighbours": neighbours}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=50_000, help="features summed (default: 50000)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: 5)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", ".*is not the file of 2015-12-05.*")
    torch.manual_seed(0)
    rows = []
    print(f"{'':52}{'ours, s':>10}{'other, s':>10}{'ratio':>8}  {'range':16}{'bar':8}", flush=True)
    for case in options.cases:
        for found in CASES[case](options):
            rows.append(found)
            cells = "".join(f"{found.get(key, ''):>10}" for key in ("seconds", "other_seconds"))
            spread = "{} to {}".format(*found["range"]) if "range" in found else ""
            passed = {True: "pass", False: "FAIL"}.get(found.get("pass"), "")
            value = found.get("ratio", found.get("value", ""))
            print(f"{found['name']:52}{cells}{value:>8}  {spread:16}{found.get('bar', ''):8}{passed}", flush=True)
    threads = os.environ.get("OMP_NUM_THREADS")
    result = {
        "command": f"{f'OMP_NUM_THREADS={threads} ' if threads else ''}python -m benchmarks.metrics"
        f" --features {options.features} --rounds {options.rounds} --cases {' '.join(options.cases)}",
        "torch": torch.__version__,
        "torchmetrics": torchmetrics.__version__,
        "rows": rows,
    }
    output = Path(__file__).parent / "results" / "metrics.json"
    output.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if all(found.get("pass", True) for found in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
