"""``profile``: parts that add up, estimates by hand, alternatives in turns, and nothing left behind."""

import gc
import json
import os
import signal
import tempfile
import weakref
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from jsonargparse import Namespace
from launching import ranks
from lightning import Callback
from refusals import refused
from torch import nn
from toys import build, loader, trainer

from lit_gans import GAN
from lit_gans.callbacks import GenerativeMetrics, SampleGrid
from lit_gans.cli import main
from lit_gans.commands.profiling import alternatives as trying
from lit_gans.commands.profiling import devices, report, running
from lit_gans.commands.profiling.alternatives import Alternative, compare, merged, recommended, try_all
from lit_gans.commands.profiling.ledger import REST, Key, Ledger
from lit_gans.commands.profiling.occasional import Work, whole_turns, works_of
from lit_gans.commands.profiling.pace import Measured, Pace, clock_of, total_steps, turn_of
from lit_gans.commands.profiling.parts import PARTS
from lit_gans.regularizers import R1
from lit_gans.runs import BestCheckpoint, LastCheckpoint

ROOT = Path(__file__).parents[1]
SMALL = [  # a small GAN on some of the digits
    *("--model", "GAN", "--model.latent_dim", "4", "--model.ema_decay", "0.9"),
    *("--model.generator", "MLPGenerator", "--model.generator.image_size", "8", "--model.generator.latent_dim", "4"),
    *("--model.generator.widths", "[16]", "--model.discriminator", "MLPDiscriminator"),
    *("--model.discriminator.image_size", "8", "--model.discriminator.widths", "[16]"),
    *("--data.batch_size", "16", "--data.limit", "128", "--trainer.max_steps", "100", "--trainer.accelerator", "cpu"),
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def rooms(tmp_path, monkeypatch):
    """Where temporary folders are made, and where statistics are kept."""
    places = tmp_path.parent / f"{tmp_path.name}-temporary", tmp_path.parent / f"{tmp_path.name}-cache"
    for place in places:
        place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places[0]))
    monkeypatch.setenv("LIT_GANS_CACHE", str(places[1]))
    return places


def ticking():
    """A clock that is a second later whenever it is read."""
    return count().__next__


# a step and its parts


def test_each_moment_is_charged_to_the_innermost_part():
    ledger = Ledger(iter([0.0, 1.0, 3.0, 4.0, 6.0, 7.0]).__next__)
    ledger.begin()
    ledger.enter(Key("a"))
    ledger.enter(Key("b"))
    ledger.leave()
    ledger.leave()
    assert ledger.end() == {REST: 2.0, Key("a"): 4.0, Key("b"): 1.0}
    assert ledger.open == []


class Seen(Callback):
    """What a step finds of what watches it."""

    def __init__(self):
        self.bare = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in pl_module.modules()]
        wrapped = {"update", "slope", "log_step"} & set(vars(pl_module))
        self.bare.append(not any(hooks) and not wrapped and type(trainer.profiler).__name__ == "PassThroughProfiler")


def paced(tmp_path, model=None, steps=4, limits=None, callbacks=(), clock=None):
    """A measured run of toys, whose clock ticks."""
    pace, model = Pace(steps, 0.0, clock=clock or ticking()), model or build("GAN", ema_decay=0.9)
    checkpoints = any(isinstance(callback, LastCheckpoint) for callback in callbacks)
    run = trainer(
        tmp_path,
        callbacks=[pace, *callbacks],
        enable_checkpointing=checkpoints,
        **{"max_steps": 1000, **(limits or {})},
    )
    run.fit(model, loader(800), loader())
    return pace.measured, run


def test_the_parts_of_a_step_add_up_to_it(tmp_path):
    measured, _ = paced(tmp_path, build("GAN", ema_decay=0.9, regularizers=[R1(every=1)]))
    found = {key.part for parts in measured.parts for key in parts}
    assert found >= {"data", "generator forward", "discriminator forward", "generator backward", "penalties"}
    assert found >= {"discriminator backward", "optimizers", "average", "rest"}
    assert found <= {*PARTS, "samples", "checkpoints"}
    usual = measured.usual_parts()
    assert sum(usual.values()) == pytest.approx(measured.step)
    assert min(usual.values()) > 0
    step = measured.parts[0]  # each part is entered and left: what the clock says then is charged to somebody
    assert sum(step.values()) == int(sum(step.values())) > 2 * len(step)


def test_steps_that_are_measured_as_a_whole_are_left_alone(tmp_path):
    seen = Seen()
    measured, _ = paced(tmp_path, steps=4, callbacks=[seen], limits={"limit_val_batches": 0})
    warm = 1 + 2
    assert seen.bare == [True] * warm + [True] * 4 + [False] * 2 + [True]  # the last ends the run
    assert (len(measured.blocks), len(measured.parts)) == (1, 2)
    assert measured.blocks == [pytest.approx(1 / 4)]  # the clock is read at the ends of a block alone


def test_a_lazy_penalty_has_its_share_of_the_steps(tmp_path):
    model = build("GAN", n_critic=2, regularizers=[R1(every=3)])
    assert turn_of(model) == 6
    measured, _ = paced(tmp_path, model, steps=4)
    penalised = [any(key.part == "penalties" for key in parts) for parts in measured.parts]
    played = [any(key.part == "generator backward" for key in parts) for parts in measured.parts]
    assert (len(penalised), sum(penalised), sum(played)) == (6, 2, 3)
    assert whole_turns(4, 6) == 6
    assert whole_turns(12, 6) == 12


def test_compiled_networks_are_watched_from_outside(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("lit_gans.game.module.compile_networks", lambda model: called.append(model))
    model = build("GAN", compile=True)
    found = []

    class Hooks(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            found.append(len(pl_module.generator._forward_hooks) + len(pl_module.discriminator._forward_hooks))

    measured, _ = paced(tmp_path, model, callbacks=[Hooks()])
    assert called == [model]
    assert not any(found)
    assert {"generator forward", "discriminator forward"} <= {key.part for key in measured.parts[0]}


def test_a_gpu_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda", 0)
    clock_of(device)()
    clock_of(torch.device("cpu"))()
    assert waited == [device]


# occasional work


def test_how_often_work_is_done_by_hand():
    work = Work("x", (), None, 500, [])
    assert [work.count(steps) for steps in (0, 499, 500, 2000, 2001)] == [0, 0, 1, 4, 4]
    ending = Work("x", (), None, 500, [], at_end=True)  # what falls on the last step, or comes after it, is of the end
    assert [ending.count(steps) for steps in (0, 1, 500, 501, 2000, 2001)] == [0, 0, 0, 1, 3, 4]
    work.seconds = [5.0, 2.0, 4.0]
    assert [work.cost(times) for times in (0, 1, 2, 3)] == [0.0, 5.0, 8.0, 11.0]


def test_work_is_what_a_step_took_longer_with_it():
    work = Work("SampleGrid", ("samples",), "SampleGrid", 500, [])
    work.charge({Key("samples", "SampleGrid"): 3.0, Key("samples", "Other"): 9.0, REST: 5.0}, {})
    work.charge({}, {Key("samples", "SampleGrid"): 1.0})
    assert work.seconds == [3.0, 0.0]
    everything = Work("logging", ("logging", "rest"), None, 50, [])
    everything.charge({Key("logging"): 3.0, REST: 5.0}, {Key("logging"): 1.0, REST: 4.0})
    assert everything.seconds == [3.0]


@pytest.mark.parametrize(("patience", "validations"), [(10**6, 2), (0, 1)])
def test_each_kind_of_work_is_done_as_often_as_it_is_measured_and_no_oftener(
    patience, validations, tmp_path, monkeypatch
):
    monkeypatch.setattr("lit_gans.commands.profiling.pace.PATIENCE", patience)
    drawn, saved, validated, clock = [], [], [], ticking()

    class Grid(SampleGrid):
        def draw(self, trainer, pl_module, batches):
            drawn.append(batches)
            clock(), clock(), clock()

    class Last(LastCheckpoint):
        def save(self, trainer):
            saved.append(trainer.global_step)
            clock(), clock()

    class Validations(Callback):
        def on_validation_end(self, trainer, pl_module):
            validated.append(trainer.global_step)

    callbacks = [Grid(every_n_steps=5), Last(str(tmp_path), 7), Validations()]
    measured, run = paced(
        tmp_path,
        clock=clock,
        callbacks=callbacks,
        limits={"val_check_interval": 6, "check_val_every_n_epoch": None, "num_sanity_val_steps": 0},
    )
    names = {work.name: work for work in measured.works}
    assert {name: work.period for name, work in names.items()} == {"Grid": 5, "Last": 7, "validation": 6}
    steps = 3 + 4 + 2  # to warm up, as a whole, taken apart
    assert drawn[:2] == [steps + 1, steps + 2]
    assert saved[:2] == [steps + 3, steps + 4]
    assert len(validated) == validations
    assert set(drawn[2:]) == set(saved[2:]) == {run.global_step}  # at the end
    assert (names["Grid"].seconds, names["Last"].seconds) == ([3, 3], [2, 2])
    assert min(names["validation"].seconds) > 0


@pytest.mark.parametrize(
    ("val", "by_epochs", "batches", "period"),
    [(1000, None, 22, 1000), (None, 1, 22, 22), (11, 2, 22, 22), (22, 5, 22, 110), (float("inf"), None, 22, 22)],
)
def test_periods_of_validation_by_hand(val, by_epochs, batches, period):
    best = BestCheckpoint("val/fid")
    trainer = SimpleNamespace(
        enable_validation=True, val_check_batch=val, check_val_every_n_epoch=by_epochs, num_training_batches=batches,
        log_every_n_steps=0, loggers=[], callbacks=[best],
    )  # fmt: skip
    validation, checkpoint = works_of(trainer)
    assert (validation.name, validation.period) == ("validation", period)
    assert (checkpoint.name, checkpoint.period, checkpoint.follows) == ("BestCheckpoint", period, True)
    assert validation.count(2 * period) == 2
    trainer.callbacks.append(GenerativeMetrics())  # which has the last state validated, always: that is in the end
    assert [work.count(steps) for work in works_of(trainer) for steps in (2 * period, 2 * period + 1)] == [1, 2, 1, 2]
    trainer.enable_validation = False
    assert works_of(trainer) == []


# the whole run


@pytest.mark.parametrize(
    ("steps", "epochs", "total"), [(300, None, 300), (-1, 3, 66), (50, 3, 50), (300, 3, 66), (-1, -1, None)]
)
def test_steps_of_the_whole_run(steps, epochs, total):
    assert total_steps(SimpleNamespace(max_steps=steps, max_epochs=epochs, num_training_batches=22)) == total


def by_hand():
    """A run of 1,000 steps of 0.1 s, with samples of 2 s at every 300th and a validation of 10 s at every 500th."""
    measured = Measured(images=64, total=1000, start_up=8.0, warm_up=1.0, blocks=[0.3, 0.1, 0.1], ending=3.0)
    measured.parts = [{REST: 1.0, Key("data"): 3.0}]
    samples = Work("SampleGrid", ("samples",), "SampleGrid", 300, [], at_end=True, seconds=[2.0, 2.0])
    validation = Work("validation", ("validation",), None, 500, [], seconds=[10.0])
    measured.works = [samples, validation]
    return measured


def test_the_estimate_by_hand():
    measured = by_hand()
    expected = {"start-up": 9.0, "steps": 100.0, "SampleGrid": 6.0, "validation": 20.0, "end": 3.0}
    assert measured.estimate() == pytest.approx(expected)
    told = report.estimate_text(measured, None, ["WandbLogger"])
    assert "of 1,000 steps will take about 2.3 min" in told  # 138 s
    assert "SampleGrid × 3 6.0 s, validation × 2 20 s, end 3.0 s" in told
    assert "Included: " in told
    assert "Left out, as it would be told to another computer: WandbLogger" in told
    assert "--trainer.max_time ends it before, after 60 s" in report.estimate_text(measured, 60.0)


def test_the_table_by_hand():
    rows = {line[:46].strip(): line[46:].split() for line in report.parts_table(by_hand()).splitlines()}
    assert rows["data"][:2] == ["75.00", "ms"]
    assert rows["other: losses, noise, Lightning and Python"][:2] == ["25.00", "ms"]
    assert rows["a step"] == ["100.00", "ms", "78.9", "%", "640", "images/s"]
    assert rows["SampleGrid"] == ["6.67", "ms", "5.3", "%", "2.0", "s,", "every", "300", "steps"]
    assert rows["validation"] == ["20.00", "ms", "15.8", "%", "10.0", "s,", "every", "500", "steps"]
    assert rows["a step with its share of these"] == ["126.67", "ms", "100.0", "%", "505", "images/s"]
    plain = report.as_plain(by_hand(), None, [])
    assert plain["run"]["seconds"] == pytest.approx(138)
    assert sum(plain["parts"].values()) == pytest.approx(plain["step"])


# alternatives


class Scripted:
    """A run whose steps take the seconds that it was told."""

    def __init__(self, seconds, images, log, name):
        self.seconds, self.rate, self.images, self.log, self.name = iter(seconds), images, log, name, name
        self.log, self.name = log, name

    def advance(self, steps):
        self.log.append((self.name, steps))
        self.images = self.rate * steps
        return next(self.seconds)


def test_blocks_take_turns_and_images_are_compared():
    log, one = [], Alternative("batch_size × 2", {})
    base, other = Scripted([2.0, 4.0, 2.0], 10, log, "base"), Scripted([3.0, 3.0, 8.0], 20, log, "other")
    compare(one, base, other, block=5, rounds=3)
    assert log == [("base", 5), ("other", 5)] * 3
    assert one.ratios == pytest.approx([2 / 3 * 2, 4 / 3 * 2, 2 / 8 * 2])
    assert one.speed == pytest.approx(4 / 3)
    assert one.step == pytest.approx(3 / 5)


def measured_alternatives(**speeds):
    """Alternatives with these speeds."""
    overlays = {
        "channels_last": {"model": {"init_args": {"channels_last": True}}},
        "compile": {"model": {"init_args": {"compile": True}}},
        "bf16": {"trainer": {"precision": "bf16-mixed"}},
        "workers_2": {"data": {"num_workers": 2}},
        "workers_4": {"data": {"num_workers": 4}},
        "batch": {"data": {"batch_size": 128}},
    }
    kept = {name: name != "batch" for name in overlays}
    return [Alternative(name, overlays[name], kept[name], ratios=[speed]) for name, speed in speeds.items()]


def test_what_helps_by_more_than_5_percent_and_keeps_the_training_is_recommended():
    found = measured_alternatives(channels_last=1.3, compile=1.05, bf16=1.06, workers_2=1.2, workers_4=1.1, batch=3.0)
    found.append(Alternative("failed", {}, ratios=[9.0], failed="out of memory"))
    assert [one.name for one in recommended(found)] == ["channels_last", "bf16", "workers_2"]


class Fake:
    """A comparison that knows what comes of two together."""

    def __init__(self, together):
        self.together, self.tried = together, []

    def try_out(self, one):
        self.tried.append(one.name)
        if not one.ratios:
            one.ratios = [self.together]


@pytest.mark.parametrize(("together", "names"), [(1.5, ["compile", "bf16"]), (1.1, ["compile"])])
def test_what_helps_alone_is_tried_together(together, names):
    comparison, told = Fake(together), []
    everything, chosen = try_all(comparison, measured_alternatives(compile=1.3, bf16=1.2, batch=2.0), told.append)
    assert comparison.tried == ["compile", "bf16", "batch", "these together"]
    assert [one.name for one in chosen] == names
    assert everything[-1].overlay == {"model": {"init_args": {"compile": True}}, "trainer": {"precision": "bf16-mixed"}}
    assert len(told) == 4
    assert len(try_all(Fake(9.0), measured_alternatives(compile=1.3), told.append)[0]) == 1


def test_the_overlay_holds_what_was_chosen_and_says_why():
    chosen = measured_alternatives(compile=1.3, bf16=1.2)
    chosen[1].remark = "another precision"
    text = report.overlay_text(["profile", "--config", "quickstart"], chosen)
    assert yaml.safe_load(text) == {"model": {"init_args": {"compile": True}}, "trainer": {"precision": "bf16-mixed"}}
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert comments[0] == "# python -m lit_gans profile --config quickstart"
    assert comments[1:] == ["# compile: 1.30 times as fast", "# bf16: 1.20 times as fast; another precision"]
    assert merged([{"a": {"b": 1}}, {"a": {"c": 2}}]) == {"a": {"b": 1, "c": 2}}


def test_the_table_of_alternatives_tells_failures_in_a_sentence():
    found = [Alternative("compile on", {}, ratios=[1.25], step=0.2, compiling=35.0, remark="note")]
    found.append(Alternative("batch_size × 4", {}, failed="out of memory"))
    _, first, second = report.alternatives_table(found).splitlines()
    assert " ".join(first.split()) == "compile on 1.25 × 200.00 ms compiles for 35 s at first, note"
    assert second.split() == ["batch_size", "×", "4", "out", "of", "memory"]
    assert running.told(RuntimeError("CUDA out of memory. Tried to allocate 3 GiB\nmore")) == "out of memory"
    assert running.told(ValueError("\n one\n two")) == "one"
    assert running.told(KeyError()) == "KeyError"


def options_with(**changes):
    model = {"compile": False, "accumulate": 1, **changes}
    data = Namespace(batch_size=32, num_workers=changes.get("num_workers", 0))
    trainer = SimpleNamespace(precision=changes.get("precision"))
    return Namespace(data=data, trainer=trainer, model=SimpleNamespace(init_args=SimpleNamespace(**model)))


def model_with(layer, laid_out=False):
    """A model that says in which memory format it trains, whether asked for or by "auto"."""
    layer.laid_out = laid_out
    return layer


def test_what_is_on_is_tried_off_and_only_images_have_a_memory_format():
    images, device = model_with(nn.Conv2d(1, 2, 3)), torch.device("cpu")
    found = {one.name: one.overlay for one in trying.usual_alternatives(options_with(), images, device)}
    names = ["channels_last on", "bf16-mixed", "compile on", "num_workers 2"]
    changing = ["batch_size × 2", "batch_size × 4", "accumulate 2"]
    assert [name for name in found if name != "one GPU"] == names + changing
    assert found["batch_size × 4"] == {"data": {"batch_size": 128}}
    on = options_with(compile=True, num_workers=4, precision="bf16-mixed", accumulate=2)
    names = [one.name for one in trying.usual_alternatives(on, model_with(nn.Conv2d(1, 2, 3), laid_out=True), device)]
    assert [name for name in names if name != "one GPU"] == [
        *("channels_last off", "compile off", "num_workers 0", "num_workers 8"),
        *("batch_size × 2", "batch_size × 4", "accumulate 4"),
    ]
    names = [one.name for one in trying.usual_alternatives(options_with(), model_with(nn.Linear(2, 2)), device)]
    assert "channels_last on" not in names


def test_only_what_keeps_the_training_may_be_recommended():
    found = trying.usual_alternatives(options_with(), model_with(nn.Conv2d(1, 2, 3)), torch.device("cpu"))
    changing = {one.name for one in found if not one.keeps}
    assert changing - {"one GPU"} == {"batch_size × 2", "batch_size × 4", "accumulate 2"}


def test_memory_that_might_not_be_there_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(trying, "available_memory", lambda: 3.0)
    comparison = trying.Comparison([], Path(), 0.1, 1, 50, growth=2**30)
    assert comparison.refusal(Alternative("batch_size × 2", {})) is None
    assert comparison.refusal(Alternative("batch_size × 4", {})) == "might not fit: 3.0 GiB of memory are left"
    assert comparison.refusal(Alternative("compile on", {})) is None


@pytest.mark.parametrize(
    ("step", "turn", "block"), [(0.4, 1, 2), (0.05, 1, 16), (1e-4, 1, 50), (0.4, 16, 16), (1e-4, 60, 60)]
)
def test_blocks_are_as_long_as_a_clock_needs(step, turn, block):
    assert trying.Comparison([], Path(), step, turn, 50).block == block


def test_all_gpus_are_measured_by_a_program_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")

    def start(command, env, **_):
        assert command[1:4] == ["-m", "lit_gans", "profile"]
        assert command[command.index("--trainer.devices") + 1] == "2"
        assert "--no_alternatives" in command
        assert "LOCAL_RANK" not in env
        Path(command[command.index("--json") + 1]).write_text(json.dumps({"images": 128, "step": 0.2}))
        return SimpleNamespace(returncode=0, stderr="")

    found = devices.all_gpus(["--config", "x"], tmp_path, 2, 400.0, start)
    assert (found.name, found.speed, found.step, found.keeps) == ("2 GPUs", pytest.approx(1.6), 0.2, False)
    failed = SimpleNamespace(returncode=2, stderr="noise\nlit_gans: profile: there is only one\n")
    assert devices.all_gpus([], tmp_path / "no", 2, 400.0, lambda *_, **__: failed).failed == "there is only one"


# runs that stand still


def stepper(tmp_path, *words):
    return running.Stepper(running.build([*SMALL, *words], tmp_path))


def test_a_run_takes_the_steps_it_is_told_and_no_more(tmp_path):
    with running.without_output():
        run = stepper(tmp_path)
        trainer = run.built.trainer
        run.begin()
        assert trainer.global_step == 0
        assert run.advance(3) > 0
        assert (trainer.global_step, run.images) == (3, 48)
        run.advance(9)  # past the end of an epoch
        assert (trainer.global_step, run.images) == (12, 144)
        run.close()
    assert not run._thread.is_alive()


def test_runs_with_the_same_words_begin_with_the_same_weights(tmp_path):
    with running.without_output():
        runs = [running.build([*SMALL, *words], tmp_path) for words in ([], ["--data.batch_size", "32"])]
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_run_that_fails_or_ends_by_itself_is_not_waited_for(tmp_path, monkeypatch):
    def fails(self, batch, batch_idx):
        raise RuntimeError("out of memory" if self.trainer.global_step == 0 else "x")

    with running.without_output():
        ends = stepper(tmp_path)
        ends.begin()
        ends.built.trainer.should_stop = True
        for _ in range(2):
            with pytest.raises(RuntimeError, match="ended by itself"):
                ends.advance(5)
        monkeypatch.setattr(GAN, "training_step", fails)
        broken = stepper(tmp_path)
        broken.begin()
        for _ in range(2):
            with pytest.raises(RuntimeError, match="out of memory"):
                broken.advance(1)
        broken.close()


def test_what_cannot_be_measured_is_told_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(trying, "ROUNDS", 1)
    found = [
        Alternative("unknown", {"model": {"init_args": {"nothing": 1}}}),
        Alternative("refused", {"model": {"init_args": {"accumulate": 0}}}),
        Alternative("too large", {"data": {"batch_size": 10**6}}),
        Alternative("works", {"data": {"batch_size": 32}}),
    ]
    comparison = trying.Comparison(SMALL, tmp_path, 1.0, 1, 2)
    with comparison.begun():
        try_all(comparison, found, lambda line: None)
    assert "nothing" in found[0].failed
    assert "accumulate" in found[1].failed
    assert found[2].failed
    assert all("\n" not in one.failed and "Traceback" not in one.failed for one in found[:3])
    assert found[3].failed is None
    assert found[3].speed > 0


# whole commands


def profile(*words):
    main(["profile", *SMALL, "--steps", "2", *map(str, words)])


def test_nothing_is_left_behind_but_what_was_asked_for(rooms, tmp_path, capsys, monkeypatch):
    environment = dict(os.environ)
    monkeypatch.setattr(trying, "ROUNDS", 1)
    usual = trying.usual_alternatives
    some = ("num_workers 2", "batch_size × 2")
    monkeypatch.setattr(
        "lit_gans.commands.profiling.session.usual_alternatives",
        lambda *args: [one for one in usual(*args) if one.name in some],
    )
    monkeypatch.setattr(trying, "HELPS", 1e-9)
    profile("--json", "all.json", "--trace", "trace.json", "--sample_every", "20", "--monitor", "val/d_loss")
    told = capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"all.json", "trace.json", "profile.yaml"}
    assert not any(list(place.iterdir()) for place in rooms)
    assert {name: os.environ.get(name) for name in environment} == environment
    found = json.loads(Path("all.json").read_text())
    assert sum(found["parts"].values()) == pytest.approx(found["step"])
    assert found["run"]["steps"] == 100
    assert {one["name"]: one["count"] for one in found["occasional"]} == {
        **{"logging": 2, "SampleGrid": 4, "LastCheckpoint": 0, "validation": 0, "BestCheckpoint": 0}
    }
    assert [one["name"] for one in found["alternatives"]] == list(some)
    assert all(one["speed"] > 0 for one in found["alternatives"])
    assert yaml.safe_load(Path("profile.yaml").read_text()) == {"data": {"num_workers": 2}} == found["recommended"]
    assert "Milliseconds per step, by part:" in told
    assert "The whole run of 100 steps will take about" in told
    assert "batch_size × 2" in told
    assert "→ profile.yaml: give fit the same options" in told
    names = {event.get("name") for event in json.loads(Path("trace.json").read_text())["traceEvents"]}
    assert {"generator forward", "discriminator backward", "optimizers"} <= names


def test_the_quickstart_is_profiled_and_its_statistics_are_not_kept(rooms, tmp_path, capsys):
    main(["profile", "--config", str(ROOT / "configs/quickstart.yaml"), "--steps", "4", "--no_alternatives"])
    told = capsys.readouterr().out
    assert not list(tmp_path.iterdir())
    assert not any(list(place.iterdir()) for place in rooms)
    for row in ("penalties, forward", "callbacks", "CollapseDetector", "Guard", "validation", "BestCheckpoint"):
        assert f"\n  {row}" in told
    assert "The whole run of 8,000 steps" in told
    assert "Alternatives" not in told


def test_an_overlay_is_written_only_if_something_helps(rooms, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lit_gans.commands.profiling.session.usual_alternatives", lambda *_: [])
    profile()
    assert "helps by more than 5 %: no overlay is written" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_its_memory_is_free_before_alternatives_begin(rooms, monkeypatch):
    from lit_gans.commands.profiling import session

    models = []
    build = session.build
    monkeypatch.setattr(session, "build", lambda *args: models.append(weakref.ref((it := build(*args)).model)) or it)

    def compared(comparison, found):
        gc.collect()
        assert [model() for model in models] == [None]
        return [], []

    monkeypatch.setattr(session, "compared", compared)
    profile()


def test_what_a_config_would_write_elsewhere_or_tell_others_stays(rooms, tmp_path):
    pytest.importorskip("wandb")  # whose import makes folders that go when the process ends
    list(map(os.rmdir, rooms[0].iterdir()))
    Path("mine.yaml").write_text(
        "trainer:\n  logger:\n  - class_path: WandbLogger\n  - class_path: CSVLogger\n    init_args: {save_dir: logs}\n"
        "  callbacks:\n  - class_path: SampleGrid\n    init_args: {dirpath: pictures}\n"
    )
    with running.room() as folder, running.without_output():
        built = running.build([*SMALL, "--config", "mine.yaml"], folder)
        assert built.left_out == ("WandbLogger",)
        assert [type(logger).__name__ for logger in built.trainer.loggers] == ["CSVLogger"]
        built.trainer.fit_loop.epoch_loop.max_steps = 2
        built.train()
    assert {path.name for path in tmp_path.iterdir()} == {"mine.yaml"}
    assert not list(rooms[0].iterdir())


def test_a_failure_and_a_signal_leave_nothing_either(rooms, tmp_path, monkeypatch, capsys):
    def fails(self, batch, batch_idx):
        raise ValueError("no such luck")

    with monkeypatch.context() as patch:
        patch.setattr(GAN, "training_step", fails)
        assert refused(capsys, "profile", *SMALL) == "lit_gans: profile: no such luck"

    def told_to_leave():
        with running.room():
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as left:
        told_to_leave()
    assert left.value.code == 143
    assert not list(tmp_path.iterdir())
    assert not any(list(place.iterdir()) for place in rooms)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--steps", "0"], "--steps must be at least 1, got 0"),
        (["--steps", "x"], "--steps: invalid int value: 'x'"),
        (["--output", "taken.yaml"], "taken.yaml exists: choose another path, or add --overwrite"),
        (["--json", "taken.yaml"], "taken.yaml exists"),
        (["--trainer.fast_dev_run", "true"], "--trainer.fast_dev_run is too short to be measured"),
        (["--model.g_lr", "high"], "g_lr"),
        (["--stepz", "3"], "unknown option 'stepz': did you mean steps"),
    ],
)
def test_refused_in_a_sentence(words, told, rooms, capsys):
    Path("taken.yaml").write_text("")
    assert told in refused(capsys, "profile", *SMALL, *words)
    assert not any(list(place.iterdir()) for place in rooms)


@pytest.mark.slow
def test_two_processes_measure_together_and_one_tells(tmp_path):
    small = [*SMALL, "--trainer.devices", "2", "--trainer.strategy", "gan_ddp"]
    code = (
        "from lit_gans.commands.profiling import alternatives as trying, session; from lit_gans.cli import main; "
        "import sys; trying.ROUNDS = 1; usual = trying.usual_alternatives; "
        "some = ('batch_size × 2',); "
        "session.usual_alternatives = lambda *args: [one for one in usual(*args) if one.name in some]; "
        "main(sys.argv[1:])"
    )
    words = ["profile", *small, "--steps", "2", "--json", "all.json"]
    done = ranks("-c", code, *words, cwd=tmp_path, timeout=200, TMPDIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "all.json").read_text())
    assert (found["processes"], found["images"]) == (2, 32)
    assert all(one["failed"] is None and one["speed"] > 0 for one in found["alternatives"])
    assert {path.name for path in tmp_path.iterdir()} <= {"all.json", "profile.yaml"}
