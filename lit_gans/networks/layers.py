"""What the networks share: the recording base class, named layers, sizes and labels."""

from typing import Literal, NamedTuple, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.recorded import Recorded

Activation = Literal["elu", "gelu", "leaky_relu", "relu", "silu", "tanh"]
Norm = Literal["batch", "group", "instance", "layer"]
Upsample = Literal["transpose", "nearest", "pixel_shuffle"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class Answer(NamedTuple):
    """What a discriminator built with ``head`` returns.

    Attributes:
        logits: Real or generated, ``(N,)``.
        head: The second answer, ``(N, head)``.
    """

    logits: Tensor
    head: Tensor


class Network(Recorded):
    """A network that a checkpoint can build again."""


class ImageTranslator(Network):
    """A generator that makes images of images, and says what it needs to know of them.

    Attributes:
        stride: Both sides of the input must be multiples of it; 1 where any size serves.
        smallest: The least side of the input.
        scale: Side of the output over side of the input.
        receptive_radius: An output pixel depends on no input pixel farther than this, up, down, left or right, from the
            one at its place, but for what normalisation takes from the whole picture; ``None`` if there is no bound.
        overlap: So many pixels beyond a tile are enough, as what is farther away changes a pixel by less than half a
            level of 255; ``None`` where only ``receptive_radius`` is.
        in_channels: Number of channels of the input.
        out_channels: Number of channels of the output.
    """

    stride: int = 1
    smallest: int = 1
    scale: int = 1
    receptive_radius: int | None = None
    overlap: int | None = None
    in_channels: int
    out_channels: int

    def check_sides(self, x: Tensor) -> None:
        """Checks that the network can be applied to images of this size.

        Raises:
            ValueError: A side is no multiple of ``stride``, or smaller than ``smallest``; the message names a size that
                serves.
        """
        height, width = x.shape[-2:]
        if height % self.stride or width % self.stride or min(height, width) < self.smallest:
            near = [max(-(-side // self.stride) * self.stride, self.smallest) for side in (height, width)]
            raise ValueError(
                f"{type(self).__name__} takes sides that are multiples of {self.stride} and at least {self.smallest}, "
                f"not {height}x{width}: pad the images to {near[0]}x{near[1]}, or resize them."
            )


def activation_layer(name: Activation) -> nn.Module:
    """Builds the non-linearity of that name; leaky ReLU with slope 0.2 (Radford et al. 2016).

    Raises:
        ValueError: The name is none of ``Activation``.
    """
    match name:
        case "elu":
            return nn.ELU()
        case "gelu":
            return nn.GELU()
        case "leaky_relu":
            return nn.LeakyReLU(0.2)
        case "relu":
            return nn.ReLU()
        case "silu":
            return nn.SiLU()
        case "tanh":
            return nn.Tanh()
    raise ValueError(f"activation={name!r} is not known; choose one of {', '.join(get_args(Activation))}.")


def norm_layer(name: Norm | None, width: int, affine: bool = True, flat: bool = False) -> nn.Module:
    """Builds the normalisation of that name; ``None`` is the identity.

    ``layer`` normalises each sample over channels and pixels, with one scale and shift per channel, so that it serves
    any image size; ``group`` makes at most 32 groups of at least four channels (Wu & He 2018).

    Args:
        name: ``batch``, ``group``, ``instance``, ``layer`` or ``None``.
        width: Number of channels, or of features if ``flat``, of what is normalised.
        affine: Whether to learn a scale and a shift.
        flat: Whether the input is ``(N, width)`` instead of ``(N, width, H, W)``.

    Raises:
        ValueError: The name is none of ``Norm``, or it is ``instance`` for a flat input, which has no pixels.
    """
    match name:
        case None:
            return nn.Identity()
        case "batch":
            return nn.BatchNorm1d(width, affine=affine) if flat else nn.BatchNorm2d(width, affine=affine)
        case "group":
            groups = max(g for g in range(1, 33) if width % g == 0 and (4 * g <= width or g == 1))
            return nn.GroupNorm(groups, width, affine=affine)
        case "instance" if flat:
            raise ValueError('norm="instance" needs pixels, and an MLP has none; choose "batch", "layer" or "group".')
        case "instance":
            return nn.InstanceNorm2d(width, affine=affine)
        case "layer":
            return nn.GroupNorm(1, width, affine=affine)
    raise ValueError(f"norm={name!r} is not known; choose null or one of {', '.join(get_args(Norm))}.")


def free_norm(norm: Norm | None, width: int) -> nn.Module:
    """As ``norm_layer``, but instance normalisation has no scale and shift (Zhu et al. 2017; Isola et al. 2017)."""
    return norm_layer(norm, width, affine=norm != "instance")


def up_layer(upsample: Upsample, fan_in: int, width: int, kernel_size: int, bias: bool = True) -> nn.Sequential:
    """Doubles the size and changes the number of channels.

    Args:
        upsample: ``transpose``: a transposed convolution, with a checkerboard where its kernel is odd; ``nearest``:
            nearest neighbours, then a 3x3 convolution (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts");
            ``pixel_shuffle``: a 3x3 convolution whose channels become the pixels (Shi et al. 2016, arXiv:1609.05158).
        fan_in: Number of channels that come in.
        width: Number of channels that go out.
        kernel_size: Side of the kernel of ``transpose``, 3 or 4.
        bias: Whether the convolution has one.

    Raises:
        ValueError: The name is none of ``Upsample``.
    """
    match upsample:
        case "transpose":
            odd = kernel_size % 2
            return nn.Sequential(nn.ConvTranspose2d(fan_in, width, kernel_size, 2, 1, odd, bias=bias))
        case "nearest":
            return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(fan_in, width, 3, padding=1, bias=bias))
        case "pixel_shuffle":
            return nn.Sequential(nn.Conv2d(fan_in, 4 * width, 3, padding=1, bias=bias), nn.PixelShuffle(2))
    raise ValueError(f"upsample={upsample!r} is not known; choose one of {', '.join(get_args(Upsample))}.")


def factor_size(image_size: int) -> tuple[int, int]:
    """Writes an image size as ``base * 2**halvings``, base from 4 to 7, at least one halving.

    Args:
        image_size: Height and width in pixels.

    Returns:
        The base and the number of halvings: 32 is ``(4, 3)``, 28 is ``(7, 2)``.

    Raises:
        ValueError: The size has no such form; the message names the nearest that have.

    >>> factor_size(64), factor_size(28)
    ((4, 4), (7, 2))
    """
    halvings = max((image_size // 4).bit_length() - 1, 1) if image_size > 0 else 1
    base, rest = divmod(image_size, 2**halvings)
    if rest or not 4 <= base <= 7:
        possible = sorted(b << k for b in range(4, 8) for k in range(1, max(image_size, 8).bit_length()))
        below = [size for size in possible if size < image_size][-2:]
        above = [size for size in possible if size > image_size][:2]
        raise ValueError(
            f"image_size={image_size} cannot be halved down to 4-7 pixels; "
            f"the nearest that can: {', '.join(map(str, below + above))}. Resize the images, or use an MLP."
        )
    return base, halvings


def count_doublings(image_size: int) -> int:
    """Counts the doublings from 4 pixels to ``image_size``, for networks whose papers know powers of two only.

    Raises:
        ValueError: The size is no power of two or smaller than 8; the message names the nearest that serve.

    >>> count_doublings(8), count_doublings(128)
    (1, 5)
    """
    if image_size < 8 or image_size & (image_size - 1):
        below = 1 << max(image_size, 8).bit_length() - 1
        nearest = str(below) if image_size < 8 else f"{below}, {2 * below}"
        raise ValueError(
            f"image_size={image_size} is not a power of two from 8 up; the nearest: {nearest}. Resize the images."
        )
    return image_size.bit_length() - 3


def answer_of(layers: nn.Sequential, second_head: nn.Module | None, x: Tensor) -> Tensor | Answer:
    """Logits ``(N,)`` of a chain of layers, and what a second head reads from the features before the last layer.

    Layers are called one by one: a slice of the chain would be a new container at each pass.
    """
    *hidden, last = layers
    for layer in hidden:
        x = layer(x)
    logits: Tensor = last(x).squeeze(1)
    return logits if second_head is None else Answer(logits, second_head(x))


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """Xavier's uniform weights and zero bias, as the SNGAN release starts its residual networks."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def check_labels(y: Tensor | None, num_classes: int | None) -> None:
    """Checks that labels come exactly to a network that was built for them.

    Raises:
        ValueError: A conditional network got no labels, or an unconditional one got some.
    """
    if num_classes is not None and y is None:
        raise ValueError(
            f"This network is conditional (num_classes={num_classes}): call it with labels y of shape (N,)."
        )
    if num_classes is None and y is not None:
        raise ValueError("This network is unconditional but was given labels: build it with num_classes, or drop y.")


class ConcatLabel(nn.Module):
    """Appends a learned embedding of the label to flat features (Mirza & Osindero 2014, figure 1).

    Args:
        width: Number of features that come in.
        num_classes: Number of labels; ``None`` leaves the features as they are.
        embed_dim: Width of the embedding.
    """

    def __init__(self, width: int, num_classes: int | None, embed_dim: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.width = width + (embed_dim if num_classes else 0)
        if num_classes:
            self.embedding = nn.Embedding(num_classes, embed_dim)

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Features ``(N, width)`` and labels ``(N,)`` to features ``(N, self.width)``."""
        check_labels(y, self.num_classes)
        return x if y is None else torch.cat([x, self.embedding(y)], dim=1)


class ConditionalNorm(nn.Module):
    """Normalisation whose scale and shift belong to the label (conditional batch norm, Dumoulin et al. 2017).

    The tables are no embedding layers: spectral norm, which models put on layers, would divide the shifts' zeros by
    zero, and in the releases of SNGAN and SAGAN it spares them too.

    Args:
        norm: ``batch``, ``group``, ``instance`` or ``layer``; ``None`` for no normalisation.
        width: Number of channels of the maps that are normalised.
        num_classes: Number of labels; ``None`` is the ordinary normalisation.

    Raises:
        ValueError: There are labels but no normalisation that could carry them.
    """

    def __init__(self, norm: Norm | None, width: int, num_classes: int | None) -> None:
        super().__init__()
        if num_classes and norm is None:
            raise ValueError("The labels enter through the normalisation: with num_classes, norm must not be null.")
        self.norm = norm_layer(norm, width, affine=not num_classes)
        if num_classes:
            self.scale = nn.ParameterDict({"weight": torch.ones(num_classes, width)})
            self.shift = nn.ParameterDict({"weight": torch.zeros(num_classes, width)})

    def forward(self, x: Tensor, y: Tensor | None) -> Tensor:
        """Feature maps ``(N, width, H, W)`` and labels ``(N,)`` to feature maps."""
        x = self.norm(x)
        if y is None:
            return x
        scale, shift = (F.embedding(y, table["weight"]) for table in (self.scale, self.shift))
        return x * scale[..., None, None] + shift[..., None, None]


class Blur(nn.Module):
    """The filter [1, 2, 1] in both directions, of which every other value is kept (Zhang 2019, arXiv:1904.11486).

    Beyond the border it sees the reflected map; a side of n becomes half of it, rounded up.

    >>> Blur()(torch.arange(5.0).expand(1, 1, 5, 5))[0, 0, 0]
    tensor([0.5000, 2.0000, 3.5000])
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 16, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of half the size."""
        kernel = self.kernel.expand(x.shape[1], 1, 3, 3)
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, stride=2, groups=x.shape[1])


class FIR(nn.Module):
    """The low-pass filter [1, 3, 3, 1] in both directions, which resamples without aliases (Karras et al. 2019).

    Beyond the border it sees zeros. Away from it ``up`` is bilinear interpolation.

    >>> fir = FIR()
    >>> fir.up(torch.ones(1, 1, 4, 4)).shape, fir.down(torch.ones(1, 1, 4, 4)).shape
    (torch.Size([1, 1, 8, 8]), torch.Size([1, 1, 2, 2]))
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 64, persistent=False)

    def blur(self, x: Tensor, padding: int, gain: float = 1.0, stride: int = 1) -> Tensor:
        """Each channel filtered, after zeros were put around it."""
        kernel = (gain * self.kernel).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, kernel, stride=stride, padding=padding, groups=x.shape[1])

    def down(self, x: Tensor) -> Tensor:
        """Maps of half the size."""
        return self.blur(x, padding=1, stride=2)

    def up(self, x: Tensor) -> Tensor:
        """Maps of twice the size; three of four values are zeros before the filter, hence the gain of four."""
        kernel = (4 * self.kernel).expand(x.shape[1], 1, 4, 4)
        return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=x.shape[1])
