"""Pictures from pictures: work to measure, each with the training loop that one would write by hand."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lit_gans import networks as nets
from lit_gans.game.pool import ImagePool
from lit_gans.models import CUT, ESRGAN, SRGAN, ContextEncoder, CycleGAN, GatedInpainting, Pix2Pix, Translation
from lit_gans.regularizers import PerceptualLoss

__all__ = ("PICTURE_WORKLOADS", "PlainPairs")

Pair = tuple[Tensor, Tensor]


class Seer(nn.Module):
    """Looks at pictures in the place of VGG19."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


class PlainPairs:
    """One fake for both players, Adam as it comes, the discriminator's weights frozen in the generator's turn."""

    generator_first = False

    def __init__(self, work: "PictureWorkload", g: nn.Module, d: nn.Module, fused: bool | None = None) -> None:
        self.g, self.d = g, d
        g_lr, d_lr = work.lrs
        self.g_opt = torch.optim.Adam(g.parameters(), lr=g_lr, betas=work.betas, fused=fused)
        self.d_opt = torch.optim.Adam(d.parameters(), lr=d_lr, betas=work.betas, fused=fused)
        self.begin()

    def begin(self) -> None:
        """What a paper keeps."""

    def step(self, pair: Pair) -> None:
        """One update of each player."""
        source, target = pair
        fake = self.make(source, target)
        turns = (self.move_g, self.move_d) if self.generator_first else (self.move_d, self.move_g)
        for move in turns:
            move(source, target, fake)

    def move_d(self, source: Tensor, target: Tensor, fake: Any) -> None:
        self.d_opt.zero_grad()
        self.d_loss(source, target, fake).backward()
        self.d_opt.step()

    def move_g(self, source: Tensor, target: Tensor, fake: Any) -> None:
        self.d.requires_grad_(False)
        self.g_opt.zero_grad()
        self.g_loss(source, target, fake).backward()
        self.g_opt.step()
        self.d.requires_grad_(True)

    def make(self, source: Tensor, target: Tensor) -> Any:
        return self.g(source)

    def d_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        return F.softplus(-self.d(target)).mean() + F.softplus(self.d(fake.detach())).mean()

    def g_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        raise NotImplementedError


class PlainPix2Pix(PlainPairs):
    def d_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        real = F.softplus(-self.d(target, source)).mean()
        return (real + F.softplus(self.d(fake.detach(), source)).mean()) / 2

    def g_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        return F.softplus(-self.d(fake, source)).mean() + 100 * F.l1_loss(fake, target)


class PlainCycleGAN(PlainPairs):
    generator_first = True

    def begin(self) -> None:
        self.pools, self.rng = (ImagePool(), ImagePool()), torch.Generator().manual_seed(0)

    def make(self, source: Tensor, target: Tensor) -> Any:
        return self.g.there(source), self.g.back(target)

    def d_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        loss = torch.zeros(())
        critics = self.d.there, self.d.back
        for critic, real, made, pool in zip(critics, (target, source), fake, self.pools, strict=True):
            shown = pool(made.detach(), self.rng)
            loss = loss + ((critic(real) - 1).square().mean() + critic(shown).square().mean()) / 2
        return loss

    def g_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        there, back = self.g.there, self.g.back
        loss = (self.d.there(fake[0]) - 1).square().mean() + (self.d.back(fake[1]) - 1).square().mean()
        loss = loss + 10 * (F.l1_loss(back(fake[0]), source) + F.l1_loss(there(fake[1]), target))
        return loss + 5 * (F.l1_loss(there(target), target) + F.l1_loss(back(source), source))


class PlainCUT(PlainPairs):
    def d_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        return ((self.d(target) - 1).square().mean() + self.d(fake.detach()).square().mean()) / 2

    def nce(self, source: Tensor, made: Tensor) -> Tensor:
        losses = []
        with torch.no_grad():
            keys = self.g.features(source, _LAYERS)
        for key, query, project in zip(keys, self.g.features(made, _LAYERS), self.g.projections, strict=True):
            places = torch.randperm(key[0, 0].numel())[:256]
            q = project(query.flatten(2)[:, :, places].transpose(1, 2))
            with torch.no_grad():
                k = project(key.flatten(2)[:, :, places].transpose(1, 2))
            scores = torch.bmm(q, k.transpose(1, 2)) / 0.07
            label = torch.arange(scores.shape[1]).expand(len(scores), -1).flatten()
            losses.append(F.cross_entropy(scores.flatten(0, 1), label))
        return torch.stack(losses).mean()

    def g_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        nce = self.nce(source, fake) + self.nce(target, self.g(target))
        return (self.d(fake) - 1).square().mean() + nce / 2


class PlainSRGAN(PlainPairs):
    def begin(self) -> None:
        self.seer = Seer().requires_grad_(False)

    def seen(self, made: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.seer.body(target)
        return self.seer.body(made) - wanted

    def g_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        return 1e-3 * F.softplus(-self.d(fake)).mean() + self.seen(fake, target).square().mean()


class PlainESRGAN(PlainSRGAN):
    generator_first = True

    def d_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        real, made = self.d(target), self.d(fake.detach())
        return (F.softplus(made.mean() - real).mean() + F.softplus(made - real.mean()).mean()) / 2

    def g_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        real, made = self.d(target).detach(), self.d(fake)
        told = (F.softplus(real.mean() - made).mean() + F.softplus(real - made.mean()).mean()) / 2
        return 5e-3 * told + 1e-2 * F.l1_loss(fake, target) + self.seen(fake, target).abs().mean()


class PlainContextEncoder(PlainPairs):
    def make(self, source: Tensor, target: Tensor) -> Any:
        return self.g(torch.cat([torch.where(source[:, -1:] > 0.5, -0.1, source[:, :-1]), source[:, -1:]], 1))

    def centre(self, x: Tensor) -> Tensor:
        quarter = x.shape[-1] // 4
        return x[..., quarter:-quarter, quarter:-quarter]

    def d_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        return super().d_loss(source, self.centre(target), fake)

    def g_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        weight = torch.full_like(fake[:, :1], 10.0)
        weight[..., 4:-4, 4:-4] = 1
        error = (weight * (fake - self.centre(target)).square()).sum() / (3 * weight.sum())
        return 0.001 * F.softplus(-self.d(fake)).mean() + 0.999 * error


class PlainGatedInpainting(PlainPairs):
    def says(self, source: Tensor, x: Tensor) -> Tensor:
        return self.d(torch.where(source[:, -1:] > 0.5, x, source[:, :-1]), source)

    def d_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        real, made = self.says(source, target), self.says(source, fake[1].detach())
        return F.relu(1 - real).mean() + F.relu(1 + made).mean()

    def g_loss(self, source: Tensor, target: Tensor, fake: Any) -> Tensor:
        return F.l1_loss(fake[0], target) + F.l1_loss(fake[1], target) - self.says(source, fake[1]).mean()


_LAYERS = (0, 4, 8, 12)


@dataclass(frozen=True)
class PictureWorkload:
    """What is trained, and how; the plain loop trains copies of the model's own networks.

    Args:
        title: What it is, in words.
        model_class: The model of lit_gans.
        networks: Makes a generator and a discriminator.
        plain_class: The loop by hand.
        batch, side: Of the targets.
        scale: Side of a target over that of its source.
        mask: Whether sources have a mask.
        lrs, betas: Of Adam, the paper's defaults.
        arguments: Of the model.
    """

    title: str
    model_class: type[Translation]
    networks: Callable[[], tuple[nn.Module, nn.Module]]
    plain_class: type[PlainPairs]
    batch: int = 4
    side: int = 64
    scale: int = 1
    mask: bool = False
    lrs: tuple[float, float] = (2e-4, 2e-4)
    betas: tuple[float, float] = (0.5, 0.999)
    arguments: dict[str, Any] = field(default_factory=dict)

    def build(self) -> tuple[nn.Module, nn.Module]:
        """A generator and a discriminator, the same each time."""
        torch.manual_seed(0)
        return self.networks()

    def model(self, generator: nn.Module, discriminator: nn.Module, **kwargs: Any) -> Translation:
        """The model of lit_gans that trains these."""
        model = self.model_class(generator, discriminator, **self.arguments, **kwargs)
        model.begun = True
        return model

    def plain(self, generator: nn.Module, discriminator: nn.Module, **kwargs: Any) -> PlainPairs:
        """The loop by hand that trains these, which the model may have wrapped."""
        model = self.model(generator, discriminator)
        return self.plain_class(self, model.generator, model.discriminator, **kwargs)

    def data(self, batches: int, batch: int | None = None) -> DataLoader[Any]:
        """Random pairs."""
        batch, rng = batch or self.batch, torch.Generator().manual_seed(0)
        few = min(batches, 8) * batch
        target = torch.rand(few, 3, self.side, self.side, generator=rng) * 2 - 1
        source = F.avg_pool2d(target, self.scale) if self.scale > 1 else target.flip(0)
        if self.mask:
            hole = torch.zeros(few, 1, self.side, self.side)
            hole[..., self.side // 4 : -self.side // 4, self.side // 4 : -self.side // 4] = 1
            source = torch.cat([target * (1 - hole), hole], 1)
        return DataLoader(TensorDataset(source, target), batch)


def _translators() -> tuple[nn.Module, nn.Module]:
    return (
        nets.ResNetTranslator(blocks=3, base_channels=16),
        nets.PatchDiscriminator(base_channels=16, norm="instance"),
    )


def _seen(**kwargs: Any) -> PerceptualLoss:
    return PerceptualLoss("benchmarks.picture_workloads.Seer?mean=0.5", ("body",), **kwargs)


PICTURE_WORKLOADS = {
    "pix2pix": PictureWorkload(
        "Pix2Pix, U-Net, 64x64, batch 1",
        Pix2Pix,
        lambda: (
            nets.UNetGenerator(depth=6, base_channels=32),
            nets.PatchDiscriminator(in_channels=6, base_channels=32),
        ),
        PlainPix2Pix,
        batch=1,
    ),
    "cyclegan": PictureWorkload("CycleGAN, 64x64, batch 1", CycleGAN, _translators, PlainCycleGAN, batch=1),
    "cut": PictureWorkload("CUT, 64x64, batch 1", CUT, _translators, PlainCUT, batch=1, arguments={"layers": _LAYERS}),
    "srgan": PictureWorkload(
        "SRGAN x4, 64x64, batch 2",
        SRGAN,
        lambda: (nets.SRResNet(base_channels=16, blocks=4), nets.SRDiscriminator(base_channels=16)),
        PlainSRGAN,
        scale=4,
        batch=2,
        lrs=(1e-4, 1e-4),
        betas=(0.9, 0.999),
        arguments={"perceptual": _seen(norm="l2")},
    ),
    "esrgan": PictureWorkload(
        "ESRGAN x4, 64x64, batch 2",
        ESRGAN,
        lambda: (nets.RRDBNet(base_channels=16, blocks=2, growth=8), nets.SRDiscriminator(base_channels=16)),
        PlainESRGAN,
        scale=4,
        batch=2,
        lrs=(1e-4, 1e-4),
        betas=(0.9, 0.99),
        arguments={"perceptual": _seen()},
    ),
    "context_encoder": PictureWorkload(
        "Context encoder, 64x64",
        ContextEncoder,
        lambda: (
            nets.ContextEncoderGenerator(image_size=64, base_channels=32, bottleneck=512),
            nets.ContextEncoderDiscriminator(image_size=32, base_channels=32),
        ),
        PlainContextEncoder,
        mask=True,
        lrs=(2e-3, 2e-4),
    ),
    "gated": PictureWorkload(
        "Gated inpainting, 64x64, batch 1",
        GatedInpainting,
        lambda: (nets.GatedGenerator(base_channels=12), nets.SNPatchDiscriminator(base_channels=12)),
        PlainGatedInpainting,
        batch=1,
        mask=True,
        lrs=(1e-4, 1e-4),
    ),
}
