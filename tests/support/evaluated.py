"""A toy model measured in the validation loop, on one process or, run as a script, on two."""

import json
import sys
from pathlib import Path

import torch
from torch import nn
from toys import SIDE, build, trainer

from lit_gans.callbacks import GenerativeMetrics
from lit_gans.data import ImageDataModule
from lit_gans.metrics import FeatureExtractor, Protocol


class Judge(nn.Module):
    """Random features and logits."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.hidden, self.last = nn.Linear(SIDE**2, 12), nn.Linear(12, 5)

    def forward(self, x):
        features = self.hidden(x.flatten(1)).relu()
        return features, self.last(features)


def judge(**options):
    """An extractor for toy images."""
    return FeatureExtractor(Judge(), "judge", image_size=SIDE, channels=1, **options)


def run(folder, devices):
    """Values and stamp of an untrained model; numbers of images that no two processes divide."""
    data = ImageDataModule("fake", image_size=SIDE, channels=1, batch_size=4, fake_length=101, fake_classes=3)
    callback = GenerativeMetrics(
        ["fd", "fd_infinity", "is", "kid", "mmd", "pr", "classes"],
        judge(),
        Protocol(fakes=201, kid_subsets=5, kid_subset_size=40, is_splits=3),
        every_n_steps=1,
    )
    loop = trainer(
        folder,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_steps=1,
        use_distributed_sampler=False,
        callbacks=[callback],
    )
    loop.fit(build("GAN", g_lr=0.0, d_lr=0.0), data)
    with open(Path(folder, f"{loop.global_rank}.json"), "w") as file:
        json.dump([callback.last, callback.result.protocol], file)
    return callback.last, callback.result.protocol


if __name__ == "__main__":
    run(sys.argv[1], devices=2)
