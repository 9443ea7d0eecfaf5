"""Do all models stay finite? Each trains on digits with its class's default settings.

    python -m benchmarks.models [--steps 2000]

Networks are those of lit_gans.networks at 8 pixels, small: fully connected ones for GAN and CGAN, DCGAN's for the
others, without normalisation in the discriminators that bring a constraint of their own. The last three columns are no
bar, 2,000 steps are a beginning: what a classifier trained on real digits makes of 1,000 samples, as in
benchmarks.quickstart. Writes benchmarks/results/models.md; exit code 1 if anything is not finite.
"""

import argparse
import math
import os
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from lightning import Trainer, seed_everything
from sklearn.neural_network import MLPClassifier

from benchmarks.quickstart import SAMPLES, pixels, real, spread
from lit_gans.data import ImageDataModule
from lit_gans.functional import to_uint8
from lit_gans.models import CGAN, DCGAN, GAN, SNGAN, WGAN, WGANGP
from lit_gans.networks import DCGANDiscriminator, DCGANGenerator, MLPDiscriminator, MLPGenerator

MLP = MLPGenerator, MLPDiscriminator, {"widths": (256, 256)}
CONV = DCGANGenerator, DCGANDiscriminator, {"width": 32}
LATENTS = {CGAN: 100, DCGAN: 100}  # 128 for the others
CASES = (
    (GAN, MLP, {}, {}),
    (DCGAN, CONV, {}, {}),
    (WGAN, CONV, {}, {}),
    (WGANGP, CONV, {"norm": None}, {}),
    (SNGAN, CONV, {"norm": None}, {}),
    (CGAN, MLP, {}, {"num_classes": 10}),
)
HEADER = ("model", "networks", "seconds", "d_loss", "g_loss", "finite", "sure", "rarest class", "distance")


def train(model_class, networks, critic, classes, steps):
    seed_everything(0, verbose=False)
    size = {"image_size": 8, "channels": 1, **networks[2], **classes}
    latent_dim = LATENTS.get(model_class, 128)
    generator, discriminator = networks[0](latent_dim=latent_dim, **size), networks[1](**size, **critic)
    model = model_class(generator, discriminator, **classes)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        log_every_n_steps=model.n_critic * 10,  # steps at which both players are updated
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    start = time.perf_counter()
    trainer.fit(model, ImageDataModule("digits"))
    seconds = time.perf_counter() - start
    losses = [trainer.callback_metrics[f"train/{player}_loss"].item() for player in "dg"]
    finite = all(map(math.isfinite, losses)) and all(bool(v.isfinite().all()) for v in model.state_dict().values())
    return model, seconds, losses, finite


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    judge = MLPClassifier((100,), max_iter=400, random_state=0).fit(*real("digits", None, train=True))
    held_out, _ = real("digits", None, train=False)
    real_sure = (judge.predict_proba(held_out).max(1) >= 0.9).mean()
    rows = [HEADER, ("---",) * len(HEADER)]
    for model_class, networks, critic, classes in CASES:
        model, seconds, losses, finite = train(model_class, networks, critic, classes, options.steps)
        samples = pixels(to_uint8(model.sample(SAMPLES, seed=0)))
        belief = judge.predict_proba(samples)
        shares = np.bincount(belief.argmax(1), minlength=10) / SAMPLES
        judged = (belief.max(1) >= 0.9).mean() / real_sure, shares.min(), spread(samples) / spread(held_out)
        kind = networks[0].__name__.removesuffix("Generator") + (", D without norm" if critic else "")
        numbers = (f"{seconds:.0f}", *(f"{loss:.3f}" for loss in losses), "yes" if finite else "NO")
        rows.append((model_class.__name__, kind, *numbers, *(f"{value:.2f}" for value in judged)))
        print(" | ".join(rows[-1]), flush=True)
    threads = os.environ.get("OMP_NUM_THREADS")
    command = f"{f'OMP_NUM_THREADS={threads} ' if threads else ''}python -m benchmarks.models --steps {options.steps}"
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    output = Path(__file__).parent / "results" / "models.md"
    output.write_text(f"`{command}` (torch {torch.__version__})\n\n{table}\n")
    return 0 if all("NO" not in row for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
