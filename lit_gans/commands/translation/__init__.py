"""``translate``: pictures made of pictures by a checkpoint: of a file, a folder or a .zip, of any size."""

import argparse
import math
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_gans.commands.words import IMPORT
from lit_gans.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from lit_gans.commands.translation.pictures import Picture
    from lit_gans.commands.translation.tools import Tool

__all__ = ("main",)


def main(command: str, words: list[str]) -> None:
    """Parse the words, load the checkpoint, look at what is to be done, and do it."""
    arguments = parser(command).parse_args(words)
    check(arguments)

    from tqdm.auto import tqdm

    from lit_gans.commands.translation.masks import masks_of
    from lit_gans.commands.translation.places import planned
    from lit_gans.commands.translation.tools import tool_of
    from lit_gans.data.files import shown

    files, targets = planned(Path(arguments.input), arguments.output, arguments.suffix, arguments.overwrite)
    tool = tool_of(arguments)
    masks = masks_of(arguments.mask, files, targets, tool.name, tool.model.takes_mask)
    for line in masks.warnings:
        print(f"lit_gans: {line}", file=sys.stderr)
    done, failed = 0, []
    with tqdm(targets.items(), unit="picture", disable=None, leave=False, file=sys.stderr) as bar:
        for index, target in bar:
            name = files.names[index]
            try:
                one(tool, files, index, target, masks)
                done += 1
            except (ValueError, OSError, ArithmeticError, RuntimeError) as error:
                failed.append(name)
                reason = getattr(error, "reason", "") or (str(error).strip().splitlines() or [type(error).__name__])[0]
                bar.write(f"lit_gans: {shown(name)}: {shown(reason)}", file=sys.stderr)
    for line in tool.notes():
        print(line)
    where = arguments.output or ("beside them" if done != 1 else next(iter(targets.values())))
    pictures = "1 picture" if done == 1 else f"{done} pictures"
    print(f"{pictures} of {tool.told} → {where}" + (f"; {len(failed)} failed" if failed else ""))
    if failed:
        raise SystemExit(1)


def parser(command: str) -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog=f"python -m lit_gans {command}", description=__doc__)
    parser.add_argument("checkpoint", metavar="CKPT", help="a checkpoint, or the folder of a run: its best or last one")
    parser.add_argument("input", metavar="IN", help="a picture, a folder of them with all that is below it, or a .zip")
    parser.add_argument("-o", "--output", metavar="OUT", help="x.png, .jpg or .webp, or a folder (beside the pictures)")
    parser.add_argument("--suffix", help="end of the new names (_translated beside the pictures, none in a folder)")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at the output path")
    parser.add_argument("--direction", choices=("a2b", "b2a"), default="a2b", help="of CycleGAN: there or back (a2b)")
    parser.add_argument(
        "--mask", metavar="PATH", help="of inpainting: a picture, or a folder with one of each name; white is the hole"
    )
    parser.add_argument(
        "--tile",
        default="auto",
        type=tile,
        metavar="N",
        help="side of the tiles in which large pictures are shown to the network; 0: never in tiles (auto)",
    )
    parser.add_argument("--exact", action="store_true", help="let tiles overlap so far that they make no difference")
    parser.add_argument(
        "--fast",
        action="store_true",
        help="in tiles, take the moments of instance norm from a small copy: many times faster, other contrast",
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, mps (cpu)")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help="float32 or bfloat16 (32)")
    parser.add_argument(
        "--no_ema", "--live", dest="ema", action="store_false", help="the live generator, not its average"
    )
    parser.add_argument("--seed", type=int, default=0, help="of dropout, where a model uses it: same seed, same (0)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--eval", dest="mode", action="store_const", const="eval", help="no dropout, statistics as trained"
    )
    mode.add_argument(
        "--train", dest="mode", action="store_const", const="train", help="dropout, statistics of each picture"
    )
    parser.add_argument(
        "--alpha", type=float, metavar="A", help="weights between two checkpoints: 1 - A of CKPT, A of that of --with"
    )
    parser.add_argument("--with", dest="other", metavar="CKPT2", help="the other checkpoint of --alpha")
    parser.add_argument(
        "--apply_mask",
        action="store_true",
        help="of a matting model: cut out what is opaque; the picture gets the result as its transparency",
    )
    parser.add_argument("--import", dest="trust", action="append", default=[], metavar="MODULE", help=IMPORT)
    return parser


def tile(word: str) -> int | None:
    """Side of the tiles; None if it is to be chosen."""
    if word == "auto":
        return None
    if (side := int(word)) < 0:
        raise ValueError(word)
    return side


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot work, before anything is loaded."""
    if not Path(arguments.input).exists():
        raise UserError(f"there is nothing at {arguments.input}")
    if arguments.suffix is not None and {"/", "\\"} & set(arguments.suffix):
        raise UserError(f"--suffix {arguments.suffix}: it is the end of a name, without folders")
    if (arguments.alpha is None) != (arguments.other is None):
        raise UserError("--alpha A and --with CKPT2 go together: the weights are 1 - A of CKPT and A of CKPT2")
    if arguments.alpha is not None and not (math.isfinite(arguments.alpha) and 0 <= arguments.alpha <= 1):
        raise UserError(f"--alpha must be in 0..1, got {arguments.alpha}")
    if not 0 <= arguments.seed < 2**62:
        raise UserError(f"--seed must be in 0..2^62 - 1, got {arguments.seed}")


def one(tool: "Tool", files: Any, index: int, target: Path | None, masks: Any) -> None:
    """Make one picture."""
    from lit_gans.commands.files import staged
    from lit_gans.commands.translation.pictures import finished, opened, save

    if target is None:
        raise ValueError("its name leads out of the folder: it is not written")
    picture = opened(files.decode(index), tool.wanted, tool.cuts_out)
    made = made_of(tool, picture, masks.of(index), files.names[index])
    image = finished(picture, made, tool)
    with staged(target) as path:
        save(image, path, picture.profile)


def made_of(tool: "Tool", picture: "Picture", mask: "Tensor | None", name: str) -> "Tensor":
    """What the model makes of a picture (C, H, W), whole numbers; in float32 again if bfloat16 does not reach."""
    import torch

    source = picture.pixels
    if mask is not None:
        if mask.shape[1:] != source.shape[1:]:
            told = [f"{size[2]}x{size[1]}" for size in (mask.shape, source.shape)]
            raise ValueError(f"its mask is {told[0]}, the picture {told[1]}")
        source = torch.cat([source, mask.to(source.dtype) * torch.iinfo(source.dtype).max])
    device = next(tool.network.parameters()).device.type
    side = tool.tile_of(source, name)
    bf16 = torch.autocast(device, torch.bfloat16) if tool.bf16 else nullcontext()
    try:
        with bf16:
            made = tool.translate(source, side)
    except FloatingPointError:
        if not tool.bf16:
            raise FloatingPointError(
                "the network makes NaN or infinite values: take an earlier checkpoint"
                + (", or the live generator, --no_ema" if tool.averaged else "")
            ) from None
        tool.redone.append(name)
        made = tool.translate(source, side)
    tool.look(made, source, side, name)
    return made
