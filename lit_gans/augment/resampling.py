"""Resampling of images by wavelets, as matrices that act on rows and columns; differentiable twice."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

__all__ = ("SYM2", "SYM6", "band_matrices", "bilinear", "downsampling", "fine_grid", "resample", "upsampling")

# The least asymmetric orthonormal scaling filters with two and with six vanishing moments (Daubechies 1992, chapter 8).
SYM2 = (-0.1294095225512604, 0.2241438680420134, 0.8365163037378079, 0.4829629131445342)
SYM6 = (
    *(0.015404109327044804, 0.0034907120842221618, -0.11799011114851977, -0.04831174258569758),
    *(0.4910559419279738, 0.7876411410286507, 0.3379294217281656, -0.07263752278637652),
    *(-0.021060292512370852, 0.04472490177078131, 0.001767711864253988, -0.007800708325032377),
)
DELAY = sum(n * tap for n, tap in enumerate(SYM6)) / sum(SYM6)  # of smooth signals, in samples of the finer grid


def resample(x: Tensor, inverse: Tensor, shift: Tensor) -> Tensor:
    """Move what is at the place v, counted from the image's centre, to ``inverse⁻¹ v + shift``.

    Beyond its borders the image goes on as its reflection, so endlessly. It is looked up bilinearly on a grid twice
    as fine, which is the image between two passes of an orthonormal filter: nothing is blurred, little aliases.

    Args:
        x: Images (N, C, H, W).
        inverse: Matrices (N, 2, 2) that act on (right, down).
        shift: Pixels (N, 2), right and down.

    Returns:
        Images of the shape of ``x``.
    """
    height, width = x.shape[2:]
    fine = upsampling(height, x.dtype, x.device) @ x @ upsampling(width, x.dtype, x.device).mT
    found = bilinear(fine, fine_grid(height, width, inverse, shift))
    return downsampling(height, x.dtype, x.device) @ found @ downsampling(width, x.dtype, x.device).mT


@torch.no_grad()
def fine_grid(height: int, width: int, inverse: Tensor, shift: Tensor) -> Tensor:
    """Where ``resample`` looks up what ``downsampling`` needs, (N, 2 height + 10, 2 width + 10, 2) in [-1, 1)."""
    options: dict[str, Any] = {"dtype": shift.dtype, "device": shift.device}
    down, right = (
        (torch.arange(2 * n + len(SYM6) - 2, **options) - DELAY - (n - 1)) / 2 for n in (height, width)
    )  # places of the finer grid's samples, from the centre, in pixels
    target = torch.stack(torch.meshgrid(right, down, indexing="xy"), dim=-1)
    pixel = torch.stack([torch.full((), 1 / _period(n), **options) for n in (width, height)])  # in periods
    centre = torch.stack([torch.full((), (n - 1 + DELAY) / (2 * _period(n)), **options) for n in (width, height)])
    linear = inverse.mT * pixel
    periods = torch.baddbmm(centre - shift[:, None] @ linear, target.view(1, -1, 2).expand(len(shift), -1, -1), linear)
    return periods.sub_(periods.floor()).mul_(2).sub_(1).view(-1, *target.shape)


def bilinear(image: Tensor, grid: Tensor) -> Tensor:
    """Values between pixels, differentiable any number of times with respect to the image, not to the grid.

    Args:
        image: Shape (N, C, H, W).
        grid: Shape (N, h, w, 2), columns and rows; -1 is the centre of the first pixel, 1 that of the last.

    Returns:
        Values of shape (N, C, h, w).
    """
    return _Lookup.apply(image, grid)


class _Lookup(Function):
    """torch's bilinear sampling, linear in the image; older releases of torch have no second derivative of it."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = image.shape
        return F.grid_sample(image, grid, padding_mode="border", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Spread.apply(gradient, *ctx.saved_tensors, ctx.shape), None


class _Spread(Function):
    """The transpose of the lookup: each value is spread over the four pixels it was read from."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, shape: Sequence[int]) -> Tensor:
        ctx.save_for_backward(grid)
        image, options = values.new_empty(shape), (0, 1, True)  # bilinear, border, align_corners
        spread: Tensor = torch.ops.aten.grid_sampler_2d_backward(values, image, grid, *options, [True, False])[0]
        return spread

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _Lookup.apply(gradient, *ctx.saved_tensors), None, None


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def upsampling(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (4n - 3, n): n samples → a whole period of their reflections, twice as fine.

    Sample m lies at (m - DELAY) / 2; the last is the first again.
    """
    taps = torch.tensor(SYM6, dtype=torch.float64) * 2**0.5
    place = torch.arange(2 * _period(n) + 1)[:, None] - torch.arange(len(taps))
    matrix = torch.zeros(len(place), n, dtype=torch.float64)
    matrix.scatter_add_(1, reflect(place.div(2, rounding_mode="floor"), n), taps * (place % 2 == 0))
    return matrix.to(device, dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def downsampling(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrix (n, 2n + 10): the first samples of the finer grid → n samples; undoes ``upsampling``."""
    matrix = torch.zeros(n, 2 * n + len(SYM6) - 2, dtype=torch.float64)
    place = 2 * torch.arange(n)[:, None] + torch.arange(len(SYM6))
    matrix.scatter_(1, place, (torch.tensor(SYM6, dtype=torch.float64) / 2**0.5).expand(n, -1))
    return matrix.to(device, dtype)


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def band_matrices(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Matrices (4, n, n) that keep the frequencies [0, π/8], [π/8, π/4], [π/4, π/2], [π/2, π] of n samples.

    They are symmetric filters, by twice SYM2, that add up to the identity; beyond the borders samples are reflected.
    """
    taps = torch.tensor(SYM2, dtype=torch.float64)
    low = _convolve(taps, taps.flip(0)) / 2
    high = low * torch.tensor([-1.0, 1.0]).repeat(4)[:7]  # mirrored, H(-z); the odd taps beside the centre change sign
    passed, bands = torch.ones(1, dtype=torch.float64), list[Tensor]()
    for spacing in (1, 2, 4):
        bands.insert(0, _convolve(passed, _spread_out(high, spacing)))
        passed = _convolve(passed, _spread_out(low, spacing))
    matrices = torch.zeros(4, n, n, dtype=torch.float64)
    for matrix, band in zip(matrices, [passed, *bands], strict=True):
        place = torch.arange(n)[:, None] + torch.arange(len(band)) - len(band) // 2
        matrix.scatter_add_(1, reflect(place, n), band.expand(n, -1))
    return matrices.to(device, dtype)


def reflect(place: Tensor, n: int) -> Tensor:
    """Indices of n samples that go on beyond both ends as their reflection, the end itself not repeated.

    Example:
        >>> reflect(torch.arange(-2, 6), 3)
        tensor([2, 1, 0, 1, 2, 1, 0, 1])
    """
    return n - 1 - (place.remainder(_period(n)) - n + 1).abs()


def _period(n: int) -> int:
    return max(2 * n - 2, 1)


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    return F.conv1d(a[None, None], b.flip(0)[None, None], padding=len(b) - 1)[0, 0]


def _spread_out(taps: Tensor, spacing: int) -> Tensor:
    """Taps with zeros between them: H(z) → H(z^spacing)."""
    spread = taps.new_zeros((len(taps) - 1) * spacing + 1)
    spread[::spacing] = taps
    return spread
