"""In which memory format networks run: torch's channels_last where convolutions are faster in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim import Optimizer

from lit_gans.modules import buffers_kept

__all__ = ("align_state", "channels_last_pays", "lay_out")

FEW_PLACES = 256
"""Places of its maps, of all images of a batch together, at which a convolution uses each of its weights. With fewer, a
CPU spends more on bringing weights and their gradients into channels_last than the convolution gains there."""


def channels_last_pays(model: Any, device: str, precision: str, batch_size: int | None = None) -> bool:
    """Whether both networks are expected to train faster in channels_last, and do run in it.

    Decided by the kinds of layers and of device and by the size of a batch alone, so that every run of a configuration
    decides alike. ``python -m benchmarks.layout`` measures those layers. On a CPU convolutions and resampling take 0.25
    to 0.97 of the time, unless maps are small and images few: see ``FEW_PLACES``. Instance norm takes longer, and so
    does a step with grouped convolutions, all in all: networks that have either are left as they are. On a GPU
    convolutions gain in half precision.

    Args:
        model: The model, on whatever device.
        device: Kind of the device that it will train on, "cpu" or "cuda" for example.
        precision: The trainer's, "32-true" or "bf16-mixed" for example.
        batch_size: Images in a batch; None if that is not known before training.
    """
    if not (device == "cpu" or (device == "cuda" and precision.endswith("-mixed"))):
        return False
    convolves = any(weight.ndim == 4 for network in _networks(model) for weight in network.parameters())
    slower = any(_is_slower(layer) for network in _networks(model) for layer in network.modules())
    if not convolves or slower:
        return False
    with _uses_of_weights(model) as uses:
        runs = _runs(model)
    weights = sum(count for count, _ in uses)
    if runs and device == "cpu" and batch_size and weights:
        places = batch_size * sum(count * places for count, places in uses) / weights
        if places < FEW_PLACES:
            lay_out(model, torch.contiguous_format)
            return False
    return runs


@contextmanager
def _uses_of_weights(model: Any) -> Iterator[list[tuple[int, int]]]:
    """For each convolution that is called meanwhile, how many weights it has and at how many places of an image."""
    uses: list[tuple[int, int]] = []

    def note(layer: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        uses.append((layer.weight.numel(), min(inputs[0][0, 0].numel(), output[0, 0].numel())))

    layers = [layer for network in _networks(model) for layer in network.modules() if isinstance(layer, _ConvNd)]
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield uses
    finally:
        for handle in handles:
            handle.remove()


def _is_slower(layer: nn.Module) -> bool:
    """Whether a layer is slower in channels_last: instance norm, and convolutions of groups of several channels."""
    grouped = isinstance(layer, _ConvNd) and 1 < layer.groups < layer.in_channels
    return grouped or isinstance(layer, _InstanceNorm)


@torch.no_grad()
def _runs(model: Any) -> bool:
    """Whether the networks, which may be anybody's, take images and weights in channels_last; leaves them in it if so.

    A network that calls ``view`` on images does not.
    """
    lay_out(model, torch.channels_last)
    with isolate_rng(), buffers_kept(model.generator), buffers_kept(model.discriminator):
        try:
            fake = model.make(model.trial_inputs(2 * model.pack))
            if fake.x.ndim == 4:
                model.judge(fake.x.contiguous(memory_format=torch.channels_last), fake.y)
        except (RuntimeError, LookupError) as error:
            lay_out(model, torch.contiguous_format)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            rank_zero_info(f"channels_last: left out, since the networks do not run in this memory format: {reason}")
            return False
    return True


def lay_out(model: Any, memory_format: torch.memory_format) -> None:
    """Put weights and buffers with four dimensions into a memory format, in place."""
    for network in _networks(model):
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.ndim == 4:
                tensor.data = tensor.data.contiguous(memory_format=memory_format)


def _networks(model: Any) -> Iterator[nn.Module]:
    """Both networks, and the averaged generator if there is one."""
    return (getattr(model, name) for name in ("generator", "discriminator", "g_ema") if hasattr(model, name))


def align_state(optimizer: Optimizer) -> None:
    """Give an optimizer's loaded state the memory format of its parameters.

    A checkpoint may come from a model with another one, and fused kernels pair elements as they lie in memory.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
