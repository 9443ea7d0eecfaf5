"""Numbers that change while a model learns: when, to what, and exactly so after a checkpoint."""

import math

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import LATENT, build, loader, same, trainer, weights

from lit_gans.augment import ADA
from lit_gans.models import GAN, R3GAN, Schedule
from lit_gans.regularizers import R1

RECIPE = (
    Schedule("gamma", 0.05, 0.005, steps=8),
    Schedule("beta2", 0.9, 0.99, steps=8, shape="linear"),
    Schedule("augment.p", 0.0, 0.55, steps=8),
    Schedule("ema_kimg", 0.0, 0.1, steps=8),
)


class Note(Callback):
    """What was in force in each step."""

    def __init__(self):
        self.rows = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        betas = {optimizer.param_groups[0]["betas"] for optimizer in trainer.optimizers}
        self.rows.append((pl_module.gamma, betas, pl_module.augment.p.item(), pl_module.ema_kimg))


def recipe(**kwargs):
    augment = ADA(geometry=False, every=1, kimg=0.01)
    return build("R3GAN", seed=0, augment=augment, ema_kimg=1.0, schedules=RECIPE, **kwargs)


def test_the_recipe_of_r3gan_follows_its_cosines_and_nothing_else_moves_them(tmp_path):
    note = Note()
    trainer(tmp_path, max_steps=12, callbacks=[note]).fit(recipe(), loader())
    for step, (gamma, betas, p, ema) in enumerate(note.rows):
        fallen = (1 - math.cos(math.pi * min(step / 8, 1))) / 2
        assert gamma == pytest.approx(0.05 - 0.045 * fallen)
        assert betas == {(0.0, RECIPE[1].at(step))}
        assert p == pytest.approx(0.55 * fallen, abs=1e-6)
        assert ema == pytest.approx(0.1 * fallen)


def test_it_goes_on_exactly_after_a_checkpoint(tmp_path):
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")
    whole, rest = recipe(), recipe()
    trainer(tmp_path, max_steps=9, callbacks=[saver], enable_checkpointing=True).fit(whole, loader())
    trainer(tmp_path, max_steps=9).fit(rest, loader(), ckpt_path=tmp_path / "step=6.ckpt", weights_only=True)
    assert same(weights(whole), weights(rest))


def test_terms_of_the_loss_have_the_weight_of_the_step(tmp_path):
    """Without a schedule of the same values the run is another one."""
    ends = []
    for schedules in ((), [Schedule("regularizers.0.weight", 3.0, 3.0, steps=1)], [Schedule("n_critic", 1, 1, 1)]):
        model = build("GAN", seed=0, regularizers=[R1(1.0)], schedules=schedules)
        trainer(tmp_path, max_steps=3).fit(model, loader())
        ends.append(weights(model))
    three = build("GAN", seed=0, regularizers=[R1(3.0)])
    trainer(tmp_path, max_steps=3).fit(three, loader())
    assert same(ends[1], weights(three))
    assert not same(ends[0], ends[1])
    assert same(ends[0], ends[2])


def test_what_is_measured_between_is_kept_for_the_rows_after_resuming(tmp_path):
    """ADA moves at every third step here, and each row of the log has its p, also the first ones after a checkpoint."""

    class Rows(Callback):
        def __init__(self):
            self.rows = {}

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.rows[trainer.global_step] = trainer.callback_metrics.get("train/augment_p")

    rows = []
    for ckpt in (None, tmp_path / "step=6.ckpt"):
        model = build("GAN", seed=0, augment=ADA(geometry=False, every=5, kimg=0.1, target=-1.0))
        note, saver = Rows(), ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")
        run = trainer(tmp_path, max_steps=9, callbacks=[note, saver], enable_checkpointing=True, log_every_n_steps=1)
        run.fit(model, loader(), ckpt_path=ckpt, weights_only=None if ckpt is None else True)
        rows.append(note.rows)
    assert [rows[0][step] for step in (7, 8, 9)] == [rows[1][step] for step in (7, 8, 9)]
    assert rows[1][7].item() == pytest.approx(0.4)


def test_the_strength_of_ada_is_logged_and_no_longer_adapts(tmp_path):
    model = recipe()
    run = trainer(tmp_path, max_steps=4, log_every_n_steps=1)
    run.fit(model, loader())
    logged = run.logged_metrics
    assert logged["train/gamma"].item() == pytest.approx(RECIPE[0].at(3))
    assert logged["train/augment_p"].item() == pytest.approx(RECIPE[2].at(3))
    assert model.augment.seen.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ([Schedule("gama", 1, 0, 5)], "'gama' is no number of R3GAN; there are .*gamma.*augment.p.*beta1 and beta2"),
        ([Schedule("augment.p", 1, 0, 5)], "'augment.p' is no number"),
        ([Schedule("beta2", 0.9, 0.99, 5)] * 2, "there are two of 'beta2'"),
    ],
)
def test_what_is_no_number_is_refused_before_training(schedules, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, max_steps=1).fit(build("R3GAN", schedules=schedules), loader())


def test_an_optimizer_without_betas_is_named(tmp_path):
    model = build("GAN", d_optimizer=torch.optim.SGD, schedules=[Schedule("beta2", 0.9, 0.99, 5)])
    with pytest.raises(ValueError, match="SGD has no betas"):
        trainer(tmp_path, max_steps=1).fit(model, loader())


def test_wrong_schedules_are_refused_when_they_are_written():
    with pytest.raises(ValueError, match="Schedule of gamma: steps must be at least 1, got 0"):
        Schedule("gamma", 1, 0, 0)
    with pytest.raises(ValueError, match="shape='square' is not known"):
        Schedule("gamma", 1, 0, 5, "square")


def test_schedules_come_back_with_a_checkpoint(tmp_path):
    from lit_gans.networks import MLPDiscriminator, MLPGenerator

    sizes = {"image_size": 6, "widths": [8]}
    networks = MLPGenerator(latent_dim=LATENT, **sizes), MLPDiscriminator(**sizes)
    model = R3GAN(*networks, latent_dim=LATENT, schedules=RECIPE[:2])
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    assert GAN.load_from_checkpoint(tmp_path / "x.ckpt").schedules == RECIPE[:2]


def test_schedules_of_a_config_come_back_with_its_checkpoint(tmp_path, monkeypatch):
    from lit_gans.cli import main
    from lit_gans.commands.restoring import load_model

    monkeypatch.chdir(tmp_path)
    (tmp_path / "r3gan.yaml").write_text(
        """
model:
  class_path: R3GAN
  init_args:
    generator: {class_path: MLPGenerator, init_args: {image_size: 8, channels: 1, latent_dim: 4, widths: [8]}}
    discriminator: {class_path: MLPDiscriminator, init_args: {image_size: 8, channels: 1, widths: [8]}}
    latent_dim: 4
    schedules:
      - {of: gamma, start: 0.05, end: 0.005, steps: 8}
data: {dataset: digits}
trainer: {max_steps: 2, logger: false, accelerator: cpu, enable_progress_bar: false, limit_val_batches: 0}
"""
    )
    main(["fit", "--config", "r3gan.yaml"])
    (path,) = tmp_path.glob("runs/*/*/checkpoints/last.ckpt")
    assert load_model(path).schedules == RECIPE[:1]
