"""Drawing the images that are measured: by their number, so that neither batches nor processes matter."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from lit_gans.functional import mix_seed, to_uint8
from lit_gans.metrics.protocol import Protocol
from lit_gans.metrics.reference import BLOCK
from lit_gans.modules import eval_mode

__all__ = ("Sampler", "measured_network", "model_sampler", "quantise", "standing_statistics")

Sampler = Callable[[int], Any]
"""From the number of a block to its images: BLOCK of them, float in [-1, 1] or uint8, perhaps each of its own size."""


def model_sampler(module: Any, protocol: Protocol, seed: int, sample: Callable[[Any, int], Tensor] | None) -> Sampler:
    """How to draw a block of images from a module.

    A ``lit_gans`` model draws latents by number; of any other ``sample(n)`` is called in eval mode, with torch's
    generators seeded by the number of the block and restored afterwards.

    Args:
        module: Of the class ``lit_gans.models.GAN``, or any with ``sample(n)``.
        protocol: Says which weights to measure, and the truncation.
        seed: Seed of the latents.
        sample: ``sample(module, n)`` in place of the module's own method.

    Raises:
        TypeError: if there is no ``sample``.
        ValueError: if truncation is asked for, and ``sample`` does not take it.
    """
    method: Any = getattr(module, "sample", None) if sample is None else sample
    if not callable(method):
        raise TypeError(
            f"images to measure come from module.sample(n), which {type(module).__name__} lacks: define it to return "
            "images (n, C, H, W) in [-1, 1], or give a function sample(module, n)"
        )
    options: dict[str, Any] = {}
    if protocol.truncation is not None:
        if not getattr(module, "truncates", "truncation" in inspect.signature(method).parameters):
            raise ValueError(f"{type(module).__name__} knows no truncation, which the protocol sets")
        options["truncation"] = protocol.truncation
    if sample is None and hasattr(module, "draw_inputs"):
        options |= {"seed": seed, "ema": protocol.ema, "batch_size": BLOCK}
        return lambda block: method(BLOCK, start=block * BLOCK, **options)

    def draw(block: int) -> Tensor:
        evaluating = eval_mode(module) if isinstance(module, nn.Module) else nullcontext()
        with isolate_rng(), torch.no_grad(), evaluating:
            torch.manual_seed(mix_seed(seed, block))
            return method(BLOCK, **options) if sample is None else sample(module, BLOCK, **options)

    return draw


def quantise(images: Any) -> Any:
    """Generated images as uint8; those that already are stay as they are.

    Raises:
        ValueError: if they are no images in [-1, 1].
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        return images
    low, high = (float(value) for value in images.detach().aminmax())
    if low >= 0 and high > 2:
        raise ValueError(f"generated images must lie in [-1, 1], but these are in [{low:.3g}, {high:.3g}]")
    if low >= 0:
        warnings.warn(
            f"generated pixels are in [{low:.3g}, {high:.3g}], none negative: metrics take [-1, 1], not [0, 1]",
            stacklevel=2,
        )
    outside = float((images.abs() > 1.01).float().mean())
    if outside > 0.05:
        warnings.warn(
            f"{outside:.0%} of the generated pixels lie outside [-1, 1] and are clamped, as when images are saved",
            stacklevel=2,
        )
    return to_uint8(images)


def measured_network(module: Any, ema: bool) -> tuple[Any, bool]:
    """The generator that ``sample`` uses, and whether it is an average."""
    averaged = ema and hasattr(module, "g_ema")
    return (module.g_ema if averaged else getattr(module, "generator", None)), averaged


@contextmanager
def standing_statistics(module: Any, protocol: Protocol) -> Iterator[None]:
    """Batch statistics of the measured generator estimated anew, and put back afterwards (Brock et al. 2019, 4.1).

    Args:
        module: A ``lit_gans.models.GAN``.
        protocol: Whose ``standing`` is the number of batches, at its truncation; 0 changes nothing.

    Raises:
        ValueError: if the module cannot estimate them.
    """
    network, _ = measured_network(module, protocol.ema)
    if protocol.standing and not (hasattr(module, "estimate_statistics_") and isinstance(network, nn.Module)):
        raise ValueError(
            f"the protocol {protocol.name} estimates batch statistics anew, for which {type(module).__name__} "
            "would have to be a lit_gans model: choose another protocol, or standing=0"
        )
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)] if network else []
    if not protocol.standing or not norms:
        yield
        return
    kept = [{name: buffer.clone() for name, buffer in norm.named_buffers()} for norm in norms]
    module.settle_average()  # else the next sample would, over what is estimated here
    try:
        module.estimate_statistics_(network, protocol.truncation, protocol.standing)
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in norm.named_buffers():
                buffer.copy_(buffers[name])
