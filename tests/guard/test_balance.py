"""Reports against counts by hand; the duality gap against worst-case players trained by hand."""

import math

import pytest
import torch
from faults import Plain
from lightning import Callback
from torch import nn
from toys import LATENT, build, loader, networks, same, trainer, weights

from lit_gans import GAN, WGAN, BalanceReport
from lit_gans.guard.duality import duality_gap


class Point(nn.Module):
    """A generator that ignores its latents: one number."""

    def __init__(self, theta):
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([float(theta)]))

    def forward(self, z):
        return self.theta.expand(len(z), 1)


class Slope(nn.Module):
    """A discriminator of one number."""

    def __init__(self, psi):
        super().__init__()
        self.psi = nn.Parameter(torch.tensor([float(psi)]))

    def forward(self, x):
        return x[:, 0] * self.psi


def dirac(theta, psi, cls=GAN, **kwargs):
    return cls(Point(theta), Slope(psi), latent_dim=2, g_lr=0.05, d_lr=0.05, betas=(0.0, 0.9), **kwargs)


ZEROS = (torch.zeros(16, 1), None)


def by_hand(theta, psi, steps):
    """The same game, M = -log 2 - softplus(ψθ), with Adam written out for one number."""

    def play(move_d):
        numbers = {"theta": theta, "psi": psi}
        name, sign, second = ("psi", 1, 0.0) if move_d else ("theta", -1, 0.0)
        for n in range(1, steps + 1):
            product = numbers["psi"] * numbers["theta"]
            slope = -torch.sigmoid(torch.tensor(product)).item()  # dM / d(ψθ)
            gradient = -sign * slope * (numbers["theta"] if move_d else numbers["psi"])
            second = 0.9 * second + 0.1 * gradient**2
            numbers[name] -= 0.05 * gradient / ((second / (1 - 0.9**n)) ** 0.5 + 1e-8)
        return -math.log(2) - math.log1p(math.exp(numbers["psi"] * numbers["theta"]))

    return play(True) - play(False)


@pytest.mark.parametrize(("theta", "psi"), [(0.5, 0.3), (-1.0, 2.0), (1.5, 0.0)])
@pytest.mark.parametrize("steps", [1, 7])
def test_the_duality_gap_of_dirac_gan(theta, psi, steps):
    assert duality_gap(dirac(theta, psi), [ZEROS], ZEROS, steps) == pytest.approx(by_hand(theta, psi, steps), rel=1e-4)


def test_it_is_zero_at_the_equilibrium_and_positive_elsewhere():
    assert duality_gap(dirac(0.0, 0.0), [ZEROS], ZEROS, 20) == pytest.approx(0.0, abs=1e-7)
    gaps = [duality_gap(dirac(x, x), [ZEROS], ZEROS, 20) for x in (0.1, 0.5, 1.0)]
    assert 0 < gaps[0] < gaps[1] < gaps[2]


def test_a_wasserstein_critic_stays_within_its_bounds():
    model = dirac(0.5, 0.01, WGAN, clip=0.01)
    gap = duality_gap(model, [ZEROS], ZEROS, 10)
    # M = -ψθ; the best critic is -0.01, the best generator goes 10 · 0.05 up
    assert gap == pytest.approx(0.01 * 0.5 + 0.01 * (0.5 + 10 * 0.05), rel=1e-2)


def test_the_model_is_left_as_it_was():
    model = GAN(*networks("GAN", norm=True, dropout=0.3), latent_dim=LATENT, ema_decay=0.9)
    batch = (next(iter(loader()))[0], None)
    before, rng = weights(model), torch.get_rng_state()
    model.reseed(0)
    noise = model.rng.get_state()
    duality_gap(model, [batch], batch, 3)
    assert same(before, weights(model))
    assert torch.equal(rng, torch.get_rng_state())
    assert torch.equal(noise, model.rng.get_state())
    assert all(p.grad is None and p.requires_grad for p in model.generator.parameters())


class Keep(Callback):
    def __init__(self):
        self.states, self.metrics = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append(weights(pl_module))
        self.metrics.append({key: float(value) for key, value in trainer.callback_metrics.items()})


def test_reports_come_when_due_and_tell_what_is(tmp_path):
    keep = Keep()
    model = build("GAN")
    report = BalanceReport(every_n_steps=5, n=8, duality_every=2, duality_steps=2)
    trainer(tmp_path, max_steps=20, callbacks=[report, keep]).fit(model, loader())
    assert "balance/order" not in keep.metrics[3]
    assert 0 <= keep.metrics[4]["balance/order"] <= 1
    assert keep.metrics[4]["balance/gradient_ratio"] > 0
    assert "balance/duality_gap" not in keep.metrics[4]
    assert "balance/duality_gap" in keep.metrics[9]
    model.load_state_dict(keep.states[19])
    with torch.no_grad():
        batch = list(loader())[19 % 6][0]
        fake = model.sample(8, seed=0)
        gap = (model.discriminator(batch).mean() - model.discriminator(fake).mean()).item()
    assert keep.metrics[19]["balance/logit_gap"] == pytest.approx(gap, rel=1e-4)


def test_training_is_the_same_without(tmp_path):
    def states(*callbacks):
        keep = Keep()
        model = GAN(*networks("GAN", norm=True, dropout=0.3), latent_dim=LATENT)
        torch.manual_seed(0)
        trainer(tmp_path, max_steps=20, callbacks=[*callbacks, keep]).fit(model, loader())
        return keep.states

    report = BalanceReport(every_n_steps=3, duality_every=2, duality_steps=3)
    assert all(same(a, b) for a, b in zip(states(report), states(), strict=True))


def test_bad_input(tmp_path):
    for arguments in ({"every_n_steps": 0}, {"n": 2}, {"duality_every": 0}, {"duality_steps": 0}):
        with pytest.raises(ValueError, match=next(iter(arguments))):
            BalanceReport(**arguments)
    with pytest.raises(TypeError, match="discriminator"):
        trainer(tmp_path, max_steps=1, callbacks=[BalanceReport()]).fit(Plain(), loader())
    module = Plain()
    module.discriminator = module.net_d
    with pytest.raises(TypeError, match="duality gap needs a lit_gans model"):
        trainer(tmp_path, max_steps=1, callbacks=[BalanceReport(duality_every=1)]).fit(module, loader())
