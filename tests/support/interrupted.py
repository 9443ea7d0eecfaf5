"""Runs that are interrupted where a test wishes, and go on; and what is compared afterwards."""

from functools import partial

import torch
from lightning import Callback
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR
from toys import COUPLED, EXTRAS, LATENT, MODELS, networks, trainer

from lit_gans.data import ImageDataModule
from lit_gans.regularizers import R1
from lit_gans.runs import LastCheckpoint, StopOnSignal

STEPS, EPOCH, VALIDATION = 17, 5, 3


class At(Callback):
    """Does something once, when a hook runs at a global step."""

    def __init__(self, hook, step, act):
        self.hook, self.step, self.act, self.done = hook, step, act, False
        setattr(self, hook, self.look)

    def look(self, trainer, *args, **kwargs):
        if trainer.global_step == self.step and not self.done:
            self.done = True
            self.act()


class Axis(Callback):
    """Notes each step and each validation with its place on all axes."""

    def __init__(self):
        self.rows = []

    def note(self, trainer, what, *values):
        loop = trainer.fit_loop.epoch_loop
        self.rows.append((what, loop._batches_that_stepped, trainer.global_step, trainer.current_epoch, *values))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.note(trainer, "step", batch_idx, float(batch[0].sum()), module.images_seen)

    def on_validation_end(self, trainer, module):
        self.note(
            trainer, "validation", *sorted((key, float(value)) for key, value in trainer.callback_metrics.items())
        )


def build(name, **kwargs):
    extra = EXTRAS.get(name, {})
    if name == "GAN":
        extra = {"regularizers": [R1(1.0, every=2)], "d_scheduler": partial(CosineAnnealingLR, T_max=STEPS)}
    kwargs = {"n_critic": 2, "ema_decay": 0.9, "g_scheduler": partial(StepLR, step_size=4)} | kwargs
    kwargs["accumulate"] = 1 if name in COUPLED else 2
    both = networks(name, dropout=0.2, norm=name not in ("WGANGP", "GAN"))
    return MODELS[name](*both, latent_dim=LATENT, **extra, **kwargs)


def fit(folder, name, *callbacks, resume=False, workers=0, steps=STEPS, validation=VALIDATION, **kwargs):
    """A run; returns the model, its trainer, what was noted, and the code it left with."""
    model, axis = build(name), Axis()
    every = {"check_val_every_n_epoch": None, "val_check_interval": validation} if validation else {}
    run = trainer(
        folder,
        max_steps=steps,
        enable_checkpointing=True,
        num_sanity_val_steps=0,
        callbacks=[axis, *callbacks, StopOnSignal(), LastCheckpoint(str(folder), 1000)],
        **(every | kwargs),
    )
    data = ImageDataModule(
        "fake", image_size=6, channels=1, batch_size=4, fake_length=4 * EPOCH, fake_classes=3, num_workers=workers
    )
    code = None
    try:
        run.fit(model, data, ckpt_path=folder / "last.ckpt" if resume else None)
    except SystemExit as left:
        code = left.code
    return model, run, axis.rows, code


def states(run):
    return [{"state": optimizer.state_dict()["state"]} for optimizer in run.optimizers]


def equal(a, b):
    """Nested values, tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b if not isinstance(a, list) else len(a) == len(b) and all(map(equal, a, b))


def crash():
    raise RuntimeError("no more")
