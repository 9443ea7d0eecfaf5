"""``evaluate``: FID and its kin of a checkpoint, or of images that any other generator made."""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import Namespace
from lightning.fabric import Fabric
from torch import Tensor
from torch.multiprocessing.spawn import ProcessRaisedException
from tqdm.auto import tqdm

from lit_gans.commands.files import refuse_existing, write_json
from lit_gans.commands.parsing import Parser
from lit_gans.commands.picture_evaluation import evaluate_files, evaluate_model, is_translation
from lit_gans.commands.precheck import own_options, positionals
from lit_gans.commands.processes import refuse_too_many
from lit_gans.commands.restoring import data_of, load_model, named_checkpoint, read_checkpoint
from lit_gans.commands.words import IMPORT, values_of
from lit_gans.data import ImageDataModule
from lit_gans.data.files import ImageFiles, in_threads, to_mode
from lit_gans.data.points import is_plane
from lit_gans.data.sources import tensor
from lit_gans.errors import UserError
from lit_gans.metrics import METRICS, PROTOCOLS, Evaluation, Protocol, Result, load_extractor, load_protocol, modes_of
from lit_gans.metrics.drawing import Sampler, measured_network, model_sampler, standing_statistics
from lit_gans.metrics.extractors import usual_extractor
from lit_gans.metrics.images import check_images
from lit_gans.metrics.reference import BLOCK, Reference, real_statistics

__all__ = ("main",)

DEFAULT_METRICS = ["fd", "is", "kid", "pr"]


def main(command: str, words: list[str]) -> None:
    """Parse the words, look whether all is there, measure, print the table, write the JSON."""
    if any(word.partition("=")[0] == "--against" for word in words):
        evaluate_files(command, words)
        return
    path, checkpoint = None, None
    for word in positionals(words, own_options(command))[:1]:
        path = str(named_checkpoint(word))
        checkpoint = read_checkpoint(path)
        if is_translation(checkpoint, values_of(words, "import")):
            evaluate_model(command, words, path, checkpoint)
            return
    config = parse(command, words, path, checkpoint)
    if config.output is not None:
        refuse_existing(Path(config.output), config.overwrite)
    job = prepare(config)
    began = time.perf_counter()
    fabric = Fabric(
        accelerator=config.accelerator,
        devices=config.devices,
        strategy="ddp_spawn" if config.devices > 1 else "auto",
    )
    try:
        result = fabric.launch(measure, job) if config.devices > 1 else measure(fabric, job)  # type: ignore[arg-type]
    except ProcessRaisedException as error:
        told = re.findall(r"^(?:[\w.]*UserError|ValueError|FileNotFoundError): (.+)$", str(error), re.MULTILINE)
        if not told:
            raise
        raise UserError(told[-1]) from error
    report = {**asdict(result), "source": job.source, "seconds": round(time.perf_counter() - began, 1)}
    print(table(result, job.source))
    if config.output is not None:
        write_json(Path(config.output), report)


def parse(command: str, words: list[str], path: str | None, checkpoint: dict[str, Any] | None) -> Namespace:
    """The options; those of the data are first looked for in the checkpoint, if one is named."""
    parser = Parser(prog=f"python -m lit_gans {command}", description=__doc__)
    parser.add_argument(
        "checkpoint", metavar="CKPT", nargs="?", type=str, help="of a lit_gans model, or the folder of a run"
    )
    parser.add_argument("--images", type=str, default=None, help="measure these: a folder, .zip, or .npz (uint8 NHWC)")
    parser.add_class_arguments(ImageDataModule, "data", sub_configs=True)
    parser.add_argument("--protocol", type=str, default=None, help=f"{', '.join(PROTOCOLS)} (quick)")
    parser.add_argument("--metrics", type=str, nargs="+", default=None, help=f"of {', '.join(METRICS)} (by the data)")
    parser.add_argument(
        "--extractor", type=str, default=None, help="inception, digits, mnist, torchvision:MODEL, ... (by the data)"
    )
    parser.add_argument("--live", "--no_ema", action="store_true", help="the live generator, not its average")
    parser.add_argument(
        "-n", "--fakes", "--n", type=int, default=None, help="number of generated images (the protocol's)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the latents (the protocol's)")
    parser.add_argument("--truncation", type=float, default=None, help="psi of the truncation trick (none)")
    parser.add_argument("--kid_subset_size", type=int, default=None, help="images in a subset (the protocol's)")
    parser.add_argument("--resamples", type=int, default=20, help="bootstrap resamples for intervals, 0 for none (20)")
    parser.add_argument("--devices", type=int, default=1, help="number of processes, each on its device (1)")
    parser.add_argument("--accelerator", type=str, default="auto", help="cpu, gpu, ... (auto)")
    parser.add_argument("-o", "--output", type=str, default=None, help="write the result, stamped, to this JSON file")
    parser.add_argument("--import", action="append", default=[], help=IMPORT)
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output path")
    config = parser.parse_args(words)
    if (config.checkpoint is None) == (config.images is None):
        raise UserError("say what to evaluate: a checkpoint, or --images FOLDER_OR_ZIP_OR_NPZ")
    if config.images is not None and not any(re.match(r"--data(\.dataset)?(=|$)", word) for word in words):
        raise UserError("say which real images to compare with, for example --data.dataset cifar10 --data.root DIR")
    if config.devices < 1:
        raise UserError(f"--devices must be at least 1, got {config.devices}")
    refuse_too_many("--devices", config.devices, config.accelerator)
    if checkpoint is not None:
        trained_on = data_of(checkpoint, config.data.keys())
        known = {f"data.{key}": value for key, value in trained_on.items()}
        parser.set_defaults(known)
        config = parser.parse_args(words)
        config.checkpoint = path
    if config.metrics is not None:
        config.metrics = [name for word in config.metrics for name in word.split(",") if name]
    else:
        config.metrics = ["modes"] if is_plane(config.data.dataset) else DEFAULT_METRICS
    return config


class Job:
    """All that is measured, in plain values, so that processes can be handed it.

    Args:
        config: The options of the command line, as they were parsed.
        protocol: The protocol by which the images are measured.
        extractor: By name; None if nothing has to look at images.
        source: What the images come from, as the result names it.
    """

    def __init__(self, config: Namespace, protocol: Protocol, extractor: str | None, source: dict[str, Any]) -> None:
        self.checkpoint: str | None = config.checkpoint
        self.trust: list[str] = config["import"]
        self.images: str | None = config.images
        self.data: dict[str, Any] = config.data.as_dict()
        self.metrics: list[str] = config.metrics
        self.resamples: int = config.resamples
        self.protocol, self.extractor, self.source = protocol, extractor, source

    def evaluation(self) -> Evaluation:
        """What measures."""
        extractor = None if self.extractor is None else load_extractor(self.extractor)
        modes = modes_of(ImageDataModule(**self.data))
        return Evaluation(self.metrics, extractor, self.protocol, self.resamples, modes)


def prepare(config: Namespace) -> Job:
    """Everything that can go wrong goes wrong here, before the long work."""
    protocol = load_protocol(config.protocol or "quick")
    changes = {
        key: config[key] for key in ("fakes", "seed", "truncation", "kid_subset_size") if config[key] is not None
    }
    if config.live:
        changes["ema"] = False
    source: dict[str, Any]
    points = is_plane(config.data.dataset)
    if config.images is not None:
        if points:
            raise UserError(f"{config.data.dataset} holds points, and --images are none: give a checkpoint")
        if config.live or config.seed is not None or config.truncation is not None:
            raise UserError("--live, --seed and --truncation are for checkpoints: --images are already made")
        images = open_images(Path(config.images), 3)
        if config.protocol is None:
            changes.setdefault("fakes", len(images))
        source = {"images": Path(config.images).name, "count": len(images)}
    protocol = protocol.changed(**changes)
    extractor = config.extractor or usual_extractor(config.data.dataset)
    if points or config.metrics == ["modes"]:
        extractor = None
    if config.images is not None:
        if len(images) < protocol.fakes:
            raise UserError(
                f"{config.images} holds {len(images)} images, the protocol {protocol.name} takes {protocol.fakes}: "
                "make more, or leave out --protocol to measure those there are"
            )
    else:
        model = load_model(config.checkpoint, config["import"])
        model_sampler(model, protocol, 0, None)
        check_shape(model, ImageDataModule(**config.data.as_dict()))
        source = {
            "checkpoint": Path(config.checkpoint).name,
            "model": type(model).__name__,
            "images_seen": model.images_seen,
        }
    job = Job(config, protocol, extractor, source)
    job.evaluation().check(None)
    return job


def check_shape(model: Any, data: ImageDataModule) -> None:
    """Refuse to compare images of one size with images of another, or with points."""
    made = tuple(model.sample(1, seed=0).shape[1:])
    real = data.shape
    if len(made) != len(real):
        raise UserError(f"the model makes samples {made}, but those of {data.dataset} are {real}: give --data.dataset")
    if made != real:
        raise UserError(
            f"the model makes images {made}, but those of {data.dataset} are {real}: give the data it was trained on, "
            f"for example --data.image_size {made[-1]} --data.channels {made[0]}"
        )


def measure(fabric: Fabric, job: Job) -> Result:
    """What each process does."""
    evaluation, protocol, device = job.evaluation(), job.protocol, fabric.device
    data = ImageDataModule(**job.data)
    progress = progress_bar(fabric)

    def open_reals() -> Any:
        if fabric.local_rank == 0:
            data.prepare_data()
        fabric.barrier()
        source = data.source(protocol.split)  # type: ignore[arg-type]
        if source is None:
            raise UserError(f"{data.dataset} has no {protocol.split} split, which the protocol {protocol.name} takes")
        evaluation.check(len(source))
        return source

    identity = data.describe(protocol.split)  # type: ignore[arg-type]
    reference: Reference | None = None
    if evaluation.extractor is not None:
        reference = real_statistics(
            open_reals,
            evaluation.extractor,
            identity,
            protocol.mirror,
            protocol.reals,
            evaluation.needs_features,
            device,
            progress,
        )
        evaluation.check(reference.moments.n)
        identity |= {"count": reference.moments.n}
    try:
        if job.images is not None:
            images, averaged = open_images(Path(job.images), channels_of(evaluation)), None
            result = evaluation.measure(lambda seed: images.block, reference, device, progress)
        else:
            model = load_model(str(job.checkpoint), job.trust).to(device)
            averaged = measured_network(model, protocol.ema)[1]
            with standing_statistics(model, protocol):
                result = evaluation.measure(sampler_of(model, protocol), reference, device, progress)
    except FloatingPointError as error:
        raise UserError(str(error)) from error
    result.protocol = evaluation.stamp(identity, averaged, fabric.world_size)
    return result


def channels_of(evaluation: Evaluation) -> int:
    """How many channels are wanted of images from elsewhere; modes are counted on three."""
    grey = evaluation.extractor is not None and evaluation.extractor.channels == 1 and evaluation.modes is None
    return 1 if grey else 3


def sampler_of(model: Any, protocol: Protocol) -> Callable[[int], Sampler]:
    """From a seed to what draws blocks."""
    return lambda seed: model_sampler(model, protocol, seed, None)


def progress_bar(fabric: Fabric) -> Callable[[Iterable[int], str], Iterable[int]]:
    """A bar with the time left, of the first process."""
    return lambda blocks, title: tqdm(blocks, title, unit="block", disable=None if fabric.is_global_zero else True)


class GivenImages:
    """Images in files or an array, each of its own size.

    Args:
        images: From a number to an image, uint8 (C, H, W).
        count: Number of images that there are; they are numbered from 0.
    """

    def __init__(self, images: Callable[[int], Tensor], count: int) -> None:
        self.images, self.count = images, count

    def __len__(self) -> int:
        return self.count

    def block(self, block: int) -> list[Tensor]:
        """The images of a block."""
        return [self.images(i) for i in range(block * BLOCK, min((block + 1) * BLOCK, self.count))]


def open_images(path: Path, channels: int) -> GivenImages:
    """Images of a folder, .zip or .npz; all are read once, so that a broken one is found before the long work.

    Raises:
        UserError: naming what is broken.
    """
    if path.suffix == ".npz":
        return open_array(path)
    if not path.exists():
        raise UserError(f"there is nothing at {path}")
    files = ImageFiles(path, lenient=True)

    def image(index: int) -> Tensor:
        return tensor(to_mode(files.decode(index), channels))

    def look(part: Tensor) -> None:
        for index in part.tolist():
            image(index)

    in_threads(look, torch.arange(len(files)), path)
    return GivenImages(image, len(files))


def open_array(path: Path) -> GivenImages:
    """Images of an .npz: ``images``, or its only array, uint8 (N, H, W, C) or (N, H, W)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            name = "images" if "images" in file else max(file.files, key=lambda name: file[name].ndim)
            array = torch.from_numpy(file[name])
    except Exception as error:  # of zip, numpy and the file system
        raise UserError(f"{path} is no .npz with an array of images: {error}") from error
    array = array.unsqueeze(-1) if array.ndim == 3 else array
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise UserError(f"{name} in {path} must be (N, H, W, C) with C = 1 or 3, got shape {tuple(array.shape)}")
    array = array.permute(0, 3, 1, 2)
    check_images(array)
    return GivenImages(lambda index: array[index], len(array))


def table(result: Result, source: dict[str, Any]) -> str:
    """The values with their intervals, and what they depend on."""
    p = result.protocol
    lines = [" ".join(str(value) for value in source.values()), ""]
    for key, value in result.metrics.items():
        low, high = result.intervals.get(key, (None, None))
        interval = "" if low is None else f"   95 %: {low:.5g} to {high:.5g}"
        lines.append(f"  {key:<22}{value:>12.5g}{interval}")
    data = p["data"]
    weights = {True: "averaged weights, ", False: "live weights, ", "unknown": ""}[p["ema"]]
    made = "points" if is_plane(data["dataset"]) else "images"
    against = f"{data['count']} of " if "count" in data else ""
    lines += [
        "",
        f"protocol {p['name']}: {p['fakes']} {made}, {weights}seed {p['seed']}",
        f"  against {against}{data['dataset']} {data['split']}{', mirrored too' if p['mirror'] else ''}",
    ]
    for name in ("extractor", "modes"):
        if "weights" in (seen_by := p.get(name, {})):
            lines.append(
                f"  {name} {'by ' * (name == 'modes')}{seen_by['name']} {seen_by['weights'][:8]}, "
                f"{seen_by['image_size'] or 'any'} px, resize {seen_by['resize']}"
            )
    lines.append("  " + ", ".join(f"{name} {version}" for name, version in p["versions"].items()))
    return "\n".join(lines)
