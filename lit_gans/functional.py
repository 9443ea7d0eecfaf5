"""Pure functions of tensors that several papers, metrics or callbacks share."""

import hashlib
import struct
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

__all__ = (
    "clip_grad_adaptive_",
    "input_gradient",
    "input_gradient_norm",
    "interpolate",
    "mix_seed",
    "to_uint8",
    "update_average_",
)


def input_gradient_norm(critic: Callable[..., Tensor], x: Tensor, y: Tensor | None = None) -> Tensor:
    """Norm of the critic's gradient at each input, differentiable with respect to the critic's parameters.

    Computed in float32 whatever the autocast mode: the square of a half-precision gradient overflows. A critic that
    answers with a patch map is taken as the mean of its map. Compiled where the critic is a method of a model that is.

    Args:
        critic: ``critic(x)`` or ``critic(x, y)`` → logits, first dimension N.
        x: Points of shape (N, ...) at which the gradient is taken.
        y: Labels of shape (N,), passed on where given.

    Returns:
        Euclidean norms of shape (N,), float32 (float64 where ``x`` is).

    Example:
        >>> input_gradient_norm(lambda x: x @ torch.tensor([3.0, 4.0]), torch.zeros(2, 2)).detach()
        tensor([5., 5.])
    """
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()
        compiled = getattr(getattr(critic, "__self__", None), "compiled_input_gradient", None)
        gradient = (compiled or input_gradient)(critic, x, y)
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)


def input_gradient(critic: Callable[..., Tensor], x: Tensor, y: Tensor | None = None) -> Tensor:
    """Gradient of the critic's mean answer to each input, itself differentiable.

    Args:
        critic: As for ``input_gradient_norm``.
        x: Shape (N, ...); requires gradients.
        y: Labels of shape (N,), passed on where given.

    Returns:
        Shape of ``x``.
    """
    logits = critic(x) if y is None else critic(x, y)
    (gradient,) = torch.autograd.grad(logits.reshape(len(x), -1).mean(1).sum(), x, create_graph=True)
    return gradient


def interpolate(real: Tensor, fake: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Points drawn uniformly from the straight lines between pairs of real and generated samples.

    Gulrajani et al. 2017, section 4. One weight a pair, whatever the shape of a sample.

    Args:
        real: Shape (N, ...).
        fake: Same shape as ``real``.
        generator: Source of the N weights; torch's global one if left out.

    Returns:
        Shape of ``real``, in float32 at least.
    """
    dtype = torch.promote_types(real.dtype, torch.float32)
    weight = torch.rand(len(real), generator=generator, device=real.device, dtype=dtype)
    return torch.lerp(fake.to(dtype), real.to(dtype), weight.view(-1, *[1] * (real.ndim - 1)))


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] → uint8 in 0..255, rounded to nearest and clamped, same shape.

    Example:
        >>> to_uint8(torch.tensor([-1.2, -1.0, 0.0, 1.0, 1.004]))
        tensor([  0,   0, 128, 255, 255], dtype=torch.uint8)
    """
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def mix_seed(*keys: int) -> int:
    """One well mixed 63-bit seed from several integers, the same on every machine and in every version.

    Example:
        >>> mix_seed(0, 1) != mix_seed(1, 0)
        True
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(keys)}q", *keys), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@torch.no_grad()
def update_average_(average: torch.nn.Module, network: torch.nn.Module, decay: float) -> None:
    """Move ``average`` towards ``network`` in place: w ← decay · w + (1 - decay) · w'; buffers are copied.

    Args:
        average: The averaged copy.
        network: The live network, of the same structure.
        decay: In [0, 1]; 0 copies, 1 keeps.
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(network.buffers()))


@torch.no_grad()
def clip_grad_adaptive_(parameters: Iterable[Tensor], clip_factor: float = 0.01, eps: float = 1e-3) -> None:
    r"""Adaptive gradient clipping, unit by unit, in place (Brock et al. 2021, equation 3).

    .. math:: G_i ← λ \frac{\|W_i\|^*_F}{\|G_i\|_F} G_i \quad\text{if}\quad \frac{\|G_i\|_F}{\|W_i\|^*_F} > λ,
        \qquad \|W_i\|^*_F = \max(\|W_i\|_F, ε)

    A unit i is one row of the weight (first dimension); a vector (bias, gain) counts as one unit.

    Args:
        parameters: Those without gradients are passed over.
        clip_factor: λ, largest ratio of gradient to weight norm.
        eps: ε, so that weights that begin at zero can move.
    """
    for parameter in parameters:
        if (gradient := parameter.grad) is None:
            continue
        dims = list(range(1 if parameter.ndim > 1 else 0, parameter.ndim)) or None
        limit = torch.linalg.vector_norm(parameter, dim=dims, keepdim=True).clamp_min(eps) * clip_factor
        norm = torch.linalg.vector_norm(gradient, dim=dims, keepdim=True)
        gradient.mul_(torch.where(norm > limit, limit / norm, torch.ones_like(norm)))
