"""``evaluate`` for models of pictures from pictures, and for pictures of anybody beside their targets."""

import inspect
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from torch import Tensor
from tqdm.auto import tqdm

from lit_gans.callbacks.generative_metrics import translated
from lit_gans.commands.files import refuse_existing, write_json
from lit_gans.commands.parsing import Parser
from lit_gans.commands.restoring import data_class_of, data_of, load_model
from lit_gans.commands.words import IMPORT
from lit_gans.data import PairedImageDataModule
from lit_gans.data.files import ImageFiles, some, to_mode
from lit_gans.data.pictures import common_folders, stem
from lit_gans.data.sources import tensor
from lit_gans.errors import UserError, unknown
from lit_gans.game.rebuilding import class_that_wrote
from lit_gans.metrics import PICTURE_METRICS, PICTURE_PROTOCOLS, PictureEvaluation, Result, load_extractor
from lit_gans.metrics.drawing import measured_network
from lit_gans.metrics.extractors import usual_extractor
from lit_gans.metrics.translation import BASELINES, load_picture_protocol
from lit_gans.models import GAN, Translation

__all__ = ("evaluate_files", "evaluate_model", "is_translation")


def is_translation(checkpoint: dict[str, Any], trust: Iterable[str]) -> bool:
    """Whether a checkpoint is of a model of pictures from pictures, of ours or of a trusted module."""
    try:
        return issubclass(class_that_wrote(GAN, checkpoint["lit_gans"]["class_path"], trust), Translation)
    except ValueError:  # what it names is refused later, in a sentence
        return False


def evaluate_model(command: str, words: list[str], path: str, checkpoint: dict[str, Any]) -> None:
    """Measure what a model makes of the sources of its data.

    Args:
        command: Name of the command.
        words: What was typed after it: the checkpoint and options.
        path: The file of the checkpoint.
        checkpoint: What was read there.
    """
    kind = data_class_of(checkpoint)
    kind = kind if hasattr(kind, "pairs") else PairedImageDataModule
    parser = options(command, kind)
    parser.add_argument("checkpoint", metavar="CKPT", type=str, help="of a lit_gans model, or the folder of a run")
    parser.add_argument("--live", "--no_ema", action="store_true", help="the live generator, not its average")
    parser.add_argument("--baseline", type=str, nargs="+", default=[], help=f"measure beside: {', '.join(BASELINES)}")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1, mps (cpu)")
    known = data_of(checkpoint, inspect.signature(kind).parameters)
    parser.set_defaults({f"data.{key}": value for key, value in known.items()})
    config = parser.parse_args([word for word in words if word != "--data" and not is_kind(word, kind)])
    if config.output is not None:
        refuse_existing(Path(config.output), config.overwrite)
    model: Any = load_model(path, config["import"])
    if not isinstance(model, Translation):
        raise UserError(f"{path} is no model of pictures from pictures")
    model = model.to(config.device)
    data: Any = parser.instantiate_classes(config).data
    protocol = load_picture_protocol(config.protocol or suitable(model, data))
    changes = {key: config[key] for key in ("split", "pictures", "seed") if config[key] is not None}
    protocol = protocol.changed(**changes, **({"ema": False} if config.live else {}))
    for name in config.baseline:
        if name not in BASELINES:
            raise UserError(unknown("baseline", name, BASELINES))
    data.prepare_data()
    pairs = data.pairs(protocol.split)
    if pairs is None:
        raise UserError(
            f"the data has no {protocol.split} split: hold some pictures out (--data.held_out 8), name a folder of "
            "them (--data.val_root DIR), or give --split train"
        )
    evaluation = evaluation_of(config, protocol, data, model.paired, model.directions)
    began = time.perf_counter()
    try:
        result = evaluation.measure(
            partial(translated, model, protocol.seed, protocol.ema), pairs, model.device, bar, config.baseline
        )
    except (FloatingPointError, ValueError) as error:
        raise UserError(f"{path}: {error}") from error
    averaged = measured_network(model, protocol.ema)[1]
    result.protocol = evaluation.stamp(data.describe(protocol.split), averaged, len(pairs))
    source = {"checkpoint": Path(path).name, "model": type(model).__name__, "images_seen": model.images_seen}
    report(config, result, source, began)


def is_kind(word: str, kind: type) -> bool:
    """Whether a word names the data module that is taken anyway."""
    return word.removeprefix("--data=") == kind.__name__


def evaluate_files(command: str, words: list[str]) -> None:
    """Measure pictures that anybody has made beside their targets, matched by name."""
    parser = options(command, None)
    parser.add_argument("--images", type=str, default=None, help="pictures to measure: a folder or .zip")
    parser.add_argument("--against", type=str, default=None, help="their targets, of the same names: a folder or .zip")
    config = parser.parse_args(words)
    if config.images is None:
        raise UserError("--against needs --images: the pictures that are to be measured")
    if config.output is not None:
        refuse_existing(Path(config.output), config.overwrite)
    if "cycle" in (config.metrics or ()):
        raise UserError("cycle needs a model with two directions: give a checkpoint")
    pairs = Files(Path(config.images), Path(config.against))
    protocol = load_picture_protocol(config.protocol or "pictures")
    if protocol.crop is None:
        if config.scale is None:
            raise UserError(f"the protocol {protocol.name} leaves out as many pixels as the scale: give --scale 4")
        protocol = protocol.changed(crop=config.scale)
    evaluation = evaluation_of(config, protocol, None, True, ("a2b",))
    began = time.perf_counter()
    try:
        result = evaluation.measure(lambda x, _: x, pairs, torch.device("cpu"), bar)
    except ValueError as error:
        raise UserError(str(error)) from error
    result.protocol = evaluation.stamp({"targets": Path(config.against).name}, None, len(pairs))
    report(config, result, {"images": Path(config.images).name, "count": len(pairs)}, began)


def options(command: str, kind: type | None) -> Parser:
    """The options that both have."""
    parser = Parser(prog=f"python -m lit_gans {command}", description=__doc__)
    if kind is not None:
        parser.add_class_arguments(kind, "data", sub_configs=True)
        parser.add_argument("--split", type=str, default=None, help="train, val or test (the protocol's)")
        parser.add_argument("--pictures", type=int, default=None, help="number of pictures, the first (all)")
        parser.add_argument("--seed", type=int, default=None, help="of dropout (the protocol's)")
    else:
        parser.add_argument("--scale", type=int, default=None, help="of super-resolution: the border that is left out")
    parser.add_argument("--protocol", type=str, default=None, help=f"{', '.join(PICTURE_PROTOCOLS)} (by the model)")
    parser.add_argument("--metrics", type=str, nargs="+", default=None, help=f"of {', '.join(PICTURE_METRICS)}")
    parser.add_argument("--extractor", type=str, default=None, help="for fd: inception, digits, mnist, ...")
    parser.add_argument("-o", "--output", type=str, default=None, help="write the result, stamped, to this JSON file")
    parser.add_argument("--import", action="append", default=[], help=IMPORT)
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output path")
    return parser


def suitable(model: Translation, data: Any) -> str:
    """The protocol that suits a model."""
    return "inpainting" if model.takes_mask else "sr_y" if getattr(data, "scale", 1) > 1 else "pictures"


def evaluation_of(config: Namespace, protocol: Any, data: Any, paired: bool, directions: Any) -> PictureEvaluation:
    """What measures; the extractor is loaded only where it is asked for."""
    names = [name for word in config.metrics or () for name in word.split(",") if name]
    extractor = None
    if {"fd", "fid"} & set(names) or (not names and not paired):
        extractor = load_extractor(config.extractor or usual_extractor(getattr(data, "dataset", None)))
    try:
        return PictureEvaluation(names, protocol, extractor, paired, directions)
    except ValueError as error:
        raise UserError(str(error)) from error


def bar(blocks: Any, title: str) -> Any:
    """A bar with the time left."""
    return tqdm(blocks, title, unit="batch", delay=1)


class Files:
    """Pictures and their targets in two folders or zips, matched by the folder within and the name up to the ending.

    Raises:
        UserError: naming what has no partner, or stands for several.
    """

    one_size = False

    def __init__(self, images: Path, targets: Path) -> None:
        for path in (images, targets):
            if not path.exists():
                raise UserError(f"there is nothing at {path}")
        self.images, self.targets = ImageFiles(images, lenient=True), ImageFiles(targets, lenient=True)
        ours, theirs = (numbers(files) for files in (self.images, self.targets))
        if lost := [self.images.names[n] for name, n in ours.items() if name not in theirs]:
            raise UserError(
                f"{len(lost)} of {len(ours)} pictures have no target of their name in {targets}: {some(lost)}"
            )
        if lost := [self.targets.names[n] for name, n in theirs.items() if name not in ours]:
            raise UserError(
                f"{len(lost)} of {len(theirs)} targets have no picture of their name in {images}: {some(lost)}"
            )
        self.matches = [(n, theirs[name]) for name, n in ours.items()]

    def __len__(self) -> int:
        return len(self.matches)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """One picture and its target, float (1, C, H, W) in [-1, 1]."""
        (index,) = indices.tolist()
        ours, theirs = self.matches[index]
        picture, target = self.images.decode(ours), self.targets.decode(theirs)
        channels = 1 if target.mode in ("1", "L") or target.mode.startswith("I;16") else 3
        if picture.size != target.size:
            raise ValueError(
                f"{self.images.names[ours]} has {picture.width} × {picture.height} pixels, its target {target.width} × "
                f"{target.height}: pictures and targets must have one size"
            )
        made, wanted = (tensor(to_mode(x, channels))[None].float() / 127.5 - 1 for x in (picture, target))
        return made, wanted


def numbers(files: ImageFiles) -> dict[str, int]:
    """Number of each file by its name, without its ending and the folders that all lie in.

    Raises:
        UserError: if several files have one name.
    """
    skip = common_folders(files.names)
    stems = [stem(name, skip) for name in files.names]
    if twins := [name for name, times in Counter(stems).items() if times > 1]:
        raise UserError(
            f"{len(twins)} names stand for several files in {files.root}: {some(twins)}; keep one of those whose names "
            "differ by their ending alone"
        )
    return {name: n for n, name in enumerate(stems)}


def report(config: Namespace, result: Result, source: dict[str, Any], began: float) -> None:
    """Print the values with what they depend on; write the file."""
    print(table(result, source))
    if config.output is not None:
        values = {**asdict(result), "source": source, "seconds": round(time.perf_counter() - began, 1)}
        write_json(Path(config.output), values)


def table(result: Result, source: dict[str, Any]) -> str:
    """The values, and what they depend on."""
    p = result.protocol
    lines = [" ".join(str(value) for value in source.values()), ""]
    lines += [f"  {key:<22}{value:>12.5g}" for key, value in result.metrics.items()]
    weights = {True: ", averaged weights", False: ", live weights", None: ""}[p["ema"]]
    crop = f", {p['crop']} px at the border left out" if p["crop"] else ""
    crop = ", as many px at the border left out as the scale" if p["crop"] is None else crop
    what = p["data"].get("dataset") or p["data"].get("targets", "")
    lines += ["", f"protocol {p['name']}: {p['channel']}{crop}{weights}, rounded to 8 bits, mean over pictures"]
    lines += [f"  {p['data']['count']} pictures of {what}" + (f" {p['split']}" if "dataset" in p["data"] else "")]
    if p["extractor"]:
        seen_by = p["extractor"]
        lines.append(f"  extractor {seen_by['name']} {seen_by['weights'][:8]}, resize {seen_by['resize']}")
    lines.append("  " + ", ".join(f"{name} {version}" for name, version in p["versions"].items()))
    return "\n".join(lines)
