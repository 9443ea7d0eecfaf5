"""ADA: Karras et al. 2020, "Training generative adversarial networks with limited data", NeurIPS, arXiv:2006.06676."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lit_gans.augment.augmentation import Augmentation
from lit_gans.augment.diffaugment import cut
from lit_gans.augment.resampling import band_matrices, reflect, resample

__all__ = ("ADA",)


class ADA(Augmentation):
    """Adaptive discriminator augmentation: as strong as needed that the discriminator does not learn data by heart.

    Each transformation happens to each image with the probability p. The training loop has it moved, by ``adapt``, so
    that the discriminator is right about real images, on average, as often as ``target`` says. What it is judged by are
    the logits of all real images in the updates since the last move, as each update saw them (``observe``): asked after
    an update about the images of that update, it would seem surer than it is. While p < 1, what the generator learns is
    not augmented: the distribution of augmented images determines that of the images.

    Grey images are inverted where colours would change their luma's sign; hue and saturation they have not. Images that
    are not square are turned by 180°, not by 90°. Cost grows with the cube of the image's size, small up to 256 pixels.

    Differs from the paper: flips, quarter turns and whole-pixel shifts copy pixels, where the paper has them filtered
    along with the other geometry; images are reflected endlessly, not as far as is needed; the wavelet filter's delay
    is accounted for exactly; p ends at 1, where the published code has no upper bound. The p of appendix B holds for
    all transformations, as there.

    Args:
        blit: x-flips, quarter turns, shifts by whole pixels. This and the next two are "bgc", the paper's choice.
        geometry: Scaling, stretching, rotation, fractional shifts.
        color: Brightness, contrast, luma flip, hue, saturation.
        filter: Four bands of frequencies are amplified or damped.
        noise: Whether white noise is added.
        cutout: A square of half the size becomes zero.
        target: Target of r_t, the mean sign of the discriminator's logits of real images; 0.6 in the paper.
        every: Steps between two calls of ``adapt``; 4 in the paper.
        kimg: Thousands of real images in which p can go from 0 to 1; 500 in the paper.
        p: Probability, in [0, 1], with which each transformation is applied at first.

    Raises:
        ValueError: if p is not in [0, 1], or ``every`` or ``kimg`` is not above 0.

    Example:
        >>> augment = ADA(p=0.1)
        >>> augment.adapt(signs=torch.tensor(0.7), images=50_000)
        >>> augment.p
        tensor(0.2000)
    """

    p: Tensor
    seen: Tensor  # the sum of the signs of logits since the last ``adapt``, and how many these were

    def __init__(
        self,
        blit: bool = True,
        geometry: bool = True,
        color: bool = True,
        filter: bool = False,
        noise: bool = False,
        cutout: bool = False,
        target: float = 0.6,
        every: int = 4,
        kimg: float = 500.0,
        p: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"p must be in [0, 1], got {p}")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        if not kimg > 0:
            raise ValueError(f"kimg must be above 0, got {kimg}")
        on = {"blit": blit, "geometry": geometry, "color": color, "filter": filter, "noise": noise, "cutout": cutout}
        self.transformations = [_TRANSFORMATIONS[name] for name, wanted in on.items() if wanted]
        self.target, self.every, self.kimg = target, every, kimg
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("seen", torch.zeros(2))

    @torch.no_grad()
    def observe(self, logits: Tensor) -> None:
        """Note what the discriminator says, within an update, about real images; logits of any shape."""
        self.seen[0].add_(logits.sign().sum())
        self.seen[1].add_(logits.numel())

    @torch.no_grad()
    def mean_sign(self) -> Tensor:
        """r_t of all that was observed since the last call, 0 if nothing was; forgets it."""
        mean = self.seen[0] / self.seen[1].clamp(min=1)
        self.seen.zero_()
        return mean

    @torch.no_grad()
    def adapt(self, signs: Tensor, images: int) -> None:
        """Section 3.1: a fixed step up where the discriminator is too sure of real images, down where it is not.

        Args:
            signs: r_t, the mean sign of the logits of real images, over all processes.
            images: Real images since the last call, over all processes.
        """
        step = images / (self.kimg * 1000)
        self.p.add_(torch.where(signs > self.target, step, -step)).clamp_(0, 1)

    def transform(self, x: Tensor) -> Tensor:
        """Appendix B, figure by figure.

        Raises:
            ValueError: if colours are to change of images that have neither one channel nor three.
        """
        if recolor in self.transformations and x.shape[1] not in (1, 3):
            raise ValueError(f"ADA changes colours of images with 1 or 3 channels, got {x.shape[1]}; use color=False")
        for transformation in self.transformations:
            x = transformation(x, self.p)
        return x

    def extra_repr(self) -> str:
        """The arguments, for printing."""
        return ", ".join(f"{name}={value}" for name, value in self.init_args.items())

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        module = super()._apply(fn, recurse)
        self.p, self.seen = self.p.float(), self.seen.float()  # in bfloat16 small steps would be lost
        return module


def blit(x: Tensor, p: Tensor) -> Tensor:
    """Pixel blitting: x-flip, quarter turns, shift by whole pixels up to an eighth of the size."""
    (height, width), n, device = x.shape[2:], len(x), x.device
    quarters = 1 if height == width else 2
    flip = sometimes(p, torch.randint(2, (n,), device=device), 0)
    turns = sometimes(p, quarters * torch.randint(4 // quarters, (n,), device=device), 0)
    shift = sometimes(p, (torch.rand(n, 2, device=device) - 0.5) / 4, 0)
    down, right = (shift[:, 0] * height).round().long(), (shift[:, 1] * width).round().long()
    return where((flip > 0) | (turns > 0) | (down != 0) | (right != 0), copy_pixels, x, flip, turns, down, right)


def copy_pixels(x: Tensor, flip: Tensor, turns: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Flip each image left to right, then turn it counterclockwise, then move it; reflected at the borders.

    Args:
        x: Images (N, C, H, W).
        flip: 1 or 0 for each image, shape (N,) as all that follow.
        turns: Quarter turns, 0 to 3; 0 or 2 unless images are square.
        down: Whole pixels by which each image moves down; up, if negative.
        right: Whole pixels by which each image moves right; left, if negative.
    """
    height, width = x.shape[2:]
    row = 2 * reflect(torch.arange(height, device=x.device) - down[:, None], height)[:, :, None] - height + 1
    column = 2 * reflect(torch.arange(width, device=x.device) - right[:, None], width)[:, None, :] - width + 1
    cos, sin, sign = ((1 - turns % 2) * (1 - turns), turns % 2 * (2 - turns), 1 - 2 * flip)
    cos, sin, sign = cos[:, None, None], sin[:, None, None], sign[:, None, None]
    row, column = cos * row + sin * column, sign * (cos * column - sin * row)  # both doubled, from the centre
    source = (row + height - 1) // 2 * width + (column + width - 1) // 2
    return x.flatten(2).gather(2, source.flatten(1)[:, None].expand(-1, x.shape[1], -1)).view_as(x)


def deform(x: Tensor, p: Tensor) -> Tensor:
    """General geometric transformations: scaling, rotation, stretching, rotation, fractional shift."""
    (height, width), n = x.shape[2:], len(x)
    options: dict[str, Any] = {"dtype": x.dtype, "device": x.device}
    scale = sometimes(p, torch.exp2(0.2 * torch.randn(n, **options)), 1)
    either = 1 - (1 - p).sqrt()  # of the two rotations, so that with probability p there is one
    before = sometimes(either, angle(n, **options), 0)
    stretch = sometimes(p, torch.exp2(0.2 * torch.randn(n, **options)), 1)
    after = sometimes(either, angle(n, **options), 0)
    shift = sometimes(p, 0.125 * torch.randn(n, 2, **options), 0)
    inverse = rotation(-before) * torch.stack([1 / stretch, stretch], -1)[:, None] @ rotation(-after)
    pixels = torch.stack([shift[:, 0] * width, shift[:, 1] * height], -1)
    chosen = (scale != 1) | (before != 0) | (stretch != 1) | (after != 0) | (shift != 0).any(1)
    return where(chosen, resample, x, inverse / scale[:, None, None], pixels)


def recolor(x: Tensor, p: Tensor) -> Tensor:
    """Colour transformations: brightness, contrast, luma flip, hue, saturation; of grey images the first three."""
    n = len(x)
    options: dict[str, Any] = {"dtype": x.dtype, "device": x.device}
    brightness = sometimes(p, 0.2 * torch.randn(n, **options), 0)
    contrast = sometimes(p, torch.exp2(0.5 * torch.randn(n, **options)), 1)
    luma = sometimes(p, 1 - 2 * torch.randint(2, (n,), **options), 1)
    hue = sometimes(p, angle(n, **options), 0)
    saturation = sometimes(p, torch.exp2(torch.randn(n, **options)), 1)
    chosen = (brightness != 0) | (contrast != 1) | (luma != 1)
    chosen = chosen if x.shape[1] == 1 else chosen | (hue != 0) | (saturation != 1)
    return where(chosen, shift_color, x, brightness, contrast, luma, hue, saturation)


def shift_color(
    x: Tensor, brightness: Tensor, contrast: Tensor, luma: Tensor, hue: Tensor, saturation: Tensor
) -> Tensor:
    """Five transformations as one matrix, which is luma's part, v vᵀ with v = (1, 1, 1) / √3, and the rest.

    Args:
        x: Images (N, C, H, W), one channel or three.
        brightness: Addend, shape (N,) as all that follow.
        contrast: Factor of all channels, above 0.
        luma: Factor of luma, 1 or -1.
        hue: Angle of rotation about v.
        saturation: Factor of what is not luma.
    """
    x = x + brightness[:, None, None, None]
    if x.shape[1] == 1:
        return x * (contrast * luma)[:, None, None, None]
    eye = torch.eye(3, dtype=x.dtype, device=x.device)
    grey, across = torch.full_like(eye, 1 / 3), (eye.roll(1, 0) - eye.roll(-1, 0)) / math.sqrt(3)
    contrast, luma, hue, saturation = (factor[:, None, None] for factor in (contrast, luma, hue, saturation))
    matrix = contrast * (luma * grey + saturation * (hue.cos() * (eye - grey) + hue.sin() * across))
    return (matrix @ x.flatten(2)).view_as(x)


def amplify(x: Tensor, p: Tensor) -> Tensor:
    """Image-space filtering: each of four bands is amplified, and the whole brought back to its expected power."""
    n = len(x)
    options: dict[str, Any] = {"dtype": x.dtype, "device": x.device}
    each = [sometimes(p, torch.exp2(torch.randn(n, **options)), 1) for _ in range(4)]
    gains = torch.stack(each, -1)
    for gain, power in zip(each, (10 / 13, 1 / 13, 1 / 13, 1 / 13), strict=True):  # of natural images, 1 / f
        gains = gains / (1 + power * (gain.square() - 1)).sqrt()[:, None]
    return where((torch.stack(each, -1) != 1).any(1), filter_bands, x, gains)


def filter_bands(x: Tensor, gains: Tensor) -> Tensor:
    """Multiply the bands [0, π/8], [π/8, π/4], [π/4, π/2], [π/2, π], across and down, by gains of shape (N, 4)."""
    rows, columns = (
        torch.einsum("nb,bij->nij", gains, band_matrices(size, x.dtype, x.device))[:, None] for size in x.shape[2:]
    )
    return rows @ x @ columns.mT


def add_noise(x: Tensor, p: Tensor) -> Tensor:
    """Additive RGB noise, its standard deviation the absolute value of a normal number of standard deviation 0.1."""
    deviation = sometimes(p, 0.1 * torch.randn(len(x), dtype=x.dtype, device=x.device).abs(), 0)
    noise = deviation[:, None, None, None] * torch.randn_like(x)
    return where(deviation > 0, torch.add, x, noise)


def cut_out(x: Tensor, p: Tensor) -> Tensor:
    """Cutout: a square of half the size, its centre anywhere."""
    centre = torch.rand(len(x), 2, device=x.device)
    top, left = ((centre[:, i] - 0.25).mul(size).round().long() for i, size in enumerate(x.shape[2:]))
    return where(torch.rand(len(x), device=x.device) < p, cut, x, top, left)


def sometimes(p: Tensor, value: Tensor, neutral: float) -> Tensor:
    """Each image's value with probability p, else what changes nothing."""
    happens = torch.rand(len(value), device=value.device) < p
    return torch.where(happens.view(-1, *[1] * (value.ndim - 1)), value, neutral)


def where(chosen: Tensor, transformation: Callable[..., Tensor], x: Tensor, *parameters: Tensor) -> Tensor:
    """The chosen images transformed, the others bit for bit as they are.

    On the CPU only those that are chosen are computed; elsewhere all are, since asking which would wait for the device.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return torch.where(chosen[:, None, None, None], transformation(x, *parameters), x)
    (rows,) = chosen.nonzero(as_tuple=True)
    if not len(rows):
        return x
    return x.index_copy(0, rows, transformation(x[rows], *(parameter[rows] for parameter in parameters)))


def angle(n: int, **options: Any) -> Tensor:
    """Uniform over the circle, shape (n,)."""
    return (2 * torch.rand(n, **options) - 1) * math.pi


def rotation(radians: Tensor) -> Tensor:
    """Matrices (N, 2, 2)."""
    cos, sin = radians.cos(), radians.sin()
    return torch.stack([cos, -sin, sin, cos], -1).view(-1, 2, 2)


_TRANSFORMATIONS = {  # in the paper's order
    "blit": blit,
    "geometry": deform,
    "color": recolor,
    "filter": amplify,
    "noise": add_noise,
    "cutout": cut_out,
}
