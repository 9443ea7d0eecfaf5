"""Faults put into training on purpose: found in the very step, kept from the weights, undone."""

import json
import math
import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from faults import Fault, Plain, events
from lightning import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from toys import EXTRAS, LATENT, MODELS, SOME, Batches, build, loader, networks, same, trainer, weights

import lit_gans
from lit_gans import CollapseDetector, ExplosionDetector, GradientNormMonitor, Guard, ImageDataModule, TrainingDiverged
from lit_gans.guard import snapshots
from lit_gans.guard.usual import Usual
from lit_gans.runs import LastCheckpoint
from lit_gans.runs.resuming import OptionsOfConfig

SGD = {"d_optimizer": torch.optim.SGD, "g_optimizer": torch.optim.SGD}


class Record(Callback):
    """Weights after each batch."""

    def __init__(self):
        self.states, self.rates, self.images = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.states.append(weights(pl_module))
        self.rates.append([group["lr"] for o in trainer.optimizers for group in o.param_groups])
        self.images.append(batch[0])


def fit(tmp_path, *callbacks, model=None, steps=60, data=None, **kwargs):
    record = Record()
    model = build("GAN", ema_decay=0.9) if model is None else model
    run = trainer(tmp_path, max_steps=steps, callbacks=[*callbacks, record], **kwargs)
    run.fit(model, loader() if data is None else data)
    record.model, record.trainer = model, run
    return record


def finite(states):
    return all(torch.isfinite(x).all() for state in states for x in state.values())


NUMERIC = [math.nan, math.inf, 1e3, 1e6]


@pytest.mark.parametrize("player", ["discriminator", "generator"])
@pytest.mark.parametrize("what", NUMERIC)
def test_a_spoiled_gradient_is_dropped_in_the_very_step(tmp_path, what, player):
    record = fit(tmp_path, Fault(what, 41, player=player), ExplosionDetector(action="skip"))
    (event,) = events(tmp_path)
    kind = "spike" if math.isfinite(what) else "nan" if math.isnan(what) else "inf"
    assert (event["step"], event["kind"], event["player"], event["action"]) == (41, kind, player, "skip")
    assert event["tensor"].startswith(player)
    if math.isfinite(what):
        assert event["value"] / event["usual"] == pytest.approx(what, rel=0.9)
    assert finite(record.states)
    moved = {
        key.partition(".")[0] for key, x in record.states[41].items() if not torch.equal(x, record.states[40][key])
    }
    other = {"discriminator"} if player == "generator" else {"generator", "g_ema"}
    assert moved == other  # the other player's update, and only with the generator's the average
    assert same(record.states[40], record.states[41]) is False


@pytest.mark.parametrize("name", SOME)
def test_all_models(tmp_path, name):
    record = fit(
        tmp_path, Fault(math.nan, 41), ExplosionDetector(action="skip"), model=build(name, n_critic=1), steps=44
    )
    assert [(event["step"], event["kind"]) for event in events(tmp_path)] == [(41, "nan")]
    assert finite(record.states)


def test_a_dropped_update_leaves_the_optimizer_as_it_was(tmp_path):
    model = build("GAN")
    states = []

    class Moments(Callback):
        def on_train_batch_end(self, trainer, *_):
            states.append([x.clone() for x in trainer.optimizers[0].state_dict()["state"][0].values()])

    fit(tmp_path, Fault(math.nan, 41), ExplosionDetector(action="skip"), Moments(), model=model)
    assert all(torch.equal(a, b) for a, b in zip(states[40], states[41], strict=True))
    assert not torch.equal(states[41][0], states[42][0])


def test_clip_scales_to_the_usual_norm(tmp_path):
    model = build("GAN", **SGD)
    norms = []

    class After(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            norms.append(torch.cat([p.grad.flatten() for p in pl_module.discriminator.parameters()]).norm().item())

    fit(tmp_path, Fault(1e4, 41), ExplosionDetector(action={"spike": "clip"}), After(), model=model)
    (event,) = events(tmp_path)
    assert (event["action"], event["kind"]) == ("clip", "spike")
    assert norms[41] == pytest.approx(event["usual"], rel=1e-4)


def test_clip_without_a_norm_to_clip_to_drops(tmp_path):
    record = fit(tmp_path, Fault(math.nan, 41), ExplosionDetector(action="clip"))
    assert [event["action"] for event in events(tmp_path)] == ["skip"]
    assert finite(record.states)


def test_warn_changes_nothing_and_tells_once_in_an_interval(tmp_path):
    with pytest.warns(UserWarning, match=r"step 41: spike in discriminator.*Nothing was done") as caught:
        record = fit(tmp_path, Fault(1e4, 41, 43), ExplosionDetector(action="warn"), Guard(interval=100))
    assert len([w for w in caught if "spike in discriminator" in str(w.message)]) == 1
    assert len(events(tmp_path)) == 1
    assert same(record.states[-1], fit(tmp_path / "without", Fault(1e4, 41, 43)).states[-1])


def test_a_poisoned_batch(tmp_path):
    batches = Batches(*(x.clone() for _ in range(10) for x, _ in loader()))
    record = fit(tmp_path, Fault("batch", 41), ExplosionDetector(action="skip"), data=batches)
    kinds = {(event["step"], event["kind"], event["player"]) for event in events(tmp_path)}
    assert kinds == {(41, "nan", "discriminator")}
    assert finite(record.states)


def test_running_statistics_are_those_before_a_dropped_update(tmp_path):
    model = build("GAN")
    model.discriminator.body.insert(1, torch.nn.BatchNorm1d(16))
    batches = Batches(*(x.clone() for _ in range(10) for x, _ in loader()))
    record = fit(tmp_path, Fault("batch", 41), ExplosionDetector(action="skip"), data=batches, model=model)
    assert finite(record.states)


def test_a_spoiled_weight_is_rolled_back_even_where_updates_are_only_dropped(tmp_path):
    explosion, guard = ExplosionDetector(action="skip"), Guard(snapshot_every=20)
    record = fit(tmp_path, Fault("weight", 47, player="generator"), explosion, guard)
    (event,) = events(tmp_path)
    assert (event["step"], event["player"], event["action"]) == (47, "generator", "rollback")
    assert event["tensor"] == "generator.body.0.weight"
    assert finite(record.states)
    assert same(record.states[47], record.states[39])  # the snapshot after 40 steps


def test_a_weight_that_no_loss_depends_on_is_found_before_it_gets_into_a_snapshot(tmp_path):
    model = build("GAN")
    model.generator.unused = torch.nn.Parameter(torch.ones(3))

    class Spoil(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 33:
                pl_module.generator.unused.data[1] = math.nan

    record = fit(tmp_path, Spoil(), ExplosionDetector(), Guard(snapshot_every=20), model=model)
    assert [(e["step"], e["tensor"]) for e in events(tmp_path)] == [(39, "generator.unused")]
    assert finite(record.states[39:])


# roll back


@pytest.fixture
def rolled(tmp_path):
    model = build("GAN", ema_decay=0.9, g_scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 10, 0.5))
    detector, guard = ExplosionDetector(), Guard(snapshot_every=20, lr_factor=0.25, window=50)
    return fit(tmp_path, Fault(math.nan, 47), detector, guard, model=model, steps=90), detector, tmp_path


def test_everything_goes_back_to_the_snapshot(rolled):
    record, detector, folder = rolled
    assert same(record.states[47], record.states[39])
    assert [event["action"] for event in events(folder)] == ["rollback"]
    assert detector.guard.rollbacks == [47]


def test_the_axis_goes_on_and_data_are_not_replayed(rolled):
    record, _, _ = rolled
    assert record.trainer.global_step == 90
    assert len(record.states) == 90
    for step, images in enumerate(record.images):
        assert torch.equal(images, record.images[step % 6])  # the loader's order, as if nothing had happened


def test_other_noise_follows(rolled):
    record, _, _ = rolled
    assert record.model.seed_offset == 1
    assert not same(record.states[48], record.states[40])
    checkpoint = {"state_dict": record.model.state_dict()}
    record.model.on_save_checkpoint(checkpoint)
    other = build("GAN", ema_decay=0.9)
    other.on_load_checkpoint(checkpoint)
    assert other.seed_offset == 1
    noise = [model.reseed(7).initial_seed() for model in (other, build("GAN"))]
    assert noise[0] != noise[1]


def test_the_guilty_player_learns_slower_until_half_a_window_has_passed(rolled):
    record, _, _ = rolled
    d_rates, g_rates = zip(*record.rates, strict=True)
    assert d_rates[46] == pytest.approx(2e-4)
    assert d_rates[47:72] == pytest.approx([0.25 * 2e-4] * 25)
    assert d_rates[73:] == pytest.approx([2e-4] * 17)
    assert g_rates[39] == g_rates[47] == pytest.approx(2e-4 * 0.5**4)  # its schedule went back, too
    assert g_rates[57] == pytest.approx(2e-4 * 0.5**5)


def test_a_schedule_goes_on_from_the_lowered_rate(tmp_path):
    model = build("GAN", d_scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda step: 1 + step))
    detector, guard = ExplosionDetector(), Guard(snapshot_every=20, lr_factor=0.5, window=500)
    record = fit(tmp_path, Fault(math.nan, 47), detector, guard, model=model)
    assert record.rates[46][0] == pytest.approx(2e-4 * 48)
    assert record.rates[47][0] == pytest.approx(2e-4 * 41 / 2)
    assert record.rates[48][0] == pytest.approx(2e-4 * 42 / 2)


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: torch.optim.lr_scheduler.StepLR(o, 10, 0.5),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 200),
        lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 1e-3, total_steps=200, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.CyclicLR(o, 1e-4, 5e-4, step_size_up=7, cycle_momentum=False),
        lambda o: torch.optim.lr_scheduler.SequentialLR(
            o,
            [torch.optim.lr_scheduler.LinearLR(o, 0.1, 1, 45), torch.optim.lr_scheduler.ExponentialLR(o, 0.99)],
            [45],
        ),
    ],
    ids=["step", "cosine", "one cycle", "cyclic", "sequence"],
)
def test_every_schedule_goes_on_from_where_it_was_lowered(tmp_path, schedule):
    alone = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2e-4)
    scheduler, rates = schedule(alone), []
    for _ in range(60):
        rates.append(alone.param_groups[0]["lr"])
        alone.step()
        scheduler.step()
    model = build("GAN", d_scheduler=schedule)
    record = fit(tmp_path, Fault(math.nan, 47), ExplosionDetector(), Guard(snapshot_every=20, window=500), model=model)
    assert [rate for rate, _ in record.rates[:47]] == pytest.approx(rates[1:48])
    assert [rate for rate, _ in record.rates[47:]] == pytest.approx([rate / 2 for rate in rates[40:53]])


def test_rates_that_somebody_else_changed_are_left_alone(tmp_path):
    class Other(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 55:
                trainer.optimizers[0].param_groups[0]["lr"] = 7e-5

    record = fit(tmp_path, Fault(math.nan, 47), Other(), ExplosionDetector(), Guard(window=20))
    assert record.rates[-1][0] == 7e-5


def test_two_rollbacks_multiply_and_both_end(tmp_path):
    detector, guard = ExplosionDetector(), Guard(snapshot_every=20, window=60, lr_factor=0.5)
    record = fit(tmp_path, Fault(math.nan, 47, 50), detector, guard, steps=90)
    assert record.rates[50][0] == pytest.approx(2e-4 / 4)
    assert same(record.states[50], record.states[19])  # the older snapshot: the younger had its chance
    assert record.rates[-1][0] == pytest.approx(2e-4)


def test_the_data_take_another_order_from_the_next_epoch(tmp_path):
    def seen(folder, *faults):
        data = ImageDataModule("fake", image_size=6, channels=1, fake_length=48, batch_size=8)
        return fit(folder, *faults, ExplosionDetector(), data=data, steps=60).images

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    quiet, faulty = seen(tmp_path / "a"), seen(tmp_path / "b", Fault(math.nan, 44))
    assert all(torch.equal(x, y) for x, y in zip(quiet[:48], faulty[:48], strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(quiet[48:], faulty[48:], strict=True))


def test_files_already_written_are_not_touched(tmp_path):
    saves = LastCheckpoint(str(tmp_path / "ckpt"), every_n_train_steps=10)
    saves.save_top_k, saves.filename = -1, "{step}"
    times = {}

    class Times(Callback):
        def on_train_batch_end(self, trainer, *_):
            for path in (tmp_path / "ckpt").glob("*.ckpt"):
                times.setdefault(path, path.stat().st_mtime_ns)

    fit(tmp_path, Fault(math.nan, 47), ExplosionDetector(), saves, Times(), enable_checkpointing=True)
    assert len(times) >= 5
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


# no end of it


@pytest.mark.parametrize("action", ["rollback", "skip", "clip", "stop"])
def test_a_fault_that_always_comes_back_ends_in_a_stop_with_both_checkpoints(tmp_path, action):
    detector, guard = ExplosionDetector(action=action), Guard(snapshot_every=10, max_rollbacks=2, max_skips=5)
    model = build("GAN", ema_decay=0.9)
    with pytest.raises(TrainingDiverged, match="Training was stopped at step") as caught:
        fit(tmp_path, Fault(math.nan, every=44), detector, guard, model=model, steps=10_000)
    assert events(tmp_path)[-1]["action"] == "stop"
    assert len(events(tmp_path)) < 30
    for path in (caught.value.good, caught.value.bad):
        assert path.is_file()
        assert (
            MODELS["GAN"]
            .load_from_checkpoint(path, generator=model.generator, discriminator=model.discriminator)
            .sample(2)
            .isfinite()
            .all()
        )
    assert len(list(tmp_path.rglob("*.ckpt"))) == 2


def test_the_bad_checkpoint_is_the_bad_state(tmp_path):
    detector, guard = ExplosionDetector(action="stop"), Guard(snapshot_every=10)
    with pytest.raises(TrainingDiverged) as caught:
        fit(tmp_path, Fault("weight", 44), detector, guard)
    bad, good = (torch.load(path, weights_only=True) for path in (caught.value.bad, caught.value.good))
    assert not finite([bad["state_dict"]])
    assert finite([good["state_dict"]])
    assert good["global_step"] == 45


def test_a_run_goes_on_from_the_good_checkpoint(tmp_path):
    detector, guard = ExplosionDetector(action="stop"), Guard(snapshot_every=10)
    with pytest.raises(TrainingDiverged) as caught:
        fit(tmp_path, Fault("weight", 44), detector, guard)
    run = trainer(tmp_path, max_steps=60, callbacks=[ExplosionDetector()])
    run.fit(build("GAN", ema_decay=0.9), loader(), ckpt_path=str(caught.value.good))
    assert run.global_step == 60


def test_rollbacks_far_apart_are_none_of_a_series(tmp_path):
    detector, guard = ExplosionDetector(), Guard(max_rollbacks=1, window=20)
    fit(tmp_path, Fault(math.nan, 30, 55, 80), detector, guard, steps=100)
    assert [event["action"] for event in events(tmp_path)] == ["rollback"] * 3


# lasting changes


class Scale(Callback):
    """Multiplies the discriminator's gradients from a step on."""

    def __init__(self, begin, factor):
        self.begin, self.factor = begin, factor

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        step = trainer.fit_loop.epoch_loop._batches_that_stepped
        if step >= self.begin and optimizer is trainer.optimizers[0]:
            factor = self.factor(step - self.begin) if callable(self.factor) else self.factor
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad.mul_(factor)


def test_a_fall_by_orders_of_magnitude_is_told_when_it_has_lasted(tmp_path):
    fit(tmp_path, Scale(200, 1e-4), ExplosionDetector(action="warn"), steps=300)
    (event,) = events(tmp_path)
    assert (event["kind"], event["player"], event["action"]) == ("vanish", "discriminator", "warn")
    assert 245 <= event["step"] <= 270


def test_gradients_that_become_zero_have_vanished(tmp_path):
    fit(tmp_path, Scale(200, 0.0), ExplosionDetector(action="warn"), steps=300)
    assert [event["kind"] for event in events(tmp_path)] == ["vanish"]


def test_a_steady_rise_is_told(tmp_path):
    slow = Scale(200, lambda n: min(1.05**n, 9.0))  # never ten times the median at once
    still = build("GAN", d_lr=1e-7, g_lr=1e-7)
    fit(tmp_path, slow, ExplosionDetector(action="warn", rise=5.0), model=still, steps=320)
    (event,) = events(tmp_path)
    assert (event["kind"], event["action"]) == ("rise", "warn")
    assert event["step"] <= 300


@pytest.mark.parametrize("scale", [1e-6, 6e4])
def test_no_absolute_size_counts(tmp_path, scale):
    record = fit(tmp_path, Scale(0, scale), Fault(1e3, 41), ExplosionDetector(action="skip"))
    assert [event["step"] for event in events(tmp_path)] == [41]
    assert len(record.states) == 60


def test_a_learning_rate_that_jumps_is_dropped_as_long_as_it_lasts(tmp_path):
    class Jump(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step in (40, 45):
                trainer.optimizers[0].param_groups[0]["lr"] *= 100 if trainer.global_step == 40 else 0.01

    record = fit(tmp_path, Jump(), ExplosionDetector(action={"learning_rate": "skip"}))
    assert [(event["step"], event["kind"]) for event in events(tmp_path)] == [
        (step, "learning_rate") for step in range(40, 45)
    ]
    for key in ("discriminator.body.0.weight", "discriminator.body.2.bias"):
        assert torch.equal(record.states[39][key], record.states[44][key])


def test_a_learning_rate_that_creeps_up_is_told(tmp_path):
    class Creep(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step >= 250:
                trainer.optimizers[0].param_groups[0]["lr"] *= 1.05

    fit(tmp_path, Creep(), ExplosionDetector(action={"learning_rate": "warn", "spike": "warn"}), steps=330)
    assert [(e["step"], e["kind"]) for e in events(tmp_path)][:1] == [(297, "learning_rate")]  # 1.05 ** 48 > 10


@pytest.mark.parametrize("length", [50, 500, 5000])
def test_a_long_warm_up_is_no_creep(tmp_path, length):
    model = build("GAN", d_scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: min(1, n / length)))
    fit(tmp_path, ExplosionDetector(action="skip"), model=model, steps=320)
    assert events(tmp_path) == []


def test_a_warm_up_of_the_learning_rate_is_no_jump(tmp_path):
    model = build("GAN", d_scheduler=lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: n / 60))
    fit(tmp_path, ExplosionDetector(action="skip"), model=model)
    assert events(tmp_path) == []


# healthy runs, other modules, precision


@pytest.mark.parametrize("name", SOME)
def test_a_healthy_run_is_the_same_bit_by_bit(tmp_path, name):
    def run(folder, *callbacks):
        folder.mkdir()
        both = networks(name, dropout=0.2, norm=True)
        model = MODELS[name](*both, latent_dim=LATENT, ema_decay=0.9, **EXTRAS.get(name, {}))
        torch.manual_seed(3)
        steps = 130 if name == "GAN" else 60  # three snapshots, twice the warm-up: nothing new comes later
        return fit(folder, *callbacks, model=model, steps=steps, log_every_n_steps=5)

    guard = [
        GradientNormMonitor(per_layer=True, input_every=1),
        ExplosionDetector(),
        Guard(snapshot_every=20),
        CollapseDetector(action="rollback", every_n_steps=10),
    ]
    with_guard, without = run(tmp_path / "with", *guard), run(tmp_path / "without")
    assert all(same(a, b) for a, b in zip(with_guard.states, without.states, strict=True))
    assert events(tmp_path) == []


def test_foreign_modules(tmp_path):
    class Spoil(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if trainer.global_step == 82:  # counts both optimizers: the 42nd batch
                next(pl_module.net_g.parameters()).grad = None
                next(pl_module.net_d.parameters()).grad.fill_(math.nan)

    record = fit(tmp_path, Spoil(), ExplosionDetector(), model=Plain(), steps=120)
    (event,) = events(tmp_path)
    assert (event["step"], event["player"], event["action"]) == (82, "net_d", "rollback")
    assert finite(record.states)


def scaled(init_scale):
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=init_scale))
    plugin.autocast_context_manager = lambda: torch.autocast("cpu", enabled=False)
    return plugin


def test_overflow_under_a_gradient_scaler_is_the_scalers_business(tmp_path):
    record = fit(tmp_path, Fault(math.inf, 41), ExplosionDetector(), model=build("GAN", **SGD), plugins=[scaled(64.0)])
    assert finite(record.states)
    assert [event["kind"] for event in events(tmp_path)] in ([], ["inf"])


GUARD = Path(__file__).parents[2] / "configs/callbacks/guard.yaml"


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ([], []),
        ([Fault("weight", 41)], [(41, "nan", "discriminator", "rollback")]),
        ([Fault("batch", 41)], [(41, "nan", "discriminator", "skip")]),
        ([Fault(math.nan, 41)], [(41, "nan", "discriminator", "skip")]),
        ([Fault(math.nan, 41, player="generator")], [(41, "nan", "generator", "skip")]),
        ([Fault(1e6, 41)], [(41, "spike", "discriminator", "skip")]),
    ],
    ids=["none", "weight", "batch", "gradient of D", "gradient of G", "spike"],
)
def test_in_half_precision_the_shipped_guard_finds_faults_and_no_overflow_of_the_scalers(tmp_path, fault, found):
    """The scale grows until it overflows, every eight steps, which the scaler answers by itself."""
    scaler = torch.amp.GradScaler("cpu", growth_interval=15)
    plugin, scales = MixedPrecision("16-mixed", "cpu", scaler), []
    shipped = yaml.safe_load(GUARD.read_text("utf-8"))["trainer"]["callbacks+"]
    guard = [getattr(lit_gans, entry["class_path"])(**entry["init_args"]) for entry in shipped]

    class Scales(Callback):
        def on_train_batch_end(self, trainer, *_):
            scales.append(scaler.get_scale())

    record = fit(tmp_path, *fault, *guard, Scales(), plugins=[plugin], steps=80)
    told = [(event["step"], event["kind"], event["player"], event["action"]) for event in events(tmp_path)]
    assert told == found
    assert finite(record.states)
    assert sum(after < before for before, after in pairwise(scales[:40])) >= 3


def test_the_scale_goes_back_with_the_weights(tmp_path):
    plugin = scaled(64.0)
    detector, guard = ExplosionDetector(), Guard(snapshot_every=20)
    scales = []

    class Scales(Callback):
        def on_train_batch_end(self, trainer, *_):
            scales.append(plugin.scaler.get_scale())
            if trainer.global_step == 45:
                plugin.scaler.update(2.0)

    fit(tmp_path, Fault(1e4, 47), detector, guard, Scales(), model=build("GAN", **SGD), plugins=[plugin])
    assert (scales[46], scales[47]) == (2.0, 64.0)


# reports


def test_lines_are_strict_json_with_all_that_was_promised(tmp_path):
    fit(tmp_path, Fault(math.nan, 41), Fault(1e5, 43), ExplosionDetector(action="skip"))
    lines = next(tmp_path.rglob("health.jsonl")).read_text().splitlines()
    for line in lines:
        event = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert {"step", "kind", "player", "value", "usual", "action"} <= event.keys()
    assert json.loads(lines[0])["value"] is None


def test_the_loggers_and_the_summary_tell(tmp_path, caplog):
    caplog.set_level("INFO")
    logger = CSVLogger(tmp_path, "", "")
    fit(tmp_path, Fault(1e5, 41, 45), ExplosionDetector(action="skip"), logger=logger)
    rows = (tmp_path / "metrics.csv").read_text()
    assert "health/spike" in rows
    assert (tmp_path / "health.jsonl").is_file()
    assert "health: spike (first at step 41): skip × 2" in caplog.text


def test_a_healthy_run_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    fit(tmp_path, ExplosionDetector())
    assert events(tmp_path) == []
    assert "health: nothing found in 60 steps" in caplog.text


def test_a_trial_run_writes_nothing(tmp_path):
    fit(tmp_path, ExplosionDetector(), fast_dev_run=3)
    assert not list(tmp_path.rglob("health.jsonl"))


def test_state_survives_a_resume(tmp_path):
    """Resumed in the middle, all is as in one go: what was found, what is usual, who learns slower."""
    faults = (Fault(math.nan, 30), Fault(1e4, 55))

    def detectors():
        return ExplosionDetector(), Guard(snapshot_every=10, window=80), CollapseDetector(every_n_steps=10)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = fit(tmp_path / "a", *faults, *detectors(), data=module(), steps=90)
    first = fit(tmp_path / "b", *faults, *detectors(), data=module(), steps=50)
    first.trainer.save_checkpoint(tmp_path / "half.ckpt")
    ours = detectors()
    record = Record()
    run = trainer(tmp_path / "b", max_steps=90, callbacks=[*faults, *ours, record])
    run.fit(build("GAN", ema_decay=0.9), module(), ckpt_path=str(tmp_path / "half.ckpt"))
    assert [(e["step"], e["kind"], e["action"]) for e in events(tmp_path / "b")] == [
        (e["step"], e["kind"], e["action"]) for e in events(tmp_path / "a")
    ]
    assert ours[0].guard.rollbacks[-1] == 55
    assert record.rates[-1] == pytest.approx(whole.rates[-1])


def module():
    return ImageDataModule("fake", image_size=6, channels=1, fake_length=48, batch_size=8)


def test_memory_is_freed(tmp_path):
    detector = ExplosionDetector()
    record = fit(tmp_path, detector)
    assert detector.guard in record.trainer.callbacks
    assert detector.guard.snapshots.steps == []
    assert detector.guard.players == []


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_guard_stands_behind_all_detectors_and_before_checkpoints(tmp_path, place):
    """Wherever it was given, with its limits; made if none was."""
    given, saver = Guard(max_rollbacks=1), LastCheckpoint(str(tmp_path / "ckpt"), every_n_train_steps=10)
    callbacks = [ExplosionDetector(), CollapseDetector()]
    callbacks.insert(place, given)
    record = fit(tmp_path, saver, *callbacks, enable_checkpointing=True, steps=2)
    names = [type(callback).__name__ for callback in record.trainer.callbacks]
    assert names.index("ExplosionDetector") < names.index("CollapseDetector") < names.index("Guard")
    assert names.index("Guard") < names.index("LastCheckpoint")
    assert callbacks[0 if place else 1].guard is given
    record = fit(tmp_path, *(c for c in callbacks if c is not given), steps=2)
    assert [type(callback) for callback in record.trainer.callbacks].count(Guard) == 1


def test_a_guard_without_detectors_says_so(tmp_path):
    with pytest.warns(UserWarning, match="acts on what detectors find, and there are none"):
        fit(tmp_path, Guard(), steps=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*detectors find")
        fit(tmp_path, GradientNormMonitor(), steps=1)  # which shares a guard's readings


def test_a_guard_of_another_run_begins_anew(tmp_path):
    guard = Guard(window=500)
    fit(tmp_path, Fault(math.nan, 10), ExplosionDetector(), guard, steps=20)
    assert guard.rollbacks == [10]
    fit(tmp_path, guard, steps=2)
    assert (guard.rollbacks, guard.members, guard.recovers) == ([], {}, False)


def test_a_subclass_is_a_guard_too(tmp_path):
    class Mine(Guard):
        pass

    with pytest.raises(ValueError, match="Guard and Mine are guards: give one"):
        fit(tmp_path, Guard(), ExplosionDetector(), Mine())


def test_detectors_are_left_in_peace_outside_of_training(tmp_path):
    """A checkpoint of either kind, with detectors that only join a validation."""
    first = fit(tmp_path, ExplosionDetector(), steps=5)
    first.trainer.save_checkpoint(tmp_path / "new.ckpt")
    older = torch.load(tmp_path / "new.ckpt", weights_only=True)
    older["callbacks"]["ExplosionDetector"]["guard"] = older["callbacks"].pop("Guard")
    torch.save(older, tmp_path / "older.ckpt")
    for name in ("new", "older"):
        run = trainer(tmp_path, callbacks=[ExplosionDetector()])
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*Please add the following callbacks")
            run.validate(build("GAN", ema_decay=0.9), loader(), ckpt_path=str(tmp_path / f"{name}.ckpt"))


@pytest.mark.parametrize("schedule", [None, lambda o: torch.optim.lr_scheduler.StepLR(o, 1000, 0.5)])
@pytest.mark.parametrize("g_lr", [2e-4, 1e-3])
def test_a_lowered_rate_stays_lowered_where_a_config_sets_the_options_anew(tmp_path, g_lr, schedule):
    limits = {"window": 60, "snapshot_every": 10}
    fault = Fault(math.nan, 30, player="generator")
    model = build("GAN", ema_decay=0.9, g_scheduler=schedule)
    first = fit(tmp_path, fault, ExplosionDetector(), Guard(**limits), model=model, steps=40)
    assert first.rates[-1] == pytest.approx([2e-4, 1e-4])
    first.trainer.save_checkpoint(tmp_path / "half.ckpt")
    record = Record()
    callbacks = [OptionsOfConfig(), ExplosionDetector(), Guard(**limits), record]
    run = trainer(tmp_path, max_steps=80, callbacks=callbacks)
    model = build("GAN", ema_decay=0.9, g_lr=g_lr, g_scheduler=schedule)
    run.fit(model, loader(), ckpt_path=str(tmp_path / "half.ckpt"))
    assert record.rates[0] == pytest.approx([2e-4, g_lr / 2])
    assert record.rates[-1] == pytest.approx([2e-4, g_lr])  # half of the window has passed in peace


def test_a_run_goes_on_from_the_good_checkpoint_with_rates_that_were_lowered_before(tmp_path):
    faults, limits = Fault("weight", 14, 34), {"snapshot_every": 5, "max_rollbacks": 1, "window": 60}
    with pytest.raises(TrainingDiverged) as caught:
        fit(tmp_path, faults, ExplosionDetector(), Guard(**limits))
    record = Record()
    run = trainer(tmp_path, max_steps=70, callbacks=[ExplosionDetector(), Guard(**limits), record])
    run.fit(build("GAN", ema_decay=0.9), loader(), ckpt_path=str(caught.value.good))
    assert min(record.rates[0]) == pytest.approx(1e-4)
    assert record.rates[-1] == pytest.approx([2e-4, 2e-4])


def test_two_guards_are_one_too_many(tmp_path):
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `Guard`"):
        fit(tmp_path, Guard(), ExplosionDetector(), Guard())


def test_a_checkpoint_in_which_detectors_held_what_the_guard_knows(tmp_path):
    first = fit(tmp_path, Fault(math.nan, 30), ExplosionDetector(), steps=40)
    first.trainer.save_checkpoint(tmp_path / "new.ckpt")
    older = torch.load(tmp_path / "new.ckpt", weights_only=True)
    older["callbacks"]["ExplosionDetector"]["guard"] = older["callbacks"].pop("Guard")
    torch.save(older, tmp_path / "older.ckpt")
    detector = ExplosionDetector()
    run = trainer(tmp_path, max_steps=50, callbacks=[detector])
    run.fit(build("GAN", ema_decay=0.9), loader(), ckpt_path=str(tmp_path / "older.ckpt"))
    assert detector.guard.rollbacks == [30]


# bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"action": "rolback"}, "did you mean rollback"),
        ({"action": {"nans": "skip"}}, "did you mean nan"),
        ({"spike": 1.0}, "spike is a factor above 1"),
        ({"rise": 0.5}, "rise is a factor above 1"),
        ({"vanish": -1.0}, "vanish is a factor above 1"),
        ({"sigmas": 0.0}, "sigmas must be above 0"),
        ({"warmup": 1}, "warmup must be at least 2"),
    ],
)
def test_arguments_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        ExplosionDetector(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"snapshot_every": 0}, "snapshot_every must be a whole number"),
        ({"max_rollbacks": -1}, "max_rollbacks must be a whole number"),
        ({"max_skips": 1.5}, "max_skips must be a whole number"),
        ({"lr_factor": 0.0}, "lr_factor must be above 0"),
        ({"max_memory": 1.5}, "max_memory must be above 0 and at most 1"),
        ({"interval": 0}, "interval must be a whole number of at least 1"),
    ],
)
def test_limits_out_of_range(arguments, words):
    with pytest.raises(ValueError, match=words):
        Guard(**arguments)


def test_snapshots_that_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "bytes_there", lambda: 50_000)
    with pytest.raises(ValueError, match=r"2 snapshots need .* more than max_memory=0.25 .* raise max_memory"):
        fit(tmp_path, ExplosionDetector())
    fit(tmp_path, ExplosionDetector(), Guard(max_memory=1.0))
    fit(tmp_path, ExplosionDetector(action="warn"), Guard(max_memory=0.01))


def test_the_estimate_of_memory_is_what_a_snapshot_takes(tmp_path):
    detector, guard = ExplosionDetector(), Guard(snapshot_every=20)
    held = []

    class Measure(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            if trainer.global_step == 50:
                state = detector.guard.snapshots._held[-1][1]
                tensors = [*state["module"].values()]
                tensors += [x for o in state["optimizers"] for p in o["state"].values() for x in p.values()]
                held.append(sum(x.numel() * x.element_size() for x in tensors))

    record = fit(tmp_path, detector, guard, Measure())
    assert held[0] == pytest.approx(snapshots.bytes_needed(record.model, 1), rel=0.02)


def test_strategies_that_shard_are_refused(tmp_path, monkeypatch):
    run = trainer(tmp_path, max_steps=2)
    monkeypatch.setattr(snapshots, "SingleDeviceStrategy", DDPStrategy)
    with pytest.raises(ValueError, match="SingleDeviceStrategy shards the state"):
        ExplosionDetector().setup(run, Plain(), "fit")
    ExplosionDetector(action="warn").setup(run, Plain(), "fit")


def test_weights_that_are_bad_to_begin_with(tmp_path):
    model = build("GAN")
    model.generator.body[0].bias.data[0] = math.inf
    with pytest.raises(ValueError, match=r"generator.body.0.bias holds NaN or infinity before training starts"):
        fit(tmp_path, ExplosionDetector(), model=model)


# what a reader's trial found


def test_training_on_does_not_change_a_snapshot(tmp_path):
    seconds = []

    class Moments(Callback):
        def on_train_batch_end(self, trainer, *_):
            seconds.append([x.clone() for state in trainer.optimizers[0].state.values() for x in state.values()])

    detector, guard = ExplosionDetector(), Guard(snapshot_every=100)
    record = fit(tmp_path, Fault("weight", 150, 250), detector, guard, Moments(), steps=260)
    assert [event["step"] for event in events(tmp_path)] == [150, 250]
    assert same(record.states[150], record.states[99])
    assert all(torch.equal(a, b) for a, b in zip(seconds[150], seconds[99], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(seconds[250], seconds[99], strict=True))


def test_two_optimizers_in_a_batch_do_not_put_the_guard_out_of_step(tmp_path):
    class Spoil(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.fit_loop.epoch_loop._batches_that_stepped == 350:
                next(pl_module.net_d.parameters()).data[0] = math.nan

    record = fit(tmp_path, Spoil(), ExplosionDetector(), model=Plain(), steps=720)
    (event,) = events(tmp_path)
    assert event["step"] == 700  # what Lightning counts
    assert same(record.states[350], record.states[299])


def test_backward_past_lightning_is_seen_all_the_same(tmp_path):
    class Raw(Plain):
        def manual_backward(self, loss, *args, **kwargs):
            loss.backward()

    record = fit(tmp_path, Fault(math.nan, 50, player="net_d"), ExplosionDetector("skip"), model=Raw(), steps=140)
    assert [event["kind"] for event in events(tmp_path)] == ["nan"]
    assert finite(record.states)


def test_what_is_usual_goes_back_with_the_weights(tmp_path):
    """Norms of the state that is put back are a thousandth of the latest: no spike when they are there again."""
    detector, guard = ExplosionDetector({"nan": "rollback", "spike": "skip"}), Guard(snapshot_every=500)
    scale = Scale(300, lambda n: 1.02**-n if n < 350 else 1e-3)
    fit(tmp_path, scale, Fault(math.nan, 700), detector, guard, steps=760)
    assert "spike" not in [event["kind"] for event in events(tmp_path) if event["step"] < 700]


@pytest.mark.parametrize("steps", [40, 95])
def test_a_schedule_may_jump(tmp_path, steps):
    """A warm-up by epochs, from a hundredth."""

    def warm_up(optimizer):
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 0.01 if n < steps else 1.0)

    fit(tmp_path, ExplosionDetector("skip"), model=build("GAN", d_scheduler=warm_up), steps=120)
    assert events(tmp_path) == []


def test_a_detector_begins_each_run_anew(tmp_path):
    detector = ExplosionDetector()
    fit(tmp_path, detector, model=build("GAN", d_lr=1e-6))
    fit(tmp_path, detector, model=build("GAN", d_lr=1e-3))
    assert events(tmp_path) == []


def test_infinity_in_a_buffer_may_be_meant(tmp_path):
    model = build("GAN")
    model.discriminator.register_buffer("mask", torch.full((4, 4), -math.inf).triu(1))
    fit(tmp_path, ExplosionDetector(), Guard(snapshot_every=10), model=model)
    assert events(tmp_path) == []


@pytest.mark.parametrize("step", [57, 60])
def test_infinity_that_training_brings_into_a_buffer_is_no_mask(step, tmp_path):
    class Spoils(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if trainer.global_step == step:
                pl_module.generator.body[1].running_var.fill_(math.inf)

    model = MODELS["GAN"](*networks("GAN", norm=True), latent_dim=LATENT)
    detector, guard = ExplosionDetector(), Guard(snapshot_every=1000 if step == 60 else 10)
    record = fit(tmp_path, Spoils(), detector, guard, model=model)
    assert finite([weights(model)])
    (event,) = events(tmp_path)
    assert (event["tensor"], event["action"]) == ("generator.body.1.running_var", "rollback")
    assert record.trainer.global_step == 60


def test_a_past_that_does_not_vary_tells_no_spikes_and_a_new_level_is_learnt(tmp_path):
    still = Usual(warmup=25)
    for _ in range(40):
        still.add(1.0)
    detector = ExplosionDetector("skip")
    fit(tmp_path, Fault(1e4, *range(40, 160)), detector, steps=160)
    skipped = [event["step"] for event in events(tmp_path) if event["player"] == "discriminator"]
    assert skipped == list(range(40, 60))
    player = SimpleNamespace(name="discriminator", optimizer=SimpleNamespace(param_groups=[{"lr": 1.0}]))
    reading = SimpleNamespace(values=lambda trainer: (1e6, 0.0, True), player=player)
    detector._rate = lambda *args: ()
    assert list(detector._judge(SimpleNamespace(), None, reading, still)) == []


def test_a_spike_in_the_warm_up_hides_no_other(tmp_path):
    fit(tmp_path, Fault(1e4, 10, 100, 150), ExplosionDetector("skip"), steps=160)
    assert [event["step"] for event in events(tmp_path)] == [100, 150]


def test_buffers_that_are_replaced_or_not_saved_are_put_back(tmp_path):
    class Own(MODELS["GAN"]):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.register_buffer("mean", torch.zeros(()))
            self.register_buffer("k", torch.zeros(()), persistent=False)

        def training_step(self, batch, batch_idx):
            super().training_step(batch, batch_idx)
            spoiled = self.trainer.global_step - 1 == 47
            self.mean = 0.9 * self.mean + (1e5 if spoiled else 1.0)
            self.k.add_(math.nan if spoiled else 1.0)

    model = Own(*networks("GAN"), latent_dim=LATENT)
    fit(tmp_path, Fault(math.nan, 47), ExplosionDetector("rollback"), Guard(snapshot_every=20), model=model)
    assert [event["step"] for event in events(tmp_path)] == [47]
    assert model.mean < 11
    assert model.k == 40 + 12


def test_layers_that_are_added_while_training(tmp_path):
    class Grow(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 30:
                pl_module.discriminator.extra = torch.nn.Parameter(torch.zeros(3))
                trainer.optimizers[0].add_param_group({"params": [pl_module.discriminator.extra]})

    record = fit(tmp_path, Grow(), Fault("weight", 47), ExplosionDetector(), Guard(snapshot_every=20))
    (event,) = events(tmp_path)
    assert (event["step"], event["tensor"], event["action"]) == (59, "discriminator.extra", "rollback")
    assert finite(record.states[59:])


def test_sparse_gradients(tmp_path):
    class Lookup(Plain):
        def __init__(self):
            super().__init__()
            self.net_d.table = torch.nn.Embedding(4, 1, sparse=True)

        def on_before_zero_grad(self, optimizer):
            pass

        def training_step(self, batch, batch_idx):
            _, d_opt = self.optimizers()
            d_opt.zero_grad()
            value = self.net_d.table(torch.tensor([1])).sum() + self.net_d(batch[0]).mean()
            self.manual_backward(value * (math.nan if self.trainer.global_step == 41 else 1.0))
            d_opt.step()

    fit(tmp_path, ExplosionDetector("skip"), model=Lookup())
    (event,) = events(tmp_path)
    assert (event["step"], event["kind"]) == (41, "nan")


def test_an_accumulated_step_is_one_step(tmp_path):
    class Sum(Plain):
        def __init__(self):
            super().__init__(automatic=True)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

        def training_step(self, batch, batch_idx):
            return (self.net_d(self.sample(8)) - self.net_d(batch[0])).mean()

    detector, guard = ExplosionDetector(), Guard(snapshot_every=5)
    steps = []

    class Spy(Callback):
        def on_train_batch_end(self, *_):
            steps.append(tuple(detector.guard.snapshots.steps))

    collapse = CollapseDetector(every_n_steps=10, warmup=10)
    fit(tmp_path, detector, guard, collapse, Spy(), model=Sum(), steps=21, accumulate_grad_batches=2)
    assert (5, 10) in steps
    assert all(len(set(held)) == len(held) for held in steps)


def test_the_first_fault_after_a_stop_is_the_first(tmp_path):
    detector, guard = ExplosionDetector(), Guard(snapshot_every=10, max_rollbacks=1)
    with pytest.raises(TrainingDiverged) as caught:
        fit(tmp_path, Fault("weight", 44, 46), detector, guard)
    run = trainer(tmp_path, max_steps=70, callbacks=[Fault("weight", 60), ExplosionDetector(), Guard(max_rollbacks=1)])
    run.fit(build("GAN", ema_decay=0.9), loader(), ckpt_path=str(caught.value.good))
    assert run.global_step == 70


def test_the_guards_own_changes_of_the_rate_are_no_fault(tmp_path):
    first = fit(tmp_path, Fault(math.nan, 30), ExplosionDetector(), Guard(window=40, lr_factor=0.05), steps=40)
    first.trainer.save_checkpoint(tmp_path / "half.ckpt")
    run = trainer(tmp_path, max_steps=80, callbacks=[ExplosionDetector(), Guard(window=40, lr_factor=0.05)])
    run.fit(build("GAN", ema_decay=0.9), loader(), ckpt_path=str(tmp_path / "half.ckpt"))
    assert [event["step"] for event in events(tmp_path)] == [30]
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(2e-4)


def test_a_player_that_is_frozen_by_its_rate(tmp_path):
    class Freeze(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 40:
                trainer.optimizers[0].param_groups[0]["lr"] = 0.0

    detector, guard = ExplosionDetector({"learning_rate": "rollback"}), Guard(snapshot_every=20, window=20)
    record = fit(tmp_path, Freeze(), detector, guard)
    assert [(event["step"], event["kind"]) for event in events(tmp_path)] == [(40, "learning_rate")]
    assert record.rates[-1][0] == pytest.approx(2e-4)
