"""Styles w between latents and images, of generators with ``mapping`` and ``synthesis``."""

from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.models.mechanics.sampling import SamplingModule

__all__ = ("StyleModule",)


class StyleModule(SamplingModule):
    """A model that mixes styles while it learns, and truncates them when it is sampled from."""

    style_mixing: float
    truncates = True

    def generate(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Images, while training some with the coarse styles of one latent and the fine ones of another.

        Karras et al. 2019, arXiv:1812.04948, section 3.1: the crossover is uniform over the layers.
        """
        network: Any = self.generator
        if not (self.training and self.style_mixing and hasattr(network, "synthesis")):
            return super().generate(z, y)
        labels = () if y is None else (y,)
        n, num_ws, rng, device = len(z), network.num_ws, self.rng, z.device
        both = torch.cat([z, self.draw_latents(n, rng).to(z)])  # at once: ``w_avg`` moves with each call
        first, second = network.mapping(both, *(y.repeat(2) for y in labels))[:, None].chunk(2)
        crossover = torch.randint(1, max(num_ws, 2), (n, 1), generator=rng, device=device)
        mixed = torch.rand(n, 1, generator=rng, device=device) < self.style_mixing
        late = (torch.arange(num_ws, device=device) >= crossover) & mixed
        images: Tensor = network.synthesis(torch.where(late[..., None], second, first))
        return images

    def render(self, network: nn.Module, z: Tensor, y: Tensor | None, truncation: float | None = None) -> Tensor:
        """Images of styles pulled towards their mean: w_avg + ψ (w - w_avg), ψ = truncation (section B there).

        Raises:
            ValueError: if the generator has no styles to truncate.
        """
        if truncation is None:
            return super().render(network, z, y)
        styled: Any = network
        if not hasattr(network, "synthesis"):
            raise ValueError(f"{type(network).__name__} has no styles to truncate: leave truncation out")
        w = styled.mapping(z) if y is None else styled.mapping(z, y)
        w = torch.lerp(styled.w_avg.expand_as(w), w, truncation)
        images: Tensor = styled.synthesis(w[:, None].repeat(1, styled.num_ws, 1))
        return images
