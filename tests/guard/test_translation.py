"""The guard and models of pictures from pictures: explosions are undone, pool and all; other failures have names."""

import math

import pytest
import torch
from faults import events
from pictures import SIDE, TRANSLATORS, build, loader, pairs
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import by_turns, trainer, weights

from lit_gans import CollapseDetector, ExplosionDetector, GradientNormMonitor, Guard
from lit_gans.functional import Batch
from lit_gans.guard.look import compared_with_sources
from lit_gans.models import CUT, Pix2Pix

EACH = list(TRANSLATORS)


class Poison:
    """Makes one loss of a player NaN, at a step."""

    def __init__(self, model, step):
        original, self.done = model.generator_loss, False

        def loss(real, fake):
            terms = original(real, fake)
            if model.trainer.global_step >= step and not self.done:
                self.done = True
                terms["poison"] = fake.x.sum() * math.nan
            return terms

        model.generator_loss = loss


@pytest.mark.parametrize(("name", "action"), by_turns(EACH, ["rollback", "skip"]))
def test_an_explosion_is_undone(name, action, tmp_path):
    model = build(name)
    Poison(model, 12)
    callbacks = [ExplosionDetector(action=action), GradientNormMonitor(), Guard(snapshot_every=5)]
    trainer(tmp_path, max_steps=20, callbacks=callbacks, log_every_n_steps=5).fit(model, loader(name))
    assert [event["action"] for event in events(tmp_path)] == [action]
    assert all(torch.isfinite(value).all() for value in weights(model).values())
    assert all(torch.isfinite(pool.images).all() for pool in getattr(model, "pools", ()))


@pytest.mark.parametrize("action", ["rollback", "skip"])
def test_so_is_one_before_the_pool_held_its_first_picture(action, tmp_path):
    model = build("CycleGAN", pool=2)
    Poison(model, 0)
    trainer(tmp_path, max_steps=6, callbacks=[ExplosionDetector(action=action), Guard()]).fit(model, loader("CycleGAN"))
    assert [event["action"] for event in events(tmp_path)] == [action]
    assert all(torch.isfinite(pool.images).all() and int(pool.filled) == 2 for pool in model.pools)


class Fixed(nn.Module):
    """What is made of a source by a rule, plus a number that can be learned."""

    def __init__(self, rule):
        super().__init__()
        self.rule, self.offset = rule, nn.Parameter(torch.zeros(1))
        self.first = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x):
        return (self.rule(x) + 0.0 * self.offset).clamp(-1, 1)

    def features(self, x, layers):
        return [self.first(x) for _ in layers]


def data(invert=False, n=32):
    source, _ = pairs("Pix2Pix", n)
    other = source.flip(0) + 0.3
    target = (-source if invert else source).clamp(-1, 1)
    return source, target, other.clamp(-1, 1)


RULES = {
    "constant": lambda x: torch.zeros_like(x) + 0.2,
    "as it is": lambda x: x,
    "inverted": lambda x: -x,
    "brighter": lambda x: x + 0.2,
}


def found(tmp_path, model, source, target, steps=60):
    loader = DataLoader(TensorDataset(source, target), 16)
    detector = CollapseDetector(every_n_steps=2, n=16, warmup=5)
    trainer(tmp_path, max_steps=steps, callbacks=[detector]).fit(model, loader)
    return {event["kind"] for event in events(tmp_path)} & {"dead", "inversion", "unchanged"}


def unpaired(rule):
    critic = nn.Sequential(nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 2, 1))
    return CUT(Fixed(RULES[rule]), critic, layers=(0,), patches=4, width=4, g_lr=0.0)


def paired(rule):
    critic = nn.Sequential(nn.Conv2d(2, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4, 2, 1))

    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.critic = critic

        def forward(self, x, y):
            return self.critic(torch.cat([x, y], 1))

    return Pix2Pix(Fixed(RULES[rule]), Pairs(), g_lr=0.0)


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [("constant", {"dead"}), ("inverted", {"inversion"}), ("brighter", set())],
)
def test_failures_with_pairs_have_names(rule, kinds, tmp_path):
    source, target, _ = data()
    assert found(tmp_path, paired(rule), source, target) == kinds


def test_an_inversion_that_the_pairs_have_is_none(tmp_path):
    source, target, _ = data(invert=True)
    assert found(tmp_path, paired("inverted"), source, target) == set()


@pytest.mark.parametrize(
    ("rule", "kinds"), [("inverted", {"inversion"}), ("as it is", {"unchanged"}), ("brighter", set())]
)
def test_failures_without_pairs_have_names(rule, kinds, tmp_path):
    source, _, other = data()
    assert found(tmp_path, unpaired(rule), source, other) == kinds


def test_likeness_is_a_correlation():
    source, target, _ = data()
    like, change = compared_with_sources(paired("brighter"), Batch(target, source), source * 0.5 + 0.1)
    assert float(like) == pytest.approx(1, abs=1e-5)
    assert math.isnan(change)
    noise = torch.rand(32, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    like, _ = compared_with_sources(paired("brighter"), Batch(target, source), noise)
    rows = [torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] for a, b in zip(source, noise, strict=True)]
    assert float(like) == pytest.approx(float(torch.stack(rows).mean()), abs=1e-5)
