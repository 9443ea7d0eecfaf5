"""Residual networks with one layer of self-attention.

H. Zhang, I. Goodfellow, D. Metaxas and A. Odena, "Self-Attention Generative Adversarial Networks", ICML 2019,
arXiv:1805.08318.
T. Miyato and M. Koyama, "cGANs with Projection Discriminator", ICLR 2018, arXiv:1802.05637: the networks around it.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.networks.layers import Answer, Network, check_labels, count_doublings, xavier
from lit_gans.networks.resnet import DownBlock, UpBlock


class SelfAttention(nn.Module):
    """Each place looks at all places and adds what it saw, γ·o + x with γ = 0 at first (section 3, equations 1-3).

    As in the authors' release, the values have half of the channels until a last 1x1 convolution widens them, and keys
    and values are max-pooled by 2, which quarters the cost. The 1x1 convolutions have no bias.

    Args:
        width: Number of channels that come in and go out; queries and keys have an eighth of them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        narrow, half = max(width // 8, 1), max(width // 2, 1)
        self.query, self.key = (xavier(nn.Conv2d(width, narrow, 1, bias=False)) for _ in range(2))
        self.value = xavier(nn.Conv2d(width, half, 1, bias=False))
        self.project = xavier(nn.Conv2d(half, width, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(()))

    def attend(self, x: Tensor) -> Tensor:
        """Equation 1: how much each place looks at each pooled one, ``(N, H·W, H·W/4)``; the rows sum to one."""
        queries, keys = self.query(x).flatten(2), F.max_pool2d(self.key(x), 2).flatten(2)
        return torch.softmax(queries.transpose(1, 2) @ keys, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(N, width, H, W)`` to maps of the same shape; equations 2 and 3."""
        values = F.max_pool2d(self.value(x), 2).flatten(2)
        seen = (values @ self.attend(x).transpose(1, 2)).unflatten(2, x.shape[2:])
        attended: Tensor = self.gamma * self.project(seen) + x
        return attended


def place_attention(attention_size: int | None, map_sizes: Sequence[int]) -> int | None:
    """Finds the block after which maps have that size.

    Args:
        attention_size: Height and width of the maps to attend to; ``None`` for no attention.
        map_sizes: Height and width of the maps after each block.

    Returns:
        The index of the first such block, or ``None`` where no attention is wanted.

    Raises:
        ValueError: No block makes such maps; the message names the sizes that there are.

    >>> place_attention(16, [8, 16, 32])
    1
    """
    if attention_size is None:
        return None
    if attention_size not in map_sizes:
        possible = ", ".join(map(str, sorted({*map_sizes})))
        raise ValueError(
            f"attention_size={attention_size} is no map of this network; choose null or one of {possible}."
        )
    return list(map_sizes).index(attention_size)


class SAGANGenerator(Network):
    """Latents to images through residual blocks, with self-attention at one size.

    The blocks double the size from 4x4, each with the channels of its output: ``width`` at the image, twice as many at
    each halving, at most ``16 * width`` (1024, 512, 256, 128, 64 for 128 pixels, as published; the same rule holds for
    other sizes). Conditional networks learn a scale and a shift per label in the blocks' batch norms. Spectral norm,
    which the paper puts on both networks, is the model's affair.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        latent_dim: Size of the latent vector.
        width: Number of channels of the last block.
        attention_size: Height and width of the maps with self-attention (32 in the paper); ``null`` for none.
        num_classes: Number of labels of a conditional network.

    Raises:
        ValueError: An ``image_size`` that cannot be built; an ``attention_size`` that no block has; labels missing, or
            given to an unconditional network.

    >>> import torch
    >>> SAGANGenerator(image_size=32, width=8, attention_size=16)(torch.randn(2, 128)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        *,
        image_size: int = 128,
        channels: int = 3,
        latent_dim: int = 128,
        width: int = 64,
        attention_size: int | None = 32,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        doublings = count_doublings(image_size)
        widths = [width * min(2**k, 16) for k in reversed(range(doublings))]
        self.num_classes = num_classes
        self.attention_at = place_attention(attention_size, [8 << k for k in range(doublings)])
        self.project = nn.Sequential(
            xavier(nn.Linear(latent_dim, widths[0] * 4**2)), nn.Unflatten(1, (widths[0], 4, 4))
        )
        self.blocks = nn.ModuleList(
            UpBlock(fan_in, fan_out, "batch", "relu", 0.0, num_classes)
            for fan_in, fan_out in pairwise([widths[0], *widths])
        )
        self.to_image = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), xavier(nn.Conv2d(width, channels, 3, padding=1)), nn.Tanh()
        )
        if self.attention_at is not None:
            self.attention = SelfAttention(widths[self.attention_at])

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Latents ``(N, latent_dim)`` and labels ``(N,)`` to images ``(N, C, H, W)`` in [-1, 1]."""
        check_labels(y, self.num_classes)
        x: Tensor = self.project(z)
        for index, block in enumerate(self.blocks):
            x = block(x, y)
            if index == self.attention_at:
                x = self.attention(x)
        images: Tensor = self.to_image(x)
        return images


class ProjectionDiscriminator(Network):
    """What SAGAN's and BigGAN's discriminators do with their blocks; each builds its own."""

    num_classes: int | None
    attention_at: int | None
    blocks: nn.ModuleList
    attention: nn.Module
    head: nn.Linear
    label: nn.Embedding
    second_head: nn.Linear | None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor | Answer:
        """Images ``(N, C, H, W)`` and labels ``(N,)`` to logits ``(N,)``, with ``head`` to an ``Answer``."""
        check_labels(y, self.num_classes)
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == self.attention_at:
                x = self.attention(x)
        features = x.relu().sum((2, 3))
        logits: Tensor = self.head(features).squeeze(1)
        if y is not None:
            logits = logits + (self.label(y) * features).sum(1)
        return logits if self.second_head is None else Answer(logits, self.second_head(features))


class SAGANDiscriminator(ProjectionDiscriminator):
    """Images to logits through residual blocks, with self-attention at one size.

    The blocks halve the size down to 4x4, the first to ``width`` channels, each after it to twice as many, at most
    ``16 * width``; one more keeps size and channels, and the features are summed over all pixels. Conditional networks
    add the inner product of the features with an embedding of the label (projection). Spectral norm, which the paper
    puts on both networks, is the model's affair.

    Args:
        image_size: Height and width of the images, a power of two from 8 up.
        channels: 1 for grey images, 3 for RGB.
        width: Number of channels of the first block.
        attention_size: Height and width of the maps with self-attention (32 in the paper); ``null`` for none.
        num_classes: Number of labels of a conditional network.
        head: Size of a second answer, read from the same features by a linear layer: class scores of ACGAN, rotations
            of SSGAN, codes of InfoGAN, an embedding of ReACGAN; the network then returns ``Answer(logits, head)``.

    Raises:
        ValueError: An ``image_size`` that cannot be built; an ``attention_size`` that no block has; labels missing, or
            given to an unconditional network.

    >>> import torch
    >>> SAGANDiscriminator(image_size=32, width=8, attention_size=16)(torch.randn(2, 3, 32, 32)).shape
    torch.Size([2])
    """

    def __init__(
        self,
        *,
        image_size: int = 128,
        channels: int = 3,
        width: int = 64,
        attention_size: int | None = 32,
        num_classes: int | None = None,
        head: int | None = None,
    ) -> None:
        super().__init__()
        halvings = count_doublings(image_size)
        widths = [width * min(2**k, 16) for k in range(halvings)]
        self.num_classes = num_classes
        self.attention_at = place_attention(attention_size, [image_size >> k for k in range(1, halvings + 1)])
        self.blocks = nn.ModuleList(
            DownBlock(fan_in, fan_out, None, "relu", 0.0, first=index == 0)
            for index, (fan_in, fan_out) in enumerate(pairwise([channels, *widths]))
        )
        self.blocks.append(DownBlock(widths[-1], widths[-1], None, "relu", 0.0, down=False))
        self.head = xavier(nn.Linear(widths[-1], 1))
        if num_classes:
            self.label = nn.Embedding(num_classes, widths[-1])
            nn.init.xavier_uniform_(self.label.weight)
        if self.attention_at is not None:
            self.attention = SelfAttention(widths[self.attention_at])
        self.second_head = xavier(nn.Linear(widths[-1], head)) if head else None
