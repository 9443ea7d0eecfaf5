"""Are our numbers torch-fidelity's? Both look at the same images through the same Inception.

    python -m benchmarks.parity [--n 500] [--sizes 32 64]

Two sets of images of each size, and a file of Inception's keys and shapes with random values, since the equality does
not depend on them. torch-fidelity's ``calculate_metrics`` computes FID, IS, KID, precision and recall; ours come from
``FrechetDistance``, ``InceptionScore``, ``KernelDistance``, ``PrecisionRecall``. Bar: a relative difference of 1e-3
from images, and of 1e-6 given the same features (its KID and FID then in float64, as ours always are). With fewer
images than features (500 and 2048) torch-fidelity takes roots of eigenvalues that are rounding alone; so ours is also
compared with the distance computed in the space of the samples, where none of them is zero: bar 1e-9. Results are
written to benchmarks/results/parity.json; exit code 1 if a bar is missed.
"""

import argparse
import json
import sys
import tempfile
import warnings
from pathlib import Path

import torch
import torch_fidelity
from torch.utils.data import Dataset
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from benchmarks.metrics import make_weights
from lit_gans.metrics import Features, FrechetDistance, InceptionScore, InceptionV3, KernelDistance, PrecisionRecall

RESULTS = Path(__file__).parent / "results"
NAMES = {
    "fid": "frechet_inception_distance",
    "is": "inception_score_mean",
    "is_std": "inception_score_std",
    "kid": "kernel_inception_distance_mean",
    "kid_std": "kernel_inception_distance_std",
    "precision": "precision",
    "recall": "recall",
}


class Images(Dataset):
    """uint8 (3, H, W), as torch-fidelity takes them."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


def pictures(n, size, seed):
    """Soft patches of colour with some noise; the second set somewhat brighter."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, size // 8, size // 8, generator=rng)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    return (200 * smooth + 10 * seed + 35 * torch.rand(n, 3, size, size, generator=rng)).to(torch.uint8)


def ours(extractor, fake, real, subset_size):
    """By name, from uint8 images or from features."""
    metrics = [
        FrechetDistance(extractor),
        InceptionScore(extractor),
        KernelDistance(extractor, 100, subset_size),
        PrecisionRecall(extractor),
    ]
    for images, is_real in ((fake, False), (real, True)):
        seen = images if isinstance(images, Features) else extractor(images)
        for metric in metrics:
            metric.update(seen, real=is_real)
    distance, score, kernel, neighbours = (metric.compute() for metric in metrics)
    values = [distance, *score, *kernel, neighbours.precision, neighbours.recall]
    return dict(zip(NAMES, map(float, values), strict=True))


def theirs_of_images(fake, real, weights, subset_size):
    """By name, of torch-fidelity's own whole way."""
    found = torch_fidelity.calculate_metrics(
        input1=Images(fake),
        input2=Images(real),
        fid=True,
        isc=True,
        kid=True,
        prc=True,
        kid_subset_size=subset_size,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights),
        cuda=False,
        cache=False,
        verbose=False,
        batch_size=50,
    )
    return {name: found[key] for name, key in NAMES.items()}


def theirs_of_features(fake, real, subset_size):
    """By name, of torch-fidelity's formulas."""
    x, y = fake.features.double(), real.features.double()
    statistics = [fid_features_to_statistics(v) for v in (x, y)]
    found = fid_statistics_to_metric(*statistics, verbose=False)
    found |= isc_features_to_metric(fake.logits)
    found |= kid_features_to_metric(x, y, kid_subset_size=subset_size, verbose=False)
    found |= prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=1000, save_cpu_ram=False, verbose=False)
    return {name: found[key] for name, key in NAMES.items()}


def exact_of_features(fake, real):
    """The Fréchet distance in the space of the samples: tr (ΣΣ')^½ is the nuclear norm of the centred sets' product."""
    x, y = fake.features.double(), real.features.double()
    a, b = ((v - v.mean(0)) / (len(v) - 1) ** 0.5 for v in (x, y))
    root = torch.linalg.svdvals(a @ b.T).sum()
    shift = (x.mean(0) - y.mean(0)).square().sum()
    return {"fid": float(shift + a.square().sum() + b.square().sum() - 2 * root)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64])
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    subset_size, rows = arguments.n // 5, []
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.pth")
        make_weights(weights)
        extractor = InceptionV3(weights)
        for size in arguments.sizes:
            fake, real = pictures(arguments.n, size, 1), pictures(arguments.n, size, 2)
            seen = [extractor(images) for images in (fake, real)]
            mine = ours(extractor, *seen, subset_size)
            cases = [
                ("images", theirs_of_images(fake, real, weights, subset_size), 1e-3),
                ("features", theirs_of_features(*seen, subset_size), 1e-6),
                ("exact", exact_of_features(*seen), 1e-9),
            ]
            for given, theirs, bar in cases:
                for name in theirs:
                    difference = abs(mine[name] - theirs[name]) / max(abs(theirs[name]), 1e-12)
                    rows.append({
                        "size": size,
                        "given": given,
                        "metric": name,
                        "ours": mine[name],
                        "theirs": theirs[name],
                        "difference": float(f"{difference:.2g}"),
                        "pass": difference <= bar,
                    })  # fmt: skip
                    values = f"{mine[name]:>14.8g}{theirs[name]:>14.8g}{difference:>10.1e}"
                    print(f"{size:>4} px  {given:9}{name:10}{values}")
    result = {"command": f"python -m benchmarks.parity --n {arguments.n}", "rows": rows}
    (RESULTS / "parity.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(not all(row["pass"] for row in rows))


if __name__ == "__main__":
    main()
