"""All variants under equal conditions: same data, same family of networks, same steps, several seeds.

    python -m benchmarks.zoo --suite toy|digits|mnist|limited|stacked|cifar10 [--seeds 3] [--jobs 1] [--root DIR]
        [--resnet20 FILE] [--variants GAN WGANGP ...] [--steps N] [--table]

Each run measures the averaged generator ten times (stacked MNIST four times). Best and final values, the whole curve,
seconds, and what went wrong if something did, are written to benchmarks/results/<suite>.json after every run, so that
the command goes on where it was stopped; --table only writes <suite>.md and <suite>.png from it. A variant trains with
its class's defaults, but for its suite's recipes, which the table states. CIFAR-10 is judged by the features of a
ResNet-20 (benchmarks/resnet20.py; --resnet20: its weights, by github.com/akamaster/pytorch_resnet_cifar10).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from matplotlib.figure import Figure
from torch import nn
from torch.optim.lr_scheduler import LinearLR
from tqdm.auto import tqdm

import lit_gans.models
from lit_gans import networks
from lit_gans.augment import ADA, DiffAugment
from lit_gans.callbacks import GenerativeMetrics
from lit_gans.data import ImageDataModule
from lit_gans.metrics import FeatureExtractor, ModuleExtractor, Protocol, load_extractor
from lit_gans.models import GAN

RESULTS = Path(__file__).parent / "results"
LABELLED = ("ACGAN", "CGAN", "ProjectionGAN", "ReACGAN")  # models of labels
HEADS = {"ACGAN": 10, "SSGAN": 4, "ReACGAN": 64, "InfoGAN": 14, "ProjectionGAN": 16}
UNCONDITIONAL = [
    *("GAN", "MinimaxGAN", "LSGAN", "HingeGAN", "WGAN", "WGANGP", "WGANLP", "DRAGAN", "RaGAN", "R3GAN", "EBGAN"),
    *("BEGAN", "PacGAN", "UnrolledGAN", "InfoGAN", "SNGAN", "SAGAN", "BigGAN", "StyleGAN2"),
]
ALL = [*UNCONDITIONAL, "DCGAN", "SSGAN", *LABELLED]
AUGMENTS: dict[str, Callable[[], nn.Module]] = {"DiffAugment": DiffAugment, "ADA": lambda: ADA(kimg=100)}


@dataclass(frozen=True, eq=False)
class Suite:
    """One set of equal conditions."""

    variants: list[str]
    steps: int
    metrics: tuple[str, ...]
    key: str
    """What best and final are told of."""
    build: Callable[[str, dict[str, Any]], tuple[nn.Module, nn.Module]]
    """Networks of a variant, given its recipe."""
    data: dict[str, Any]
    fakes: int
    about: str
    higher: bool = False
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Arguments in which a variant differs from its class's defaults."""
    common: dict[str, Any] = field(default_factory=dict)
    """Arguments of all."""
    decay: bool = True
    """Whether learning rates fall linearly to zero."""
    looks: int = 10
    """Measurements while training."""
    extractor: str | None = None
    """What looks at the images; None: the classifier that comes for the data set."""


class Projecting(nn.Module):
    """Logits and the product of features with an embedding of the label: Miyato and Koyama 2018, of any network.

    Args:
        network: ``forward(x)`` → (logits, features).
        width: Of the features.
    """

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.embedding = network, nn.Embedding(10, width)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        logits, features = self.network(x)
        product: torch.Tensor = logits.flatten() + (features * self.embedding(y)).sum(1)
        return product


def classes_of(variant: str) -> dict[str, Any]:
    """Labels for the generator, and for the discriminator, of a variant."""
    return {
        "g": {"num_classes": 10} if variant in LABELLED else {},
        "d": ({"num_classes": 10} if variant == "CGAN" else {})
        | ({"head": HEADS[variant]} if variant in HEADS else {}),
    }


def projecting(variant: str, discriminator: nn.Module) -> nn.Module:
    """ProjectionGAN's discriminator of its network, any other's as it is."""
    return Projecting(discriminator, HEADS[variant]) if variant == "ProjectionGAN" else discriminator


def points(variant: str, recipe: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Three hidden layers of 128 for points."""
    codes = 4 if variant == "InfoGAN" else 0
    generator = networks.PointGenerator(latent_dim=16 + codes, depth=3)
    if variant in ("EBGAN", "BEGAN"):
        return generator, networks.PointAutoencoder(depth=3)
    head = {"head": 6} if variant == "InfoGAN" else {}
    pack = recipe.get("pack", 2 if variant == "PacGAN" else 1)
    return generator, networks.PointDiscriminator(depth=3, pack=pack, **head)


def mlps(variant: str, recipe: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Two hidden layers of 128 for digits of 8×8."""
    shape = {"image_size": 8, "channels": 1, "widths": (128, 128)}
    labels = classes_of(variant)
    small = {"embed_dim": 10} if "num_classes" in labels["g"] else {}
    latents = 32 + (12 if variant == "InfoGAN" else 0)
    generator = networks.MLPGenerator(latent_dim=latents, norm="batch", **shape, **labels["g"], **small)
    if variant in ("EBGAN", "BEGAN"):
        return generator, networks.MLPAutoencoder(code_dim=16, **shape)
    shape["channels"] = recipe.get("pack", 2) if variant == "PacGAN" else 1
    small = {"embed_dim": 10} if "num_classes" in labels["d"] else {}
    return generator, projecting(variant, networks.MLPDiscriminator(**shape, **labels["d"], **small))


def limited(variant: str, recipe: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Two hidden layers of 256 for images of 28×28, which learn a few hundred of them by heart."""
    shape: dict[str, Any] = {"image_size": 28, "channels": 1, "widths": (256, 256)}
    return networks.MLPGenerator(latent_dim=64, norm="batch", **shape), networks.MLPDiscriminator(**shape)


def convolutions(channels: int, size: int = 28) -> Callable[[str, dict[str, Any]], tuple[nn.Module, nn.Module]]:
    """DCGAN's networks of width 32, the discriminator without batch norm."""

    def build(variant: str, recipe: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
        shape = {"image_size": size, "channels": channels, "width": 32}
        labels = classes_of(variant)
        latents = 64 + (12 if variant == "InfoGAN" else 0)
        generator = networks.DCGANGenerator(latent_dim=latents, **shape, **labels["g"])
        if variant in ("EBGAN", "BEGAN"):
            return generator, networks.DCGANAutoencoder(code_dim=32, norm=None, **shape)
        shape["channels"] *= recipe.get("pack", 2) if variant == "PacGAN" else 1
        return generator, projecting(variant, networks.DCGANDiscriminator(norm=None, **shape, **labels["d"]))

    return build


ONE = {"n_critic": 1}  # at equal steps five updates of the critic for one would leave the generator a fifth of them
DIGITS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("WGANGP", "WGANLP", "SNGAN", "ProjectionGAN", "BigGAN"), ONE),
    "WGAN": ONE | {"clip": 0.05},
    "DRAGAN": {"gp_weight": 1.0},
    "R3GAN": {"gamma": 1.0},
    "EBGAN": {"margin": 0.1},
    "BEGAN": {"gamma": 0.9, "k_lr": 0.1, "g_lr": 5e-4, "d_lr": 5e-4},
    "ACGAN": {"class_weight": 0.1},
    "UnrolledGAN": {"steps": 3},
    "StyleGAN2": {"r1_gamma": 1.0, "r1_every": 4, "pl_weight": 0.0},
}
POINTS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("SNGAN", "BigGAN"), ONE),
    **dict.fromkeys(("WGANGP", "WGANLP"), ONE | {"gp_weight": 1.0}),
    "WGAN": ONE | {"clip": 0.1},
    "DRAGAN": {"gp_weight": 1.0},
    "R3GAN": {"gamma": 0.03},
    "UnrolledGAN": {"g_lr": 1e-3, "d_lr": 1e-4},  # the paper's, as its discriminator looks ahead
    "StyleGAN2": {"r1_gamma": 0.1, "r1_every": 4, "pl_weight": 0.0},
}
CONVOLUTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("WGANGP", "SNGAN", "ProjectionGAN"), ONE),
    "R3GAN": {"gamma": 1.0},
}
SUITES = {
    **{
        name: Suite(
            UNCONDITIONAL,
            steps,
            ("modes",),
            "modes",
            points,
            {"dataset": name, "batch_size": 256},
            2_560,
            f"{about}; MLPs of three hidden layers of 128, batches of 256; counted over 2,560 samples",
            higher=True,
            recipes=POINTS,
            common={"latent_dim": 16, "ema_decay": None, "g_lr": 2e-3, "d_lr": 2e-3},
        )
        for name, steps, about in (("ring", 2_000, "8 Gaussians on a ring"), ("grid", 6_000, "25 Gaussians on a grid"))
    },
    "digits": Suite(
        ALL,
        8_000,
        ("fd", "classes"),
        "fd_digits",
        mlps,
        {"dataset": "digits", "batch_size": 64},
        2_000,
        "scikit-learn's digits, 8×8; MLPs of two hidden layers of 128, batches of 64",
        recipes=DIGITS,
        common={"latent_dim": 32, "ema_decay": 0.999, "g_lr": 1e-3, "d_lr": 1e-3},
    ),
    "mnist": Suite(
        ["GAN", "LSGAN", "HingeGAN", "WGANGP", "DRAGAN", "R3GAN", "SNGAN", "CGAN", "ProjectionGAN"],
        1_000,
        ("fd", "classes"),
        "fd_mnist",
        convolutions(1),
        {"dataset": "mnist", "batch_size": 64},
        2_000,
        "MNIST, 28×28; DCGAN's networks of width 32, batches of 64",
        recipes=CONVOLUTIONS,
        common={"latent_dim": 64, "ema_decay": 0.995, "g_lr": 1e-3, "d_lr": 1e-3},
    ),
    "limited": Suite(
        ["GAN", "GAN+DiffAugment", "GAN+ADA"],
        8_000,
        ("fd", "classes"),
        "fd_mnist",
        limited,
        {"dataset": "mnist", "batch_size": 64, "limit": 600},
        2_000,
        "1 % of MNIST, 600 images, judged against all 60,000; MLPs of two hidden layers of 256, batches of 64",
        common={"latent_dim": 64, "ema_decay": 0.995, "g_lr": 5e-4, "d_lr": 5e-4},
        decay=False,  # falling rates would end the learning by heart, too
    ),
    "stacked": Suite(
        ["GAN", "PacGAN", "R3GAN"],
        2_000,
        ("modes",),
        "modes",
        convolutions(3),
        {"dataset": "stacked_mnist", "batch_size": 64},
        26_000,
        "stacked MNIST, 1,000 modes, 26,000 samples; DCGAN's networks of width 32, batches of 64",
        higher=True,
        recipes=CONVOLUTIONS,
        common={"latent_dim": 64, "ema_decay": 0.995, "g_lr": 1e-3, "d_lr": 1e-3},
        looks=4,
    ),
    "cifar10": Suite(
        ["DCGAN", "HingeGAN", "WGANGP", "SNGAN", "ProjectionGAN", "DCGAN+DiffAugment"],
        2_000,
        ("fd", "classes"),
        "fd_resnet20",
        convolutions(3, 32),
        {"dataset": "cifar10", "batch_size": 64},
        5_000,
        "CIFAR-10, 32×32; DCGAN's networks of width 32, batches of 64; a ResNet-20's features, not Inception's",
        recipes=CONVOLUTIONS,
        common={"latent_dim": 64, "ema_decay": 0.995, "g_lr": 1e-3, "d_lr": 1e-3},
        extractor="resnet20",
    ),
}
GROUPS = {"toy": ["ring", "grid"]}


def recipe_of(suite: Suite, name: str) -> dict[str, Any]:
    """All arguments in which a variant differs from its class's defaults."""
    return suite.common | suite.recipes.get(name.partition("+")[0], {})


def make(suite: Suite, name: str, steps: int) -> GAN:
    """A variant's model on its networks, for so many steps, with an augmentation where the name says so."""
    variant, _, augment = name.partition("+")
    recipe = recipe_of(suite, name)
    if variant == "InfoGAN" and suite.build is points:
        recipe = recipe | {"categorical": [2], "continuous": 2}
    if variant in LABELLED:
        recipe = recipe | {"num_classes": 10}
    if variant == "ReACGAN":
        recipe = recipe | {"embed_dim": HEADS[variant]}
    if augment:
        recipe = recipe | {"augment": AUGMENTS[augment]()}
    generator, discriminator = suite.build(variant, recipe)
    fall = partial(LinearLR, start_factor=1.0, end_factor=0.0, total_iters=steps) if suite.decay else None
    model: GAN = getattr(lit_gans.models, variant)(
        generator, discriminator, g_scheduler=fall, d_scheduler=fall, **recipe
    )
    return model


@cache
def extractor_of(suite: Suite, resnet20: str) -> FeatureExtractor:
    """What looks at the images of a suite."""
    if suite.extractor is None:
        return load_extractor(suite.key.removeprefix("fd_"))
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    network = "benchmarks.resnet20.ResNet20"
    return ModuleExtractor(network, weights=resnet20, name=suite.extractor, image_size=32, mean=mean, std=std)


def run(suite_name: str, variant: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train once, and what was measured."""
    suite, steps, root = SUITES[suite_name], options.steps, options.root
    seed_everything(seed)
    model = make(suite, variant, steps)
    data = ImageDataModule(**suite.data, root=root, download=False, seed=seed)
    protocol = Protocol().changed(fakes=suite.fakes)
    reals = None
    if "limit" in suite.data:
        whole = ImageDataModule(**{**suite.data, "limit": None}, root=root, download=False).source("train")
        assert whole is not None
        reals = whole.images(torch.arange(len(whole)))
    extractor = extractor_of(suite, options.resnet20) if "fd" in suite.metrics else None
    every = max(1, steps // suite.looks)
    metrics = GenerativeMetrics(suite.metrics, extractor, protocol=protocol, every_n_steps=every, reals=reals)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_steps=steps,
            callbacks=[metrics],
            logger=False,
            accelerator="auto",
            devices=1,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=folder,
        )
        start = time.perf_counter()
        trainer.fit(model, data)
    history = [
        [step, {key: round(float(value), 5) for key, value in values.items()}] for step, values in metrics.history
    ]
    finite = all(torch.isfinite(value).all().item() for value in model.state_dict().values())
    return {"seconds": round(time.perf_counter() - start), "finite": finite, "history": history}


# the table


def worker(suite: str, variant: str, seed: int, steps: int, options: argparse.Namespace) -> dict[str, Any]:
    """A run in a process of its own, on one core; its error where it fails."""
    words = ["--run", suite, variant, str(seed), "--steps", str(steps), "--root", options.root]
    words += ["--resnet20", options.resnet20] if options.resnet20 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.zoo", *words], capture_output=True, text=True, env=environment, check=False
    )
    row = {"variant": variant, "seed": seed, "steps": steps, "recipe": recipe_of(SUITES[suite], variant)}
    if done.returncode:
        return row | {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return row | json.loads(done.stdout.strip().splitlines()[-1])


def values_of(suite: Suite, row: dict[str, Any]) -> list[float]:
    return [values[suite.key] for _, values in row.get("history", []) if suite.key in values]


def best_of(suite: Suite, row: dict[str, Any]) -> float:
    return (max if suite.higher else min)(values_of(suite, row))


def over_seeds(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3g}{spread}"


def table(name: str, suite: Suite, rows: list[dict[str, Any]]) -> str:
    """Best and final of each variant over its seeds, best first."""
    other = [key for key in last_values(rows) if key != suite.key]
    heads = ["variant", f"best {suite.key}", f"final {suite.key}", "final / best", *(f"final {key}" for key in other)]
    lines = [f"# {name}", "", f"{suite.about}. `python -m benchmarks.zoo --suite {name}`", ""]
    lines += ["| " + " | ".join([*heads, "seeds", "steps", "s", "differs from the defaults"]) + " |"]
    lines += ["|" + "---|" * (len(heads) + 4)]
    ranked = []
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        good = [row for row in mine if values_of(suite, row)]
        failed = "; ".join(sorted({row["error"] for row in mine if "error" in row}))
        failed += "not finite" * any(not row.get("finite", True) for row in mine)
        if not good:
            ranked.append((float("inf"), [variant, failed, *[""] * (len(heads) - 2), str(len(mine)), "", "", ""]))
            continue
        best, final = [best_of(suite, row) for row in good], [values_of(suite, row)[-1] for row in good]
        ratio = statistics.mean(final) / max(statistics.mean(best), 1e-9)
        recipe = suite.recipes.get(variant.partition("+")[0], {})
        told = ", ".join(f"`{key}={value}`" for key, value in recipe.items()) + (f" {failed}" if failed else "")
        cells = [f"`{variant}`", over_seeds(best), over_seeds(final), f"{ratio:.2f}"]
        cells += [over_seeds([row["history"][-1][1][key] for row in good]) for key in other]
        cells += [str(len(good)), str(good[0]["steps"]), f"{statistics.mean(row['seconds'] for row in good):.0f}", told]
        ranked.append((statistics.mean(final) * (-1 if suite.higher else 1), cells))
    lines += ["| " + " | ".join(cells) + " |" for _, cells in sorted(ranked, key=lambda pair: pair[0])]
    common = ", ".join(f"`{key}={value}`" for key, value in suite.common.items())
    rates = "learning rates fall linearly to zero" if suite.decay else "learning rates stay"
    about = f"All: {common}; {rates}; means over the seeds ± standard deviations."
    return "\n".join([*lines, "", about, ""])


def last_values(rows: list[dict[str, Any]]) -> list[str]:
    return next((list(row["history"][-1][1]) for row in rows if row.get("history")), [])


def draw(name: str, suite: Suite, rows: list[dict[str, Any]]) -> None:
    """A panel for each variant: a line for each seed, over those of all."""
    variants = list(dict.fromkeys(row["variant"] for row in rows if values_of(suite, row)))
    columns = min(6, len(variants))
    figure = Figure((2.6 * columns, 2.1 * -(-len(variants) // columns)), layout="constrained")
    panels = figure.subplots(-(-len(variants) // columns), columns, sharex=True, sharey=True, squeeze=False).flat
    for variant, panel in zip(variants, panels, strict=False):  # in this order none of the panels is lost
        for row in rows:
            if not values_of(suite, row):
                continue
            steps = [step for step, _ in row["history"]]
            own = row["variant"] == variant
            panel.plot(
                steps,
                values_of(suite, row),
                color=f"C{row['seed']}" if own else "0.85",
                zorder=2 if own else 1,
                linewidth=1.5 if own else 0.6,
            )
        panel.set_title(variant, fontsize=9)
        panel.set_yscale("linear" if suite.higher else "log")
        panel.grid(alpha=0.3)
    for panel in list(panels):
        panel.axis("off")
    figure.supxlabel("step")
    figure.supylabel(suite.key)
    figure.savefig(RESULTS / f"{name}.png", dpi=70, pil_kwargs={"optimize": True})


def write(name: str, suite: Suite, rows: list[dict[str, Any]], options: argparse.Namespace, pictures: bool) -> None:
    order = {variant: number for number, variant in enumerate(suite.variants)}
    rows.sort(key=lambda row: (order.get(row["variant"], 99), row["seed"]))
    content = {"suite": name, "about": suite.about, "key": suite.key, "torch": torch.__version__, "fakes": suite.fakes}
    if "fd" in suite.metrics:
        content["extractor"] = extractor_of(suite, options.resnet20).describe()
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    (RESULTS / f"{name}.json").write_text(json.dumps(content)[:-1] + f', "rows": [\n  {lines}\n]}}\n')
    if pictures and any(values_of(suite, row) for row in rows):
        (RESULTS / f"{name}.md").write_text(table(name, suite, rows))
        draw(name, suite, rows)


def measure(name: str, options: argparse.Namespace) -> None:
    """Make the runs of a suite that are not there yet."""
    suite, path = SUITES[name], RESULTS / f"{name}.json"
    kept = json.loads(path.read_text()) if path.is_file() else {"about": suite.about, "rows": []}
    if kept["about"] != suite.about:
        print(f"{path} tells of other conditions: all runs are made anew")
    rows = kept["rows"] if kept["about"] == suite.about else []
    steps = options.steps or suite.steps
    wanted = [(v, seed) for seed in range(options.seeds) for v in options.variants or suite.variants]
    if options.again:
        rows = [row for row in rows if (row["variant"], row["seed"]) not in wanted]
    done = {
        (row["variant"], row["seed"])
        for row in rows
        if row["steps"] == steps and row["recipe"] == recipe_of(suite, row["variant"]) and "error" not in row
    }
    todo = [] if options.table else [pair for pair in wanted if pair not in done]
    with ThreadPoolExecutor(options.jobs) as pool, tqdm(total=len(todo), desc=name, unit="run", disable=None) as bar:
        jobs = [pool.submit(worker, name, variant, seed, steps, options) for variant, seed in todo]
        for job in as_completed(jobs):
            row = job.result()
            rows = [r for r in rows if (r["variant"], r["seed"]) != (row["variant"], row["seed"])] + [row]
            values = values_of(suite, row)
            told = f"best {best_of(suite, row):.4g} final {values[-1]:.4g}" if values else row.get("error", "no values")
            bar.write(f"{name} {row['variant']} seed {row['seed']}: {told}")
            bar.update()
            write(name, suite, rows, options, pictures=False)
    write(name, suite, rows, options, pictures=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=[*SUITES, *GROUPS])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each on one core")
    parser.add_argument("--variants", nargs="+")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--root", default="data", help="folder that holds the data sets")
    parser.add_argument("--resnet20", help="weights of the ResNet-20 that judges CIFAR-10")
    parser.add_argument("--table", action="store_true", help="no runs, only the table and the picture")
    parser.add_argument("--again", action="store_true", help="repeat runs that are there already")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        warnings.simplefilter("ignore")
        suite, variant, seed = options.run
        print(json.dumps(run(suite, variant, int(seed), options)))
        return
    for name in GROUPS.get(options.suite, [options.suite]):
        measure(name, options)


if __name__ == "__main__":
    main()
