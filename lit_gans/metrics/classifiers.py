"""Two small classifiers, of scikit-learn's digits and of MNIST, that look at images for metrics without downloads.

Their weights are shipped in ``weights``, with a card. ``python -m lit_gans.metrics.classifiers --help`` trains them.
"""

import argparse
import hashlib
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from safetensors.torch import load_file, save
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset
from torchvision.datasets import MNIST

__all__ = ("WEIGHTS", "DigitClassifier", "load_classifier", "main", "read_images", "train_classifier")

Name = Literal["digits", "mnist"]

WEIGHTS = Path(__file__).parent / "weights"
"""Where the shipped weights and their card lie."""


class Recipe(NamedTuple):
    """How a classifier is built and trained."""

    stages: tuple[tuple[int, ...], ...]  # channels of the convolutions, stage by stage
    epochs: int
    batch_size: int
    angle: float  # largest rotation of a training image, in radians
    stretch: float  # largest change of its size, as a fraction
    shift: float  # largest shift, in pixels
    lr: float = 1e-2
    weight_decay: float = 1e-2
    seed: int = 0


RECIPES: dict[Name, Recipe] = {
    "digits": Recipe(((32, 32), (64,)), epochs=60, batch_size=64, angle=0.15, stretch=0.1, shift=0.5),
    "mnist": Recipe(((16, 16), (32, 32), (64,)), epochs=10, batch_size=128, angle=0.2, stretch=0.15, shift=2),
}


class DigitClassifier(nn.Module):
    """Stages of 3×3 convolutions, each with batch norm and ReLU; the maximum of 2×2 pixels between stages.

    Images are float (N, 1, S, S) in [-1, 1]. Returned are the features (N, D), which are the means of the last
    convolution's maps, and the logits (N, 10), a linear function of the features.

    Args:
        *stages: Channels of the convolutions of each stage; the last one is D.

    Example:
        >>> features, logits = DigitClassifier((32, 32), (64,))(torch.zeros(2, 1, 8, 8))
        >>> features.shape, logits.shape
        (torch.Size([2, 64]), torch.Size([2, 10]))
    """

    def __init__(self, *stages: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for stage in stages:
            layers += [nn.MaxPool2d(2)] if layers else []
            for width in stage:
                layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.layers = nn.Sequential(*layers)
        self.last = nn.Linear(channels, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features and logits."""
        features = self.layers(x).mean((2, 3))
        return features, self.last(features)


def load_classifier(name: Name) -> DigitClassifier:
    """The shipped classifier, frozen; loading it draws no random numbers.

    Raises:
        ValueError: If the file of its weights is missing or does not hold them.
    """
    path = WEIGHTS / f"{name}.safetensors"
    with torch.device("meta"):
        network = DigitClassifier(*RECIPES[name].stages)
    try:
        network.load_state_dict(load_file(path), assign=True)
    except Exception as error:  # safetensors and torch raise nearly anything for missing, damaged or foreign files
        raise ValueError(
            f"{path} is missing or does not hold the weights of the classifier {name!r}: install lit_gans again, or "
            f"train them with python -m lit_gans.metrics.classifiers {name}"
        ) from error
    return network.eval().requires_grad_(False)


def read_images(name: Name, train: bool, root: str | Path = "data") -> tuple[Tensor, Tensor]:
    """Images (N, 1, S, S) in [-1, 1] and labels (N,); held out are every fifth of each digit, or MNIST's test set."""
    if name == "digits":
        data = load_digits()
        by_class = np.argsort(data.target, kind="stable")
        held_out = np.arange(len(by_class)) % 5 == 4
        rows = np.sort(by_class[~held_out if train else held_out])
        images = torch.from_numpy((data.images[rows] * (255 / 16)).round())
        labels = torch.from_numpy(data.target[rows])
    else:
        mnist = MNIST(root, train=train, download=True)  # only what is missing
        images, labels = mnist.data, mnist.targets
    return images[:, None].float() / 127.5 - 1, labels.long()


def jitter(images: Tensor, recipe: Recipe) -> Tensor:
    """Each image turned, stretched and shifted a little, on black."""
    angle, stretch, *shift = 2 * torch.rand(4, len(images)) - 1
    angle, stretch = recipe.angle * angle, 1 + recipe.stretch * stretch
    cos, sin = stretch * angle.cos(), stretch * angle.sin()
    x, y = (2 * recipe.shift / images.shape[-1] * direction for direction in shift)
    matrix = torch.stack([cos, -sin, x, sin, cos, y], 1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


class _Training(LightningModule):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = DigitClassifier(*recipe.stages)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        _, logits = self.network(jitter(images, self.recipe))
        return F.cross_entropy(logits, labels)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        lr, steps = self.recipe.lr, int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.AdamW(self.parameters(), lr=lr, weight_decay=self.recipe.weight_decay)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def train_classifier(recipe: Recipe, images: Tensor, labels: Tensor) -> DigitClassifier:
    """The classifier after its last epoch; the same on each call, whatever torch's global seed, which is kept."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(recipe.seed)  # unlike torch.manual_seed, leaves GPUs alone
        training = _Training(recipe)
        batches = BatchSampler(RandomSampler(images), recipe.batch_size, drop_last=True)
        loader = DataLoader(TensorDataset(images, labels), batch_size=None, sampler=batches)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=recipe.epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=sys.stdout.isatty(),
        )
        trainer.fit(training, loader)
    return training.network.eval().requires_grad_(False)


@torch.no_grad()
def accuracy(network: DigitClassifier, images: Tensor, labels: Tensor) -> float:
    """Fraction of the images whose largest logit is that of their label."""
    logits = torch.cat([network(part)[1] for part in images.split(1000)])
    return (logits.argmax(1) == labels).float().mean().item()


def update_card(folder: Path, name: Name, row: str) -> None:
    """Write the row of a classifier into the table of the folder's card, in place of the one that is there."""
    card = folder / "README.md"
    head = f"| model | stages | parameters | features | accuracy | training | SHA-256 |\n{'|---' * 7}|\n"
    text = card.read_text("utf-8") if card.is_file() else head
    text, found = re.subn(rf"^\| {name} \|.*\n", row, text, flags=re.MULTILINE)
    card.write_text(text if found else text + row, "utf-8")


def main(args: Sequence[str] | None = None) -> None:
    """Train a classifier from scratch; write its weights and its row of the card."""
    parser = argparse.ArgumentParser(prog="python -m lit_gans.metrics.classifiers", description=main.__doc__)
    parser.add_argument("name", choices=get_args(Name))
    parser.add_argument("--root", default="data", help="where MNIST is, or is downloaded to (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="instead of the recipe's, for trials")
    parser.add_argument("-o", "--output", type=Path, default=WEIGHTS, help="folder to write to (default: %(default)s)")
    options = parser.parse_args(args)
    name: Name = options.name
    recipe = RECIPES[name]._replace(**{"epochs": options.epochs} if options.epochs else {})

    train, held_out = (read_images(name, part, options.root) for part in (True, False))
    start = time.process_time()
    network = train_classifier(recipe, *train)
    seconds = time.process_time() - start
    score = f"{accuracy(network, *held_out):.2%} of {len(held_out[0])}"
    print(f"{name}: {score} held-out images recognised after {seconds:.0f} s of processor time")

    about = {"classifier": name, "held_out_accuracy": score, **recipe._asdict()}
    data = save(network.state_dict(), {"lit_gans": json.dumps(about)})  # one entry: their order is not kept
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}.safetensors").write_bytes(data)
    widths = " / ".join(", ".join(map(str, stage)) for stage in recipe.stages)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    digest = f"`{hashlib.sha256(data).hexdigest()}`"
    cells = (name, widths, f"{parameters:,}", recipe.stages[-1][-1], score, f"{seconds:.0f} s", digest)
    update_card(options.output, name, f"| {' | '.join(map(str, cells))} |\n")


if __name__ == "__main__":
    main()
