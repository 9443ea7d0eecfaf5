"""StyleGAN2: Karras et al. 2020, "Analyzing and improving the image quality of StyleGAN", CVPR, arXiv:1912.04958."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_gans.game.arguments import at_least, not_negative
from lit_gans.models.gan import GAN
from lit_gans.regularizers import R1, PathLength, Regularizer

__all__ = ("StyleGAN2",)


class StyleGAN2(GAN):
    r"""The non-saturating GAN between style-based networks, with R1 and path lengths, both evaluated lazily.

    .. math::
        L_D = L_D^{GAN} + \tfrac{γ}{2} E_{x} \|∇_x D(x)\|^2, \qquad
        L_G = -E_{z} \log D(G(z)) + γ_{pl} \, E_{w, \, y \sim N(0, I)} \left( \|J_w^T y\|_2 - a \right)^2

    The styles of ``networks.StyleGAN2Generator`` are mixed, and pulled to their mean by ``sample(n, truncation=ψ)``; a
    generator without ``mapping`` and ``synthesis`` is taken as a function of z. Differs from the paper: γ by rule;
    styles are mixed in each image by itself, and not where path lengths are measured. A lazy penalty joins the update
    it is due at, where the published code gives it a step of Adam of its own; as no step is added, the learning rates
    and betas stay as they are, which appendix B scales by k / (k + 1) to make up for one more step in k.

    When to use it: for one kind of image, such as faces, at high resolution, or where w is to be edited.

    When not: for many different kinds of things at once; with few images unless ``ADA`` is added; or for a quick
    result, since its networks and second derivatives are slow.

    Family: architectures.

    Args:
        r1_gamma: γ; 10 in appendix B. None: by resolution and batch, ``functional.gamma_for``.
        pl_weight: γ_pl, 2 in the published code, which takes pl_every = 4.
        r1_every, pl_every: Updates of the player between two evaluations of its penalty; 16 and 8, appendix B.
        style_mixing: Share of images made of the styles of two latents; 0.9, as latent_dim 512, appendix B.
        g_lr, d_lr: 0.002, appendix B.
        betas: The betas of Adam: 0 and 0.99, appendix B.
        ema_kimg: Half-life of the averaged generator; 10, appendix B. Unless ``ema_decay`` is given.
        regularizers: Add-ons besides ``R1`` and ``PathLength``, which the paper brings.
        **kwargs: All other arguments of ``GAN``.
    """

    truncates = True

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        r1_gamma: float | None = None,
        r1_every: int = 16,
        pl_weight: float = 2.0,
        pl_every: int = 8,
        style_mixing: float = 0.9,
        latent_dim: int = 512,
        g_lr: float = 2e-3,
        d_lr: float = 2e-3,
        betas: tuple[float, float] = (0.0, 0.99),
        ema_kimg: float | None = 10.0,
        regularizers: Sequence[Regularizer] | None = None,
        **kwargs: Any,
    ) -> None:
        at_least(1, r1_every=r1_every, pl_every=pl_every)
        not_negative(r1_gamma=r1_gamma or 0.0, pl_weight=pl_weight, style_mixing=style_mixing)
        kwargs |= {"latent_dim": latent_dim, "g_lr": g_lr, "d_lr": d_lr, "betas": betas}
        kwargs["ema_kimg"] = ema_kimg if kwargs.get("ema_decay") is None else None
        own: list[Regularizer] = [R1(r1_gamma, r1_every)]
        if pl_weight:
            own.append(PathLength(pl_weight, pl_every))
        super().__init__(generator, discriminator, regularizers=[*own, *(regularizers or ())], **kwargs)
        self.style_mixing = style_mixing

    @classmethod
    def modernise(cls, checkpoint: dict[str, Any]) -> None:
        """In older checkpoints the mean of path lengths lies with the model, not with the add-on."""
        mean = checkpoint["state_dict"].pop("mean_length", None)
        if mean is not None and checkpoint.get("hyper_parameters", {}).get("pl_weight", 2.0):
            checkpoint["state_dict"]["regularizers.1.mean_length"] = mean

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
