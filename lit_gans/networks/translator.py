"""The residual network of CycleGAN and CUT.

J.-Y. Zhu, T. Park, P. Isola and A. Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks", ICCV 2017, arXiv:1703.10593, appendix 7.2.
J. Johnson, A. Alahi and L. Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016,
arXiv:1603.08155: the network.
T. Park, A. Efros, R. Zhang and J.-Y. Zhu, "Contrastive Learning for Unpaired Image-to-Image Translation", ECCV 2020,
arXiv:2007.15651: ``antialias`` and ``features``.
"""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from lit_gans.networks.layers import Blur, ImageTranslator, Upsample, free_norm, up_layer


class TranslatorBlock(nn.Module):
    """Two 3x3 convolutions with reflected borders, added to what came in."""

    def __init__(self, width: int, norm: Literal["batch", "instance"] | None, dropout: float) -> None:
        super().__init__()
        bias = norm != "batch"
        self.residual = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            free_norm(norm, width),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(width, width, 3, bias=bias),
            free_norm(norm, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps to maps of the same shape."""
        residual: Tensor = self.residual(x)
        return x + residual


class ResNetTranslator(ImageTranslator):
    """Images to images of the same size through residual blocks at a quarter of it.

    c7s1-64, d128, d256, R256 times ``blocks``, u128, u64, c7s1-3 and a tanh. Sides of an image must be multiples of 4,
    at least 8.

    Args:
        in_channels: Number of channels of the source.
        out_channels: Number of channels of the target.
        blocks: Number of residual blocks (9 at 256 pixels, 6 at 128 in the paper).
        base_channels: Number of channels at full size; twice and four times as many at a half and a quarter.
        norm: Normalisation: ``instance``, without scale and shift, as in the paper, ``batch``, or ``null``.
        upsample: How sizes double: ``transpose`` (3x3, as in the paper), ``nearest`` or ``pixel_shuffle``.
        antialias: CUT's way of resampling: to halve, blur by [1, 2, 1] and drop every other pixel; to double, in place
            of ``transpose``, the filter [1, 3, 3, 1], which is bilinear interpolation, and a convolution.
        dropout: Share of values dropped within each block, in training.

    Raises:
        ValueError: Unknown ``norm`` or ``upsample``; an image whose sides do not serve, with those that would.

    >>> import torch
    >>> network = ResNetTranslator(blocks=5, base_channels=4)
    >>> network(torch.zeros(1, 3, 16, 24)).shape
    torch.Size([1, 3, 16, 24])
    >>> first, half, quarter = network.features(torch.zeros(1, 3, 16, 24), (0, 4, 12))
    >>> half.shape, quarter.shape
    (torch.Size([1, 8, 8, 12]), torch.Size([1, 16, 4, 6]))
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        out_channels: int = 3,
        blocks: int = 9,
        base_channels: int = 64,
        norm: Literal["batch", "instance"] | None = "instance",
        upsample: Upsample = "transpose",
        antialias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.stride, self.smallest = (
            4,
            8,
        )  # one pixel at a quarter of the size could be neither reflected nor normalised
        bias, width = norm != "batch", base_channels
        encoder = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(in_channels, width, 7, bias=bias),
            free_norm(norm, width),
            nn.ReLU(),
        ]
        for _ in range(2):
            stride = 1 if antialias else 2
            encoder += [nn.Conv2d(width, 2 * width, 3, stride, 1, bias=bias), free_norm(norm, 2 * width), nn.ReLU()]
            encoder += [Blur() if antialias else nn.Identity()]
            width *= 2
        self.encoder = nn.Sequential(*encoder, *(TranslatorBlock(width, norm, dropout) for _ in range(blocks)))
        decoder: list[nn.Module] = []
        for _ in range(2):
            if antialias and upsample == "transpose":
                conv = nn.Conv2d(width, width // 2, 3, padding=1, bias=bias)
                decoder += [nn.Upsample(scale_factor=2, mode="bilinear"), conv]
            else:
                decoder += [up_layer(upsample, width, width // 2, 3, bias)]
            decoder += [free_norm(norm, width := width // 2), nn.ReLU()]
        self.decoder = nn.Sequential(*decoder, nn.ReflectionPad2d(3), nn.Conv2d(width, out_channels, 7), nn.Tanh())
        # The two 7x7 kernels reach 3 pixels, each 3x3 kernel of the blocks 4. What doubles reaches 1, 2 or 3 pixels of
        # the finer map, what halves 1, or 2 with its blur: that is once at full size, and twice as far at half of it.
        up = {"transpose": 3 if antialias else 1, "nearest": 2, "pixel_shuffle": 3}[upsample]
        self.receptive_radius = 3 + 3 + 2 * blocks * 4 + 3 * up + 3 * (2 if antialias else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(N, in_channels, H, W)`` to images ``(N, out_channels, H, W)`` in [-1, 1]."""
        self.check_sides(x)
        images: Tensor = self.decoder(self.encoder(x))
        return images

    def features(self, x: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """What the encoder makes of images, after the layers of these numbers; the pass ends with the last of them.

        Layers are numbered as CUT counts them: 0 the pixels with their reflected border; 1 to 3 a 7x7 convolution, its
        normalisation and ReLU; 4 and 8 the two convolutions that halve the size, each followed by normalisation, ReLU
        and blur (nothing without ``antialias``, but it has its number); from 12 on the residual blocks. CUT's 0, 4, 8,
        12, 16 are pixels, both halvings, the first and the fifth block: a value there sees 1, 9, 15, 35, 99 pixels
        square with ``antialias``.

        Args:
            x: Images ``(N, in_channels, H, W)``.
            layers: Numbers from 0 to ``11 + blocks``, in any order.

        Returns:
            One tensor ``(N, C, h, w)`` for each of ``layers``, in their order.

        Raises:
            ValueError: There is no layer of such a number.
        """
        self.check_sides(x)
        if not layers or min(layers) < 0 or max(layers) >= len(self.encoder):
            raise ValueError(f"layers of the encoder are numbered 0 to {len(self.encoder) - 1}, got {list(layers)}.")
        found: dict[int, Tensor] = {}
        for number, layer in enumerate(self.encoder[: max(layers) + 1]):
            x = layer(x)
            if number in layers:
                found[number] = x
        return [found[number] for number in layers]
