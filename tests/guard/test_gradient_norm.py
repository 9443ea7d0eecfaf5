"""Norms against those that torch computes itself, in our models and in foreign modules."""

import math

import pytest
import torch
from faults import Plain
from lightning import Callback, LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from toys import LATENT, build, images, loader, networks, trainer

from lit_gans import GAN, GradientNormMonitor
from lit_gans.guard.players import find_players


class Watch(Callback):
    """Gradients before the monitor sees them, weights around the step, and what was logged."""

    def __init__(self):
        self.raw, self.before, self.after, self.logged = {}, {}, {}, {}

    def parameters(self, optimizer):
        return [p for group in optimizer.param_groups for p in group["params"]]

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        index = trainer.optimizers.index(optimizer)
        self.raw[index] = torch.cat([p.grad.flatten() for p in self.parameters(optimizer)]).clone()
        self.before[index] = torch.cat([p.detach().flatten() for p in self.parameters(optimizer)]).clone()

    def on_train_batch_end(self, trainer, pl_module, *_):
        for index, optimizer in enumerate(trainer.optimizers):
            self.after[index] = torch.cat([p.detach().flatten() for p in self.parameters(optimizer)]).clone()


def fit(tmp_path, model, monitor=None, steps=1, **kwargs):
    watch, monitor = Watch(), monitor or GradientNormMonitor()
    run = trainer(tmp_path, max_steps=steps, log_every_n_steps=1, callbacks=[watch, monitor], **kwargs)
    run.fit(model, loader())
    watch.logged = {key: float(value) for key, value in run.callback_metrics.items()}
    return watch


@pytest.mark.parametrize("name", ["GAN", "WGANGP", "SNGAN"])
def test_norms_zeros_and_update_ratios_are_those_of_the_step(tmp_path, name):
    watch = fit(tmp_path, build(name, n_critic=1))
    for index, player in enumerate(["discriminator", "generator"]):
        raw, before, after = watch.raw[index], watch.before[index], watch.after[index]
        assert watch.logged[f"grad_norm/{player}"] == pytest.approx(raw.norm().item())
        assert watch.logged[f"grad_norm_clipped/{player}"] == pytest.approx(raw.norm().item())
        assert watch.logged[f"grad_zero_share/{player}"] == pytest.approx((raw == 0).float().mean().item())
        ratio = ((after - before).norm() / before.norm()).item()
        assert watch.logged[f"update_ratio/{player}"] == pytest.approx(ratio, rel=1e-4)


def test_zeros_are_counted(tmp_path):
    generator, discriminator = networks("GAN")
    discriminator.body.append(nn.ReLU())
    discriminator.body[-2].weight.data.fill_(-1)  # all dead but what softplus(0) sends through the bias: nothing
    discriminator.body[-2].bias.data.fill_(-100)
    watch = fit(tmp_path, GAN(generator, discriminator, latent_dim=LATENT))
    assert watch.logged["grad_zero_share/discriminator"] == 1
    assert watch.logged["grad_norm/discriminator"] == 0
    assert watch.logged["update_ratio/discriminator"] == 0


def test_clipping_comes_after_the_norm_and_before_the_clipped_norm(tmp_path):
    watch = fit(tmp_path, build("GAN", d_clip=1e-3, g_clip=1e-4))
    assert watch.logged["grad_norm/discriminator"] == pytest.approx(watch.raw[0].norm().item())
    assert watch.logged["grad_norm_clipped/discriminator"] == pytest.approx(1e-3, rel=1e-3)
    assert watch.logged["grad_norm_clipped/generator"] == pytest.approx(1e-4, rel=1e-3)


def test_layers_add_up_to_the_player(tmp_path):
    watch = fit(tmp_path, build("GAN"), GradientNormMonitor(per_layer=True))
    for player in ("generator", "discriminator"):
        layers = [v for key, v in watch.logged.items() if key.startswith(f"grad_norm/{player}/")]
        assert len(layers) == 4
        assert math.hypot(*layers) == pytest.approx(watch.logged[f"grad_norm/{player}"])
    assert "grad_norm/generator/body.0.weight" in watch.logged


def test_unscaled_under_a_gradient_scaler(tmp_path):
    norms = []
    for scale in (1.0, 1024.0):
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))
        plugin.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)
        model = build("GAN", d_optimizer=torch.optim.SGD, g_optimizer=torch.optim.SGD, seed=0)
        norms.append(fit(tmp_path, model, plugins=[plugin]).logged["grad_norm/discriminator"])
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


class Linear(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return x.flatten(1) @ self.weight


def test_the_gradient_at_the_inputs_of_a_linear_critic_is_its_weight(tmp_path):
    weight = torch.randn(36, generator=torch.Generator().manual_seed(0))
    model = GAN(networks("GAN")[0], Linear(weight), latent_dim=LATENT, d_lr=0.0)
    watch = fit(tmp_path, model, GradientNormMonitor(input_every=1))
    assert watch.logged["input_grad_norm/real"] == pytest.approx(weight.norm().item())
    assert watch.logged["input_grad_norm/fake"] == pytest.approx(weight.norm().item())


def test_only_logging_steps_are_measured(tmp_path, monkeypatch):
    calls = []
    real = torch._foreach_norm
    monkeypatch.setattr(torch, "_foreach_norm", lambda *a: calls.append(1) or real(*a))
    logger = CSVLogger(tmp_path, "", "")
    monitor = GradientNormMonitor()
    trainer(tmp_path, max_steps=12, log_every_n_steps=6, logger=logger, callbacks=[monitor]).fit(build("GAN"), loader())
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert rows[0].split(",").count("grad_norm/generator") == 1
    assert len(rows) == 3
    assert len(calls) == 2 * 2 * 4  # two logging steps, two players: gradient, update, weights, clipped gradient


def test_histograms(tmp_path, monkeypatch):
    drawn = []
    logger = TensorBoardLogger(tmp_path, "", "")
    monkeypatch.setattr(logger.experiment, "add_histogram", lambda key, values, step: drawn.append((key, step)))
    fit(tmp_path, build("GAN"), GradientNormMonitor(histogram=True), logger=logger)
    assert drawn == [("gradients/discriminator", 0), ("gradients/generator", 0)]


class One(LightningModule):
    """Automatic optimisation, one optimizer over two attributes."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(36, 4), nn.Linear(4, 36)

    def training_step(self, batch, batch_idx):
        x = batch[0].flatten(1)
        return (self.decoder(self.encoder(x)) - x).square().mean()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), fused=True)


def test_automatic_optimisation_with_one_optimizer(tmp_path):
    watch = fit(tmp_path, One())
    assert watch.logged["grad_norm/encoder+decoder"] == pytest.approx(watch.raw[0].norm().item())


def test_foreign_players_are_named_by_their_attributes(tmp_path):
    watch = fit(tmp_path, Plain())
    assert watch.logged["grad_norm/net_g"] == pytest.approx(watch.raw[0].norm().item())
    assert watch.logged["grad_norm/net_d"] == pytest.approx(watch.raw[1].norm().item())


def test_names_part_where_attributes_are_shared():
    module = nn.Module()
    module.nets = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    optimizers = [torch.optim.SGD(net.parameters(), lr=1.0) for net in module.nets.values()]
    assert [player.name for player in find_players(module, optimizers)] == ["nets.a", "nets.b"]
    twice = [torch.optim.SGD(module.parameters(), lr=1.0) for _ in range(2)]
    names = [player.name for player in find_players(module, twice)]
    assert len(set(names)) == 2


def test_listening_ends_with_training(tmp_path):
    model = build("GAN")
    fit(tmp_path, model)
    assert not any(optimizer._optimizer_step_post_hooks for optimizer in model.trainer.optimizers)


def test_bad_input(tmp_path):
    with pytest.raises(ValueError, match="input_every"):
        GradientNormMonitor(input_every=0)
    with pytest.raises(TypeError, match="discriminator"):
        fit(tmp_path, One(), GradientNormMonitor(input_every=1))


def test_images_are_left_alone(tmp_path):
    x = images(8)
    fit(tmp_path, build("GAN"), GradientNormMonitor(input_every=1))
    assert torch.equal(x, images(8))
