"""Consistency of the discriminator under changes of its input.

CR: Zhang et al. 2020, arXiv:1910.12027. bCR, zCR and ICR: Zhao et al. 2021, "Improved consistency regularization for
GANs", arXiv:2002.04724.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.functional import Batch, as_batch, logits_of
from lit_gans.regularizers.regularizer import Regularizer

__all__ = ("Consistency", "LatentDiversity", "flip_and_shift")


def flip_and_shift(x: Tensor, pixels: int = 4) -> Tensor:
    """Mirror each image with probability 1/2 and move it by up to so many pixels, its border repeated.

    The augmentation that both papers use on small images; images are (N, C, H, W), noise is from the global generator.

    Raises:
        ValueError: for what is no image.
    """
    if x.ndim != 4:
        raise ValueError(f"flip_and_shift moves images (N, C, H, W), got {tuple(x.shape)}: give Consistency an augment")
    n, height, width = len(x), x.shape[2], x.shape[3]
    down, right = (torch.randint(-pixels, pixels + 1, (n, 1), device=x.device) for _ in range(2))
    rows = (torch.arange(height, device=x.device) + down).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + right).clamp(0, width - 1)
    columns = torch.where(torch.rand(n, 1, device=x.device) < 0.5, columns, columns.flip(1))
    index = torch.arange(n, device=x.device)[:, None, None]
    return x.movedim(1, 3)[index, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


class Consistency(Regularizer):
    r"""The discriminator answers alike to an image and its augmentation, and to neighbouring latents (ICR).

    .. math:: λ \left( E \|D(x) - D(T(x))\|^2 + λ_f \, E \|D(G(z)) - D(T(G(z)))\|^2
        + λ_z \, E \|D(G(z)) - D(G(z + Δz))\|^2 \right), \quad Δz \sim N(0, σ^2)

    CR is the first term alone, bCR the first two, zCR's share of the discriminator the third, ICR all; the generator's
    share of zCR and ICR is ``LatentDiversity``.

    Args:
        weight: λ, 10 in both papers.
        fake: λ_f, weight of generated images relative to λ; 1 in bCR.
        latent: λ_z, weight of neighbouring latents relative to λ; in ICR 2 (its λ_dis is 20 where λ is 10).
        sigma: σ; 0.05 for CIFAR-10 by label, 0.03, with λ_dis = 5, without labels.
        real: Weight of real images relative to λ; 0 for zCR.
        augment: T; None: mirrored and shifted by up to 4 pixels. The model's own ``augment`` comes on top, drawn anew.
        every: Updates between two evaluations; the penalty is scaled by it.

    Raises:
        ValueError: A negative weight, or none above 0.
    """

    name, double_backward, moves_images = "consistency", False, True

    def __init__(
        self,
        weight: float = 10.0,
        fake: float = 0.0,
        latent: float = 0.0,
        sigma: float = 0.05,
        real: float = 1.0,
        augment: nn.Module | Callable[[Tensor], Tensor] | None = None,
        every: int = 1,
    ) -> None:
        super().__init__(weight, every)
        if min(real, fake, latent, sigma) < 0 or max(real, fake, latent) == 0:
            raise ValueError(
                f"Consistency: real, fake and latent must not be negative and one of them above 0, got {real}, {fake} "
                f"and {latent}; sigma must not be negative, got {sigma}"
            )
        self.weights, self.sigma = (real, fake, latent), sigma
        self.augment = flip_and_shift if augment is None else augment

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """Algorithm 1 of CR, and algorithms 1 and 2 of ICR, without λ."""

        def distance(one: Batch, moved: Tensor) -> Tensor:
            answer, other = (logits_of(model.discriminate(batch)).float() for batch in (one, Batch(moved, one.y)))
            return (answer - other).square().mean()

        real, fake = as_batch(real), as_batch(fake)
        total = torch.zeros((), device=real.x.device)
        of_real, of_fake, of_latents = self.weights
        if of_real:
            total = total + of_real * distance(real, self.augment(real.x))
        if of_fake:
            total = total + of_fake * distance(fake, self.augment(fake.x))
        if of_latents:
            with torch.no_grad():
                one, other = neighbours(model, len(fake.x), fake.y, self.sigma)
            total = total + of_latents * distance(Batch(one, fake.y), other)
        return total


class LatentDiversity(Regularizer):
    r"""The generator answers to neighbouring latents with images that differ (zCR's and ICR's share of G).

    .. math:: -λ \, E \|G(z) - G(z + Δz)\|^2, \quad Δz \sim N(0, σ^2)

    Args:
        weight: λ_gen, 0.5 in section 4.
        sigma: σ; as of ``Consistency``.
        every: Updates between two evaluations; the penalty is scaled by it.
    """

    player, name, double_backward, needs_latents = "generator", "latent_diversity", False, True

    def __init__(self, weight: float = 0.5, sigma: float = 0.05, every: int = 1) -> None:
        super().__init__(weight, every)
        if sigma < 0:
            raise ValueError(f"LatentDiversity: sigma must not be negative, got {sigma}")
        self.sigma = sigma

    def forward(self, model: Any, real: Batch, fake: Batch) -> Tensor:
        """Algorithm 2 without λ: the mean over pixels, so that it does not grow with the size of images."""
        one, other = neighbours(model, len(as_batch(fake).x), as_batch(fake).y, self.sigma)
        return -(one - other).float().square().mean()


def neighbours(model: Any, n: int, y: Tensor | None, sigma: float) -> tuple[Tensor, Tensor]:
    """Images of n fresh latents, and of the same moved by normal noise."""
    z = model.draw_latents(n, model.rng)
    moved = z + sigma * torch.randn(z.shape, generator=model.rng, device=z.device)
    state = model.rng.get_state()
    with torch.random.fork_rng([z.device] if z.device.type == "cuda" else []):
        one = model.generate(z, y)
    model.rng.set_state(state)  # the other with the same styles to mix, and the same noise in its layers
    return one, model.generate(moved, y)
