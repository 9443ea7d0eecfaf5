"""Tasks: what makes the source of a pair out of its target.

X. Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", ICCV Workshops 2021,
arXiv:2107.10833.
J. Canny, "A Computational Approach to Edge Detection", IEEE Transactions on Pattern Analysis and Machine Intelligence 8
(6), 1986.
"""

import colorsys
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from torch import Tensor

from lit_gans.data.masks import Masks, Span, build, parse_mask, span
from lit_gans.data.pictures import thumbnail, with_channels
from lit_gans.errors import unknown
from lit_gans.functional import imresize

__all__ = (
    "TASKS",
    "Blur",
    "Colour",
    "Downscale",
    "Edges",
    "Grey",
    "Invert",
    "Jpeg",
    "Matte",
    "Noise",
    "Resize",
    "Rotate",
    "Sinc",
    "Step",
    "Task",
    "parse_task",
)

Draw = np.random.Generator
Size = tuple[int, int]


class Step:
    """One change of pictures; several in order are a task.

    A subclass is a dataclass of its parameters. Pictures are float32 (N, C, H, W) in [0, 255] between two steps; a step
    that draws is given one at a time.
    """

    channels: ClassVar[int | None] = None
    """Channels of what it makes; None for those it was given."""
    share: float = 1.0
    """Probability that the step is taken; otherwise the picture stays as it is."""

    @property
    def random(self) -> bool:
        """Whether it draws; a step that does not makes the same of a picture always."""
        return False

    @property
    def margin(self) -> int:
        """Pixels beyond a window that its result there may depend on."""
        return 0

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """The changed pictures.

        Args:
            images: float32 (N, C, H, W) in [0, 255].
            draw: Where random numbers come from.
            goal: Height and width that the source is to have in the end.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Grey(Step):
    """The luma of BT.601, one channel."""

    channels: ClassVar[int | None] = 1

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """Grey pictures."""
        return with_channels(images, 1)


@dataclass(frozen=True)
class Invert(Step):
    """White becomes black, and each colour its complement."""

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """The negatives."""
        return 255 - images


@dataclass(frozen=True)
class Rotate(Step):
    """Turned anticlockwise by 90, 180 or 270 degrees; for unpaired pictures.

    Args:
        degrees: A multiple of 90.
    """

    degrees: int = 90

    def __post_init__(self) -> None:
        if not isinstance(self.degrees, int) or self.degrees % 90:
            raise ValueError(f"rotate wants a multiple of 90 degrees, not {self.degrees!r}")

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """The turned pictures."""
        return images.rot90(self.degrees // 90 % 4, (-2, -1))


@dataclass(frozen=True)
class Colour(Step):
    """What is bright gets a colour, black stays black.

    Args:
        rgb: The colour, three numbers of 0 to 255; None for a bright one drawn for each picture.
    """

    rgb: Sequence[float] | None = None
    channels: ClassVar[int | None] = 3

    def __post_init__(self) -> None:
        if self.rgb is not None and (len(self.rgb) != 3 or not all(0 <= value <= 255 for value in self.rgb)):
            raise ValueError(f"colour wants three numbers of 0 to 255, not {self.rgb!r}")

    @property
    def random(self) -> bool:
        """Whether a colour is drawn."""
        return self.rgb is None

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """Pictures RGB."""
        rgb = [255 * c for c in colorsys.hsv_to_rgb(draw.random(), 1, 1)] if self.rgb is None else self.rgb
        return with_channels(images, 1) * torch.tensor(rgb, dtype=images.dtype)[:, None, None] / 255


@dataclass(frozen=True)
class Edges(Step):
    """Edges, white on black, one channel: Canny's detector, written plainly.

    Grey pictures are smoothed by a Gaussian; the gradient is Sobel's, in grey values per pixel. A pixel is an edge
    where the gradient is no smaller than at its two neighbours across the edge (thinning), if it exceeds ``high``, or
    exceeds ``low`` and is connected to one that exceeds ``high`` (hysteresis).

    Args:
        sigma: Of the Gaussian, in pixels; 0 for none.
        low: Gradient from which an edge goes on.
        high: Gradient from which an edge begins.
    """

    sigma: float = 1.0
    low: float = 6.0
    high: float = 15.0
    channels: ClassVar[int | None] = 1

    def __post_init__(self) -> None:
        span("sigma of edges", self.sigma, 0, 100)
        span("thresholds of edges", (self.low, self.high), 0, 255)

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """The edges, 0 or 255."""
        grey = with_channels(images, 1)
        if self.sigma:
            grey = filtered(grey, gaussian(self.sigma, self.sigma, 0))
        sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
        dx, dy = filtered(grey, sobel), filtered(grey, sobel.T)
        size = torch.hypot(dx, dy)
        around = mirrored(size, 1)
        height, width = size.shape[-2:]
        sector = (torch.atan2(dy, dx) / (math.pi / 4)).round().remainder(4)  # across: →, ↘, ↓, ↙
        thin = torch.zeros_like(size, dtype=torch.bool)
        for number, (y, x) in enumerate(((0, 1), (1, 1), (1, 0), (1, -1))):
            ahead = around[..., 1 + y : 1 + y + height, 1 + x : 1 + x + width]
            behind = around[..., 1 - y : 1 - y + height, 1 - x : 1 - x + width]
            # of two equal neighbours one is kept; equal but for rounding is equal
            thin |= (sector == number) & (size >= ahead - 1e-3) & (size > behind + 1e-3)
        weak, strong = thin & (size > self.low), thin & (size > self.high)
        while True:
            grown = weak & (F.max_pool2d(strong.float(), 3, 1, 1) > 0)
            if torch.equal(grown, strong):
                return 255 * strong.float()
            strong = grown


@dataclass(frozen=True)
class Noise(Step):
    """Noise of a camera.

    Args:
        sigma: Standard deviation of Gaussian noise, of 255; 25 is a usual one.
        poisson: Strength of shot noise, 1 for photon counts of 0 to 255; given, one of the two kinds is drawn.
        gaussian: Probability of Gaussian noise, where ``poisson`` is given.
        grey: Probability that all channels get the same noise.
        share: Probability of any noise.
    """

    sigma: Span = 25.0
    poisson: Span | None = None
    gaussian: float = 0.5
    grey: float = 0.0
    share: float = 1.0

    def __post_init__(self) -> None:
        span("sigma of noise", self.sigma, 0, 1000)
        if self.poisson is not None:
            span("poisson of noise", self.poisson, 0, 1000)
        for name in ("gaussian", "grey", "share"):
            span(f"{name} of noise", getattr(self, name), 0, 1)

    @property
    def random(self) -> bool:
        """Noise is drawn."""
        return True

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """Noisy pictures, clipped to [0, 255]."""
        grey = self.grey > 0 and draw.random() < self.grey
        clean = with_channels(images, 1) if grey else images
        if self.poisson is None or draw.random() < self.gaussian:
            sigma = draw.uniform(*span("sigma", self.sigma, 0, 1000))
            noise = torch.from_numpy(draw.standard_normal(clean.shape, np.float32)) * sigma
        else:
            counts = clean.clamp(0, 255)
            shots = torch.from_numpy(draw.poisson(counts.numpy()).astype(np.float32))
            noise = (shots - counts) * draw.uniform(*span("poisson", self.poisson, 0, 1000))
        return (images + noise).clamp(0, 255)


@dataclass(frozen=True)
class Jpeg(Step):
    """What JPEG leaves of a picture.

    Args:
        quality: 1 to 95, as Pillow counts it.
        share: Probability of the step.
    """

    quality: Span = (30, 95)
    share: float = 1.0

    def __post_init__(self) -> None:
        span("quality of jpeg", self.quality, 1, 100)
        span("share of jpeg", self.share, 0, 1)

    @property
    def random(self) -> bool:
        """Whether the quality is drawn."""
        low, high = span("quality", self.quality, 1, 100)
        return low < high

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """The pictures after compression."""
        low, high = span("quality", self.quality, 1, 100)
        quality = int(draw.integers(int(low), int(high) + 1)) if low < high else int(low)
        done = []
        for image in images.round().clamp(0, 255).to(torch.uint8):
            picture, file = thumbnail(image), io.BytesIO()
            picture = picture.convert("L") if image.shape[0] == 1 else picture
            picture.save(file, "JPEG", quality=quality)
            with Image.open(file) as back:
                array = torch.from_numpy(np.array(back))
            done.append(array[None] if array.ndim == 2 else array.permute(2, 0, 1))
        return torch.stack(done).float()


@dataclass(frozen=True)
class Blur(Step):
    """A Gaussian blur, also one of several widths in several directions.

    Args:
        sigma: Standard deviation in pixels.
        anisotropic: Probability that two widths are drawn, and the angle between them and the picture.
        sinc: Probability of a ``sinc`` filter instead.
        size: Side of the kernel in pixels; None for what reaches three standard deviations.
        share: Probability of the step.
    """

    sigma: Span = (0.2, 3.0)
    anisotropic: float = 0.0
    sinc: float = 0.0
    size: Span | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        span("sigma of blur", self.sigma, 0, 100)
        if self.size is not None:
            span("size of blur", self.size, 1, 99)
        for name in ("anisotropic", "sinc", "share"):
            span(f"{name} of blur", getattr(self, name), 0, 1)

    @property
    def random(self) -> bool:
        """Whether something of the kernel is drawn."""
        spans = [span("blur", value, 0, 100) for value in (self.sigma, self.size or 1)]
        return any(low < high for low, high in spans) or self.sinc > 0 or self.anisotropic > 0

    @property
    def margin(self) -> int:
        """The reach of the largest kernel."""
        return math.ceil(3 * span("sigma", self.sigma, 0, 100)[1]) if self.size is None else self._largest // 2

    @property
    def _largest(self) -> int:
        return int(span("size", self.size or 1, 1, 99)[1])

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """The blurred pictures."""
        low, high = span("sigma", self.sigma, 0, 100)
        size = None
        if self.size is not None:
            least, most = (int(end) // 2 for end in span("size", self.size, 1, 99))
            size = 2 * int(draw.integers(least, most + 1)) + 1
        if self.sinc and draw.random() < self.sinc:
            return filtered(images, circular_sinc(draw.uniform(math.pi / 3, math.pi), size or 2 * self.margin + 1))
        first = second = draw.uniform(low, high)
        angle = 0.0
        if self.anisotropic and draw.random() < self.anisotropic:
            second, angle = draw.uniform(low, high), draw.uniform(-math.pi, math.pi)
        return filtered(images, gaussian(first, second, angle, size)) if max(first, second) > 0 else images


@dataclass(frozen=True)
class Sinc(Step):
    """The ideal low-pass filter of the plane, which rings at edges as sharpened pictures do.

    Args:
        cutoff: Highest frequency that is kept, in radians per pixel, up to π.
        size: Side of the kernel in pixels.
        share: Probability of the step.
    """

    cutoff: Span = (math.pi / 3, math.pi)
    size: int = 21
    share: float = 0.8

    def __post_init__(self) -> None:
        span("cutoff of sinc", self.cutoff, 0.1, math.pi)
        span("size of sinc", self.size, 3, 99)
        span("share of sinc", self.share, 0, 1)

    @property
    def random(self) -> bool:
        """Whether the frequency is drawn."""
        low, high = span("cutoff", self.cutoff, 0.1, math.pi)
        return low < high

    @property
    def margin(self) -> int:
        """The reach of the kernel."""
        return self.size // 2

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """The filtered pictures."""
        return filtered(images, circular_sinc(draw.uniform(*span("cutoff", self.cutoff, 0, math.pi)), self.size))


@dataclass(frozen=True)
class Resize(Step):
    """Larger or smaller in the middle of a chain; the chain ends at the size that it is to have.

    Nothing is antialiased but ``area``, as with pictures that others have resized.

    Args:
        scale: New side over old side.
        chances: Probability of larger and of smaller, the rest stays; None for any scale alike.
        modes: Interpolations of which one is drawn: ``area``, ``bilinear``, ``bicubic``.
        of: The scale is of the ``picture`` as it is, or of its ``goal``, the size in the end.
        share: Probability of the step.
    """

    scale: Span = (0.15, 1.5)
    chances: Sequence[float] | None = None
    modes: Sequence[str] = ("area", "bilinear", "bicubic")
    of: str = "picture"
    share: float = 1.0

    def __post_init__(self) -> None:
        low, high = span("scale of resize", self.scale, 0.01, 100)
        for mode in self.modes:
            if mode not in ("area", "bilinear", "bicubic"):
                raise ValueError(unknown("mode of resize", mode, ("area", "bilinear", "bicubic")))
        if self.of not in ("picture", "goal"):
            raise ValueError(unknown("of of resize", self.of, ("picture", "goal")))
        if self.chances is not None:
            if len(self.chances) != 2 or min(self.chances) < 0 or sum(self.chances) > 1:
                raise ValueError(f"chances of resize are two probabilities, larger and smaller, not {self.chances!r}")
            if not low <= 1 <= high:
                raise ValueError(f"chances of resize want a scale on both sides of 1, not {self.scale!r}")

    @property
    def random(self) -> bool:
        """Whether the scale or the mode is drawn."""
        low, high = span("scale", self.scale, 0.01, 100)
        return low < high or len(self.modes) > 1

    @property
    def margin(self) -> int:
        """The reach of a bicubic kernel at the smallest scale."""
        return math.ceil(2 / min(1, span("scale", self.scale, 0.01, 100)[0]))

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """The resized picture."""
        low, high = span("scale", self.scale, 0.01, 100)
        if self.chances is not None:
            larger, smaller = self.chances
            kind = draw.random()
            low, high = (1, high) if kind < larger else (low, 1) if kind < larger + smaller else (1, 1)
        scale, mode = draw.uniform(low, high), self.modes[int(draw.integers(len(self.modes)))]
        base = goal if self.of == "goal" else images.shape[-2:]
        height, width = (max(1, round(side * scale)) for side in base)
        options = {} if mode == "area" else {"align_corners": False}
        return F.interpolate(images, (height, width), mode=mode, **options)


@dataclass(frozen=True)
class Downscale(Step):
    """Smaller by a whole number, by the field's bicubic kernel (MATLAB's ``imresize``); the source is so much smaller.

    In a chain with ``resize`` it brings pictures of any size to the size in the end.

    Args:
        scale: 2, 3, 4, ...
    """

    scale: int = 2

    def __post_init__(self) -> None:
        if not isinstance(self.scale, int) or isinstance(self.scale, bool) or self.scale < 1:
            raise ValueError(f"downscale wants a whole number from 1 up, such as {{downscale: 4}}, not {self.scale!r}")

    @property
    def margin(self) -> int:
        """The reach of the kernel."""
        return 4 * self.scale

    def __call__(self, images: Tensor, draw: Draw, goal: Size) -> Tensor:
        """Pictures of the size in the end."""
        if tuple(images.shape[-2:]) == (goal[0] * self.scale, goal[1] * self.scale):
            return imresize(images, 1 / self.scale)
        return to_size(images, goal)


@dataclass(frozen=True)
class Matte:
    """Cut-outs laid over other pictures: the source is the composite, the target the opacity, one channel.

    Pictures with alpha are cut-outs; they are laid over those of ``backgrounds``. Pictures without are backgrounds: a
    round shape with a soft edge is cut out of one and laid over the other.

    Args:
        backgrounds: Folder or .zip of the pictures that cut-outs are laid over.
        soft: Width of the edge of a shape, as a share of the shorter side.
        size: Mean radius of a shape, as a share of the shorter side.
    """

    backgrounds: str | None = None
    soft: Span = (0.02, 0.15)
    size: Span = (0.2, 0.4)

    def __post_init__(self) -> None:
        span("soft of matte", self.soft, 0, 1)
        span("size of matte", self.size, 0, 2)

    def shape(self, height: int, width: int, draw: Draw) -> Tensor:
        """The opacity of a round shape whose radius varies with the angle, float32 (1, height, width) in [0, 1]."""
        side = min(height, width)
        radius = side * draw.uniform(*span("size", self.size, 0, 2))
        soft = max(1e-3, side * draw.uniform(*span("soft", self.soft, 0, 1)))
        y = np.arange(height)[:, None] + 0.5 - height * draw.uniform(0.25, 0.75)
        x = np.arange(width)[None] + 0.5 - width * draw.uniform(0.25, 0.75)
        angle, wave = np.arctan2(y, x), np.ones((height, width))
        for k in range(1, 6):
            wave += draw.normal(0, 0.3 / k) * np.cos(k * angle + draw.uniform(0, 2 * math.pi))
        inside = np.clip((radius * np.maximum(wave, 0.2) - np.hypot(x, y)) / soft + 0.5, 0, 1)
        return torch.from_numpy((inside * inside * (3 - 2 * inside)).astype(np.float32))[None]


STEPS: dict[str, type[Step]] = {
    "blur": Blur,
    "colour": Colour,
    "downscale": Downscale,
    "edges": Edges,
    "grey": Grey,
    "invert": Invert,
    "jpeg": Jpeg,
    "noise": Noise,
    "resize": Resize,
    "rotate": Rotate,
    "sinc": Sinc,
}
TASKS = tuple(sorted([*STEPS, "mask", "matte"]))
_MARGIN = 64
"""Largest margin; what a long chain gathers from further away is faint."""


@dataclass(frozen=True)
class Task:
    """What makes the source of a pair out of its target: steps in order, then a mask; or a matte.

    Example:
        >>> task = parse_task([{"blur": 1.0}, {"downscale": 2}])
        >>> task(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).shape, task.scale, task.random
        (torch.Size([1, 3, 4, 4]), 2, False)
    """

    steps: tuple[Step, ...] = ()
    mask: Masks | None = None
    matte: Matte | None = None
    scale: int = 1
    spec: Any = field(default=None, compare=False)

    @property
    def random(self) -> bool:
        """Whether some step draws, so that each epoch has other sources."""
        return any(step.random or step.share < 1 for step in self.steps)

    @property
    def margin(self) -> int:
        """Pixels beyond a window that the source there may depend on, a multiple of the scale."""
        reach = min(_MARGIN, sum(step.margin for step in self.steps))
        return -(-reach // self.scale) * self.scale

    def channels(self, given: int) -> int:
        """Channels that the source has for a target of ``given`` channels, without the mask."""
        for step in self.steps:
            given = step.channels or given
        return given

    def __call__(self, images: Tensor, draw: Draw | None = None) -> Tensor:
        """Sources of targets, all steps but the mask.

        Args:
            images: uint8 (N, C, H, W), both sides multiples of the scale; N = 1 where the task draws.
            draw: Where random numbers come from, if it draws.

        Returns:
            uint8 (N, C', H / scale, W / scale).
        """
        if not self.steps:
            return images
        goal = (images.shape[-2] // self.scale, images.shape[-1] // self.scale)
        draw = draw or np.random.default_rng(0)
        result = images.float()
        for step in self.steps:
            if step.share == 1 or draw.random() < step.share:
                result = step(result, draw, goal)
        if any(isinstance(step, Resize) for step in self.steps) and tuple(result.shape[-2:]) != goal:
            result = to_size(result, goal)
        return result.round().clamp(0, 255).to(torch.uint8)


def parse_task(spec: Any) -> Task:
    """A task from plain values: a name, ``{name: parameters}``, or a list of these, which are applied in order.

    Raises:
        ValueError: If a name or a parameter is unknown, or the order makes no sense.

    Example:
        >>> parse_task({"noise": {"sigma": [1, 30]}}).steps
        (Noise(sigma=(1, 30), poisson=None, gaussian=0.5, grey=0.0, share=1.0),)
    """
    if isinstance(spec, str) and spec.strip()[:1] in ("{", "["):  # the command line may hand YAML on as text
        spec = yaml.safe_load(spec)
    entries = spec if isinstance(spec, list) else [spec]
    if not entries:
        raise ValueError("the list of tasks is empty: name one, or leave task out")
    task = Task(spec=spec)
    for entry in entries:
        name, given = _named(entry)
        if task.mask is not None:
            raise ValueError(f"a mask ends a task: move {name} before it")
        if name == "matte":
            if len(entries) > 1:
                raise ValueError("matte is a task of its own: leave the others out")
            return replace(task, matte=build("matte", Matte, given))
        if name == "mask":
            task = replace(task, mask=parse_mask(given))
            continue
        step = build(name, STEPS[name], given)
        if isinstance(step, Downscale):
            if task.scale > 1:
                raise ValueError("a task holds one downscale, by the whole scale: leave the others out")
            task = replace(task, scale=step.scale)
        task = replace(task, steps=(*task.steps, step))
    return task


def _named(entry: Any) -> tuple[str, Any]:
    """The name of a step and its parameters, None without."""
    if isinstance(entry, str):
        name, given = entry, None
    elif isinstance(entry, dict) and len(entry) == 1:
        ((name, given),) = entry.items()
        given = None if given is True else given
    else:
        raise ValueError(f"a task is a name, {{name: parameters}}, or a list of these, not {entry!r}")
    if name not in TASKS:
        raise ValueError(unknown("task", name, TASKS))
    return name, given


def mirrored(images: Tensor, reach: int) -> Tensor:
    """Images (..., H, W) that go on by ``reach`` pixels beyond each border as in a mirror, the last pixel twice."""
    rows, columns = images.shape[-2:]
    for dim, side in ((-2, rows), (-1, columns)):
        index = torch.arange(-reach, side + reach).remainder(2 * side)
        images = images.index_select(dim, torch.minimum(index, 2 * side - 1 - index))
    return images


def filtered(images: Tensor, kernel: Tensor) -> Tensor:
    """Correlation of images (N, C, H, W) with a kernel of odd sides, over a border as in a mirror."""
    around, weights = mirrored(images, kernel.shape[-1] // 2), kernel[None, None].to(images.dtype)
    # one by one, as the last bit of a convolution may depend on how many there are
    return torch.stack([F.conv2d(image[:, None], weights)[:, 0] for image in around])


def gaussian(first: float, second: float, angle: float, size: int | None = None) -> Tensor:
    """A Gaussian of two widths, turned by an angle, that sums to 1, (size, size)."""
    reach = max(1, math.ceil(3 * max(first, second))) if size is None else size // 2
    y, x = torch.meshgrid(*[torch.arange(-reach, reach + 1, dtype=torch.float64)] * 2, indexing="ij")
    along, across = math.cos(angle) * x + math.sin(angle) * y, math.cos(angle) * y - math.sin(angle) * x
    kernel = torch.exp(-(along / max(first, 1e-3)).square() / 2 - (across / max(second, 1e-3)).square() / 2)
    return (kernel / kernel.sum()).float()


def circular_sinc(cutoff: float, size: int) -> Tensor:
    """The kernel ω J₁(ω r) / (2π r) of all frequencies up to ω, which sums to 1 (Real-ESRGAN, equation 6)."""
    reach = size // 2
    y, x = torch.meshgrid(*[torch.arange(-reach, reach + 1, dtype=torch.float64)] * 2, indexing="ij")
    radius = torch.hypot(x, y)
    kernel = cutoff * torch.special.bessel_j1(cutoff * radius) / (2 * math.pi * radius)
    kernel[reach, reach] = cutoff**2 / (4 * math.pi)
    return (kernel / kernel.sum()).float()


def to_size(images: Tensor, size: Size) -> Tensor:
    """Images (N, C, H, W) at another size, bicubic and antialiased."""
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
