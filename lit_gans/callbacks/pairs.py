"""Pictures of what becomes of pictures: sources beside what is made of them."""

from typing import Any

import torch
import torch.nn.functional as F
from lightning import Trainer
from torch import Tensor

from lit_gans.functional import Batch, to_uint8
from lit_gans.models import Translation
from lit_gans.preflight.checks import peek

__all__ = ("comparison", "example_pairs")

_WIDEST = 256  # pixels that are shown of a picture, from its upper left corner


def example_pairs(model: Translation, trainer: Trainer | None, n: int) -> list[Batch]:
    """Held-out pictures and their sources, one by one; of the training data where none are held out.

    Raises:
        ValueError: if there is no data to look at.
    """
    data: Any = getattr(trainer, "datamodule", None)
    if hasattr(data, "pairs"):
        pairs = data.pairs("val") or data.pairs("train")
        return [model.unpack_batch(pairs.batch(torch.tensor([index]))) for index in range(min(n, len(pairs)))]
    batch = None if trainer is None else peek(trainer)
    if batch is None:
        raise ValueError("SampleGrid draws what is made of pictures, and finds none: train with a data module of pairs")
    few = model.unpack_batch(batch)
    return [few.part(slice(row, row + 1)) for row in range(min(n, len(few.x)))]


@torch.no_grad()
def comparison(model: Translation, pairs: list[Batch], seed: int = 0, ema: bool = True) -> list[Tensor]:
    """Source, what is made of it, and the target; without pairs, the way back in the target's place.

    Args:
        model: The model that translates.
        pairs: Of one picture each.
        seed: Seed of the generator's dropout, in models that keep it on when they are used.
        ema: Use the averaged generator where there is one.

    Returns:
        Pictures uint8 (3, H, W), all of one size, in rows of ``len(result) // rows``: those of a pair are neighbours.
    """
    like = next(model.parameters())
    shown = []
    for pair in pairs:
        target, source = pair.x.to(like), pair.y.to(like)  # type: ignore[union-attr]
        for direction, x in zip(model.directions, (source, target), strict=False):
            made = model.translate(x, seed=seed, ema=ema, direction=direction)
            row = [x[:, :-1] if model.takes_mask else x, made]
            if model.paired:
                row.append(target)
            elif len(model.directions) == 2:
                back = next(other for other in model.directions if other != direction)
                row.append(model.translate(made, seed=seed, ema=ema, direction=back))
            shown.append([_visible(picture, made) for picture in row])
    height, width = (min(picture.shape[dim] for row in shown for picture in row) for dim in (1, 2))
    return [picture[:, :height, :width] for row in shown for picture in row]


def _visible(picture: Tensor, like: Tensor) -> Tensor:
    """One picture as uint8 (3, H, W), in the size of another, at most so large as can be looked at."""
    if picture.shape[2:] != like.shape[2:]:
        picture = F.interpolate(picture, like.shape[2:])
    channels = picture[:, :3] if picture.shape[1] >= 3 else picture[:, :1].expand(-1, 3, -1, -1)
    return to_uint8(channels[0, :, :_WIDEST, :_WIDEST]).cpu()
