"""Masks of inpainting: 1 is the hole, everywhere."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_gans.errors import unknown

__all__ = ("Box", "Masks", "parse_mask")


class Box:
    """A box as hole.

    Args:
        size: Side of the box as a share of the picture's, in (0, 1]; two numbers [least, most] are a range.
        place: ``random``, or ``centre``.
    """

    def __init__(self, size: float = 0.5, place: str = "random") -> None:
        self.size = size
        self.place = place

    def __call__(self, height: int, width: int, draw: np.random.Generator) -> np.ndarray:
        """A mask, bool (height, width)."""
        mask = np.zeros((height, width), bool)
        h, w = max(1, round(self.size * height)), max(1, round(self.size * width))
        top, left = (height - h) // 2, (width - w) // 2
        if self.place == "random":
            top, left = int(draw.integers(height - h + 1)), int(draw.integers(width - w + 1))
        mask[top : top + h, left : left + w] = True
        return mask


class Masks:
    """The union of masks of several kinds.

    Args:
        kinds: What makes a mask, each.
    """

    def __init__(self, kinds: list[Box]) -> None:
        self.kinds = kinds

    def __call__(self, height: int, width: int, draw: np.random.Generator) -> Tensor:
        """A mask, uint8 (1, height, width), 255 in the hole."""
        holes = [kind(height, width, draw) for kind in self.kinds]
        return torch.from_numpy(np.logical_or.reduce(holes).astype(np.uint8) * 255)[None]


KINDS = {"box": Box}


def parse_mask(given: Any) -> Masks:
    """Masks from plain values: None (a box), ``{kind: ..., ...}``, or a list of these, whose union is the hole.

    Raises:
        ValueError: If a kind or a parameter is unknown.
    """
    kinds = []
    for entry in given if isinstance(given, list) else [given]:
        options = dict(entry or {})
        kind = options.pop("kind", "box")
        if kind not in KINDS:
            raise ValueError(unknown("kind of mask", kind, KINDS))
        kinds.append(KINDS[kind](**options))
    return Masks(kinds)
