"""What is asked of networks, or done to them: modes and buffers put back, gradients that rest, spectral norm."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from torch.nn.utils.parametrizations import _SpectralNorm, spectral_norm
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.spectral_norm import SpectralNorm

__all__ = (
    "buffers_kept",
    "eval_mode",
    "fitting",
    "frozen",
    "initialise",
    "is_spectral",
    "kept_modes",
    "normalise_spectrally",
    "take_facts",
)


@contextmanager
def kept_modes(network: nn.Module) -> Iterator[None]:
    """Each submodule gets back the mode it had, training or evaluation, whatever is done to it within."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def eval_mode(network: nn.Module) -> Iterator[None]:
    """Evaluate; each submodule gets back the mode it had."""
    with kept_modes(network):
        network.eval()
        yield


@contextmanager
def buffers_kept(network: nn.Module) -> Iterator[None]:
    """Buffers, such as batch statistics, get back the values they had, whatever passes are made within."""
    before = [buffer.detach().clone() for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(network.buffers(), before, strict=True):
                buffer.copy_(value)


@contextmanager
def frozen(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """No gradients for these parameters; those that were frozen before stay so. Not to be nested."""
    live = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in live:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in live:
            parameter.requires_grad_(True)


def is_spectral(layer: nn.Module) -> bool:
    """Whether a module is, or has as a hook, one of torch's two implementations of spectral norm."""
    hooks = layer._forward_pre_hooks.values()
    return isinstance(layer, _SpectralNorm) or any(isinstance(hook, SpectralNorm) for hook in hooks)


def normalise_spectrally(network: nn.Module, n_power_iterations: int = 1, embeddings: bool = True) -> None:
    """Divide every weight of a linear, convolutional or embedding layer by its largest singular value, in place.

    Miyato et al. 2018, algorithm 1. Layers that have a parametrization, or torch's older ``nn.utils.spectral_norm``,
    already keep it.

    Args:
        network: The network whose layers are normalised.
        n_power_iterations: Power iterations a forward pass in training mode.
        embeddings: Whether embeddings are normalised, too. Those of a generator should not be: divided by their largest
            singular value, the vectors of the classes could no longer grow apart.
    """
    kinds: tuple[type[nn.Module], ...] = (nn.Linear, nn.modules.conv._ConvNd, *(nn.Embedding,) * embeddings)
    layers = [layer for layer in network.modules() if isinstance(layer, kinds)]
    if not layers and next(network.parameters(), None) is not None:
        rank_zero_warn(f"{type(network).__name__} has no layer to normalise spectrally: it stays as it is")
    older = [layer for layer in layers if is_spectral(layer)]
    if older:
        rank_zero_info(
            f"{type(network).__name__}: {len(older)} layers have torch.nn.utils.spectral_norm already and keep it"
        )
    for layer in layers:
        if layer not in older and not is_parametrized(layer):
            spectral_norm(layer, n_power_iterations=n_power_iterations)


@torch.no_grad()
def initialise(network: nn.Module, std: float) -> None:
    """Draw weights anew from N(0, std²) and gains of batch norm from N(1, std²), with biases zero, in place.

    Radford et al. 2016, section 4, "details of adversarial training".
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            learned = dict(module.named_parameters())  # beneath a spectral norm, which makes the weight of another one
            names = ("parametrizations.weight.original", "weight_orig")
            nn.init.normal_(next((learned[name] for name in names if name in learned), module.weight), 0.0, std)
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.normal_(module.weight, 1.0, std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def fitting(network: nn.Module, side: int) -> int:
    """The longest side of at most so many pixels that a network takes; 0 if there is none."""
    stride = getattr(network, "stride", 1)
    fits = min(side // stride * stride, getattr(network, "image_size", None) or side)
    return fits if fits >= getattr(network, "smallest", 1) else 0


def take_facts(wrapper: nn.Module, network: nn.Module) -> None:
    """Give a module around a network what that says of itself: the sizes and channels that it takes and makes."""
    for name in ("stride", "smallest", "scale", "in_channels", "out_channels", "receptive_radius", "overlap"):
        if hasattr(network, name):
            setattr(wrapper, name, getattr(network, name))
