"""Small networks, data and trainers that know nothing of lit_gans, and one instance of each of its models."""

import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lit_gans.models import CGAN, DCGAN, GAN, SNGAN, WGAN, WGANGP

MODELS = {"GAN": GAN, "DCGAN": DCGAN, "WGAN": WGAN, "WGANGP": WGANGP, "SNGAN": SNGAN, "CGAN": CGAN}
LATENT, SIDE, CLASSES = 8, 6, 3


class Generator(nn.Module):
    """An MLP; conditional if it has classes."""

    def __init__(self, classes=None, latent_dim=LATENT, side=SIDE, dropout=0.0, norm=False):
        super().__init__()
        self.embed = nn.Embedding(classes, 4) if classes else None
        layers = [nn.Linear(latent_dim + (4 if classes else 0), 16)]
        layers += [nn.BatchNorm1d(16)] if norm else []
        layers += [nn.Softplus(), nn.Dropout(dropout), nn.Linear(16, side * side), nn.Tanh()]
        self.body = nn.Sequential(*layers)
        self.side = side

    def forward(self, z, y=None):
        z = z if self.embed is None else torch.cat([z, self.embed(y)], 1)
        return self.body(z).view(-1, 1, self.side, self.side)


class Discriminator(nn.Module):
    """An MLP with smooth activations; answers (N,), (N, 1) or a patch map."""

    def __init__(self, classes=None, side=SIDE, answer="column"):
        super().__init__()
        self.embed = nn.Embedding(classes, 4) if classes else None
        self.body = nn.Sequential(nn.Linear(side * side + (4 if classes else 0), 16), nn.Softplus(), nn.Linear(16, 4))
        self.answer = answer

    def forward(self, x, y=None):
        x = x.flatten(1)
        out = self.body(x if self.embed is None else torch.cat([x, self.embed(y)], 1))
        if self.answer == "patch":
            return out.view(-1, 1, 2, 2)
        return out[:, :1] if self.answer == "column" else out[:, 0]


def networks(name, seed=0, **kwargs):
    """Both networks for a model; the same numbers for the same seed."""
    classes = CLASSES if name == "CGAN" else None
    torch.manual_seed(seed)
    return Generator(classes, **kwargs), Discriminator(classes)


def build(name, seed=0, **kwargs):
    """A model of each kind on fresh toy networks."""
    extra = {"num_classes": CLASSES} if name == "CGAN" else {}
    return MODELS[name](*networks(name, seed), **{"latent_dim": LATENT, **extra, **kwargs})


def images(n=48, seed=1, side=SIDE):
    """Random images in [-1, 1]."""
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def loader(n=48, batch_size=8, labels=True):
    """A plain DataLoader in fixed order."""
    x = images(n)
    return DataLoader(TensorDataset(x, torch.arange(n) % CLASSES) if labels else TensorDataset(x), batch_size)


class Batches:
    """A loader that is no DataLoader: the batches given, in order."""

    def __init__(self, *batches):
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)

    def __len__(self):
        return len(self.batches)


def trainer(tmp_path, **kwargs):
    """A quiet Trainer on the CPU."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    defaults = {"accelerator": "cpu", "devices": 1, "logger": False, "default_root_dir": tmp_path}
    return Trainer(**{**quiet, **defaults, **kwargs})


def weights(module):
    """A copy of all weights and buffers."""
    return {key: value.detach().clone() for key, value in module.state_dict().items()}


def same(a, b):
    """Whether two such copies are equal bit by bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
