"""What is refused of pairs of pictures, and of networks that make one of the other, before training starts."""

from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from lit_gans.functional import Batch, logits_of
from lit_gans.modules import eval_mode
from lit_gans.preflight.checks import FAR

__all__ = ("check_pairs",)


@torch.no_grad()
def check_pairs(model: Any, real: Batch) -> None:
    """Play one round without learning, and name what does not fit: channels, sizes, ranges.

    Args:
        model: The model that is to translate pictures.
        real: A few pictures, and the sources that they are to be made of.

    Raises:
        ValueError: naming both sides of the misfit and the remedy.
    """
    source, target = _picture("source", real.y), _picture("target", real.x)
    for name, wanted, given in (
        ("source", getattr(model.generator, "in_channels", None), source),
        ("target", getattr(model.generator, "out_channels", None), target),
    ):
        if wanted is not None and wanted != given.shape[1]:
            argument = "in_channels" if name == "source" else "out_channels"
            raise ValueError(
                f"the {name} pictures have {given.shape[1]} channels, and {type(model.generator).__name__} takes "
                f"{wanted}: build it with {argument}={given.shape[1]}, or give the data channels={wanted}"
            )
    stride, sides = getattr(model.generator, "stride", 1), source.shape[2:]
    if any(side % stride for side in sides):
        fits = [side // stride * stride or stride for side in sides]
        raise ValueError(
            f"{type(model.generator).__name__} halves pictures until it has done so by {stride} in all, and the "
            f"sources are {sides[0]} × {sides[1]}: train on crops of {fits[0]} × {fits[1]}, or build a generator of "
            f"fewer levels (translate pads pictures of any size)"
        )
    with isolate_rng(), eval_mode(model):
        like = next(model.generator.parameters(), source)
        real = Batch(target.to(like), source.to(like))
        fake = _call("generator", model.make, real)
        made, wanted = tuple(fake.x.shape), tuple(model.region(real.x, fake.x).shape)
        if made != wanted if model.paired else made[1] != wanted[1]:  # without pairs, sizes may differ
            raise ValueError(
                f"the generator makes {_size(made)} of sources {_size(source.shape)}, and the targets are "
                f"{_size(target.shape)}: give the network the scale and channels of the data, or the data those of it"
            )
        if not (fake.x.isfinite().all() and fake.x.abs().max() <= FAR):
            raise ValueError("the generator's pictures lie far outside of [-1, 1], where the targets lie: end it there")
        logits = logits_of(_call("discriminator", model.discriminate, fake))
    if len(logits) != len(target) or logits.ndim not in (1, 2, 4):
        raise ValueError(
            f"discriminator answers {tuple(logits.shape)} to {len(target)} pictures; it must give one logit for each, "
            "or a patch map (N, C, H, W)"
        )


def _picture(name: str, x: Tensor | None) -> Tensor:
    if x is None or x.ndim != 4 or not x.is_floating_point():
        told = "missing" if x is None else f"{x.dtype} {tuple(x.shape)}"
        raise ValueError(f"the {name} of the batch is {told}: it must be float pictures (N, C, H, W) in [-1, 1]")
    low, high = float(x.min()), float(x.max())
    if not -1.001 <= low <= high <= 1.001:
        raise ValueError(f"the {name} pictures span [{low:.3g}, {high:.3g}]: scale them to [-1, 1]")
    return x


def _call(name: str, network: Any, batch: Batch) -> Any:
    try:
        return network(batch)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = f"target {tuple(batch.x.shape)} and source {tuple(batch.y.shape)}"  # type: ignore[union-attr]
        raise ValueError(f"{name} cannot take pictures of shape {shapes}: {error}") from error


def _size(shape: Any) -> str:
    return " × ".join(str(side) for side in shape[1:])
