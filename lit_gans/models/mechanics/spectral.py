"""Spectral normalisation of networks as they are given."""

from lightning.pytorch.utilities import rank_zero_warn
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

__all__ = ("normalise_spectrally",)


def normalise_spectrally(network: nn.Module, n_power_iterations: int = 1) -> None:
    """Divide every weight of a linear, convolutional or embedding layer by its largest singular value, in place.

    Miyato et al. 2018, algorithm 1. Layers that have a parametrization already keep it.

    Args:
        network: Whose layers they are.
        n_power_iterations: Power iterations a forward pass in training mode.
    """
    kinds = (nn.Linear, nn.modules.conv._ConvNd, nn.Embedding)
    layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
    if not layers and next(network.parameters(), None) is not None:
        rank_zero_warn(f"{type(network).__name__} has no layer to normalise spectrally: it stays as it is")
    for layer in layers:
        if not is_parametrized(layer):
            spectral_norm(layer, n_power_iterations=n_power_iterations)
