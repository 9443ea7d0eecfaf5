"""A mapping network whose output scales the channels of every convolution, and a residual discriminator.

T. Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958 (StyleGAN2).
T. Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, arXiv:2006.06676: how
labels enter.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.networks.layers import FIR, Answer, Network, check_labels, count_doublings


def _activate(x: Tensor) -> Tensor:
    """Leaky ReLU times the square root of two, which all but keeps the mean square of a normal input (1.04 of it)."""
    return F.leaky_relu(x, 0.2) * math.sqrt(2)


def _normalise(x: Tensor) -> Tensor:
    """Vectors with a root mean square of one."""
    normalised: Tensor = x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    return normalised


def _widths(image_size: int, channel_base: int, channel_max: int) -> list[int]:
    """Channels at 4, 8 ... ``image_size`` pixels: ``channel_base / size``, at most ``channel_max``."""
    widths = [min(channel_base // (4 << k), channel_max) for k in range(count_doublings(image_size) + 1)]
    if min(widths) < 1:
        raise ValueError(
            f"channel_base={channel_base} and channel_max={channel_max} leave no channel at {image_size} pixels; "
            f"channel_base must be {image_size} at least, channel_max 1."
        )
    return widths


class EqualLinear(nn.Module):
    """Linear layer whose weights are stored with unit variance and scaled when used (equalised learning rate).

    Adam moves each stored weight by about the same amount, so all layers learn at the same relative rate (Karras et al.
    2018, arXiv:1710.10196, section 4.1).

    Args:
        fan_in: Number of features that come in.
        fan_out: Number of features that go out.
        bias: Value of the biases at first.
        lr_multiplier: Learning rate of this layer relative to the others.
        activate: Whether the leaky ReLU follows.
    """

    def __init__(
        self, fan_in: int, fan_out: int, bias: float = 0.0, lr_multiplier: float = 1.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((fan_out,), bias / lr_multiplier))
        self.scale, self.lr_multiplier, self.activate = lr_multiplier / math.sqrt(fan_in), lr_multiplier, activate

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(N, fan_in)`` to features ``(N, fan_out)``."""
        x = F.linear(x, self.weight * self.scale, self.bias * self.lr_multiplier)
        return _activate(x) if self.activate else x


class EqualConv2d(nn.Module):
    """Convolution with an equalised learning rate, after the low-pass filter if it halves the size.

    Args:
        fan_in: Number of channels that come in.
        fan_out: Number of channels that go out.
        kernel_size: Side of the kernel, 1 or 3.
        down: Whether to halve the size.
        activate: Whether bias and leaky ReLU follow.
    """

    def __init__(self, fan_in: int, fan_out: int, kernel_size: int, down: bool = False, activate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(fan_out)) if activate else None
        self.scale = 1 / math.sqrt(fan_in * kernel_size**2)
        self.fir = FIR() if down else None
        self.padding = kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, fan_in, H, W)`` to maps ``(N, fan_out, H, W)`` or ``(N, fan_out, H/2, W/2)``."""
        weight = self.weight * self.scale
        if self.fir is None:
            x = F.conv2d(x, weight, self.bias, padding=self.padding)
        elif self.padding:
            x = F.conv2d(self.fir.blur(x, padding=2), weight, self.bias, stride=2)
        else:
            x = F.conv2d(self.fir.down(x), weight, self.bias)
        return x if self.bias is None else _activate(x)


class ModulatedConv2d(nn.Module):
    """Convolution whose weights a style scales per sample and input channel (section 2.2, equations 1-3).

    Scaling the weights is the same as scaling the maps before the convolution and, to demodulate, after it; the latter
    needs no weights per sample.

    Args:
        fan_in: Number of channels that come in.
        fan_out: Number of channels that go out.
        kernel_size: Side of the kernel, 1 or 3.
        w_dim: Size of the w from which the style is made.
        demodulate: Whether to divide by the norm of the scaled weights, so that maps keep a unit variance.
        up: Whether to double the size, with the low-pass filter behind the convolution.
    """

    def __init__(
        self, fan_in: int, fan_out: int, kernel_size: int, w_dim: int, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.style = EqualLinear(w_dim, fan_in, bias=1.0)
        self.weight = nn.Parameter(torch.randn(fan_out, fan_in, kernel_size, kernel_size))
        self.scale = 1 / math.sqrt(fan_in * kernel_size**2)
        self.demodulate, self.padding = demodulate, kernel_size // 2
        self.fir = FIR() if up else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps ``(N, fan_in, H, W)`` and w ``(N, w_dim)`` to maps ``(N, fan_out, H, W)`` or twice the size."""
        style, weight = self.style(w), self.weight * self.scale
        x = x * style[..., None, None]
        if self.fir is None:
            x = F.conv2d(x, weight, padding=self.padding)
        else:
            x = self.fir.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4)
        if not self.demodulate:
            return x
        norm_squared = style.square() @ weight.square().sum((2, 3)).T
        return x * (norm_squared + 1e-8).rsqrt()[..., None, None]


class StyleLayer(nn.Module):
    """Modulated 3x3 convolution, noise of learned strength, bias and leaky ReLU (figure 2c).

    In training each sample gets new noise from torch's global generator. In eval mode the noise is a buffer, so that an
    image is a function of its latents alone.

    Args:
        fan_in: Number of channels that come in.
        width: Number of channels that go out.
        size: Height and width of the maps that go out.
        w_dim: Size of w.
        up: Whether to double the size.
    """

    noise: Tensor

    def __init__(self, fan_in: int, width: int, size: int, w_dim: int, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(fan_in, width, 3, w_dim, up=up)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("noise", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps ``(N, fan_in, H, W)`` and w ``(N, w_dim)`` to maps ``(N, width, size, size)``."""
        x = self.conv(x, w)
        noise = torch.randn_like(x[:, :1]) if self.training else self.noise
        return _activate(x + self.noise_strength * noise + self.bias[:, None, None])


class ToImage(nn.Module):
    """Maps to image channels by a modulated 1x1 convolution without demodulation (figure 7).

    Args:
        width: Number of channels that come in.
        channels: 1 for grey images, 3 for RGB.
        w_dim: Size of w.
        std: Standard deviation of the stored weights at first; 1 in the paper.
    """

    def __init__(self, width: int, channels: int, w_dim: int, std: float) -> None:
        super().__init__()
        self.conv = ModulatedConv2d(width, channels, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.normal_(self.conv.weight, std=std)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps ``(N, width, H, W)`` and w ``(N, w_dim)`` to what they add to the image, ``(N, channels, H, W)``."""
        added: Tensor = self.conv(x, w) + self.bias[:, None, None]
        return added


class SynthesisBlock(nn.Module):
    """Doubles the size of maps and image, and adds to the image what the maps have to say (figure 7b, skip generator).

    Args:
        fan_in: Number of channels that come in.
        width: Number of channels that go out.
        channels: 1 for grey images, 3 for RGB.
        size: Height and width of the maps that go out.
        w_dim: Size of w.
        image_std: Standard deviation of the image's weights at first.
    """

    def __init__(self, fan_in: int, width: int, channels: int, size: int, w_dim: int, image_std: float) -> None:
        super().__init__()
        self.up = StyleLayer(fan_in, width, size, w_dim, up=True)
        self.layer = StyleLayer(width, width, size, w_dim)
        self.to_image = ToImage(width, channels, w_dim, image_std)
        self.fir = FIR()

    def forward(self, x: Tensor, image: Tensor, ws: Tensor) -> tuple[Tensor, Tensor]:
        """Maps, the image so far and three w's ``(N, 3, w_dim)`` to maps and image of twice the size."""
        x = self.layer(self.up(x, ws[:, 0]), ws[:, 1])
        return x, self.fir.up(image) + self.to_image(x, ws[:, 2])


class Mapping(nn.Module):
    """Latents and labels to w, through fully connected layers that learn slowly.

    The latents are normalised to a root mean square of one; so is the embedding of the label, which is appended to them
    (Karras et al. 2020b, appendix C).

    Args:
        latent_dim: Size of the latent vector; 0 for a network that maps labels alone.
        w_dim: Size of all layers.
        layers: Number of layers.
        num_classes: Number of labels; ``None`` for an unconditional network.
        lr_multiplier: Learning rate relative to the other networks.
    """

    def __init__(
        self, latent_dim: int, w_dim: int, layers: int, num_classes: int | None, lr_multiplier: float = 0.01
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        if num_classes:
            self.embed = EqualLinear(num_classes, w_dim)
        sizes = [latent_dim + (w_dim if num_classes else 0)] + [w_dim] * layers
        self.layers = nn.Sequential(
            *(EqualLinear(a, b, lr_multiplier=lr_multiplier, activate=True) for a, b in pairwise(sizes))
        )

    def forward(self, z: Tensor | None, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to w ``(N, w_dim)``."""
        check_labels(y, self.num_classes)
        inputs = [] if z is None else [_normalise(z)]
        if y is not None:
            one_hot = F.one_hot(y, self.embed.weight.shape[1]).to(self.embed.weight.dtype)
            inputs.append(_normalise(self.embed(one_hot)))
        w: Tensor = self.layers(torch.cat(inputs, dim=1))
        return w


class Synthesis(nn.Module):
    """One w for each layer to images, from a learned constant of 4x4.

    Args:
        widths: Number of channels at 4, 8, 16 ... pixels.
        channels: 1 for grey images, 3 for RGB.
        w_dim: Size of w.
    """

    def __init__(self, widths: list[int], channels: int, w_dim: int) -> None:
        super().__init__()
        self.num_ws = 2 * len(widths)
        image_std = 0.1 / math.sqrt(len(widths))
        self.constant = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.layer = StyleLayer(widths[0], widths[0], 4, w_dim)
        self.to_image = ToImage(widths[0], channels, w_dim, image_std)
        self.blocks = nn.ModuleList(
            SynthesisBlock(a, b, channels, 8 << k, w_dim, image_std) for k, (a, b) in enumerate(pairwise(widths))
        )

    def forward(self, ws: Tensor) -> Tensor:
        """``(N, num_ws, w_dim)`` to images ``(N, C, H, W)``; a block shares its first w with the image before it."""
        x = self.layer(self.constant.expand(len(ws), -1, -1, -1), ws[:, 0])
        image: Tensor = self.to_image(x, ws[:, 1])
        for k, block in enumerate(self.blocks):
            x, image = block(x, image, ws[:, 2 * k + 1 : 2 * k + 4])
        return image if self.training else image.clamp(-1, 1)


class StyleGAN2Generator(Network):
    """Latents to images by way of w, which scales the weights of all convolutions (configuration F).

    ``mapping`` and ``synthesis`` are its two halves, ``num_ws`` the number of w's that ``synthesis`` takes, and
    ``w_avg`` the average of w, for truncation, which moves by 0.5 % at each call of ``mapping`` in training. Channels
    are ``channel_base / size``, at most ``channel_max``; the defaults are the paper's for 1024 pixels.

    Differs from the paper: the image's weights begin at a tenth of their size, divided by the root of the number of
    blocks, so that images lie within [-1, 1] at first, as data do; in eval mode images are clamped to that range, in
    training nothing is. Mixing styles, like truncation, is left to the caller of ``synthesis``.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        latent_dim: Size of the latent vector.
        w_dim: Size of w.
        mapping_layers: Number of layers from latents to w.
        channel_base: Number of channels times size, where ``channel_max`` does not cut it.
        channel_max: Largest number of channels.
        num_classes: Number of labels of a conditional network.

    Raises:
        ValueError: An ``image_size`` that cannot be built; a ``channel_base`` or ``channel_max`` that leaves no
            channels; labels missing, or given to an unconditional network.

    >>> import torch
    >>> generator = StyleGAN2Generator(image_size=32, w_dim=64, mapping_layers=2, channel_base=512, channel_max=32)
    >>> w = generator.mapping(torch.randn(2, 512))
    >>> generator.synthesis(w[:, None].expand(-1, generator.num_ws, -1)).shape
    torch.Size([2, 3, 32, 32])
    """

    w_avg: Tensor

    def __init__(
        self,
        *,
        image_size: int = 1024,
        channels: int = 3,
        latent_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.mapper = Mapping(latent_dim, w_dim, mapping_layers, num_classes)
        self.synthesis = Synthesis(_widths(image_size, channel_base, channel_max), channels, w_dim)
        self.num_ws = self.synthesis.num_ws
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def mapping(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to w ``(N, w_dim)``; in training ``w_avg`` follows them."""
        w: Tensor = self.mapper(z, y)
        if self.training:
            self.w_avg.lerp_(w.detach().mean(0).to(self.w_avg.dtype), 1 - 0.995)
        return w

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to images ``(N, C, H, W)``."""
        w = self.mapping(z, y)
        images: Tensor = self.synthesis(w[:, None].expand(-1, self.num_ws, -1))
        return images


def minibatch_std(x: Tensor, group: int = 4) -> Tensor:
    """Appends a map of how much samples differ within groups (Karras et al. 2018, section 3).

    Args:
        x: Maps ``(N, C, H, W)``.
        group: Largest size of a group; the groups have the largest size up to it that divides N.

    Returns:
        Maps ``(N, C + 1, H, W)``; the last is the standard deviation over the group, averaged over C, H and W.
    """
    n = len(x)
    size = max(k for k in range(1, group + 1) if n % k == 0)
    variance = x.reshape(size, n // size, *x.shape[1:]).var(0, unbiased=False)
    std = (variance + 1e-8).sqrt().mean((1, 2, 3)).repeat(size)
    return torch.cat([x, std[:, None, None, None].expand(-1, 1, *x.shape[2:])], dim=1)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the size (figure 7c).

    Args:
        fan_in: Number of channels that come in.
        width: Number of channels that go out.
    """

    def __init__(self, fan_in: int, width: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(EqualConv2d(fan_in, fan_in, 3), EqualConv2d(fan_in, width, 3, down=True))
        self.shortcut = EqualConv2d(fan_in, width, 1, down=True, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, fan_in, H, W)`` to maps ``(N, width, H/2, W/2)``; their variances would add up, hence the root."""
        halved: Tensor = (self.residual(x) + self.shortcut(x)) / math.sqrt(2)
        return halved


class StyleGAN2Discriminator(Network):
    """Images to logits through residual blocks and the standard deviation of the minibatch (configuration F).

    Conditional networks project their features on a mapped label, as StyleGAN2-ADA's do. Samples of a batch see one
    another through the standard deviation; a batch is dealt into groups of ``group``, or of the next smaller number
    that divides it.

    Differs from the paper: none.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        mapping_layers: Number of layers from a label to what the features are projected on.
        group: Largest number of images whose standard deviation is taken together.
        channel_base: Number of channels times size, where ``channel_max`` does not cut it.
        channel_max: Largest number of channels.
        num_classes: Number of labels of a conditional network.
        head: Size of a second answer, read from the same features by a linear layer: class scores of ACGAN, rotations
            of SSGAN, codes of InfoGAN, an embedding of ReACGAN; the network then returns ``Answer(logits, head)``.

    Raises:
        ValueError: An ``image_size`` that cannot be built; a ``group`` below 1; a ``channel_base`` or ``channel_max``
            that leaves no channels; labels missing, or given to an unconditional network.

    >>> import torch
    >>> discriminator = StyleGAN2Discriminator(image_size=32, channel_base=512, channel_max=32)
    >>> discriminator(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        *,
        image_size: int = 1024,
        channels: int = 3,
        mapping_layers: int = 8,
        group: int = 4,
        channel_base: int = 32768,
        channel_max: int = 512,
        num_classes: int | None = None,
        head: int | None = None,
    ) -> None:
        super().__init__()
        if group < 1:
            raise ValueError(f"group={group} images cannot be compared; it must be 1 at least, and is 4 in the paper.")
        widths = _widths(image_size, channel_base, channel_max)[::-1]
        width = widths[-1]
        self.num_classes, self.group = num_classes, group
        self.blocks = nn.Sequential(
            EqualConv2d(channels, widths[0], 1), *(DiscriminatorBlock(a, b) for a, b in pairwise(widths))
        )
        self.conv = EqualConv2d(width + 1, width, 3)
        self.linear = EqualLinear(width * 4**2, width, activate=True)
        self.out = EqualLinear(width, width if num_classes else 1)
        if num_classes:
            self.mapping = Mapping(0, width, mapping_layers, num_classes)
        self.second_head = EqualLinear(width, head) if head else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Answer:
        """Images ``(N, C, H, W)`` and labels ``(N,)`` to logits ``(N,)``, with ``head`` to an ``Answer``."""
        check_labels(y, self.num_classes)
        features = self.linear(self.conv(minibatch_std(self.blocks(x), self.group)).flatten(1))
        answers: Tensor = self.out(features)
        logits = answers.squeeze(1) if y is None else (answers * self.mapping(None, y)).sum(1) / answers.shape[1] ** 0.5
        return logits if self.second_head is None else Answer(logits, self.second_head(features))
