"""``sample``: images, or points, from a checkpoint, and nothing else needed."""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_gans.commands.files import refuse_existing, staged
from lit_gans.commands.words import IMPORT
from lit_gans.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from lit_gans.models import GAN

__all__ = ("main",)


def main(command: str, words: list[str]) -> None:
    """Parse the words, load the checkpoint, write the images."""
    arguments = parser(command).parse_args(words)
    output = Path(arguments.output)
    kind = "directory" if arguments.output.endswith(("/", "\\")) or output.is_dir() else output.suffix.lower()
    if kind not in (".png", ".npz", "directory"):
        raise UserError(f"-o {arguments.output}: end it with .png (one grid), .npz (arrays) or / (single images)")
    if arguments.n < 1 or arguments.batch_size < 1:
        raise UserError(f"-n and --batch_size must be at least 1, got {arguments.n} and {arguments.batch_size}")
    if arguments.standing < 0:
        raise UserError(f"--standing must not be negative, got {arguments.standing}")
    if not 0 <= arguments.seed < 2**62:
        raise UserError(f"--seed must be in 0..2^62 - 1, got {arguments.seed}")
    refuse_existing(output, arguments.overwrite, parents=kind == "directory")

    import numpy as np

    from lit_gans.commands.restoring import load_model, named_checkpoint
    from lit_gans.models import Translation

    model = load_model(named_checkpoint(arguments.checkpoint), arguments.trust)
    if isinstance(model, Translation):
        raise UserError(f"{type(model).__name__} makes pictures of pictures, not of noise: use the command translate")
    try:
        model = model.to(arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {arguments.device}: {str(error).splitlines()[0]}") from error
    codes = getattr(model, "code_width", None)
    if codes and arguments.label is not None:
        raise UserError(f"--class: {type(model).__name__} draws codes in the place of classes; use --codes")
    if arguments.truncation is not None and not model.truncates:
        raise UserError(f"--truncation: {type(model).__name__} knows no truncation: leave it out")
    _, labels = model.draw_inputs(arguments.n, arguments.label, arguments.seed)
    if arguments.codes:
        labels = chosen_codes(model, labels, arguments.codes)
    if arguments.standing:
        estimate_statistics(model, arguments)
    batches, made = image_batches(model, labels, arguments), "images"
    with staged(output, directory=kind == "directory") as target:
        if kind == "directory":
            write_directory(target, batches, digits=len(str(arguments.n - 1)))
        else:
            samples = np.concatenate(list(batches))
            made = "points" if samples.ndim == 2 else "images"
            if kind == ".npz":
                arrays = {made: samples}
                if labels is not None:
                    arrays["codes" if codes else "labels"] = labels.numpy()
                np.savez_compressed(target, **arrays)  # type: ignore[arg-type]
            else:
                write_grid(target, samples)
    print(f"{arguments.n} {made} of {type(model).__name__}, seed {arguments.seed} → {arguments.output}")


def parser(command: str) -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog=f"python -m lit_gans {command}", description=__doc__)
    parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint, or the folder of a run: its best or last one")
    parser.add_argument("-n", "--n", type=int, default=64, help="number of images (64)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same images (0)")
    parser.add_argument("-o", "--output", default="samples.png", help="x.png, x.npz or a directory/ (samples.png)")
    parser.add_argument("--class", dest="label", type=int, metavar="K", help="all of class K, for conditional models")
    parser.add_argument(
        "--codes",
        nargs="+",
        type=code,
        metavar="C",
        help="InfoGAN: for each code a category's number, or a value (trained on -1..1), such as -0.5; - draws it",
    )
    parser.add_argument(
        "--truncation",
        type=float,
        metavar="T",
        help="less variety, more fidelity: bound of z (BigGAN), psi (StyleGAN2)",
    )
    parser.add_argument(
        "--standing",
        type=int,
        default=0,
        metavar="N",
        help="estimate batch norm's statistics anew from N batches of 64, which truncation wants (0: as trained)",
    )
    parser.add_argument("--batch_size", type=int, default=256, help="images made at a time (256)")
    parser.add_argument(
        "--no_ema", "--live", dest="ema", action="store_false", help="the live generator, not its average"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (cpu)")
    parser.add_argument("--import", dest="trust", action="append", default=[], metavar="MODULE", help=IMPORT)
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output path")
    return parser


def code(word: str) -> float | None:
    """The value of a code; None for one that is drawn."""
    if word == "-":
        return None
    if not math.isfinite(value := float(word)):
        raise ValueError(word)
    return value


def chosen_codes(model: Any, drawn: "Tensor | None", values: list[float | None]) -> "Tensor":
    """The codes of the images, those that were given in the place of the drawn ones."""
    if not hasattr(model, "set_codes"):
        raise UserError(f"--codes: {type(model).__name__} has none; leave it out")
    try:
        codes: Tensor = model.set_codes(drawn, values)
    except ValueError as error:
        raise UserError(f"--codes: {error}") from error
    return codes


def estimate_statistics(model: "GAN", arguments: argparse.Namespace) -> None:
    """Have the sampled generator's batch norm fit its samples."""
    averaged = arguments.ema and hasattr(model, "g_ema")
    try:
        network = model.standing_statistics(arguments.truncation, arguments.standing, ema=arguments.ema)
    except ValueError as error:
        raise UserError(f"--standing: {error}") from error
    setattr(model, "g_ema" if averaged else "generator", network)


def image_batches(model: "GAN", labels: object, arguments: argparse.Namespace) -> "Iterator[np.ndarray]":
    """Batches of uint8 images (N, H, W, C), or of points float32 (N, 2)."""
    from lit_gans.functional import to_uint8

    averaged = hasattr(model, "g_ema")
    for start in range(0, arguments.n, arguments.batch_size):
        count = min(arguments.batch_size, arguments.n - start)
        y = None if labels is None else labels[start : start + count]  # type: ignore[index]
        try:
            images = model.sample(
                count, y, arguments.seed, arguments.ema, arguments.batch_size, start, arguments.truncation
            )
        except ValueError as error:
            raise UserError(f"--truncation: {error}" if arguments.truncation is not None else str(error)) from error
        if not images.isfinite().all():
            raise UserError(
                f"{arguments.checkpoint}: its generator makes NaN or infinite values: its training has diverged; "
                "take an earlier checkpoint"
                + (", or the live generator, --no_ema" if arguments.ema and averaged else "")
            )
        if images.shape[1:] == (2,):
            yield images.float().cpu().numpy()
            continue
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(
                f"the model makes {tuple(images.shape[1:])}, which is no grey or RGB image and no point of the plane"
            )
        yield to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()


def write_directory(target: Path, batches: "Iterator[np.ndarray]", digits: int) -> None:
    """One PNG an image, numbered from 0."""
    from PIL import Image

    index = 0
    for batch in batches:
        if batch.ndim == 2:
            raise UserError("points are drawn in one picture: end -o with .png, or with .npz for the numbers")
        for image in batch:
            Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(
                target / f"{index:0{digits}}.png"
            )
            index += 1


def write_grid(target: Path, images: "np.ndarray") -> None:
    """One PNG with all images, as square as may be, or with all points."""
    import torch
    from PIL import Image

    from lit_gans.callbacks.samples import mosaic, scatter

    if images.ndim == 2:
        Image.fromarray(scatter(torch.from_numpy(images)).permute(1, 2, 0).numpy()).save(target, format="PNG")
        return
    grid = mosaic(torch.from_numpy(images).permute(0, 3, 1, 2))
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(target)
