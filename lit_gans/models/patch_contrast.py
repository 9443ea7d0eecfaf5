"""Contrast of patches: small networks behind a generator's encoder, and the cross entropy of finding a place again."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.modules import buffers_kept, eval_mode, take_facts

__all__ = ("WithProjections", "at", "patch_nce")


class WithProjections(nn.Module):
    """A generator, and for each layer of its encoder a network of two layers onto the unit sphere.

    Args:
        network: The generator, with a method ``features(x, layers)``.
        layers: The numbers of the layers.
        width: Of both layers of each network.
    """

    def __init__(self, network: nn.Module, layers: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.network = network
        take_facts(self, network)
        weights = (p for p in network.parameters() if p.ndim == 4)
        first = next(weights, None)
        if first is None:
            raise ValueError(f"{type(network).__name__} has no convolutions, of which CUT compares features")
        picture = first.new_zeros(1, getattr(network, "in_channels", first.shape[1]), 64, 64)
        with torch.no_grad(), eval_mode(network), buffers_kept(network):
            widths = [feature.shape[1] for feature in self.features(picture, layers)]
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width), UnitSphere())
            for channels in widths
        )

    def forward(self, x: Tensor) -> Tensor:
        """Sources to pictures."""
        made: Tensor = self.network(x)
        return made

    def features(self, x: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """What the encoder has to say at some layers, each (N, C, H, W)."""
        network: Any = self.network
        return list(network.features(x, layers))


class UnitSphere(nn.Module):
    """Vectors (N, D) divided by their lengths."""

    def forward(self, x: Tensor) -> Tensor:
        """Section 3.2."""
        return F.normalize(x, dim=-1, eps=1e-7)


def at(feature: Tensor, places: Tensor) -> Tensor:
    """The vectors of a map (N, C, H, W) at P places, (N, P, C)."""
    return feature.flatten(2)[:, :, places].transpose(1, 2)


def patch_nce(query: Tensor, key: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of recognising each place of a picture among all of its places that were drawn.

    Equation 3; vectors (N, P, D) of length 1, in float32 at least.
    """
    with torch.autocast(query.device.type, enabled=False):
        wide = torch.promote_types(query.dtype, torch.float32)
        scores = torch.bmm(query.to(wide), key.to(wide).transpose(1, 2)) / temperature
    target = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    return F.cross_entropy(scores.flatten(0, 1), target.flatten())
