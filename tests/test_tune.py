"""``tune``: the halving by hand, where trials come from, and whole searches that are stopped and go on."""

import copy
import csv
import io
import json
import math
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml
from refusals import refused

from lit_gans.cli import main
from lit_gans.commands.training import CommandLine
from lit_gans.commands.tuning import overlays, report
from lit_gans.commands.tuning import space as spaces
from lit_gans.commands.tuning import trial as trials
from lit_gans.commands.tuning.search import OptunaSampler, Outcome, RandomSampler, Rung, rungs, search
from lit_gans.errors import UserError
from lit_gans.models import GAN

ROOT = Path(__file__).parents[1]
SMALL = [  # a small GAN on some of the digits
    *("--model", "GAN", "--model.latent_dim", "4"),
    *("--model.generator", "MLPGenerator", "--model.generator.image_size", "8", "--model.generator.latent_dim", "4"),
    *("--model.generator.widths", "[16]", "--model.discriminator", "MLPDiscriminator"),
    *("--model.discriminator.image_size", "8", "--model.discriminator.widths", "[16]"),
    *("--model.regularizers+=R1", "--model.regularizers.every", "2", "--data.limit", "128"),
    *("--config", str(ROOT / "configs/logger/csv.yaml")),
]
RANGES = ["--g_lr", "1e-4", "1e-2", "--weight.R1", "0.1", "10", "--batch_size", "8", "16", "32"]
JUDGED = ["--monitor", "val/d_loss", "--trainer.max_epochs", "100"]
HALVED = ["--trials", "3", "--max_steps", "8"]
FOLDER = Path("runs/tune-gan-digits")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGINT)  # Lightning ignores it after the first
    yield
    signal.signal(signal.SIGINT, handler)


def tune(*words):
    main(["tune", *SMALL, *map(str, words)])


def kept(folder=FOLDER):
    """What ``tune.json`` holds, without what differs from run to run."""
    outcomes = json.loads((folder / "tune.json").read_text())["outcomes"]
    return [{key: value for key, value in o.items() if key not in ("seconds", "memory")} for o in outcomes]


def table(out):
    """The rows below the header, without the time of a step."""
    lines = out.split("\n\n")[1].splitlines()
    column = lines[0].split().index("ms/step")
    rows = [line.split() for line in lines[1:]]
    return [row[:column] + row[column + 1 :] for row in rows]


def last(trial, rung):
    return torch.load(next((FOLDER / f"trial_{trial}" / f"rung_{rung}").rglob("last.ckpt")), weights_only=True)


# the halving


@pytest.mark.parametrize(
    ("asked", "by_hand"),
    [
        ((9, 500, 3), [(9, 56), (3, 167), (1, 500)]),  # 500/9 = 55.6, 500/3 = 166.7
        ((10, 27, 3), [(10, 3), (3, 9), (1, 27)]),
        ((8, 100, 2), [(8, 13), (4, 25), (2, 50), (1, 100)]),
        ((8, 90, 3), [(8, 30), (2, 90)]),  # 8/9 < 1: two of them go to the end
        ((2, 90, 3), [(2, 90)]),
        ((1, 1, 2), [(1, 1)]),
    ],
)
def test_rungs_by_hand(asked, by_hand):
    assert rungs(*asked) == [Rung(*pair) for pair in by_hand]


class Counting:
    """A sampler whose trials are called 1, 2, 3, ...; 0 is the config's own."""

    def __init__(self):
        self.told = []

    def ask(self):
        return {"g_lr": float(len(self.told) + 1)}

    def tell(self, loss):
        self.told.append(loss)


def played(plan, results, mode="min"):
    """A search in which ``results[trial][rung]`` are known; the ranking, all that was trained, what was told."""
    trained, sampler = [], Counting()

    def train(trial, rung, parameters, before):
        trained.append((trial, rung))
        assert parameters == {"g_lr": float(trial)}
        assert (before is None) == (rung == 0)
        assert before is None or (before.trial, before.rung) == (trial, rung - 1)
        return Outcome(trial, rung, parameters, plan[rung].steps, **results[trial][rung])

    ranked = search(plan, sampler, train, mode, {"g_lr": 0.0})
    return [outcome.trial for outcome in ranked], trained, sampler.told


PLAN = [Rung(4, 1), Rung(2, 2), Rung(1, 4)]


def metrics(*values):
    return [{"metric": value} for value in values]


def test_the_better_ones_go_on_and_who_came_farthest_leads():
    results = [metrics(3.0, 9.0), metrics(4.0), metrics(2.0, 5.0, 8.0), metrics(5.0)]
    ranked, trained, told = played(PLAN, results)
    assert trained == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (2, 1), (2, 2)]
    assert ranked == [2, 0, 1, 3]
    assert told == [4.0, 2.0, 5.0]


def test_higher_may_be_better():
    results = [metrics(3.0), metrics(4.0, 9.0, 8.0), metrics(2.0), metrics(5.0, 6.0)]
    ranked, _, told = played(PLAN, results, "max")
    assert ranked == [1, 3, 0, 2]
    assert told == [-4.0, -2.0, -5.0]


def test_a_rollback_outweighs_any_metric_and_divergence_all():
    results = [
        [{"metric": 1.0, "events": {"rollback": 1}}],
        [{"metric": 9.0, "events": {"warn": 7, "clip": 2}}, {"diverged": "loss is NaN"}],
        [{"diverged": "out of memory"}],
        metrics(3.0, 4.0, 5.0),
    ]
    ranked, trained, told = played(PLAN, results)
    assert trained[4:] == [(1, 1), (3, 1), (3, 2)]
    assert ranked == [3, 0, 1, 2]
    assert told == [9.0, None, 3.0]


def test_with_few_left_few_go_on():
    diverged = [{"diverged": "loss is NaN"}]
    ranked, trained, _ = played(PLAN, [diverged, diverged, metrics(1.0, 1.0, 1.0), diverged])
    assert trained[4:] == [(2, 1), (2, 2)]
    assert ranked[0] == 2
    assert played(PLAN, [diverged] * 4)[1] == [(0, 0), (1, 0), (2, 0), (3, 0)]


def test_without_a_metric_the_guard_judges():
    results = [[{"events": events}] for events in ({"warn": 3}, {"rollback": 1}, {}, {"clip": 1, "warn": 1})]
    ranked, _, told = played([Rung(4, 1)], results)
    assert ranked == [2, 3, 0, 1]
    assert told == [1.0, 0.0, 2.0]


# where trials come from

SPACE = {"g_lr": (1e-4, 1e-2), "batch_size": [32, 64, 128]}


def draw(n, seed=0, space=SPACE):
    sampler = RandomSampler(space, seed)
    return [sampler.ask() for _ in range(n)]


def test_the_seed_decides_what_is_drawn():
    assert draw(20) == draw(20)
    assert draw(5) == draw(20)[:5]
    assert draw(5, seed=1) != draw(5)


def test_learning_rates_are_log_uniform_and_batch_sizes_are_dealt_in_turn():
    drawn = draw(3000)
    logs = [math.log10(trial["g_lr"]) for trial in drawn]
    assert -4 <= min(logs) < max(logs) <= -2
    quarters = [sum(-4 + k / 2 <= log < -3.5 + k / 2 for log in logs) for k in range(4)]
    assert quarters == pytest.approx([750] * 4, abs=80)  # three standard deviations
    assert all(f"{trial['g_lr']:.3g}" == f"{trial['g_lr']:.10g}" for trial in drawn)
    for start in range(0, 30, 3):
        assert sorted(trial["batch_size"] for trial in drawn[start : start + 3]) == [32, 64, 128]
    assert len({tuple(trial["batch_size"] for trial in drawn[k : k + 3]) for k in range(0, 3000, 3)}) == 6


def test_rounding_does_not_leave_the_range():
    assert {trial["g_lr"] for trial in draw(50, space={"g_lr": (1.23456e-4, 1.23457e-4)})} <= {1.23456e-4, 1.23457e-4}


@pytest.fixture
def optuna(monkeypatch):
    """What ``tune`` uses of optuna, and what it was asked."""
    fake, asked = ModuleType("optuna"), []

    class Trial:
        def suggest_float(self, *args, **kwargs):
            asked.append(("float", args, kwargs))
            return args[1] * 1.23456

        def suggest_categorical(self, *args):
            asked.append(("categorical", args))
            return args[1][-1]

    class Study:
        def ask(self):
            return Trial()

        def tell(self, trial, *args, **kwargs):
            asked.append(("tell", args, kwargs))

    def create_study(**kwargs):
        asked.append(("study", kwargs))
        return Study()

    fake.create_study = create_study
    fake.samplers = SimpleNamespace(TPESampler=lambda **kwargs: ("TPE", kwargs))
    fake.trial = SimpleNamespace(TrialState=SimpleNamespace(PRUNED="pruned"))
    fake.logging = SimpleNamespace(WARNING=30, set_verbosity=lambda level: asked.append(("verbosity", level)))
    monkeypatch.setitem(sys.modules, "optuna", fake)
    return asked


def test_optuna_is_asked_in_its_own_words(optuna):
    sampler = OptunaSampler(SPACE, 7, 9)
    assert sampler.ask() == {"g_lr": 1.23e-4, "batch_size": 128}
    sampler.tell(2.5)
    sampler.ask()
    sampler.tell(None)
    study = {"direction": "minimize", "sampler": ("TPE", {"seed": 7, "n_startup_trials": 3})}
    suggested = [("float", ("g_lr", 1e-4, 1e-2), {"log": True}), ("categorical", ("batch_size", [32, 64, 128]))]
    reports = [("tell", (2.5,), {}), ("tell", (), {"state": "pruned"})]
    assert optuna == [("verbosity", 30), ("study", study), *suggested, reports[0], *suggested, reports[1]]


def test_a_missing_optuna_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install lit-gans\[tune\]"):
        OptunaSampler(SPACE, 0, 9)
    assert "pip install lit-gans[tune]" in refused(capsys, "tune", *SMALL, *RANGES, "--sampler", "optuna")
    assert not Path("runs").exists()


# whole searches


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder, to be read only, in which a search ran to its end, and what it said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("whole"))
        with redirect_stdout(io.StringIO()) as said:
            tune(*JUDGED, *RANGES, *HALVED)
        return Path.cwd(), said.getvalue()


def test_a_search_announces_tells_and_estimates(whole):
    folder, said = whole
    announced = said.splitlines()[:5]
    assert announced[0] == "3 trials: 3 of 3 steps, 1 of 8: 14 steps in all"
    assert announced[1].endswith("batch_size [8, 16, 32], drawn by random with seed 0")
    assert announced[2] == "judged by the guard (rollbacks), then by val/d_loss, lower is better"
    outcomes = kept(folder / FOLDER)
    first, final = outcomes[:3], outcomes[3]
    best = min(first, key=lambda outcome: outcome["metric"])
    assert (final["trial"], final["parameters"], final["steps"]) == (best["trial"], best["parameters"], 8)
    expected = RandomSampler({"g_lr": (1e-4, 1e-2), "weight.R1": (0.1, 10.0), "batch_size": [8, 16, 32]}, 0)
    own = {"g_lr": 2e-4, "weight.R1": 1.0, "batch_size": 64}  # defaults, and the middle of what is by rule
    assert [outcome["parameters"] for outcome in first] == [own, expected.ask(), expected.ask()]
    others = sorted((o for o in first if o is not best), key=lambda outcome: outcome["metric"])
    rows = [
        [str(o["trial"]), *(f"{value:g}" for value in o["parameters"].values()), str(o["steps"]), f"{o['metric']:.5g}"]
        for o in (final, *others)
    ]
    assert table(said) == [[*row, "none"] for row in rows]
    batches = 128 // best["parameters"]["batch_size"]
    assert f"× {100 * batches:,} steps of the full run = about" in said  # 100 epochs
    assert "MiB at the peak, of this process" in said


def test_trials_leave_their_runs_in_the_folder_of_the_search_and_nothing_elsewhere(whole):
    folder, _ = whole
    assert sorted(path.name for path in folder.iterdir()) == ["best.yaml", "runs"]
    assert [path.name for path in (folder / "runs").iterdir()] == [FOLDER.name]
    runs = sorted(path.parent.relative_to(folder / FOLDER).as_posix() for path in folder.rglob("metrics.csv"))
    best = kept(folder / FOLDER)[-1]["trial"]
    assert runs == sorted(f"trial_{t}/rung_{r}/gan-digits/version_0" for t, r in [(0, 0), (1, 0), (2, 0), (best, 1)])


def test_fit_takes_the_overlay_and_trains_as_the_trial_did(whole, monkeypatch):
    folder, _ = whole
    text = (folder / "best.yaml").read_text()
    outcome = kept(folder / FOLDER)[-1]
    comments = [line for line in text.splitlines() if line.startswith("#")]
    assert comments[0].startswith("# python -m lit_gans tune --model GAN")
    assert comments[0].endswith(" ".join([*RANGES, *HALVED]))
    assert f"val/d_loss {outcome['metric']:.5g} after 8 steps" in comments[1]
    assert comments[1].endswith("seed 0")
    drawn = outcome["parameters"]
    assert yaml.safe_load(text)["model"]["init_args"]["g_lr"] == drawn["g_lr"]
    limits = ["--trainer.max_steps", "8", "--trainer.enable_progress_bar", "false"]
    main(["fit", *SMALL, *JUDGED, "--config", str(folder / "best.yaml"), *limits])
    saved = torch.load("runs/gan-digits/version_0/checkpoints/last.ckpt", weights_only=True)
    assert saved["hyper_parameters"]["g_lr"] == drawn["g_lr"]
    assert saved["hyper_parameters"]["regularizers"][0]["init_args"] == {"weight": drawn["weight.R1"], "every": 2}
    assert saved["datamodule_hyper_parameters"]["batch_size"] == drawn["batch_size"]
    monkeypatch.chdir(folder)
    given = yaml.safe_load((FOLDER / f"trial_{outcome['trial']}/rung_1/gan-digits/version_0/config.yaml").read_text())
    assert given["ckpt_path"] == kept()[outcome["trial"]]["checkpoint"]  # after 3 steps, 5 more
    continued = last(outcome["trial"], 1)["state_dict"]
    assert all(torch.equal(value, continued[key]) for key, value in saved["state_dict"].items())


def test_the_same_command_again_does_nothing_more(whole, monkeypatch, capsys):
    folder, said = whole
    monkeypatch.chdir(folder)
    monkeypatch.setattr(trials, "train", None)
    before = kept(), Path("best.yaml").read_text()
    tune(*JUDGED, *RANGES, *HALVED)
    out = capsys.readouterr().out
    assert table(out) == table(said)
    assert "4 of 4 runs are there already" in out
    assert (kept(), Path("best.yaml").read_text()) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--trials", "4"], "trials 3 → 4"),
        (["--g_lr", "1e-4", "1e-3"], "ranges.g_lr [0.0001, 0.01] → [0.0001, 0.001]"),
        (["--model.d_lr", "0.5"], "model.init_args.d_lr 0.0002 → 0.5"),
        (["--seed_everything", "1"], "seed_everything 0 → 1"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(words, told, whole, monkeypatch, capsys):
    monkeypatch.chdir(whole[0])
    before = kept()
    message = refused(capsys, "tune", *SMALL, *JUDGED, *RANGES, *HALVED, *words)
    assert f"{FOLDER} holds another search ({told}): give another --dir" in message
    assert kept() == before


def test_interrupted_and_gone_on_with_is_as_if_never_stopped(whole, monkeypatch, capsys):
    folder, said = whole
    step = GAN.training_step

    def interrupted(self, batch, batch_idx):
        if "trial_1" in self.trainer.log_dir and self.trainer.global_step == 2:
            raise KeyboardInterrupt
        step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(GAN, "training_step", interrupted)
        with pytest.raises(SystemExit):
            tune(*JUDGED, *RANGES, *HALVED)
    assert "stopped: 1 of 4 runs are kept; the same command goes on" in capsys.readouterr().out
    assert [(outcome["trial"], outcome["rung"]) for outcome in kept()] == [(0, 0)]
    assert not Path("best.yaml").exists()
    tune(*JUDGED, *RANGES, *HALVED)
    out = capsys.readouterr().out
    assert "1 of 4 runs are there already" in out
    assert table(out) == table(said)
    assert kept() == kept(folder / FOLDER)
    assert Path("best.yaml").read_text() == (folder / "best.yaml").read_text()


@pytest.fixture
def playing_up(monkeypatch):
    """Whatever ``trick(model, folder, step)`` does after each training step of a trial."""

    def make(trick):
        step = GAN.training_step

        def training_step(self, batch, batch_idx):
            step(self, batch, batch_idx)
            trick(self, Path(self.trainer.log_dir), self.trainer.global_step)

        monkeypatch.setattr(GAN, "training_step", training_step)

    return make


def spoil(model):
    torch.nn.init.constant_(next(model.discriminator.parameters()), math.nan)


def record(folder, step, *actions):
    """What a guard writes; with no action at all, an empty file."""
    events = [{"step": step, "kind": "spike", "player": None, "value": 1.0, "usual": 0.5, "action": a} for a in actions]
    with (folder / "health.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)


def test_who_diverges_ranks_last_and_the_guard_is_heard(playing_up, monkeypatch, capsys):
    def trick(model, folder, step):
        actions = []
        if "trial_1" in str(folder):
            spoil(model)
        if "trial_2" in str(folder) and step == 2:
            actions = ["rollback", "warn", "warn"]
        if "trial_3" in str(folder):
            actions = ["clip"]
        record(folder, step, *actions)
        if "trial_0" in str(folder):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB\nand more")

    playing_up(trick)
    finished = []
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run="a run", finish=lambda: finished.append(1)))
    words = ["--trials", 4, "--eta", 4, "--max_steps", 8, "--dir", "here", "-o", "deep/out.yaml"]
    tune("--monitor", "val/d_loss", "--d_lr", 1e-4, 1e-3, *words, "--trainer.check_val_every_n_epoch", 50)
    out = capsys.readouterr().out
    third, second, first, spoilt = (line.split(maxsplit=5) for line in out.split("\n\n")[1].splitlines()[1:])
    assert (third[0], third[2], third[5]) == ("3", "8", "8 clips")  # 2 in the first rung, 6 in the second
    assert (second[0], second[2], second[5]) == ("2", "2", "1 rollback, 2 warnings")
    assert (first[0], first[2:4]) == ("0", ["1", "-"])
    assert first[5].endswith("quiet  diverged: CUDA out of memory. Tried to allocate 20 GiB")
    assert (spoilt[0], spoilt[4]) == ("1", "-")
    assert spoilt[5].endswith("quiet  diverged: val/d_loss is nan")
    assert "× 10,000 steps of the full run" in out  # the default of fit
    assert len(finished) == 5
    overlay = yaml.safe_load(Path("deep/out.yaml").read_text())
    assert overlay == {"model": {"init_args": {"d_lr": kept(Path("here"))[-1]["parameters"]["d_lr"]}}}
    assert not Path("runs").exists()


def test_without_a_monitor_the_guard_alone_judges(playing_up, capsys):
    def trick(model, folder, step):
        place = str(folder)
        record(folder, step, *(["skip"] if "trial_0" in place else ["stop"] if "trial_2" in place else []))
        if "trial_1" in place:
            spoil(model)
        if "trial_3" in place and step < 3:
            record(folder, step, "clip" if step == 1 else "skip")

    playing_up(trick)
    tune("--g_lr", 1e-4, 1e-3, "--trials", 4, "--eta", 5, "--max_steps", 3)
    out = capsys.readouterr().out
    assert "only the guard judges: there is no monitor" in out
    rows = [line.split() for line in out.split("\n\n")[1].splitlines()[1:]]
    assert [(row[0], " ".join(row[4:])) for row in rows] == [
        ("3", "1 skip, 1 clip"),
        ("1", "quiet diverged: weights are NaN or infinite"),
        ("0", "3 skips diverged: 3 updates skipped"),
        ("2", "3 stops diverged: stopped by the guard"),
    ]
    assert "no metric after 3 steps, guard: 1 skip, 1 clip; seed 0" in Path("best.yaml").read_text()


def test_a_search_in_which_all_diverge_ends_with_the_reason(playing_up, capsys):
    def trick(model, folder, step):
        raise FloatingPointError("the loss is NaN")

    playing_up(trick)
    words = ["--g_lr", 1e-4, 1e-3, "--trials", 1, "--max_steps", 2]
    assert "all trials diverged (the loss is NaN)" in refused(capsys, "tune", *SMALL, *words)
    assert not Path("best.yaml").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model.n_critic", "0"], "n_critic must be at least 1, got 0"),
        (["--monitor", "val/loss"], "val/loss"),
        (["--monitor", "val/d_loss", "--trainer.limit_val_batches", "0"], "val/d_loss was not measured by step 2"),
    ],
)
def test_what_is_wrong_with_the_config_ends_the_search_at_its_first_trial(words, told, capsys):
    search = ["--g_lr", "1e-4", "1e-3", "--trials", "2", "--max_steps", "2"]
    assert told in refused(capsys, "tune", *SMALL, *search, *words)
    assert kept() == []


def test_an_error_before_training_is_no_divergence(monkeypatch):
    def fails(self, **kwargs):
        raise RuntimeError("there is no such accelerator")

    monkeypatch.setattr(CommandLine, "instantiate_trainer", fails)
    with pytest.raises(RuntimeError, match="no such accelerator"):
        tune("--g_lr", 1e-4, 1e-3, "--trials", 2, "--max_steps", 2)
    assert kept() == []


def test_distances_are_measured_at_the_end_of_a_rung(capsys):
    callback = ["--trainer.callbacks+=GenerativeMetrics", "--trainer.callbacks.metrics", "[fd]"]
    words = ["--g_lr", 1e-4, 1e-3, "--trials", 1, "--max_steps", 3, "--monitor", "val/fd_digits"]
    tune(*callback, "--trainer.callbacks.every_n_steps", 2, *words)
    with next(FOLDER.rglob("metrics.csv")).open() as file:
        measured = [
            (int(row["step"]), float(row["val/fd_digits"])) for row in csv.DictReader(file) if row["val/fd_digits"]
        ]
    assert [step for step, _ in measured] == [1, 2]  # counted from 0: in between, and at the end
    assert kept()[0]["metric"] == pytest.approx(measured[1][1])
    assert measured[0][1] != pytest.approx(measured[1][1])


def test_a_note_on_averages_that_reach_back_further_than_a_rung(playing_up, capsys):
    def trick(model, folder, step):
        raise KeyboardInterrupt

    playing_up(trick)
    with pytest.raises(SystemExit):
        tune("--monitor", "val/d_loss", "--g_lr", 1e-4, 1e-3, "--max_steps", 500, "--model.ema_decay", 0.99)
    assert "ema_decay 0.99 averages over some 100 steps, the first rung has 56" in capsys.readouterr().out


# what is refused


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "say what to search, for example --g_lr 1e-4"),
        (["--g_lr", "1e-4"], "--g_lr: expected 2 arguments"),
        (["--g_lr", "0", "1e-3"], "--g_lr 0 0.001: LOW must be above 0, and HIGH above LOW"),
        (["--d_lr", "-1", "1"], "--d_lr -1 1: LOW must be above 0"),
        (["--d_lr", "1e-3", "1e-4"], "HIGH above LOW"),
        (["--d_lr", "1e-3", "1e-3"], "HIGH above LOW"),
        (["--d_lr", "1e-3", "nan"], "HIGH above LOW"),
        (["--d_lr", "1e-3", "inf"], "HIGH above LOW"),
        (["--g_lr", "low", "high"], "--g_lr: invalid float value: 'low'"),
        (["--weight.R1", "-1", "1"], "--weight.R1 -1 1: LOW must be above 0"),
        (["--batch_size", "0", "8"], "--batch_size must be at least 1, got 0"),
        (["--batch_size", "8.5"], "--batch_size: invalid int value: '8.5'"),
        (["--batch_size", "8", "16", "--trials", "3"], "--batch_size alone makes 2 trials, --trials asks for 3"),
        ([*RANGES, "--trials", "0"], "--trials must be at least 1, got 0"),
        ([*RANGES, "--eta", "1"], "--eta must be at least 2, got 1"),
        ([*RANGES, "--max_steps", "0"], "--max_steps must be at least 1, got 0"),
        ([*RANGES, "--max_steps", "8"], "--max_steps 8 cannot be split into 3 rungs: at least 9"),
        ([*RANGES, "--sampler", "grid"], "--sampler: invalid choice: 'grid'"),
        (["--g_lrr", "1e-4", "1e-3"], "unknown option 'g_lrr': did you mean g_lr"),
        (["--lr", "1e-4", "1e-3"], "unknown option 'lr': did you mean g_lr or d_lr"),
        (["--weights.R1", "1", "2"], "unknown option 'weights.R1': did you mean weight.R1"),
        ([*RANGES, "--trails", "3"], "unknown option 'trails': did you mean trials"),
        ([*RANGES, "--max_step", "3"], "unknown option 'max_step': did you mean max_steps"),
        ([*RANGES, "--model.g_lrr", "3"], "unknown argument 'g_lrr': did you mean g_lr"),
        ([*RANGES, "--config", "missing.yaml"], "no such file: "),
        (["--gp_weight", "1", "10"], "GAN takes no gp_weight; there are g_lr, d_lr, weight.R1"),
        (["--weight.R2", "1", "10"], "unknown regularizer 'R2': did you mean R1"),
        (["--batch_size", "64", "256", "--trials", "2"], "--batch_size 256 is larger than the data set of 128 images"),
        ([*RANGES, "--data.dataset", "folder", "--data.root", "nowhere"], "nowhere"),
        ([*RANGES, "--trainer.devices", "2"], "a search trains on one device"),
        ([*RANGES, "-o", "taken.yaml"], "taken.yaml exists: choose another path, or add --overwrite"),
        ([*RANGES, "--dir", "full"], "full is something else than a search: give another --dir"),
        ([*RANGES, "--dir", "broken"], "broken/tune.json cannot be read"),
    ],
)
def test_what_cannot_work_is_refused_before_any_trial(words, told, capsys, monkeypatch):
    monkeypatch.setattr(trials, "train", None)
    Path("taken.yaml").write_text("model: null\n")
    for name, file in {"full": "thesis.txt", "broken": "tune.json"}.items():
        Path(name).mkdir()
        Path(name, file).write_text("{}")
    assert told in refused(capsys, "tune", *SMALL, *words)
    assert not Path("runs").exists()


def test_no_model_at_all(capsys):
    assert "--config configs/quickstart.yaml" in refused(capsys, "tune", *RANGES)


@pytest.mark.parametrize("words", [["--help"], ["--g_lr", "2", "1"], ["--trials", "0"]])
def test_words_that_cannot_work_are_answered_without_torch(words):
    code = f"import sys; from lit_gans.cli import main\ntry: main(['tune', *{words}])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == (0 if words == ["--help"] else 2)
    assert ("--weight.NAME" in done.stdout) == (words == ["--help"])
    assert not {"torch", "lightning", "numpy", "jsonargparse", "yaml"} & set(done.stdout.split())


@pytest.fixture(scope="module")
def config():
    """As ``fit`` understands it; to be read only."""
    return trials.understood(SMALL)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model.regularizers": None}, "the config has 0 regularizers R1: a weight needs one"),
        ({"model.regularizers": [{"class_path": "lit_gans.R1"}] * 2}, "the config has 2 regularizers R1"),
        ({"model.g_optimizer": {"class_path": "RMSprop"}}, "g_optimizer brings its own learning rate"),
        ({"trainer.devices": -1}, "a search trains on one device"),
        ({"trainer.devices": [0, 1]}, "a search trains on one device"),
        ({"trainer.num_nodes": 2}, "a search trains on one device"),
        ({"trainer.fast_dev_run": 3}, "leave out --trainer.fast_dev_run"),
        ({"trainer.enable_checkpointing": False}, "leave out --trainer.enable_checkpointing false"),
        ({"ckpt_path": "last.ckpt"}, "leave out --ckpt_path"),
    ],
)
def test_configs_that_cannot_be_searched(changed, told, config):
    space = {"g_lr": (1e-4, 1e-3), "weight.R1": (0.1, 1.0)}
    spaces.check(space, config)
    spaces.check(space, set_in(config, {"trainer.devices": [1], "model.d_optimizer": {"class_path": "RMSprop"}}))
    with pytest.raises(UserError, match=told):
        spaces.check(space, set_in(config, changed))


def set_in(config, changed):
    """A copy with other values."""
    config = copy.deepcopy(config)
    places = {"model": config["model"]["init_args"], "trainer": config["trainer"], "": config}
    for key, value in changed.items():
        place, _, name = key.rpartition(".")
        places[place][name] = value
    return config


def test_the_overlay_of_a_paper_with_a_penalty_of_its_own():
    config = trials.understood(["WGANGP" if word == "GAN" else word for word in SMALL])
    spaces.check({"gp_weight": (1.0, 10.0), "d_lr": (1e-5, 1e-4)}, config)
    overlay = overlays.overlay_of({"gp_weight": 3.0, "d_lr": 2e-5}, config)
    assert overlay == {"model": {"init_args": {"gp_weight": 3.0, "d_lr": 2e-5}}}


def test_other_regularizers_stay_as_they_are():
    def r1(weight):
        return {"class_path": "lit_gans.R1", "init_args": {"weight": weight, "every": 16}}

    other = {"class_path": "mine.LeCam", "init_args": {"weight": 7.0}}
    config = {"model": {"init_args": {"regularizers": [other, r1(10.0)]}}}
    overlay = overlays.overlay_of({"weight.R1": 0.5, "batch_size": 8}, config)
    assert overlay == {"model": {"init_args": {"regularizers": [other, r1(0.5)]}}, "data": {"batch_size": 8}}


@pytest.mark.parametrize(
    ("steps", "epochs", "told"),
    [
        (8000, None, "× 8,000 steps of the full run = about 16 s\nnote: "),
        (1000, None, "× 1,000 steps of the full run = about 2 s\nmemory"),
        (-1, 1000, "× 22,000 steps of the full run = about 44 s\nnote: judged after 500 steps, where"),
        (3_600_000, 10**6, "× 3,600,000 steps of the full run = about 2.0 h"),
        (300_000, -1, "× 300,000 steps of the full run = about 10 min"),
        (-1, None, "2 ms a step of trial 4, with all that happened in between\n"),
    ],
)
def test_estimates_by_hand(steps, epochs, told):
    best = Outcome(4, 2, {}, 500, seconds=0.002, batches=22, memory=3 * 2**30, device="cuda")
    text = report.estimates(best, {"trainer": {"max_steps": steps, "max_epochs": epochs}})
    assert told in text
    assert text.endswith("memory: 3,072 MiB at the peak, of tensors on the GPU, in its last run")


def test_loggers_follow_the_runs_unless_they_have_a_place_of_their_own(config):
    plain = {"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "name": "x"}}
    mine = {"class_path": "CSVLogger", "init_args": {"save_dir": "/logs"}}
    config = set_in(config, {"trainer.logger": [plain, mine, {"class_path": "WandbLogger"}]})
    trainer = overlays.settings({"batch_size": 8}, config, 56, 3, Path("room"))["trainer"]
    here = {"class_path": "CSVLogger", "init_args": {"save_dir": ".", "name": "x"}}
    assert trainer["logger"] == [here, mine, {"class_path": "WandbLogger", "init_args": {"save_dir": "."}}]
    assert (trainer["default_root_dir"], trainer["max_steps"], trainer["max_epochs"]) == ("room", 56, -1)
    assert (
        "logger" not in overlays.settings({}, set_in(config, {"trainer.logger": None}), 56, 3, Path("room"))["trainer"]
    )


def test_the_extra_is_declared():
    assert '\ntune = ["optuna>=4"]' in (ROOT / "pyproject.toml").read_text("utf-8")
