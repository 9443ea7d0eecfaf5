"""Wide residual networks whose generator hears the latents and the label at every block.

A. Brock, J. Donahue and K. Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019,
arXiv:1809.11096, appendix B.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_gans.networks.layers import Network, check_labels, count_doublings
from lit_gans.networks.resnet import DownBlock
from lit_gans.networks.sagan import ProjectionDiscriminator, SelfAttention, place_attention

# The generator's multiples of ``width`` at 4x4 and after each block, by image size.
_GENERATOR_WIDTHS = {
    8: (4, 4),
    16: (4, 4, 4),
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
# The discriminator's after each block; the last block, or the last two up to 32 pixels, keep the size.
_DISCRIMINATOR_WIDTHS = {
    8: (4, 4, 4),
    16: (4, 4, 4, 4),
    32: (4, 4, 4, 4),
    64: (1, 2, 4, 8, 16),
    128: (1, 2, 4, 8, 16, 16),
    256: (1, 2, 4, 8, 8, 16, 16),
    512: (1, 1, 2, 4, 8, 8, 16, 16),
}


def _widths(table: dict[int, tuple[int, ...]], image_size: int, width: int) -> list[int]:
    """The table's row times ``width``; beyond 512 pixels one more block of the image's own width for each doubling."""
    more = count_doublings(image_size) - count_doublings(min(image_size, 512))
    row, ones = table[min(image_size, 512)], (1,) * more
    return [width * n for n in (row + ones if table is _GENERATOR_WIDTHS else ones + row)]


def initialise_orthogonally(network: nn.Module) -> None:
    """Orthogonal weights and zero biases in all convolutions, linear layers and embeddings (section 3)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            nn.init.orthogonal_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


class ModulatedNorm(nn.Module):
    """Batch norm whose gain, less one, and bias are linear in a condition (appendix B, figure 15b).

    Args:
        width: Number of channels.
        condition_dim: Size of the condition.
    """

    def __init__(self, width: int, condition_dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.gain, self.bias = (nn.Linear(condition_dim, width, bias=False) for _ in range(2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps ``(N, width, H, W)`` and conditions ``(N, condition_dim)`` to maps."""
        gain, bias = self.gain(condition), self.bias(condition)
        modulated: Tensor = self.norm(x) * (1 + gain)[..., None, None] + bias[..., None, None]
        return modulated


class ModulatedUpBlock(nn.Module):
    """Residual block that doubles the size by nearest neighbours, before its first convolution (figure 15b).

    Args:
        fan_in: Number of channels that come in.
        width: Number of channels that go out.
        condition_dim: Size of what modulates both norms.
    """

    def __init__(self, fan_in: int, width: int, condition_dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (ModulatedNorm(channels, condition_dim) for channels in (fan_in, width))
        self.conv1 = nn.Sequential(nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(fan_in, width, 3, padding=1))
        self.conv2 = nn.Sequential(nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Sequential(nn.Conv2d(fan_in, width, 1), nn.Upsample(scale_factor=2))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """Maps ``(N, fan_in, H, W)`` and conditions to maps ``(N, width, 2H, 2W)``."""
        residual: Tensor = self.conv2(self.norm2(self.conv1(self.norm1(x, condition)), condition))
        return residual + self.shortcut(x)


def _check_chunks(latent_dim: int, chunks: int) -> None:
    """Whether the latents can be dealt out equally: one chunk for the linear layer and one for each block."""
    if latent_dim < chunks or latent_dim % chunks:
        below = latent_dim // chunks * chunks
        nearest = ", ".join(str(n) for n in (below, below + chunks) if n)
        raise ValueError(
            f"latent_dim={latent_dim} does not divide into {chunks} equal chunks, one for the linear layer and one for "
            f"each block; the nearest that do: {nearest}."
        )


class BigGANGenerator(Network):
    """Latents to images through residual blocks, each modulated by its own chunk of the latents and by the label.

    The latents are dealt out in equal chunks (section 3.1, "skip-z"): the first makes the maps of 4x4, the others go to
    one block each, together with an embedding of the label that all blocks share. Channels are the multiples of
    ``width`` of appendix B's tables for 128, 256 and 512 pixels, of the authors' PyTorch release for 32 (four times the
    width throughout) and 64; 8 and 16 pixels follow 32, and sizes beyond 512 repeat the last block. Spectral norm,
    which the paper puts on both networks, is the model's affair.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        latent_dim: Size of the latent vector, divisible by one plus the number of blocks: 120 for 128 pixels, 140 for
            256, 160 for 512 (appendix B).
        width: The paper's ch, the number of channels of the last block.
        shared_dim: Size of the label's embedding.
        attention_size: Height and width of the maps with self-attention (64 in the paper); ``null`` for none.
        num_classes: Number of labels of a conditional network; without labels the latents alone modulate.

    Raises:
        ValueError: An ``image_size`` that cannot be built; an ``attention_size`` that no block has; a ``latent_dim``
            that cannot be dealt out equally; labels missing, or given to an unconditional network.

    >>> import torch
    >>> generator = BigGANGenerator(image_size=32, width=4, latent_dim=80, attention_size=16, num_classes=10)
    >>> generator(torch.randn(2, 80), torch.tensor([3, 7])).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        image_size: int = 128,
        channels: int = 3,
        latent_dim: int = 120,
        width: int = 96,
        shared_dim: int = 128,
        attention_size: int | None = 64,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        doublings = count_doublings(image_size)
        widths = _widths(_GENERATOR_WIDTHS, image_size, width)
        self.num_classes, self.chunks = num_classes, doublings + 1
        _check_chunks(latent_dim, self.chunks)
        self.attention_at = place_attention(attention_size, [8 << k for k in range(doublings)])
        chunk_dim = latent_dim // self.chunks
        condition_dim = chunk_dim
        if num_classes:
            self.shared = nn.Embedding(num_classes, shared_dim)
            condition_dim += shared_dim
        self.project = nn.Sequential(nn.Linear(chunk_dim, widths[0] * 4**2), nn.Unflatten(1, (widths[0], 4, 4)))
        self.blocks = nn.ModuleList(ModulatedUpBlock(a, b, condition_dim) for a, b in pairwise(widths))
        self.to_image = nn.Sequential(
            nn.BatchNorm2d(widths[-1]), nn.ReLU(), nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Tanh()
        )
        if self.attention_at is not None:
            self.attention = SelfAttention(widths[self.attention_at + 1])
        initialise_orthogonally(self)

    def conditions(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """What the linear layer gets, and what each block gets: its chunk and the shared embedding."""
        check_labels(y, self.num_classes)
        first, *chunks = z.chunk(self.chunks, dim=1)
        return first, chunks if y is None else [torch.cat([chunk, self.shared(y)], dim=1) for chunk in chunks]

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to images ``(N, C, H, W)`` in [-1, 1]."""
        first, conditions = self.conditions(z, y)
        x: Tensor = self.project(first)
        for index, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            x = block(x, condition)
            if index == self.attention_at:
                x = self.attention(x)
        images: Tensor = self.to_image(x)
        return images


class BigGANDiscriminator(ProjectionDiscriminator):
    """Images to logits through residual blocks, the features summed over all pixels.

    Channels are the multiples of ``width`` of appendix B's tables, chosen for other sizes as in ``BigGANGenerator``.
    Conditional networks add the inner product of the features with an embedding of the label (projection). Spectral
    norm, which the paper puts on both networks, is the model's affair.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        width: The paper's ch, the number of channels of the first block.
        attention_size: Height and width of the maps with self-attention (64 in the paper); ``null`` for none.
        num_classes: Number of labels of a conditional network.
        head: Size of a second answer, read from the same features by a linear layer: class scores of ACGAN, rotations
            of SSGAN, codes of InfoGAN, an embedding of ReACGAN; the network then returns ``Answer(logits, head)``.

    Raises:
        ValueError: An ``image_size`` that cannot be built; an ``attention_size`` that no block has; labels missing, or
            given to an unconditional network.

    >>> import torch
    >>> BigGANDiscriminator(image_size=32, width=4, attention_size=16)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        *,
        image_size: int = 128,
        channels: int = 3,
        width: int = 96,
        attention_size: int | None = 64,
        num_classes: int | None = None,
        head: int | None = None,
    ) -> None:
        super().__init__()
        widths = _widths(_DISCRIMINATOR_WIDTHS, image_size, width)
        halvings = count_doublings(image_size) if image_size > 32 else min(count_doublings(image_size), 2)
        self.num_classes = num_classes
        self.attention_at = place_attention(attention_size, [image_size >> k for k in range(1, halvings + 1)])
        self.blocks = nn.ModuleList(
            DownBlock(fan_in, fan_out, None, "relu", 0.0, down=index < halvings, first=index == 0)
            for index, (fan_in, fan_out) in enumerate(pairwise([channels, *widths]))
        )
        self.head = nn.Linear(widths[-1], 1)
        if num_classes:
            self.label = nn.Embedding(num_classes, widths[-1])
        if self.attention_at is not None:
            self.attention = SelfAttention(widths[self.attention_at])
        self.second_head = nn.Linear(widths[-1], head) if head else None
        initialise_orthogonally(self)
