"""Pure functions of tensors that several papers, metrics or callbacks share."""

import hashlib
import math
import struct
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = (
    "Batch",
    "Terms",
    "as_batch",
    "checkerboard",
    "clip_grad_adaptive_",
    "estimate_batch_statistics_",
    "gamma_for",
    "imresize",
    "input_gradient",
    "input_gradient_norm",
    "interpolate",
    "logits_of",
    "mix_seed",
    "off_diagonal_gram",
    "pad_to_multiple",
    "path_lengths",
    "perturb",
    "to_uint8",
    "to_y",
    "update_average_",
    "window",
)


class Batch(NamedTuple):
    """Samples, and what goes with them.

    Example:
        >>> batch = Batch(torch.zeros(4, 1, 8, 8), torch.tensor([3, 1, 4, 1]))
        >>> batch.part(slice(0, 2)).y
        tensor([3, 1])
    """

    x: Tensor
    """Samples: images (N, C, H, W), or points (N, 2)."""
    y: Tensor | None = None
    """One for each sample: its label (N,), its codes (N, K), the picture (N, C, H, W) that it is made from; None where
    nothing goes with them."""

    def part(self, rows: slice) -> "Batch":
        """Some of the samples, with what goes with them."""
        return Batch(self.x[rows], None if self.y is None else self.y[rows])

    def detach(self) -> "Batch":
        """The same without gradients."""
        x, y = (tensor.detach() if tensor is not None and tensor.requires_grad else tensor for tensor in self)
        return Batch(x, y)  # type: ignore[arg-type]  # samples are never None


Terms: TypeAlias = dict[str, Tensor]
"""Terms of a loss by name, scalars; the loss is their sum, and each is logged."""

Samples = TypeVar("Samples", Tensor, Batch)


def as_batch(samples: Tensor | Batch) -> Batch:
    """A batch as it is, a tensor as a batch of samples without labels."""
    return Batch(samples) if isinstance(samples, Tensor) else samples


def ask(critic: Callable[..., Any], batch: Batch) -> Any:
    """What a function of images, or of images and labels, says of a batch."""
    return critic(batch.x) if batch.y is None else critic(batch.x, batch.y)


def input_gradient_norm(critic: Callable[..., Tensor], x: Tensor, y: Tensor | None = None) -> Tensor:
    """Norm of the critic's gradient at each input, differentiable with respect to the critic's parameters.

    Computed in float32 whatever the autocast mode: the square of a half-precision gradient overflows. A critic that
    answers with a patch map is taken as the mean of its map.

    Args:
        critic: ``critic(x)`` or ``critic(x, y)`` → logits, or a tuple that begins with them; a logit for each point,
            or for each pack of points.
        x: Points of shape (N, ...) at which the gradient is taken.
        y: Labels of shape (N,), passed on where given.

    Returns:
        Euclidean norms of shape (N,), float32 (float64 where ``x`` is).

    Example:
        >>> input_gradient_norm(lambda x: x @ torch.tensor([3.0, 4.0]), torch.zeros(2, 2)).detach()
        tensor([5., 5.])
    """
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        gradient = input_gradient(critic, differentiable(x), y)
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1)


def differentiable(x: Tensor) -> Tensor:
    """The same points, in float32 at least, as a leaf that gradients can be taken at."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32)).requires_grad_()


def input_gradient(critic: Callable[..., Tensor], x: Tensor, y: Tensor | None = None) -> Tensor:
    """Gradient of the critic's mean answer to each input, itself differentiable.

    Args:
        critic: As for ``input_gradient_norm``.
        x: Shape (N, ...); requires gradients.
        y: Labels of shape (N,), passed on where given.

    Returns:
        Shape of ``x``.
    """
    logits = logits_of(critic(x) if y is None else critic(x, y))
    (gradient,) = torch.autograd.grad(logits.reshape(len(logits), -1).mean(1).sum(), x, create_graph=True)
    return gradient


def logits_of(answer: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a discriminator says of real and fake: its answer, or the first part of an answer in several parts.

    Example:
        >>> logits_of((torch.tensor([0.5]), torch.zeros(1, 10)))
        tensor([0.5000])
    """
    return answer if isinstance(answer, Tensor) else answer[0]


def interpolate(real: Samples, fake: Samples, generator: torch.Generator | None = None) -> Samples:
    """Points drawn uniformly from the straight lines between pairs of real and generated samples.

    Gulrajani et al. 2017, section 4. One weight a pair, whatever the shape of a sample.

    Args:
        real: Shape (N, ...), or a batch.
        fake: The same of generated samples.
        generator: Source of the N weights; torch's global one if left out.

    Returns:
        Shape of ``real``, in float32 at least; of batches a batch, with the labels of the real ones.
    """
    one, other = as_batch(real).x, as_batch(fake).x
    dtype = torch.promote_types(one.dtype, torch.float32)
    weight = torch.rand(len(one), generator=generator, device=one.device, dtype=dtype)
    points = torch.lerp(other.to(dtype), one.to(dtype), weight.view(-1, *[1] * (one.ndim - 1)))
    return points if isinstance(real, Tensor) else Batch(points, real.y)


def perturb(real: Samples, noise: float, generator: torch.Generator | None = None) -> Samples:
    """Points about real samples: x + noise · N(0, 1) (Kodali et al. 2017, section 2.3).

    Args:
        real: Shape (N, ...), or a batch.
        noise: Standard deviation, in the units of ``real``.
        generator: Source of the noise; torch's global one if left out.

    Returns:
        Shape of ``real``, in float32 at least; of a batch a batch, with its labels.
    """
    x = as_batch(real).x
    dtype = torch.promote_types(x.dtype, torch.float32)
    points = x + noise * torch.randn(x.shape, generator=generator, device=x.device, dtype=dtype)
    return points if isinstance(real, Tensor) else Batch(points, real.y)


def path_lengths(
    generator: torch.nn.Module, z: Tensor, y: Tensor | None = None, rng: torch.Generator | None = None
) -> Tensor:
    r"""How far images move with a step in w: :math:`\|J_w^T y\|_2`, y normal noise over the images' pixels.

    Karras et al. 2020, arXiv:1912.04958, section 3.2; noise divided by the root of the number of pixels, and the norm a
    root mean square over the layers that take w. Computed in float32 whatever the autocast mode.

    Args:
        generator: With ``mapping(z, y)`` → w (N, w_dim), ``num_ws`` and ``synthesis(ws)``, ws (N, num_ws, w_dim); any
            other is taken as a function of z.
        z: The latents (N, latent_dim) of the images whose lengths are wanted.
        y: Labels (N,) of a conditional generator.
        rng: Source of the noise; torch's global one if left out.

    Returns:
        Lengths (N,), float32, differentiable with respect to the generator's parameters.
    """
    labels = () if y is None else (y,)
    with torch.enable_grad(), torch.autocast(z.device.type, enabled=False):
        if hasattr(generator, "synthesis"):
            w = generator.mapping(z, *labels)[:, None].repeat(1, generator.num_ws, 1)  # type: ignore[operator]
            images = generator.synthesis(w)  # type: ignore[operator]
        else:
            w = z.detach().requires_grad_()
            images = generator(w, *labels)
        noise = torch.randn(images.shape, generator=rng, device=z.device, dtype=images.dtype)
        pixels = images[0, 0].numel() if images.ndim == 4 else 1
        (gradient,) = torch.autograd.grad((images * noise).sum() / pixels**0.5, w, create_graph=True)
    return (gradient if gradient.ndim == 3 else gradient[:, None]).square().sum(2).mean(1).sqrt()


def off_diagonal_gram(network: torch.nn.Module) -> Tensor:
    r"""Sum over weights W of :math:`\|W W^T ⊙ (1 - I)\|_F^2`, W a matrix with one row a filter.

    Brock et al. 2019, arXiv:1809.11096, equation 3; its gradient, 4 (W Wᵀ ⊙ (1 - I)) W, is twice that which the
    authors' code adds. Weights are those that are learnt, before spectral norm of either kind or another
    parametrization; of linear and convolutional layers only, 0 where there are none.
    """
    total = torch.zeros((), device=next(network.parameters()).device)
    for module in network.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.modules.conv._ConvNd)):
            learnt = dict(module.named_parameters())
            weight: Tensor = learnt.get("parametrizations.weight.original", learnt.get("weight_orig", module.weight))
            rows = weight.flatten(1)
            gram = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows  # of equal norm: the smaller one
            total = total + gram.square().sum() - rows.square().sum(1).square().sum()
    return total


def gamma_for(real: Tensor, batch: int = 0) -> float:
    """γ of R1 by the rule of StyleGAN2-ADA (arXiv:2006.06676, published code): 0.0002 · resolution² / batch.

    Args:
        real: Images (N, C, H, W).
        batch: Images of all processes; N if 0.

    Example:
        >>> gamma_for(torch.zeros(4, 3, 32, 32), batch=64)
        0.0032
    """
    return 0.0002 * real[0, 0].numel() / (batch or len(real))


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] → uint8 in 0..255, rounded to nearest and clamped, same shape.

    Example:
        >>> to_uint8(torch.tensor([-1.2, -1.0, 0.0, 1.0, 1.004]))
        tensor([  0,   0, 128, 255, 255], dtype=torch.uint8)
    """
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def to_y(images: Tensor) -> Tensor:
    """Luma of RGB images as television has it (ITU-R BT.601): 16 for black, 235 for white, not rounded.

    Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, what super-resolution is measured by.

    Args:
        images: Values 0..255 of any type, (..., 3, H, W).

    Returns:
        float64, (..., 1, H, W).

    Raises:
        ValueError: if there are not three channels.

    Example:
        >>> to_y(torch.tensor([0, 255]).view(2, 1, 1, 1).expand(2, 3, 1, 1)).flatten()
        tensor([ 16., 235.], dtype=torch.float64)
    """
    if images.ndim < 3 or images.shape[-3] != 3:
        raise ValueError(f"luma is a mixture of red, green and blue: want (..., 3, H, W), got {tuple(images.shape)}")
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=images.device)
    return 16 + (images.double() * weights.view(3, 1, 1)).sum(-3, keepdim=True) / 255


def imresize(x: Tensor, scale: float) -> Tensor:
    """Images made larger or smaller as MATLAB's ``imresize`` makes them, which super-resolution is judged by.

    The cubic kernel of Keys (1981) with a = -0.5, widened by ``1 / scale`` where images shrink so that no aliases
    arise; its weights are normalised, and the picture goes on beyond its border as in a mirror (the last pixel twice).
    Nothing is rounded or clamped: a cubic kernel overshoots at edges.

    Args:
        x: Floating point, (..., H, W); half precision is computed in float32.
        scale: Side of the result over side of ``x``.

    Returns:
        (..., ceil(H * scale), ceil(W * scale)), of the type of ``x``.

    Raises:
        ValueError: if ``x`` is not of a floating-point type, has no pixels, or ``scale`` is not above zero.

    Example:
        >>> imresize(torch.arange(8.0).expand(8, 8), 1 / 2)[0]
        tensor([0.4492, 2.4883, 4.5117, 6.5508])
    """
    if not x.is_floating_point():
        raise ValueError(f"imresize wants floating-point images, got {x.dtype}: convert them, and round afterwards")
    if x.ndim < 2 or 0 in x.shape[-2:]:
        raise ValueError(f"imresize wants images (..., H, W) with pixels, got shape {tuple(x.shape)}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale of imresize must be above zero, got {scale}")
    images = x.to(torch.promote_types(x.dtype, torch.float32))
    rows = _resize_columns(images.transpose(-1, -2), scale).transpose(-1, -2)
    return _resize_columns(rows, scale).to(x.dtype)


def _resize_columns(x: Tensor, scale: float) -> Tensor:
    """``imresize`` along the last dimension, one tap of the kernel at a time."""
    side, shrink = x.shape[-1], min(scale, 1.0)
    centre = (torch.arange(math.ceil(side * scale), dtype=torch.float64) + 0.5) / scale - 0.5
    taps = range(math.ceil(4 / shrink) + 2)
    index = (centre - 2 / shrink).floor().long()[:, None] + torch.tensor(taps)
    distance = ((centre[:, None] - index) * shrink).abs()
    near = (1.5 * distance - 2.5) * distance.square() + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance <= 1, near, torch.where(distance <= 2, far, 0))
    weights = (weights / weights.sum(1, keepdim=True)).to(x)
    index = index.remainder(2 * side)  # a mirror at each border: the picture and its reflection by turns
    index = torch.minimum(index, 2 * side - 1 - index).to(x.device)
    result = x.new_zeros((*x.shape[:-1], len(centre)))
    for tap in taps:
        result = result + weights[:, tap] * x.index_select(-1, index[:, tap])
    return result


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
        average: The averaged copy, which is changed.
        network: The live network, of the same structure.
        decay: In [0, 1]; 0 copies, 1 keeps.
    """
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1.0 - decay)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(network.buffers()))


@torch.no_grad()
def estimate_batch_statistics_(network: torch.nn.Module, passes: Iterable[Callable[[], object]]) -> int:
    """Replace the running statistics of a network's batch norm by their means over forward passes, in place.

    Standing statistics: Brock et al. 2019, arXiv:1809.11096, section 4.1 and appendix A. Within a pass each layer
    normalises by the statistics of the batch, as in training, whatever the network's mode; nothing else of the network
    changes, and processes do not wait for one another.

    Args:
        network: Whose layers they are; best in eval mode, so that nothing is dropped out.
        passes: Each sends one batch through the network when it is called.

    Returns:
        The number of layers with running statistics; where there are none, no pass is made.
    """
    kind = torch.nn.modules.batchnorm._BatchNorm
    layers = [layer for layer in network.modules() if isinstance(layer, kind) and layer.running_mean is not None]
    for layer in layers:
        layer.reset_running_stats()
    try:
        for count, forward in enumerate(passes if layers else (), start=1):
            for layer in layers:
                layer.__dict__["forward"] = partial(_normalise_by_batch, layer, 1 / count)
            forward()
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)
    return len(layers)


def _normalise_by_batch(layer: torch.nn.modules.batchnorm._BatchNorm, share: float, x: Tensor) -> Tensor:
    mean, var = layer.running_mean, layer.running_var
    return F.batch_norm(x, mean, var, layer.weight, layer.bias, training=True, momentum=share, eps=layer.eps)


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


def pad_to_multiple(x: Tensor, multiple: int, least: int = 1) -> Tensor:
    """Pictures continued to the right and below by reflection, until both sides are multiples of a number.

    Args:
        x: Pictures (..., H, W).
        multiple: The number whose multiples both sides become, at least 1.
        least: Both sides become at least so long.

    Example:
        >>> pad_to_multiple(torch.tensor([[0.0, 1.0, 2.0]]), 8)[0]
        tensor([0., 1., 2., 1., 0., 1., 2., 1.])
    """
    height, width = (-(-max(side, least) // multiple) * multiple for side in x.shape[-2:])
    return x if x.shape[-2:] == (height, width) else window(x, 0, 0, height, width)


def window(x: Tensor, top: int, left: int, height: int, width: int) -> Tensor:
    """A part of pictures, which are continued beyond their edges by reflection, back and forth where they are small.

    Args:
        x: Pictures (..., H, W).
        top: Row of the window's first pixel; may be negative.
        left: Column of that pixel, likewise.
        height: Rows of the window, also of those beyond the edges.
        width: Columns of the window, likewise.

    Example:
        >>> window(torch.tensor([[0.0, 1.0, 2.0]]), 0, -1, 1, 4)
        tensor([[1., 0., 1., 2.]])
    """
    for dim, start, length in ((-2, top, height), (-1, left, width)):
        period = max(1, 2 * (x.shape[dim] - 1))
        turn = torch.arange(start, start + length, device=x.device) % period
        x = x.index_select(x.ndim + dim, torch.minimum(turn, period - turn))
    return x


def checkerboard(images: Tensor) -> Tensor:
    """How much stronger patterns of every second pixel are than those a little coarser, of each picture (N,).

    Layers that enlarge unevenly leave such patterns (Odena et al. 2016, "Deconvolution and checkerboard artifacts"). It
    is the energy of the brightness at the highest frequency of rows or columns over that of the three next ones: about
    1 for photographs, well above it where a grid is seen.

    Args:
        images: (N, C, H, W), both sides at least 16; of odd ones the last pixel is left out.

    Raises:
        ValueError: if pictures are smaller.

    Example:
        >>> grid = torch.tensor([1.0, -1.0]).repeat(8).expand(1, 1, 16, 16)
        >>> bool(checkerboard(grid + torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))) > 100)
        True
    """
    height, width = (side // 2 * 2 for side in images.shape[-2:])
    if min(height, width) < 16:
        raise ValueError(f"patterns need pictures of at least 16 pixels, got {tuple(images.shape[-2:])}")
    light = images.double().mean(1)[:, :height, :width]
    power = torch.fft.fft2(light - light.mean((1, 2), keepdim=True)).abs().square()
    ratios = []
    for lines in (power.mean(1), power.mean(2)):
        middle = lines.shape[1] // 2
        around = torch.cat([lines[:, middle - 3 : middle], lines[:, middle + 1 : middle + 4]], 1)
        ratios.append(lines[:, middle] / around.mean(1).clamp_min(1e-12))
    return torch.stack(ratios).amax(0)
