"""Generated images of earlier steps, which a discriminator is shown again."""

import torch
from torch import Tensor, nn

__all__ = ("ImagePool",)


class ImagePool(nn.Module):
    """The last generated images, some of which take the place of new ones.

    Shrivastava et al. 2017, arXiv:1612.07828, section 2.3, as Zhu et al. 2017 use it: until the pool is full, each
    image is kept and given back. Then, with probability 1/2, an image changes places with a random one of the pool.

    The images kept are part of a checkpoint, those of each process; they are buffers, but no weights: they are not in
    ``state_dict``.

    Args:
        size: Number of images that are kept; 0 gives all images back as they are.

    Example:
        >>> pool = ImagePool(size=2)
        >>> rng = torch.Generator().manual_seed(0)
        >>> pool(torch.ones(3, 1, 2, 2), rng).shape, int(pool.filled)
        (torch.Size([3, 1, 2, 2]), 2)
    """

    images: Tensor
    filled: Tensor

    def __init__(self, size: int = 50) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(0), persistent=False)
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64), persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """New images (N, C, H, W), some of which older ones take the place of; nothing is waited for on a GPU."""
        if not self.size:
            return x
        if self.images.shape[1:] != x.shape[1:]:  # the first images, or those of another size
            self.images, self.filled = x.new_zeros(self.size, *x.shape[1:]), torch.zeros_like(self.filled)
        given = []
        for image in x:
            full = self.filled == self.size
            swaps = full & (torch.rand((), generator=rng, device=x.device, dtype=torch.float32) < 0.5)
            drawn = torch.randint(self.size, (1,), generator=rng, device=x.device)
            slot = torch.where(full, drawn, self.filled.clamp(max=self.size - 1))
            kept = self.images[slot][0]
            given.append(torch.where(swaps, kept.to(x.dtype), image))
            self.images[slot] = torch.where(swaps | ~full, image.to(kept.dtype), kept)[None]
            self.filled += ~full
        return torch.stack(given)
