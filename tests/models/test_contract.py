"""What every model promises, whatever its paper."""

import copy
import math
from functools import partial

import pytest
import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from toys import (
    CLASSES,
    COUPLED,
    EXTRAS,
    LATENT,
    MODELS,
    Batches,
    Discriminator,
    Generator,
    build,
    by_turns,
    images,
    labels,
    loader,
    networks,
    same,
    trainer,
    weights,
)

from lit_gans.functional import Batch
from lit_gans.models import GAN, WGANGP, AdaptiveClip, NormClip, ValueClip
from lit_gans.regularizers import R1, Regularizer

SPECTRAL = ("SNGAN", "ProjectionGAN", "SSGAN", "SAGAN", "BigGAN", "ReACGAN")
all_models = pytest.mark.parametrize("name", MODELS)


class Spy(Callback):
    """Notes which network each optimizer step changed, and the axes after each batch."""

    def __init__(self):
        self.changes, self.steps = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = weights(pl_module.generator), weights(pl_module.discriminator)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        moved = [
            any(not torch.equal(before[k], v) for k, v in network.named_parameters())
            for before, network in zip(self.before, (pl_module.generator, pl_module.discriminator), strict=True)
        ]
        self.changes.append(tuple(moved))
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(("name", "n_critic"), by_turns(MODELS, [1, 3]))
def test_one_batch_is_one_step_whatever_n_critic(name, n_critic, tmp_path):
    spy = Spy()
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=4, save_top_k=-1, filename="{step}")
    run = trainer(tmp_path, max_steps=10, callbacks=[spy, saver], enable_checkpointing=True)
    run.fit(build(name, n_critic=n_critic), loader())
    assert spy.steps == list(range(1, 11))
    assert spy.changes == [(step % n_critic == 0, True) for step in range(1, 11)]
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=4.ckpt", "step=8.ckpt"]


@all_models
def test_an_update_of_one_player_leaves_the_other_alone(name, tmp_path):
    class Watched(MODELS[name]):
        def update(self, player, *closures):
            other = self.generator if player == "discriminator" else self.discriminator
            parameters = [p.detach().clone() for p in other.parameters()]
            gradients = [p.grad if p.grad is None else p.grad.clone() for p in other.parameters()]
            terms = super().update(player, *closures)
            assert all(torch.equal(a, b) for a, b in zip(parameters, other.parameters(), strict=True))
            for before, parameter in zip(gradients, other.parameters(), strict=True):
                assert (before is None and parameter.grad is None) or torch.equal(before, parameter.grad)
            players = self.generator, self.discriminator
            assert all(p.requires_grad for network in players for p in network.parameters())
            played.append(player)
            return terms

    played = []
    model = Watched(*networks(name), latent_dim=LATENT, n_critic=2, **EXTRAS.get(name, {}))
    trainer(tmp_path, max_steps=4).fit(model, loader())
    assert played == ["discriminator", "discriminator", "generator"] * 2


@all_models
def test_accumulation_equals_the_large_batch_or_is_refused(name, tmp_path, monkeypatch):
    ends = []
    monkeypatch.setattr("lit_gans.models.dragan.perturb", lambda real, noise, rng: real)  # drawn by the part
    if name in COUPLED:
        with pytest.raises(ValueError, match=f"accumulate=4: ({name}|PathLength) compares the samples of a batch"):
            build(name, accumulate=4)
        return
    for accumulate in (1, 4, 3):  # 3 does not divide the batch of 8
        model = build(name, accumulate=accumulate, n_critic=2)
        trainer(tmp_path, max_steps=6).fit(model, loader())
        ends.append(weights(model))
    for other in ends[1:]:
        for key, value in ends[0].items():
            # power iteration runs once a forward, so its vectors see more of them in parts
            if "_u" not in key and "_v" not in key and not (name in SPECTRAL and "discriminator" in key):
                assert torch.allclose(value, other[key], rtol=0, atol=2e-4 if name in SPECTRAL else 1e-5), key


@pytest.mark.parametrize(("name", "precision"), by_turns(MODELS, ["32-true", "bf16-mixed", "64-true"]))
def test_trains_in_each_precision_and_stays_finite(name, precision, tmp_path):
    model = build(name)
    trainer(tmp_path, max_steps=8, precision=precision).fit(model, loader())
    assert all(torch.isfinite(value).all() for value in weights(model).values())
    assert not same(weights(model.generator), weights(build(name).generator))
    assert torch.isfinite(model.sample(3, seed=0)).all()


@all_models
def test_two_runs_of_one_seed_are_equal_and_of_two_seeds_are_not(name, tmp_path):
    ends = []
    for seed in (5, 5, 6):
        model = build(name, seed=0)
        model.seed = seed
        trainer(tmp_path, max_steps=5).fit(model, loader())
        ends.append(weights(model))
    assert same(ends[0], ends[1])
    assert not same(ends[0], ends[2])


@all_models
def test_checkpoint_round_trip_and_continuation_are_exact(name, tmp_path):
    def fit(steps, ckpt=None):
        saver = ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")
        run = trainer(tmp_path, max_steps=steps, callbacks=[saver], enable_checkpointing=True)
        model = build(
            name, ema_decay=0.9, n_critic=2, g_scheduler=lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9)
        )
        run.fit(model, loader(), ckpt_path=ckpt, weights_only=True)
        return model, run

    whole, run = fit(12)
    resumed, resumed_run = fit(12, tmp_path / "step=6.ckpt")
    assert same(weights(whole), weights(resumed))
    assert whole.images_seen == resumed.images_seen == 12 * 8
    for a, b in zip(run.optimizers, resumed_run.optimizers, strict=True):
        left, right = a.state_dict(), b.state_dict()
        assert left["param_groups"] == right["param_groups"]
        assert str(left["state"]) == str(right["state"])
    generator, discriminator = networks(name, seed=9)
    loaded = MODELS[name].load_from_checkpoint(
        tmp_path / "step=12.ckpt", generator=generator, discriminator=discriminator, weights_only=True
    )
    assert same(weights(loaded), weights(whole))
    assert loaded.n_critic == 2
    assert torch.equal(loaded.sample(5, seed=3), whole.sample(5, seed=3))


@all_models
def test_sample_is_a_function_of_seed_and_index(name):
    model = build(name, ema_decay=0.9)
    model.train()
    state = torch.get_rng_state()
    many = model.sample(150, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert many.shape == (150, 1, 6, 6)
    assert not many.requires_grad
    assert torch.equal(many, model.sample(150, seed=4))
    assert not torch.equal(many, model.sample(150, seed=5))
    z, y = model.draw_inputs(150, seed=4)
    for n, start in ((1, 0), (70, 0), (40, 63), (3, 147)):
        part_z, part_y = model.draw_inputs(n, seed=4, start=start)
        assert torch.equal(part_z, z[start : start + n])
        assert (y is None and part_y is None) or torch.equal(part_y, y[start : start + n])
        assert torch.allclose(model.sample(n, seed=4, start=start), many[start : start + n], atol=1e-5)
    assert torch.allclose(model.sample(150, seed=4, batch_size=7), many, atol=1e-5)
    assert model.training
    assert model.generator.training
    assert many.unique(dim=0).shape[0] == 150


@all_models
def test_drops_into_a_foreign_project(name, tmp_path):
    """A foreign LightningModule owns one of ours as a part and trains it in a foreign Trainer by its public parts."""

    class Foreign(LightningModule):
        def __init__(self, gan):
            super().__init__()
            self.gan, self.automatic_optimization = gan, False

        def configure_optimizers(self):
            return [torch.optim.SGD(p.parameters(), 0.1) for p in (self.gan.discriminator, self.gan.generator)]

        def training_step(self, batch, batch_idx):
            real, y = self.gan.unpack_batch(batch)
            y = labels(name, len(real)) if name == "InfoGAN" else y
            for optimizer, loss in zip(
                self.optimizers(), (self.gan.discriminator_loss, self.gan.generator_loss), strict=True
            ):
                optimizer.zero_grad()
                fake = self.gan(torch.randn(len(real), LATENT), y)
                self.manual_backward(sum(loss(Batch(real, y), Batch(fake, y)).values()))
                optimizer.step()

    model = build(name)
    before = weights(model)
    trainer(tmp_path, max_steps=4).fit(Foreign(model), loader())
    assert not same(before, weights(model))


@all_models
def test_hooks_return_scalar_terms_and_leave_their_inputs_alone(name):
    model = build(name)
    real, y = images(8), labels(name, 8)
    fake = model.generate(torch.randn(8, LATENT), y)
    kept = real.clone(), fake.detach().clone()
    d_terms, g_terms = (
        model.discriminator_loss(Batch(real, y), Batch(fake.detach(), y)),
        model.generator_loss(Batch(real, y), Batch(fake, y)),
    )
    for terms in (d_terms, g_terms):
        assert terms
        assert all(isinstance(key, str) and value.shape == () and value.requires_grad for key, value in terms.items())
    assert torch.equal(real, kept[0])
    assert torch.equal(fake, kept[1])
    torch.stack(list(g_terms.values())).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.generator.parameters())


@all_models
@pytest.mark.parametrize("answer", ["column", "flat", "patch"])
def test_discriminators_answer_columns_vectors_and_patch_maps(name, answer, tmp_path):
    model = MODELS[name](*networks(name, answer=answer), latent_dim=LATENT, **EXTRAS.get(name, {}))
    trainer(tmp_path, max_steps=3).fit(model, loader())
    assert all(torch.isfinite(value).all() for value in weights(model).values())


@pytest.mark.parametrize(
    ("batch", "labelled"),
    [
        (images(4), False),
        ((images(4),), False),
        ([images(4), torch.arange(4) % 3], True),
        ({"image": images(4), "label": torch.arange(4) % 3}, True),
        ({"image": images(4)}, False),
    ],
)
def test_batches_of_every_form(batch, labelled):
    x, y = build("GAN").unpack_batch(batch)
    assert torch.equal(x, images(4))
    assert y is None
    if labelled:
        assert build("CGAN").unpack_batch(batch)[1].tolist() == [0, 1, 2, 0]
    else:
        with pytest.raises(ValueError, match="num_classes=3, but the batch holds no labels"):
            build("CGAN").unpack_batch(batch)


def test_labels_of_fakes_come_from_the_batch_or_are_uniform(tmp_path):
    class Kept(Generator):
        def forward(self, z, y=None):
            if self.training:
                seen.append(y.tolist())
            return super().forward(z, y)

    for uniform in (False, True):
        seen = []
        model = build("CGAN", uniform_labels=uniform)
        model.generator = Kept(CLASSES)
        zeros = Batches((images(64), torch.zeros(64, dtype=torch.int64)))
        trainer(tmp_path, max_steps=1).fit(model, zeros)
        assert len(seen) == 2
        for drawn in seen:
            assert set(drawn) == ({0, 1, 2} if uniform else {0})


def test_labels_reach_the_discriminator_with_their_own_images():
    class Picky(nn.Module):
        def forward(self, x, y):
            return 2.0 * y + x.flatten(1).mean(1)

    model = GAN(Generator(CLASSES), Picky(), latent_dim=LATENT, num_classes=3)
    zeros, y, y_fake = torch.zeros(2, 1, 6, 6), torch.tensor([0, 1]), torch.tensor([2, 2])
    terms = model.discriminator_loss(Batch(zeros, y), Batch(zeros, y_fake))
    assert terms["real"].item() == pytest.approx((math.log(2) + math.log1p(math.exp(-2))) / 2)
    assert terms["fake"].item() == pytest.approx(math.log1p(math.exp(4)))
    assert model.discriminator_loss(Batch(zeros, y), Batch(zeros, y))["fake"].item() == pytest.approx(
        (math.log(2) + math.log1p(math.exp(2))) / 2
    )


def test_ema_is_the_recursion_and_buffers_are_copied(tmp_path):
    torch.manual_seed(0)
    model = GAN(Generator(norm=True), Discriminator(), latent_dim=LATENT, ema_decay=0.75, n_critic=2)
    trail = [copy.deepcopy(model.generator.state_dict())]

    class Trail(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step % 2 == 0:
                trail.append(copy.deepcopy(pl_module.generator.state_dict()))

    trainer(tmp_path, max_steps=6, callbacks=[Trail()]).fit(model, loader())
    for key, parameter in model.generator.named_parameters():
        expected = trail[0][key]
        for state in trail[1:]:
            expected = 0.75 * expected + 0.25 * state[key]
        assert torch.allclose(model.g_ema.get_parameter(key), expected, atol=1e-6), key
        assert not torch.equal(expected, parameter)
    for key, buffer in model.generator.named_buffers():
        assert torch.equal(model.g_ema.get_buffer(key), buffer)
    assert not torch.equal(model.sample(4, seed=0), model.sample(4, seed=0, ema=False))
    assert not hasattr(build("GAN"), "g_ema")


def test_ema_in_kimg_halves_after_so_many_images(tmp_path):
    class Still(GAN):
        def generator_loss(self, real, fake):
            return {"nothing": 0 * fake.x.sum()}

    for rampup, decay in ((None, 0.5), (0.5, 0.5 ** (16 / 8) * 0.5 ** (16 / 16))):
        torch.manual_seed(0)
        model = Still(Generator(), Discriminator(), latent_dim=LATENT, ema_kimg=0.032, ema_rampup=rampup)
        start = {key: value + 1.0 for key, value in model.generator.state_dict().items()}
        model.g_ema.load_state_dict(start)
        trainer(tmp_path, max_steps=2).fit(model, loader(batch_size=16))
        for key, value in model.generator.state_dict().items():
            assert torch.allclose(model.g_ema.state_dict()[key] - value, torch.full_like(value, decay), atol=1e-5)


@pytest.mark.parametrize(
    ("clip", "limit"),
    [
        (0.01, lambda p, g: torch.cat([x.flatten() for x in g]).norm() <= 0.01 * (1 + 1e-4)),
        (NormClip(0.02), lambda p, g: torch.cat([x.flatten() for x in g]).norm() <= 0.02 * (1 + 1e-4)),
        (ValueClip(1e-4), lambda p, g: max(x.abs().max() for x in g) <= 1e-4),
        (
            AdaptiveClip(clip_factor=0.001, eps=1e-3),
            lambda p, g: all(
                (y.norm(dim=-1) <= 0.001 * x.norm(dim=-1).clamp_min(1e-3) * (1 + 1e-4)).all()
                for x, y in zip(p, g, strict=True)
            ),
        ),
    ],
)
@pytest.mark.parametrize("player", ["g", "d"])
def test_each_player_is_clipped_by_its_own_rule(clip, limit, player, tmp_path):
    class Watch(GAN):
        def on_before_optimizer_step(self, optimizer):
            super().on_before_optimizer_step(optimizer)
            parameters = optimizer.param_groups[0]["params"]
            ours = (optimizer is self.trainer.optimizers[0]) == (player == "d")
            held = bool(limit([p.detach() for p in parameters], [p.grad for p in parameters]))
            (clipped if ours else free).append(held)

    clipped, free = [], []
    torch.manual_seed(0)
    model = Watch(Generator(), Discriminator(), latent_dim=LATENT, **{f"{player}_clip": clip})
    trainer(tmp_path, max_steps=3).fit(model, loader())
    assert clipped == [True] * 3
    assert free == [False] * 3


@pytest.mark.parametrize("optimizer", ["SGD", "RMSprop", "Adagrad", "Adam", "AdamW"])
def test_optimizers_and_schedulers_by_choice(optimizer, tmp_path):
    cls = getattr(torch.optim, optimizer)
    model = build(
        "GAN",
        g_optimizer=cls,
        d_optimizer=lambda parameters: cls(parameters, lr=0.5),
        d_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.1),
        n_critic=2,
    )
    run = trainer(tmp_path, max_steps=5)
    run.fit(model, loader())
    assert [type(o) for o in run.optimizers] == [cls, cls]
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.5 * 0.1**2)
    assert run.optimizers[1].param_groups[0]["lr"] == cls([torch.zeros(1)]).defaults["lr"]


def test_logged_keys_and_only_on_logging_steps(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(WGANGP, "log_dict", lambda self, values, **_: calls.append((self.trainer.global_step, values)))
    trainer(tmp_path, max_steps=10, log_every_n_steps=5).fit(build("WGANGP", n_critic=5), loader())
    assert [step for step, _ in calls] == [5, 10]
    values = calls[0][1]
    terms = {"train/d_real", "train/d_fake", "train/d_gradient_penalty", "train/g_adversarial"}
    assert set(values) == terms | {"train/d_loss", "train/g_loss", "train/kimg"}
    assert values["train/kimg"] == pytest.approx(5 * 8 / 1000)
    assert values["train/d_loss"].item() == pytest.approx(sum(float(values[k]) for k in terms if "d_" in k), abs=1e-5)


def test_validation_logs_both_losses_and_teaches_nothing(tmp_path):
    for name in MODELS:
        model = build(name, ema_decay=0.5)
        before = weights(model)
        run = trainer(tmp_path)
        run.validate(model, loader(), verbose=False)
        assert {"val/d_loss", "val/g_loss"} <= run.callback_metrics.keys()
        run.test(model, loader(), verbose=False)
        assert torch.isfinite(run.callback_metrics["test/d_loss"])
        assert same(before, weights(model))


def test_add_on_penalties_join_the_loss_lazily(tmp_path, monkeypatch):
    class Constant(Regularizer):
        name, double_backward = "constant", False

        def forward(self, model, real, fake):
            calls.append(model.trainer.global_step)
            return torch.ones((), requires_grad=True)

    calls, logged = [], []
    monkeypatch.setattr(GAN, "log_dict", lambda self, values, **_: logged.append(values))
    model = build("GAN", regularizers=[Constant(weight=2.0, every=3), R1(weight=0.5)])
    trainer(tmp_path, max_steps=6, log_every_n_steps=1).fit(model, loader())
    assert calls == [0, 3]
    assert [float(v.get("train/d_constant", 0)) for v in logged] == [6, 0, 0, 6, 0, 0]
    assert all(float(v["train/d_r1"]) > 0 for v in logged)
    with pytest.raises(ValueError, match="weight must not be negative, got -1"):
        R1(-1)
    with pytest.raises(ValueError, match="every must be at least 1"):
        R1(every=0)


def test_augment_is_seen_by_the_discriminator_alone(tmp_path):
    model = build("GAN", augment=lambda x: x.flip(-1))
    x = images(4)
    assert torch.equal(model.discriminate(x), model.discriminator(x.flip(-1)))
    assert torch.equal(model.generate(torch.zeros(1, LATENT)), model.generator(torch.zeros(1, LATENT)))


def test_half_precision_clips_and_steps_with_unscaled_gradients(tmp_path):
    """A scaler on the CPU: what the optimizer sees is unscaled, and fused Adam, which hides that, is not used."""
    from lightning.pytorch.plugins import MixedPrecision

    class Watch(GAN):
        def on_before_optimizer_step(self, optimizer):
            norms.append(torch.cat([p.grad.flatten() for p in optimizer.param_groups[0]["params"]]).norm().item())
            super().on_before_optimizer_step(optimizer)

    seen = []
    for plugin in (None, MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=1024.0))):
        norms = []
        torch.manual_seed(0)
        model = Watch(Generator(), Discriminator(), latent_dim=LATENT, g_clip=1.0, d_clip=1.0)
        run = trainer(tmp_path, max_steps=3, plugins=plugin)
        run.fit(model, loader())
        seen.append(norms)
        assert run.optimizers[0].defaults.get("fused") is not (plugin is not None)
    assert seen[0] == pytest.approx(seen[1], rel=0.02)


def test_a_lazy_penalty_of_the_generator_counts_its_own_updates(tmp_path):
    class Constant(Regularizer):
        name, player, double_backward = "constant", "generator", False

        def forward(self, model, real, fake):
            calls.append(1)
            return torch.ones((), requires_grad=True)

    calls = []
    model = build("GAN", n_critic=2, regularizers=[Constant(1.0, every=2)])
    trainer(tmp_path, max_steps=12).fit(model, loader())
    assert len(calls) == 3  # six updates of the generator


def test_two_terms_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="two loss terms are called 'r1'"):
        trainer(tmp_path, max_steps=1).fit(build("GAN", regularizers=[R1(1.0), R1(2.0)]), loader())


def test_optimizers_and_clips_come_back_for_foreign_networks(tmp_path):
    kwargs = {
        "g_optimizer": torch.optim.RMSprop,
        "d_optimizer": partial(torch.optim.SGD, lr=0.1),
        "g_clip": NormClip(1.0),
    }
    run = trainer(tmp_path, max_steps=2)
    run.fit(build("GAN", **kwargs), loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    generator, discriminator = networks("GAN")
    loaded = GAN.load_from_checkpoint(tmp_path / "x.ckpt", generator=generator, discriminator=discriminator, n_critic=2)
    again = trainer(tmp_path, max_steps=2)
    again.fit(loaded, loader())
    assert [type(o).__name__ for o in again.optimizers] == ["SGD", "RMSprop"]
    assert again.optimizers[0].param_groups[0]["lr"] == 0.1
    assert loaded.clips[1] == NormClip(1.0)
    assert loaded.hparams["latent_dim"] == LATENT
