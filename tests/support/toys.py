"""Small networks, data and trainers that know nothing of lit_gans, and one instance of each of its models."""

from itertools import cycle

import pytest
import torch
from lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lit_gans.models
from lit_gans.models import GAN
from lit_gans.models.translation import Translation

_public = {name: getattr(lit_gans.models, name) for name in ("GAN", *lit_gans.models.__all__)}
MODELS = {name: cls for name, cls in _public.items() if issubclass(cls, GAN) and not issubclass(cls, Translation)}
LATENT, SIDE, CLASSES = 8, 6, 3
COUPLED = {name for name, cls in MODELS.items() if cls.traits.couples_samples} | {"StyleGAN2"}  # by its path lengths
WIDE = ("GAN", "DCGAN", "WGAN", "WGANGP", "SNGAN", "CGAN", "BEGAN", "InfoGAN", "StyleGAN2")  # no two work alike
SOME = [name if name in WIDE else pytest.param(name, marks=pytest.mark.exhaustive) for name in MODELS]  # by default

THETA, PSI = 0.7, -1.3  # of Dirac-GAN
CONDITIONAL = ("ACGAN", "CGAN", "ProjectionGAN", "ReACGAN")  # models of labels
SEEING = ("CGAN", "ProjectionGAN")  # whose discriminators are given them
HEADS = {"ACGAN": CLASSES, "InfoGAN": 5, "ReACGAN": 4, "SSGAN": 4}  # width of the discriminator's second answer
EXTRAS = {  # arguments without which a model is not built, or not as small
    **{name: {"num_classes": CLASSES} for name in CONDITIONAL},
    "InfoGAN": {"categorical": [3], "continuous": 1},
    "ReACGAN": {"num_classes": CLASSES, "embed_dim": 4},
}


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
    """An MLP with smooth activations; answers (N,), (N, 1) or a patch map, and a head beside it if it has one."""

    def __init__(self, classes=None, side=SIDE, answer="column", head=None, pack=1):
        super().__init__()
        self.embed = nn.Embedding(classes, 4) if classes else None
        wide = side * side * pack + (4 if classes else 0)
        self.body = nn.Sequential(nn.Linear(wide, 16), nn.Softplus(), nn.Linear(16, 4 + (head or 0)))
        self.answer, self.head = answer, head

    def forward(self, x, y=None):
        x = x.flatten(1)
        out = self.body(x if self.embed is None else torch.cat([x, self.embed(y)], 1))
        logits = out[:, :4].view(-1, 1, 2, 2) if self.answer == "patch" else out[:, :1]
        logits = out[:, 0] if self.answer == "flat" else logits
        return logits if self.head is None else (logits, out[:, 4:])


class Autoencoder(nn.Module):
    """A discriminator of EBGAN and BEGAN."""

    def __init__(self, side=SIDE):
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(side * side, 4), nn.Softplus())
        self.decode = nn.Sequential(nn.Linear(4, side * side), nn.Unflatten(1, (1, side, side)))

    def forward(self, x):
        code = self.encode(x)
        return self.decode(code), code


class Point(nn.Module):
    """G(z) = θ."""

    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(THETA))

    def forward(self, z, y=None):
        return self.theta.expand(len(z), 1)


class Slope(nn.Module):
    """D(x) = ψx."""

    def __init__(self, psi=PSI):
        super().__init__()
        self.psi = nn.Parameter(torch.tensor(psi))

    def forward(self, x, y=None):
        return self.psi * x


def networks(name, seed=0, answer="column", **kwargs):
    """Both networks for a model; the same numbers for the same seed."""
    torch.manual_seed(seed)
    latent_dim = LATENT + (4 if name == "InfoGAN" else 0)
    generator = Generator(CLASSES if name in CONDITIONAL else None, latent_dim, **kwargs)
    if name in ("EBGAN", "BEGAN"):
        return generator, Autoencoder()
    classes = CLASSES if name in SEEING else None
    return generator, Discriminator(classes, answer=answer, head=HEADS.get(name), pack=1 + (name == "PacGAN"))


def build(name, seed=0, **kwargs):
    """A model of each kind on fresh toy networks."""
    return MODELS[name](*networks(name, seed), **{"latent_dim": LATENT, **EXTRAS.get(name, {}), **kwargs})


def labels(name, n):
    """Labels for n images of a model of labels, codes for one of codes, None for the others."""
    if name == "InfoGAN":
        return build(name).draw_labels(n, torch.Generator().manual_seed(0))
    return torch.arange(n) % CLASSES if name in CONDITIONAL else None


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


def by_turns(rows, columns, some=None):
    """All pairs of a matrix. By default each row, of some rows, meets one column, in turn; the rest is exhaustive."""
    turns = cycle(columns)
    dealt = {row: next(turns) for row in rows if some is None or row in some}
    return [
        pytest.param(row, column, marks=() if dealt.get(row) == column else pytest.mark.exhaustive)
        for row in rows
        for column in columns
    ]
