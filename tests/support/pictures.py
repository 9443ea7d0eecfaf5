"""One instance of each model of pictures from pictures, on the package's own networks made small, and pairs for it."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lit_gans.models
from lit_gans import networks as nets
from lit_gans.models.translation import Translation
from lit_gans.regularizers import PerceptualLoss

_public = {name: getattr(lit_gans.models, name) for name in lit_gans.models.__all__}
TRANSLATORS = {name: cls for name, cls in _public.items() if isinstance(cls, type) and issubclass(cls, Translation)}
SIDE = 16
INPAINTING = ("ContextEncoder", "GatedInpainting")
SUPER = ("SRGAN", "ESRGAN")


class Seer(nn.Module):
    """A small network to look at pictures with."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 4, 3, padding=1, dtype=torch.float32)
        self.second = nn.Conv2d(4, 6, 3, stride=2, dtype=torch.float32)

    def forward(self, x):
        return self.second(self.first(x).tanh()).mean((2, 3))


def perceptual(**kwargs):
    return PerceptualLoss("pictures.Seer?mean=0.5&channels=1", ("first", "second"), **kwargs)


EXTRAS = {
    "CycleGAN": {"pool": 3},
    "CUT": {"layers": (0, 2, 4), "patches": 9, "width": 8},
    "SRGAN": {"perceptual": perceptual(norm="l2", weight=0.1)},
    "ESRGAN": {"perceptual": perceptual(weight=0.1)},
}


def networks(name, seed=0):
    """Both networks; the same numbers for the same seed."""
    torch.manual_seed(seed)
    patch = {"layers": 1, "base_channels": 4}
    if name == "Pix2Pix":
        generator = nets.UNetGenerator(in_channels=1, out_channels=1, depth=3, base_channels=4)
        return generator, nets.PatchDiscriminator(in_channels=2, **patch)
    if name in ("CycleGAN", "CUT"):
        generator = nets.ResNetTranslator(in_channels=1, out_channels=1, blocks=1, base_channels=4)
        return generator, nets.PatchDiscriminator(in_channels=1, norm="instance", **patch)
    if name == "SRGAN":
        generator = nets.SRResNet(scale=2, channels=1, base_channels=4, blocks=1)
        return generator, nets.SRDiscriminator(channels=1, base_channels=4)
    if name == "ESRGAN":
        generator = nets.RRDBNet(scale=2, channels=1, base_channels=4, blocks=1, growth=4)
        return generator, nets.SRDiscriminator(channels=1, base_channels=4)
    if name == "ContextEncoder":
        generator = nets.ContextEncoderGenerator(channels=1, image_size=SIDE, base_channels=4, bottleneck=8)
        return generator, nets.ContextEncoderDiscriminator(channels=1, image_size=SIDE // 2, base_channels=4)
    generator = nets.GatedGenerator(channels=1, base_channels=4)
    return generator, nets.SNPatchDiscriminator(in_channels=2, base_channels=4)


def build(name, seed=0, **kwargs):
    """A model of each kind."""
    return TRANSLATORS[name](*networks(name, seed), **{**EXTRAS.get(name, {}), **kwargs})


def pairs(name, n=24, seed=1):
    """Sources and targets in [-1, 1] for a model, smooth enough that something can be learnt of them."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, 4, 4, generator=rng) * 2 - 1
    target = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bilinear")
    if name in SUPER:
        return nn.functional.avg_pool2d(target, 2), target
    if name in INPAINTING:
        mask = torch.zeros_like(target)
        mask[:, :, SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = 1
        return torch.cat([target * (1 - mask), mask], 1), target
    if name in ("CycleGAN", "CUT"):
        return -target, target.flip(0)
    return -target, target


def loader(name, n=24, batch_size=4):
    """A plain DataLoader in fixed order."""
    return DataLoader(TensorDataset(*pairs(name, n)), batch_size)
