"""A game played by a script: each failure is shown to the detector alone, and must get its name."""

import math

import pytest
import torch
from faults import events
from lightning import LightningModule
from torch import nn
from toys import Batches, build, loader, same, trainer, weights

from lit_gans import CollapseDetector, Guard, ImageDataModule, TrainingDiverged
from lit_gans.guard.look import Sight

SIDE, BEGIN = 8, 200


class Level(nn.Module):
    """Logits are the mean grey, times a factor."""

    factor = 1.0

    def forward(self, x):
        return self.factor * x.flatten(1).mean(1)


class Scripted(LightningModule):
    """Images of a given mean and spread, a critic that tells means apart, and an optimizer that moves one number."""

    def __init__(self, spread=lambda n: 1.0, level=lambda n: 0.0, metric=None):
        super().__init__()
        self.automatic_optimization = False
        self.discriminator, self.weight = Level(), nn.Parameter(torch.ones(1))
        self.spread, self.level, self.metric = spread, level, metric

    @property
    def after(self):
        return self.trainer.global_step - BEGIN

    def sample(self, n):
        noise = torch.randn(n, 1, SIDE, SIDE)
        noise = noise - noise.mean((1, 2, 3), keepdim=True) + torch.linspace(-1, 1, n).view(n, 1, 1, 1)
        return noise * self.spread(self.after) + self.level(self.after)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)

    def training_step(self, batch, batch_idx):
        self.optimizers().zero_grad()
        self.manual_backward(self.weight.sum())
        self.optimizers().step()

    def validation_step(self, batch, batch_idx):
        pass

    def on_validation_epoch_end(self):
        if self.metric is not None:
            self.log("val/fid", self.metric(self.trainer.global_step))


def data():
    noise = torch.randn(32, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    x = noise - noise.mean((1, 2, 3), keepdim=True) + torch.linspace(-1, 1, 32).view(32, 1, 1, 1)
    return Batches(*[x] * 100)


def found(tmp_path, module, *others, steps=400, validated=None, **kwargs):
    detector = CollapseDetector(**{"every_n_steps": 10, "warmup": 100, **kwargs})
    extra = {} if validated is None else {"val_check_interval": validated, "check_val_every_n_epoch": None}
    run = trainer(tmp_path, max_steps=steps, callbacks=[detector, *others], num_sanity_val_steps=0, **extra)
    run.fit(module, data(), Batches(torch.zeros(1)) if validated else None)
    return events(tmp_path)


def kinds(found):
    return [event["kind"] for event in found]


def test_health_has_no_name(tmp_path):
    assert found(tmp_path, Scripted()) == []


def test_noise_is_no_failure(tmp_path):
    draw = torch.Generator().manual_seed(0)
    module = Scripted(
        lambda n: 1 + 0.2 * torch.rand((), generator=draw).item(),
        lambda n: 0.3 * torch.randn((), generator=draw).item(),
    )
    assert found(tmp_path, module, steps=600) == []


def test_one_image_for_all_latents(tmp_path):
    (event,) = found(tmp_path, Scripted(lambda n: 1.0 if n < 0 else 0.0))
    assert (event["kind"], event["action"], event["usual"]) == ("dead", "warn", pytest.approx(1.0, rel=0.1))
    assert event["step"] == BEGIN + 19  # the third look that sees it
    assert event["value"] == 0


def test_one_image_from_the_beginning_is_told_after_the_warm_up(tmp_path):
    (event,) = found(tmp_path, Scripted(lambda n: 0.0))
    assert (event["kind"], event["step"]) == ("dead", 119)


def test_images_that_are_no_numbers(tmp_path):
    assert kinds(found(tmp_path, Scripted(lambda n: 1.0 if n < 0 else math.nan))) == ["dead"]


def test_less_diversity(tmp_path):
    (event,) = found(tmp_path, Scripted(lambda n: 1.0 if n < 0 else 0.3))
    assert event["kind"] == "collapse"
    assert event["value"] == pytest.approx(0.3, rel=0.1)


def test_diversity_that_merely_follows_the_data_is_none(tmp_path):
    assert found(tmp_path, Scripted(lambda n: 1.0 if n < 0 else 0.6)) == []
    assert found(tmp_path / "more", Scripted(lambda n: 8.0 if n < 0 else 1.0)) == []


def test_a_short_drop_is_none(tmp_path):
    assert found(tmp_path, Scripted(lambda n: 0.1 if 0 <= n < 20 else 1.0)) == []


def test_a_gap_many_times_the_usual(tmp_path):
    (event,) = found(tmp_path, Scripted(lambda n: 0.2, lambda n: -1.4 if n < 0 else -9.0), diversity=0.01)
    assert (event["kind"], event["player"]) == ("saturation", "discriminator") or event["player"] is None
    assert event["value"] == pytest.approx(9.0, rel=0.05)
    assert event["usual"] == pytest.approx(1.4, rel=0.05)


def test_a_gap_that_is_as_wide_as_ever_is_no_saturation(tmp_path):
    assert found(tmp_path, Scripted(lambda n: 0.2, lambda n: -50.0), diversity=0.01) == []


def test_gradients_that_fade_under_a_perfect_discriminator(tmp_path):
    module = Scripted(lambda n: 0.2, lambda n: -5.0)
    module.training_step = lambda batch, batch_idx: step(module, 1.0 if module.after < 0 else 0.01)
    (event,) = found(tmp_path, module, diversity=0.01)
    assert (event["kind"], event["usual"], event["value"]) == ("saturation", pytest.approx(1.0), pytest.approx(0.01))


def test_gradients_that_fade_under_a_beaten_discriminator_are_another_matter(tmp_path):
    module = Scripted()
    module.training_step = lambda batch, batch_idx: step(module, 1.0 if module.after < 0 else 0.01)
    assert found(tmp_path, module) == []


def step(module, factor):
    module.optimizers().zero_grad()
    module.manual_backward(factor * module.weight.sum())
    module.optimizers().step()


def test_a_discriminator_that_is_fooled_throughout(tmp_path):
    (event,) = found(tmp_path, Scripted(level=lambda n: 0.0 if n < 0 else 3.0))
    assert event["kind"] == "overpowered"
    assert event["value"] < 0.1


def test_a_lead_that_changes_hands(tmp_path):
    module = Scripted(level=lambda n: 0.0 if n < 0 else 2.5 * (-1) ** (n // 20))
    (event,) = found(tmp_path, module, steps=500)
    assert event["kind"] == "oscillation"
    assert event["value"] >= 4


def test_a_lead_that_changes_hands_once(tmp_path):
    module = Scripted(level=lambda n: -2.5 if n < 100 else 0.0 if n < 120 else 2.5)
    assert "oscillation" not in kinds(found(tmp_path, module, steps=500))


class Digits(Scripted):
    """Real digits: of all classes, then of three."""

    def __init__(self):
        super().__init__()
        source = ImageDataModule("digits").open("train")
        self.pictures = source.images(torch.arange(len(source))).float() / 127.5 - 1
        self.labels = source.labels

    def sample(self, n):
        known = self.labels < (10 if self.after < 0 else 3)
        return self.pictures[known][:n]


def test_classes_that_are_no_longer_drawn(tmp_path):
    (event,) = found(tmp_path, Digits(), extractor="digits", diversity=0.6, n=64)
    assert event["kind"] == "mode_loss"
    assert event["usual"] == pytest.approx(10, abs=0.8)
    assert event["value"] == pytest.approx(3, abs=0.3)


def test_a_metric_that_has_turned(tmp_path):
    module = Scripted(metric=lambda n: 10 - n / 50 if n < 200 else n / 20)
    (event,) = found(tmp_path, module, validated=20)
    assert (event["kind"], event["quantity"]) == ("regression", "val/fid")
    assert event["usual"] == pytest.approx(6.4)
    assert event["step"] == 219  # 6.4, then 10, 11: the second above 9.6


def test_a_metric_of_which_more_is_better(tmp_path):
    module = Scripted(metric=lambda n: 1 + n / 50 if n < 200 else 1.0)
    assert kinds(found(tmp_path, module, validated=20, monitor="val/fid", mode="max")) == ["regression"]


def test_a_metric_that_goes_up_and_down_a_little(tmp_path):
    assert found(tmp_path, Scripted(metric=lambda n: 5 + (n // 20) % 3), validated=20) == []


def test_a_metric_that_nobody_logs_is_told_at_the_first_look(tmp_path):
    with pytest.raises(ValueError, match="monitors 'val/fdi', which nobody logs: did you mean val/fid"):
        found(tmp_path, Scripted(metric=lambda n: 1.0), validated=20, monitor="val/fdi")
    with pytest.raises(ValueError, match="nobody logs"):
        found(tmp_path, Scripted(), monitor="train/loss")


# acting


def test_roll_back_goes_to_the_older_snapshot(tmp_path):
    class Counting(Scripted):
        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            self.weight.data += 1

    model = Counting(lambda n: 0.0 if 0 <= n < 60 else 1.0)
    seen = []
    detector, guard = CollapseDetector("rollback", every_n_steps=10, warmup=100), Guard(snapshot_every=30)
    run = trainer(tmp_path, max_steps=300, callbacks=[detector, guard])
    model.on_train_batch_start = lambda batch, batch_idx: seen.append(model.weight.item())
    run.fit(model, data())
    assert [(e["step"], e["action"]) for e in events(tmp_path)] == [(219, "rollback"), (249, "rollback")]
    assert seen[220] == 1 + 150  # three bad looks began at 199; what was before 179 is trusted
    assert seen[250] == 1 + 150  # not to a younger one
    assert run.global_step == 300


def test_no_snapshot_is_taken_of_what_looks_bad(tmp_path):
    steps = []

    class Spy(CollapseDetector):
        def on_train_batch_end(self, *args):
            steps.append(self.guard.snapshots.steps[-1])
            super().on_train_batch_end(*args)

    spy, guard = Spy({"dead": "rollback"}, every_n_steps=10, warmup=100, looks=8), Guard(snapshot_every=10)
    trainer(tmp_path, max_steps=270, callbacks=[spy, guard]).fit(Scripted(lambda n: 1.0 if n < 0 else 0.0), data())
    assert max(steps) == 190


def test_a_collapse_that_stays_ends_in_a_stop(tmp_path):
    with pytest.raises(TrainingDiverged, match="one image for all latents"):
        found(
            tmp_path, Scripted(lambda n: 1.0 if n < 0 else 0.0), Guard(max_rollbacks=2), action="rollback", steps=2000
        )
    assert [event["action"] for event in events(tmp_path)] == ["rollback", "rollback", "stop"]


# looking


def look_at(sight, model, batch):
    sight.keep(model, batch)
    return sight.look(model)


def test_looks_leave_everything_as_it_was(tmp_path):
    model = build("GAN", ema_decay=0.9)
    model.generator.body.insert(1, nn.BatchNorm1d(16))
    model.generator.body.insert(2, nn.Dropout(0.5))
    batch = next(iter(loader()))
    before, state = weights(model), torch.get_rng_state()
    model.reseed(1)
    noise = model.rng.get_state()
    look_at(Sight(1), model, batch)
    assert same(before, weights(model))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(noise, model.rng.get_state())
    assert model.training


def test_what_is_seen_against_a_count_by_hand():
    model = build("GAN")
    batch = next(iter(loader(64, 32)))
    look = look_at(Sight(1, n=32), model, batch)
    with torch.no_grad():
        z, _ = model.draw_inputs(32, seed=0)
        fake, real = model.generator(z), batch[0]
        on_real, on_fake = model.discriminator(real).flatten(), model.discriminator(fake).flatten()
    pairs = [(r > f) + 0.5 * (r == f) for r in on_real.tolist() for f in on_fake.tolist()]
    assert look.order == pytest.approx(sum(pairs) / len(pairs))
    assert look.gap == pytest.approx(
        (on_real.mean() - on_fake.mean()).item(), rel=1e-5, abs=1e-6
    )  # a difference of means: float32 at their size
    assert look.accuracy_real == (on_real > 0).float().mean().item()
    assert look.accuracy_fake == (on_fake < 0).float().mean().item()
    distances = [torch.pdist(x.flatten(1)).mean().item() for x in (fake, real)]
    assert look.diversity == pytest.approx(distances[0] / distances[1], rel=1e-5)
    assert math.isnan(look.classes)


def test_pairs_of_one_class_are_compared():
    model = build("CGAN")
    batch = next(iter(loader(64, 32)))
    look = look_at(Sight(1, n=32), model, batch)
    with torch.no_grad():
        z, y = model.draw_inputs(32, seed=0)
        fake = model.generator(z, y)
    means = []
    for x, labels in ((fake, y), (batch[0], batch[1])):
        pairs = [(i, j) for i in range(32) for j in range(i) if labels[i] == labels[j]]
        means.append(sum((x[i] - x[j]).norm().item() for i, j in pairs) / len(pairs))
    assert look.diversity == pytest.approx(means[0] / means[1], rel=1e-5)


# bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"action": "wran"}, "did you mean warn"),
        ({"action": "skip"}, "concerns a single update"),
        ({"action": {"colapse": "warn"}}, "did you mean collapse"),
        ({"every_n_steps": 0}, "every_n_steps must be at least 1"),
        ({"n": 4}, "n must be at least 8"),
        ({"looks": 1}, "looks must be at least 2"),
        ({"diversity": 1.0}, "diversity must be above 0 and below 1"),
        ({"gap": 1.0}, "gap is a factor above 1"),
        ({"regression": 0.9}, "regression is a factor above 1"),
        ({"mode": "least"}, "mode must be"),
        ({"warmup": -1}, "warmup must not be negative"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        CollapseDetector(**arguments)


def test_a_module_that_cannot_draw(tmp_path):
    module = Scripted()
    module.sample = None
    with pytest.raises(TypeError, match="sample"):
        found(tmp_path, module)
