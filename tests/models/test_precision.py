"""Mixed precision: what is computed in half, what must not be, and updates that the gradient scaler drops."""

import copy
import math
import os
import signal
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from interrupted import At, equal, fit, states
from lightning import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.optim import SGD, Adam
from toys import (
    EXTRAS,
    LATENT,
    MODELS,
    WIDE,
    Discriminator,
    Generator,
    build,
    loader,
    networks,
    same,
    trainer,
    weights,
)

from lit_gans.models import GAN, WGANGP
from lit_gans.regularizers import R1

SOME = ("GAN", "WGANGP", "StyleGAN2", "InfoGAN", "BEGAN")  # no penalty, one, lazy ones, codes, a control

SCALE = 2.0**16


def half(init_scale=SCALE, **options):
    """16-mixed on the CPU, where the Trainer's flag alone would become bf16-mixed."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=init_scale, **options))


def bf16():
    return MixedPrecision("bf16-mixed", "cpu")


both = pytest.mark.parametrize("plugin", [bf16, half], ids=["bf16-mixed", "16-mixed"])


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def gradients(network):
    return flat(parameter.grad for parameter in network.parameters() if parameter.grad is not None)


def error(found, true):
    """Size of the difference, as a share of the truth's."""
    return float((found - true).norm() / true.norm())


class Overflow(Callback):
    """Infinity in one gradient of a player at a step, as its backward pass leaves it; both players are looked at."""

    def __init__(self, player, step):
        self.player, self.step, self.now = player, step, False
        self.scaled, self.unscaled, self.scales, self.seen = {}, {}, {}, []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.now = trainer.global_step == self.step
        if self.now:
            self.before, self.scales["before"] = copy.deepcopy(module), trainer.precision_plugin.scaler.get_scale()

    def on_after_backward(self, trainer, module):
        if self.now:
            frozen = not next(module.discriminator.parameters()).requires_grad
            player = "generator" if frozen else "discriminator"
            if player == self.player:
                next(getattr(module, player).parameters()).grad.view(-1)[0] = torch.inf
            self.scales[player] = trainer.precision_plugin.scaler.get_scale()
            self.scaled[player] = gradients(getattr(module, player))

    def on_before_optimizer_step(self, trainer, module, optimizer):
        if self.now:
            player = ("discriminator", "generator")[trainer.optimizers.index(optimizer)]
            self.unscaled[player] = gradients(getattr(module, player))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if self.now:
            self.after, self.scales["after"] = copy.deepcopy(module), trainer.precision_plugin.scaler.get_scale()
        self.seen.append(trainer.global_step)


BY_TURNS = [(name, (bf16, half)[n % 2], 120) for n, name in enumerate((*WIDE, "R1"))]
WHOLE = [
    pytest.param(name, plugin, 500, marks=[pytest.mark.slow, pytest.mark.exhaustive])
    for name in (*MODELS, "R1")
    for plugin in (bf16, half)
]


@pytest.mark.parametrize(("name", "plugin", "steps"), [*BY_TURNS, *WHOLE])
def test_hundreds_of_steps_stay_finite(name, plugin, steps, tmp_path):
    """By default 120, in one of the two precisions by turns; whole, 500 in both."""
    model = MODELS.get(name, GAN)(
        *networks(name, norm=True),
        latent_dim=LATENT,
        ema_decay=0.99,
        n_critic=2,
        regularizers=[R1()] if name == "R1" else None,
        **EXTRAS.get(name, {}),
    )
    losses = []
    model.log_step = lambda terms, step: losses.extend(v for named in terms.values() for v in named.values())
    run = trainer(tmp_path, max_steps=steps, plugins=[plugin()])
    run.fit(model, loader(batch_size=16))
    assert run.global_step == steps
    assert torch.isfinite(torch.stack([loss.float() for loss in losses])).all()
    assert torch.isfinite(flat(value.float() for value in model.state_dict().values())).all()
    if plugin is half:  # 2**16 itself is more than half precision holds, so that the first update is dropped
        dropped = math.log2(SCALE / run.precision_plugin.scaler.get_scale())
        assert dropped == pytest.approx(2, abs=1)


class Slope(WGANGP):
    """Only the penalty, at the same points in each precision."""

    def generate(self, z, y=None):
        with torch.autocast("cpu", enabled=False):
            return super().generate(z, y)

    def discriminator_loss(self, *args):
        return {"gradient_penalty": super().discriminator_loss(*args)["gradient_penalty"]}


class Nothing(GAN):
    """No loss but the regularizers'."""

    def discriminator_loss(self, *args):
        return {}


@both
@pytest.mark.parametrize("model_class", [Slope, partial(Nothing, regularizers=[R1()])], ids=["WGANGP", "R1"])
def test_penalties_and_their_gradients_are_those_of_single_precision(model_class, plugin, tmp_path):
    class Look(Callback):
        def on_before_optimizer_step(self, trainer, module, optimizer):
            if optimizer is trainer.optimizers[0]:
                found.append(gradients(module.discriminator))

    ends = []
    for plugins in (None, [plugin()]):
        found = []
        model = model_class(*networks("GAN"), latent_dim=LATENT)
        model.log_step = lambda terms, step, found=found: found.extend(terms["discriminator"].values())
        trainer(tmp_path, max_steps=1, plugins=plugins, callbacks=[Look()]).fit(model, loader())
        ends.append(found)
    (gradient, value), (true_gradient, true_value) = ends[1], ends[0]
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(true_value), rel=1e-5)
    assert error(gradient, true_gradient) == pytest.approx(0, abs=1e-5)


def test_an_overflow_of_the_discriminator_leaves_the_generators_gradient_right(tmp_path):
    z = torch.randn(8, LATENT, generator=torch.Generator().manual_seed(0))
    model = build("GAN", g_optimizer=partial(SGD, lr=0.1), d_optimizer=partial(SGD, lr=0.1))
    model.draw_latents = lambda n, rng: z
    watch = Overflow("discriminator", 2)
    trainer(tmp_path, max_steps=4, plugins=[half(1024.0)], callbacks=[watch]).fit(model, loader())

    before, after = watch.before, watch.after
    assert same(weights(before.discriminator), weights(after.discriminator))
    assert watch.scales == {"before": 1024, "discriminator": 1024, "generator": 512, "after": 512}

    loss = F.softplus(-before.discriminator(before.generator(z))).mean()
    true = flat(torch.autograd.grad(loss, list(before.generator.parameters())))
    assert error(watch.unscaled["generator"], true) == pytest.approx(0, abs=1e-3)
    assert error(watch.scaled["generator"] / 512, true) == pytest.approx(0, abs=1e-3)
    moved = flat(before.generator.parameters()) - flat(after.generator.parameters())
    assert error(moved / 0.1, true) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("average", [{"ema_decay": 0.5}, {"ema_kimg": 0.01}], ids=lambda average: next(iter(average)))
@pytest.mark.parametrize("optimizer", [None, partial(Adam, fused=True)], ids=["default", "fused"])
def test_an_overflow_of_the_generator_leaves_the_average_where_it_is(optimizer, average, tmp_path):
    torch.manual_seed(0)
    model = GAN(Generator(norm=True), Discriminator(), latent_dim=LATENT, g_optimizer=optimizer, **average)
    watch = Overflow("generator", 2)
    trainer(tmp_path, max_steps=4, plugins=[half(1024.0)], callbacks=[watch]).fit(model, loader())
    before, after = watch.before, watch.after
    assert watch.seen == [1, 2, 3, 4]
    assert watch.scales == {"before": 1024, "discriminator": 1024, "generator": 1024, "after": 512}
    assert torch.equal(flat(before.generator.parameters()), flat(after.generator.parameters()))
    assert not torch.equal(flat(before.discriminator.parameters()), flat(after.discriminator.parameters()))
    assert same(weights(before.g_ema), weights(after.g_ema))
    assert not same(weights(after.g_ema), weights(model.g_ema))  # the next update moves it


@pytest.mark.parametrize("grows", [False, True])
def test_the_average_moves_with_each_update_that_was_not_dropped(grows, tmp_path):
    model = build("GAN", ema_decay=0.0)  # copies
    plugin = half(1024.0, growth_interval=1 if grows else 1000)
    trainer(tmp_path, max_steps=3, plugins=[plugin]).fit(model, loader())
    assert plugin.scaler.get_scale() == (1024 * 2**6 if grows else 1024)
    assert same(weights(model.generator), weights(model.g_ema))


def test_the_scale_is_not_waited_for_without_an_average(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.amp.GradScaler, "get_scale", None)
    run = trainer(tmp_path, max_steps=2, plugins=[half()])
    run.fit(build("GAN"), loader())
    assert run.global_step == 2


@pytest.mark.parametrize(
    "name", [name if name in SOME else pytest.param(name, marks=pytest.mark.exhaustive) for name in MODELS]
)
def test_a_run_resumes_bit_by_bit_with_the_scale_it_had(name, tmp_path):
    """Growth by 1.5 makes rounding, and thus the weights, depend on the scale; some updates overflow."""
    scaler = {"init_scale": 1e4, "growth_factor": 1.5, "growth_interval": 3}

    def go(folder, *callbacks, **kwargs):
        return fit(tmp_path / folder, name, *callbacks, plugins=[half(**scaler)], **kwargs)

    whole, whole_run, rows, _ = go("whole", Overflow("generator", 5))
    told = At("on_before_optimizer_step", 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    _, _, before, code = go("parts", Overflow("generator", 5), told)
    assert code == 143
    saved = torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["MixedPrecision"]
    assert saved["scale"] not in (1e4, whole_run.precision_plugin.scaler.get_scale())
    resumed, run, after, _ = go("parts", resume=True)
    assert same(weights(whole), weights(resumed))
    assert equal(states(whole_run), states(run))
    assert whole_run.precision_plugin.state_dict() == run.precision_plugin.state_dict()
    assert rows == before + after
