"""Six kinds of work to measure, each with the training loop that one would write by hand.

A workload has networks, the model of lit_gans that trains them, and a plain loop that makes the same updates with the
same optimizers as most people write them: ``torch.optim.Adam`` as it comes, two passes of the discriminator, its
weights frozen in the generator's turn, penalties with passes of their own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_gans.data import ImageDataModule
from lit_gans.game.module import GameModule
from lit_gans.models import DCGAN, GAN, R3GAN, SNGAN, WGANGP, StyleGAN2
from lit_gans.modules import normalise_spectrally
from lit_gans.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    R3GANDiscriminator,
    R3GANGenerator,
    ResNetDiscriminator,
    ResNetGenerator,
    StyleGAN2Discriminator,
    StyleGAN2Generator,
)

__all__ = ("WORKLOADS", "PlainLoop", "Workload")


class PlainLoop:
    """The updates of GAN's loss; other papers are subclasses.

    Args:
        generator, discriminator: Networks, which it trains in place.
        lrs: Learning rates of the discriminator and of the generator.
        betas: Adam's.
        n_critic: Updates of the discriminator for one of the generator.
        fused: Handed on to Adam; None is what it comes with.
        dtype: torch.bfloat16 for steps within autocast; None for full precision.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent_dim: int,
        lrs: tuple[float, float] = (2e-4, 2e-4),
        betas: tuple[float, float] = (0.5, 0.999),
        n_critic: int = 1,
        fused: bool | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.g, self.d, self.latent_dim, self.n_critic, self.dtype = (
            generator,
            discriminator,
            latent_dim,
            n_critic,
            dtype,
        )
        self.d_opt = torch.optim.Adam(discriminator.parameters(), lr=lrs[0], betas=betas, fused=fused)
        self.g_opt = torch.optim.Adam(generator.parameters(), lr=lrs[1], betas=betas, fused=fused)
        self.steps = 0

    def step(self, real: Tensor) -> None:
        """One update of the discriminator and, where it is due, one of the generator."""
        with torch.no_grad(), self.autocast(real):
            fake = self.generate(real)
        self.d_opt.zero_grad()
        with self.autocast(real):
            loss = self.discriminator_loss(real, fake)
        loss.backward()
        self.d_opt.step()
        self.steps += 1
        if self.steps % self.n_critic == 0:
            self.d.requires_grad_(False)
            self.g_opt.zero_grad()
            with self.autocast(real):
                loss = self.generator_loss(real)
            loss.backward()
            self.g_opt.step()
            self.d.requires_grad_(True)
            self.after_generator(real)

    def autocast(self, real: Tensor) -> torch.autocast:
        """In half precision where that was asked for."""
        return torch.autocast(real.device.type, dtype=self.dtype, enabled=self.dtype is not None)

    def latents(self, real: Tensor) -> Tensor:
        """As many as there are real images."""
        return torch.randn(len(real), self.latent_dim, device=real.device)

    def generate(self, real: Tensor) -> Tensor:
        """As many images as there are real ones."""
        return self.g(self.latents(real))

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-self.d(real)).mean() + F.softplus(self.d(fake)).mean()

    def generator_loss(self, real: Tensor) -> Tensor:
        return F.softplus(-self.d(self.generate(real))).mean()

    def after_generator(self, real: Tensor) -> None:
        """Nothing, here."""


class PlainSNGAN(PlainLoop):
    """The hinge loss; the networks are normalised already."""

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return F.relu(1 - self.d(real)).mean() + F.relu(1 + self.d(fake)).mean()

    def generator_loss(self, real: Tensor) -> Tensor:
        return -self.d(self.generate(real)).mean()


class PlainWGANGP(PlainLoop):
    """Algorithm 1 of Gulrajani et al. 2017."""

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = self.d(fake).mean() - self.d(real).mean()
        with torch.autocast(real.device.type, enabled=False):
            weight = torch.rand(len(real), 1, 1, 1, device=real.device)
            x = (weight * real + (1 - weight) * fake.float()).requires_grad_()
            (gradient,) = torch.autograd.grad(self.d(x).sum(), x, create_graph=True)
            return loss + 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()

    def generator_loss(self, real: Tensor) -> Tensor:
        return -self.d(self.generate(real)).mean()


class PlainR3GAN(PlainLoop):
    """The relativistic pairing loss with both penalties, from the passes that the loss makes, as in the release."""

    gamma = 0.05

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        real, fake = real.detach().requires_grad_(), fake.detach().requires_grad_()
        real_logits, fake_logits = self.d(real), self.d(fake)
        loss = F.softplus(fake_logits - real_logits).mean()
        for logits, x in ((real_logits, real), (fake_logits, fake)):
            (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
            loss = loss + self.gamma / 2 * gradient.square().sum((1, 2, 3)).mean()
        return loss

    def generator_loss(self, real: Tensor) -> Tensor:
        return F.softplus(self.d(real) - self.d(self.generate(real))).mean()


class PlainStyleGAN2(PlainLoop):
    """R1 at every 16th update, path lengths at every eighth, mixed styles and an average of the generator.

    Penalties are evaluated on passes of their own, as in the release, and join the loss of their update.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mean_length = torch.zeros((), device=next(self.g.parameters()).device)
        self.average = [p.detach().clone() for p in self.g.parameters()]
        self.turns = 0

    def generate(self, real: Tensor) -> Tensor:
        first, second = (self.g.mapping(self.latents(real)) for _ in range(2))
        layers = torch.arange(self.g.num_ws, device=real.device)
        crossover = torch.randint(1, self.g.num_ws, (len(real), 1), device=real.device)
        mixed = torch.rand(len(real), 1, device=real.device) < 0.9
        second_from = (layers >= crossover) & mixed
        return self.g.synthesis(torch.where(second_from[..., None], second[:, None], first[:, None]))

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        loss = super().discriminator_loss(real, fake)
        if self.steps % 16 == 0:
            gamma = 0.0002 * real.shape[2] * real.shape[3] / len(real)
            with torch.autocast(real.device.type, enabled=False):
                x = real.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(self.d(x).sum(), x, create_graph=True)
                loss = loss + 16 * gamma / 2 * gradient.square().sum((1, 2, 3)).mean()
        return loss

    def generator_loss(self, real: Tensor) -> Tensor:
        loss = super().generator_loss(real)
        if self.turns % 8 == 0:
            with torch.autocast(real.device.type, enabled=False):
                w = self.g.mapping(self.latents(real))[:, None].repeat(1, self.g.num_ws, 1)
                images = self.g.synthesis(w)
                noise = torch.randn_like(images) / math.sqrt(images[0, 0].numel())
                (gradient,) = torch.autograd.grad((images * noise).sum(), w, create_graph=True)
                lengths = gradient.square().sum(2).mean(1).sqrt()
                mean = self.mean_length.lerp(lengths.mean(), 0.01)
                self.mean_length = mean.detach()
                loss = loss + 8 * 2.0 * (lengths - mean).square().mean()
        self.turns += 1
        return loss

    @torch.no_grad()
    def after_generator(self, real: Tensor) -> None:
        decay = 0.5 ** (len(real) / 10_000)
        for average, parameter in zip(self.average, self.g.parameters(), strict=True):
            average.copy_(parameter.lerp(average, decay))


@dataclass(frozen=True)
class Workload:
    """What is trained, and how.

    Args:
        title: What it is, in words.
        image_size, channels, batch: Of its images.
        latent_dim: Of its latents.
        networks: Makes a generator and a discriminator.
        model_class: The model of lit_gans.
        plain_class: The loop by hand.
        plain_arguments: Of that loop, what the paper's defaults are.
    """

    title: str
    image_size: int
    channels: int
    batch: int
    latent_dim: int
    networks: Callable[[], tuple[nn.Module, nn.Module]]
    model_class: type[GameModule]
    plain_class: type[PlainLoop] = PlainLoop
    plain_arguments: dict[str, Any] = field(default_factory=dict)

    def build(self) -> tuple[nn.Module, nn.Module]:
        """A generator and a discriminator, the same each time."""
        torch.manual_seed(0)
        return self.networks()

    def model(self, generator: nn.Module, discriminator: nn.Module, **kwargs: Any) -> GameModule:
        """The model of lit_gans that trains these."""
        return self.model_class(generator, discriminator, latent_dim=self.latent_dim, **kwargs)

    def plain(self, generator: nn.Module, discriminator: nn.Module, **kwargs: Any) -> PlainLoop:
        """The loop by hand that trains these."""
        return self.plain_class(generator, discriminator, self.latent_dim, **self.plain_arguments, **kwargs)

    def data(self, batches: int, batch: int | None = None) -> ImageDataModule:
        """Random images, so many batches of them, of another size than its own where that is given."""
        batch = batch or self.batch
        size = {"image_size": self.image_size, "channels": self.channels}
        return ImageDataModule("fake", **size, batch_size=batch, fake_length=batches * batch)


def _mlps(latent_dim: int, widths: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    return MLPGenerator(latent_dim=latent_dim, widths=widths), MLPDiscriminator(widths=widths)


def _dcgan() -> tuple[nn.Module, nn.Module]:
    return DCGANGenerator(image_size=64, latent_dim=100), DCGANDiscriminator(image_size=64)


def _resnet() -> tuple[nn.Module, nn.Module]:
    discriminator = ResNetDiscriminator()
    normalise_spectrally(discriminator)
    return ResNetGenerator(), discriminator


def _stylegan2() -> tuple[nn.Module, nn.Module]:
    size = {"image_size": 32, "channel_base": 2048, "channel_max": 128}
    return StyleGAN2Generator(w_dim=128, mapping_layers=2, latent_dim=128, **size), StyleGAN2Discriminator(**size)


def _r3gan() -> tuple[nn.Module, nn.Module]:
    return R3GANGenerator(width=32), R3GANDiscriminator(width=32)


_ADAM_OF_STYLES = {"lrs": (2e-3, 2e-3), "betas": (0.0, 0.99)}

WORKLOADS = {
    "w1": Workload("DCGAN, 64x64", 64, 3, 64, 100, _dcgan, DCGAN),
    "w2": Workload(
        "SNGAN, ResNet, 32x32",
        32,
        3,
        64,
        128,
        _resnet,
        SNGAN,
        PlainSNGAN,
        {"betas": (0.0, 0.9), "n_critic": 5},
    ),
    "w3": Workload(
        "WGAN-GP, MLPs, 28x28",
        28,
        1,
        64,
        128,
        lambda: _mlps(128, (1200, 1200)),
        WGANGP,
        PlainWGANGP,
        {"lrs": (1e-4, 1e-4), "betas": (0.0, 0.9), "n_critic": 5},
    ),
    "w4": Workload("GAN, small MLPs, 28x28", 28, 1, 64, 64, lambda: _mlps(64, (128, 128)), GAN),
    "stylegan2": Workload("StyleGAN2, 32x32", 32, 3, 32, 128, _stylegan2, StyleGAN2, PlainStyleGAN2, _ADAM_OF_STYLES),
    "r3gan": Workload("R3GAN, 32x32", 32, 3, 64, 64, _r3gan, R3GAN, PlainR3GAN, {"betas": (0.0, 0.99)}),
}
