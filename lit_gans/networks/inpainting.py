"""Networks that fill holes, and the convolutions that know where the holes are.

A source is a picture with one channel more, the last, its mask: 1 in the hole and 0 where the picture is known.

D. Pathak et al., "Context Encoders: Feature Learning by Inpainting", CVPR 2016, arXiv:1604.07379.
J. Yu et al., "Free-Form Image Inpainting with Gated Convolution", ICCV 2019, arXiv:1806.03589.
G. Liu et al., "Image Inpainting for Irregular Holes Using Partial Convolutions", ECCV 2018, arXiv:1804.07723.
"""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_gans.networks.dcgan import DCGANDiscriminator
from lit_gans.networks.layers import ImageTranslator, Network, count_doublings

Region = Literal["center", "whole"]


class PartialConv2d(nn.Module):
    """A convolution that reads known pixels only, and makes holes smaller (Liu et al. 2018, equations 1 and 2).

    In a window of k x k pixels of which n are known it is w * (the known ones) times k * k / n, plus the bias; where n
    is 0 the result is 0 and stays a hole. Pixels beyond the border count as unknown. The mask has 1 in the hole (in the
    paper 0).

    Args:
        in_channels: Number of channels that come in.
        out_channels: Number of channels that go out.
        kernel_size: Side of the kernel.
        stride: Step of the kernel.
        padding: Number of unknown pixels put around.
        dilation: Distance between the pixels that a window reads.
        bias: Whether there is a bias.

    >>> x, hole = torch.ones(1, 1, 3, 3), torch.tensor([1.0, 1.0, 0.0]).expand(1, 1, 3, 3)
    >>> filled, left = PartialConv2d(1, 1, 3, padding=1)(x, hole)
    >>> left.sum((0, 1, 2))
    tensor([3., 0., 0.])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, bias=bias)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(N, C, H, W)`` and their mask ``(N, 1, H, W)`` to maps and their mask."""
        conv, known = self.conv, 1 - mask
        window = torch.ones(1, 1, *conv.kernel_size, dtype=known.dtype, device=known.device)
        with torch.no_grad():
            count = F.conv2d(known, window, None, conv.stride, conv.padding, conv.dilation)
            share = window.numel() / count.clamp_min(1)
        maps = F.conv2d(x * known, conv.weight, None, conv.stride, conv.padding, conv.dilation) * share
        if conv.bias is not None:
            maps = maps + conv.bias[:, None, None]
        hole = (count == 0).to(mask)
        return maps * (1 - hole), hole


class GatedConv2d(nn.Module):
    """A convolution whose every value has a gate: ELU(a) * sigmoid(b) (Yu et al. 2019, equation 2).

    The paper says nothing of the first weights. Here those of a start so that a deep stack about keeps the size of its
    input, of which gates that are half open and torch's own start would leave a billionth after seventeen layers.

    Args:
        in_channels: Number of channels that come in.
        out_channels: Number of channels that go out; the convolution makes as many gates.
        kernel_size: Side of the kernel.
        stride: Step of the kernel.
        dilation: Distance between the pixels that a window reads.

    >>> GatedConv2d(4, 8, 3, stride=2)(torch.zeros(2, 4, 6, 6)).shape
    torch.Size([2, 8, 3, 3])
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1
    ) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv2d(in_channels, 2 * out_channels, kernel_size, stride, padding, dilation)
        # E[ELU(a)^2] / 4 = 0.161 for a standard normal a, whose root is 1 / 2.5
        nn.init.normal_(self.conv.weight.data[:out_channels], 0, 2.5 / (in_channels * kernel_size**2) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, in_channels, H, W)`` to maps ``(N, out_channels, H / stride, W / stride)``."""
        features, gates = self.conv(x).chunk(2, 1)
        return F.elu(features) * gates.sigmoid()


class ContextEncoderGenerator(ImageTranslator):
    """Pictures with a hole to what was in it, through a bottleneck without pixels (Pathak et al. 2016, figure 9).

    4x4 convolutions with stride 2 to 4x4 values, 64, 64, 128, 256, 512 channels at 128 pixels, one more to
    ``bottleneck`` numbers, and transposed ones back; batch normalisation but in the first layer, leaky ReLU 0.2 before
    the bottleneck, ReLU after it, a tanh at the end. The bottleneck is normalised, too, so that training wants two
    pictures in a batch. The network sees the picture alone, whose hole is filled already, and not its mask.

    Args:
        channels: Number of channels of the picture, 1 or 3; the source has one more, its mask, which is not read.
        image_size: Height and width of the picture, a power of two from 16 up (128 in the paper).
        base_channels: Number of channels of the first layer; they double up to eight times as many.
        bottleneck: Width of the bottleneck (4000 in the paper).
        region: ``center``: the middle half of both sides, the paper's hole; ``whole``: all of the picture, for holes
            anywhere.

    Raises:
        ValueError: An ``image_size`` or ``region`` that cannot be built; a source without a mask, or of other sides.

    >>> network = ContextEncoderGenerator(image_size=32, base_channels=4, bottleneck=16)
    >>> network(torch.zeros(2, 4, 32, 32)).shape
    torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        *,
        channels: int = 3,
        image_size: int = 128,
        base_channels: int = 64,
        bottleneck: int = 4000,
        region: Region = "center",
    ) -> None:
        super().__init__()
        halvings = count_doublings(image_size)
        if halvings < 2:
            raise ValueError(f"image_size={image_size} of a context encoder must be 16 at least.")
        if region not in ("center", "whole"):
            raise ValueError(f"region={region!r} is not known; choose center or whole.")
        self.in_channels, self.out_channels, self.image_size, self.region = channels + 1, channels, image_size, region
        self.stride = self.smallest = image_size
        widths = [base_channels * min(2 ** max(k - 1, 0), 8) for k in range(halvings)]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 4, 2, 1), nn.LeakyReLU(0.2)]
        for fan_in, width in pairwise(widths):
            layers += [nn.Conv2d(fan_in, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(widths[-1], bottleneck, 4, bias=False), nn.BatchNorm2d(bottleneck), nn.LeakyReLU(0.2)]
        self.encoder = nn.Sequential(*layers)
        back = widths[::-1] if region == "whole" else widths[:0:-1]  # one doubling less makes half of the size
        layers = [nn.ConvTranspose2d(bottleneck, back[0], 4, bias=False), nn.BatchNorm2d(back[0]), nn.ReLU()]
        for fan_in, width in pairwise(back):
            layers += [nn.ConvTranspose2d(fan_in, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.decoder = nn.Sequential(*layers, nn.ConvTranspose2d(back[-1], channels, 4, 2, 1), nn.Tanh())

    def forward(self, source: Tensor) -> Tensor:
        """Pictures with masks ``(N, channels + 1, H, W)`` to the region ``(N, channels, h, w)`` in [-1, 1]."""
        if source.shape[1:] != (self.in_channels, self.image_size, self.image_size):
            raise ValueError(
                f"This context encoder takes pictures of {self.image_size}x{self.image_size} with their mask, "
                f"{self.in_channels} channels in all, not {tuple(source.shape[1:])}."
            )
        region: Tensor = self.decoder(self.encoder(source[:, :-1]))
        return region


class ContextEncoderDiscriminator(DCGANDiscriminator):
    """The filled region to a logit, by DCGAN's discriminator (Pathak et al. 2016, section 3.2).

    It sees the region alone, not what is around it; a source that is handed over is not read.

    Args:
        channels: 1 for grey images, 3 for RGB.
        image_size: Height and width of the region: half of the picture's for its centre (64 in the paper).
        base_channels: Number of channels of the first layer.

    Raises:
        ValueError: An ``image_size`` that cannot be built.

    >>> ContextEncoderDiscriminator(image_size=32, base_channels=4)(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(self, *, channels: int = 3, image_size: int = 64, base_channels: int = 64) -> None:
        super().__init__(channels=channels, image_size=image_size, width=base_channels)

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """Regions ``(N, C, H, W)`` to logits ``(N,)``."""
        logits = super().forward(x)
        assert isinstance(logits, Tensor)  # there is no second head
        return logits


def _filler(fan_in: int, width: int, channels: int) -> nn.Sequential:
    """One of the two networks: down to a quarter, wide windows there, and up again (Yu et al. 2019, figure 3).

    Width is that of the convolutions, half of which are gates.
    """
    w = width // 2
    return nn.Sequential(
        GatedConv2d(fan_in, w, 5),
        GatedConv2d(w, 2 * w, stride=2),
        GatedConv2d(2 * w, 2 * w),
        GatedConv2d(2 * w, 4 * w, stride=2),
        GatedConv2d(4 * w, 4 * w),
        GatedConv2d(4 * w, 4 * w),
        *(GatedConv2d(4 * w, 4 * w, dilation=dilation) for dilation in (2, 4, 8, 16)),
        GatedConv2d(4 * w, 4 * w),
        GatedConv2d(4 * w, 4 * w),
        nn.Upsample(scale_factor=2),
        GatedConv2d(4 * w, 2 * w),
        GatedConv2d(2 * w, 2 * w),
        nn.Upsample(scale_factor=2),
        GatedConv2d(2 * w, w),
        GatedConv2d(w, max(w // 2, 1)),
        nn.Conv2d(max(w // 2, 1), channels, 3, padding=1),
        nn.Tanh(),
    )


class GatedGenerator(ImageTranslator):
    """Pictures with holes of any form to whole ones, first coarse, then refined (Yu et al. 2019, figure 3).

    Two networks of gated convolutions, the second of which sees the picture with the first one's answer in the hole.
    Differs from the paper: the refinement has no branch with contextual attention, so that it works on tiles, too. Both
    answers are whole pictures; the known pixels are for the caller to put back. Sides must be multiples of 4.

    Args:
        channels: Number of channels of the picture, 1 or 3; the source has one more, its mask.
        base_channels: Number of channels of the first convolutions, half of them gates; twice and four times as many at
            a half and a quarter of the size.

    Raises:
        ValueError: ``base_channels`` are odd or none; a source whose sides do not serve, with those that would.

    >>> coarse, refined = GatedGenerator(base_channels=4)(torch.zeros(1, 4, 16, 24))
    >>> coarse.shape, refined.shape
    (torch.Size([1, 3, 16, 24]), torch.Size([1, 3, 16, 24]))
    """

    def __init__(self, *, channels: int = 3, base_channels: int = 48) -> None:
        super().__init__()
        if base_channels < 2 or base_channels % 2:
            raise ValueError(f"base_channels={base_channels} must be even: half of them are gates.")
        self.in_channels, self.out_channels, self.stride, self.smallest = channels + 1, channels, 4, 4
        # Each network: kernels of 5, 3, 3, 3 at full size reach 5 pixels, three at half of it 6, four at a quarter 16,
        # dilated ones there 4 * 30; a kernel after nearest neighbours reaches 2 at full size, 4 at half of it.
        self.receptive_radius = 2 * (5 + 6 + 16 + 120 + 2 + 4)
        self.coarse, self.refine = (_filler(channels + 1, base_channels, channels) for _ in range(2))

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures with masks ``(N, channels + 1, H, W)`` to the coarse and the refined ``(N, channels, H, W)``."""
        self.check_sides(source)
        picture, mask = source[:, :-1], source[:, -1:]
        coarse: Tensor = self.coarse(source)
        refined: Tensor = self.refine(torch.cat([picture * (1 - mask) + coarse * mask, mask], 1))
        return coarse, refined


class SNPatchDiscriminator(Network):
    """Pictures and masks to a map of logits, each of which sees much of the picture (Yu et al. 2019, section 3.2).

    Six 5x5 convolutions with stride 2 and spectral norm, 64, 128, 256, 256, 256, 256 channels, leaky ReLU 0.2 between
    them; every value of the last map is a logit.

    Args:
        in_channels: Number of channels of the picture and its mask together.
        base_channels: Number of channels of the first layer; they double up to four times as many.

    Raises:
        ValueError: It is called without a source, whose last channel is the mask.

    >>> network = SNPatchDiscriminator(base_channels=4)
    >>> network(torch.zeros(2, 3, 128, 128), torch.zeros(2, 4, 128, 128)).shape
    torch.Size([2, 16, 2, 2])
    """

    def __init__(self, *, in_channels: int = 4, base_channels: int = 64) -> None:
        super().__init__()
        widths = [in_channels, *(base_channels * factor for factor in (1, 2, 4, 4, 4, 4))]
        layers: list[nn.Module] = []
        for fan_in, width in pairwise(widths):
            layers += [spectral_norm(nn.Conv2d(fan_in, width, 5, 2, 2)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor, source: Tensor | None = None) -> Tensor:
        """Pictures ``(N, C, H, W)`` and sources, the last channel of which is the mask, to logits ``(N, D, h, w)``."""
        if source is None:
            raise ValueError(
                "An SNPatchDiscriminator sees the hole: call it with the source, whose last channel it is."
            )
        logits: Tensor = self.layers(torch.cat([x, source[:, -1:]], 1))
        return logits
