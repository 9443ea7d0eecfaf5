"""Less variety for more fidelity, by latents nearer to their mean."""

import torch
from torch import Tensor, nn

from lit_gans.models.mechanics.sampling import SamplingModule

__all__ = ("TruncatedModule", "truncated_normal")


class TruncatedModule(SamplingModule):
    """A model that can be sampled from with truncated latents (Brock et al. 2019, arXiv:1809.11096, section 3.1)."""

    truncates = True

    def render(self, network: nn.Module, z: Tensor, y: Tensor | None, truncation: float | None = None) -> Tensor:
        """Images of latents folded into [-truncation, truncation], which then are truncated normal."""
        return super().render(network, z if truncation is None else truncated_normal(z, truncation), y)


def truncated_normal(z: Tensor, bound: float) -> Tensor:
    """Standard normal values → values of the normal distribution truncated to [-bound, bound], in the same order."""
    if not bound > 0:
        raise ValueError(f"truncation must be above 0, got {bound}")
    normal = torch.distributions.Normal(0.0, 1.0)
    edge = normal.cdf(torch.tensor(bound, dtype=torch.float64))
    inside = 1 - edge + normal.cdf(z.double()) * (2 * edge - 1).to(z.device)
    return normal.icdf(inside).clamp(-bound, bound).to(z.dtype)
