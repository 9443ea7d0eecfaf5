"""The model that translates: loaded, mixed of two where it is asked for, and what is to be said of its work."""

import argparse
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.commands.restoring import load_model, named_checkpoint
from lit_gans.data.files import some
from lit_gans.errors import UserError
from lit_gans.game.tiling import auto_tile, cuts, normalising, obstacle, overlap_of, seam
from lit_gans.models import Translation
from lit_gans.modules import kept_modes

__all__ = ("Tool", "tool_of")


@dataclass
class Tool:
    """A model and how it is used.

    Attributes:
        model: The model, which pads, tiles and finishes pictures.
        network: The network of it that is used.
        wanted: Channels of the pictures that it is given, without a mask.
        mode: ``eval`` or ``train``.
        arguments: Those of the command.
        redone: Names of pictures that were made in float32 again.
        whole: Names of pictures that could not be made in tiles, and why.
        seams: Of pictures made in tiles: the name, and what was seen at the borders.
    """

    model: Translation
    network: nn.Module
    wanted: int
    mode: Any
    arguments: argparse.Namespace
    redone: list[str] = field(default_factory=list)
    whole: dict[str, str] = field(default_factory=dict)
    seams: list[tuple[str, int, tuple[float, float] | None]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The model's class."""
        return type(self.model).__name__

    @property
    def told(self) -> str:
        """What is said of it in the end."""
        back = f", {self.arguments.direction}" if len(self.model.directions) > 1 else ""
        mixed = f", {self.arguments.alpha:g} of {self.arguments.other}" if self.arguments.alpha is not None else ""
        seed = f", seed {self.arguments.seed}" if self.mode == "train" else ""
        return f"{self.name}{back}{mixed}{seed}"

    @property
    def cuts_out(self) -> bool:
        """Whether what is made is the opacity of the picture."""
        return bool(self.arguments.apply_mask)

    @property
    def bf16(self) -> bool:
        """Whether bfloat16 is tried first."""
        return bool(self.arguments.precision == "bf16")

    @property
    def averaged(self) -> bool:
        """Whether the averaged generator is used."""
        return bool(self.arguments.ema and hasattr(self.model, "g_ema"))

    def tile_of(self, source: Tensor, name: str) -> int | None:
        """Side of the tiles for a picture (C, H, W); None for none."""
        height, width = source.shape[1:]
        asked, exact = self.arguments.tile, self.arguments.exact
        side = auto_tile(self.network, height, width, exact) if asked is None else asked
        if not side or (side >= height and side >= width):
            return None
        with kept_modes(self.network):
            self.network.train(self.mode == "train")
            if reason := obstacle(self.network):
                self.whole[name] = reason
                return None
        return side

    def translate(self, source: Tensor, tile: int | None) -> Tensor:
        """What the model makes of a picture (C, H, W), whole numbers in and out."""
        a = self.arguments
        made = self.model.translate(source[None], a.seed, a.ema, self.mode, 1, a.direction, tile, a.exact, a.fast)[0]
        if len(made) not in (1, 3) or (self.cuts_out and (len(made) > 1 or made.shape[1:] != source.shape[1:])):
            kind = "--apply-mask wants a matte of one channel" if self.cuts_out else "that is neither grey nor RGB"
            raise UserError(f"{self.name} makes pictures {tuple(made.shape)} of {tuple(source.shape)}: {kind}")
        return made

    def look(self, made: Tensor, source: Tensor, tile: int | None, name: str) -> None:
        """Note how well the tiles of a picture fit together."""
        if tile is None:
            return
        stride, scale = getattr(self.network, "stride", 1), made.shape[-1] // source.shape[-1]
        overlap = overlap_of(self.network, self.arguments.exact)
        rows, columns = (
            [type(span)(*(scale * at for at in span)) for span in cuts(side, tile, overlap, stride)]
            for side in source.shape[1:]
        )
        self.seams.append((name, len(rows) * len(columns), seam(made, (rows, columns), stride * scale)))

    def notes(self) -> list[str]:
        """What is to be said in the end."""
        lines = []
        if self.mode != self.model.test_mode:
            lines.append(f"in the mode {self.mode}, where the checkpoint says {self.model.test_mode}")
        if self.redone:
            lines.append(f"not finite in bfloat16, made again in float32: {some(self.redone)}")
        if self.whole:
            lines.append(f"not in tiles, {next(iter(self.whole.values()))}: {some(list(self.whole))}")
        if self.seams:
            name, number, worst = max(self.seams, key=lambda seen: seen[2][0] - seen[2][1] if seen[2] else 0.0)
            many = f"{len(self.seams)} pictures in tiles; where it shows most, " if len(self.seams) > 1 else ""
            overlap = overlap_of(self.network, self.arguments.exact)
            line = f"{many}{name} in {number} tiles that overlap by {overlap} pixels"
            if worst:
                line += f"; the tone jumps by {worst[0]:.2f} at their borders and by {worst[1]:.2f} beside them"
            lines.append(line)
            if self.arguments.fast and normalising(self.network):
                lines.append(
                    "moments of a small copy: contrast differs from that of the whole picture; leave --fast out"
                )
        return lines


def tool_of(arguments: argparse.Namespace) -> Tool:
    """The model of the command's arguments.

    Raises:
        UserError: if it is no model of pictures from pictures, or an argument does not fit it.
    """
    model = translation(arguments.checkpoint, arguments.trust)
    name = type(model).__name__
    try:
        network = model.translator(arguments.ema, arguments.direction)
    except ValueError as error:
        raise UserError(f"--direction: {error}") from error
    if arguments.alpha is not None:
        mix(network, model, arguments)
    try:
        model.to(arguments.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {arguments.device}: {str(error).splitlines()[0]}") from error
    channels = getattr(network, "in_channels", None)
    if channels is None:
        first = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
        channels = first.in_channels if first is not None else 3
    wanted = channels - model.takes_mask
    if wanted not in (1, 3):
        raise UserError(
            f"{name} wants pictures of {wanted} channels, and files are grey (1) or RGB (3): use model.translate"
        )
    if arguments.apply_mask and (getattr(network, "out_channels", 1) != 1 or getattr(network, "scale", 1) != 1):
        raise UserError(
            f"--apply-mask wants a model that makes mattes, of one channel; {name} makes pictures: leave it out"
        )
    return Tool(model, network, wanted, arguments.mode or model.test_mode, arguments)


def translation(path: str, trust: list[str]) -> Translation:
    """The model of a checkpoint, if it makes pictures of pictures."""
    model = load_model(named_checkpoint(path), trust)
    if not isinstance(model, Translation):
        raise UserError(f"{type(model).__name__} makes pictures of noise, not of pictures: use the command sample")
    model.settle_average()
    return model


@torch.no_grad()
def mix(network: nn.Module, model: Translation, arguments: argparse.Namespace) -> None:
    """Give a network the weights between its own and those of another checkpoint, A of them.

    Raises:
        UserError: if the other has other layers.
    """
    other = translation(arguments.other, arguments.trust)
    try:
        theirs = other.translator(arguments.ema, arguments.direction).state_dict()
    except ValueError as error:
        raise UserError(f"--with {arguments.other}: {error}") from error
    ours = network.state_dict()
    if odd := sorted(ours.keys() ^ theirs.keys()):
        raise UserError(
            f"--with {arguments.other}: only one of both networks has {odd[0]}: mix checkpoints of one network"
        )
    for key, value in ours.items():
        if value.shape != theirs[key].shape:
            sizes = [tuple(tensor.shape) for tensor in (value, theirs[key])]
            raise UserError(
                f"--with {arguments.other}: {key} is {sizes[1]} there and {sizes[0]} in {arguments.checkpoint}: mix "
                "checkpoints of one network"
            )
        if value.is_floating_point():
            value.copy_((1 - arguments.alpha) * value + arguments.alpha * theirs[key].to(value))
