"""N steps, an end, and the rest from the checkpoint are bit by bit what the whole run would have been."""

import csv
import os
import shutil
import signal
import time
from functools import cache

import pytest
import torch
from interrupted import VALIDATION, At, crash, equal, fit, states
from launching import Program, python
from torch.optim import Adam
from toys import LATENT, MODELS, WIDE, by_turns, loader, networks, same, trainer, weights

from lit_gans.models import GAN
from lit_gans.runs.resuming import OptionsOfConfig

MOMENTS = {  # hook, and global step at which it runs, of a signal that arrives; global step of the state that is saved
    "in the middle of an epoch": ("on_before_optimizer_step", 7, 8),
    "at the end of an epoch": ("on_train_batch_end", 10, 10),
    "at its beginning": ("on_train_batch_start", 10, 11),
    "before a validation": ("on_train_batch_end", 9, 9),
    "within a validation": ("on_validation_batch_end", 9, 9),
    "after a validation": ("on_validation_end", 9, 10),
    "before one at the end of an epoch": ("on_train_batch_end", 15, 15),
}


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """Runs that nothing interrupts, each made once."""

    @cache
    def whole(name, **kwargs):
        return fit(tmp_path_factory.mktemp("whole"), name, **kwargs)

    return whole


def assert_resumes(tmp_path, wholes, name, hook, step, saved, **kwargs):
    whole, whole_run, rows, _ = wholes(name, **kwargs)
    told = At(hook, step, lambda: os.kill(os.getpid(), signal.SIGTERM))
    _, _, before, code = fit(tmp_path / "parts", name, told, **kwargs)
    assert code == 143
    assert torch.load(tmp_path / "parts" / "last.ckpt", weights_only=True)["global_step"] == saved
    resumed, run, after, _ = fit(tmp_path / "parts", name, resume=True, **kwargs)
    assert same(weights(whole), weights(resumed))
    assert equal(states(whole_run), states(run))
    rates = [[group["lr"] for o in r.optimizers for group in o.param_groups] for r in (whole_run, run)]
    assert rates[0] == rates[1]
    assert rows == before + after


@pytest.mark.parametrize(("name", "moment"), by_turns(MODELS, MOMENTS))
def test_a_run_told_to_end_goes_on_bit_by_bit(name, moment, tmp_path, wholes):
    """Each model at one moment by default, each moment by three models or four."""
    assert_resumes(tmp_path, wholes, name, *MOMENTS[moment])


@pytest.mark.parametrize(
    ("name", "moment"), by_turns(MODELS, ["in the middle of an epoch", "at the end of an epoch"], WIDE)
)
def test_so_it_does_in_mixed_precision(name, moment, tmp_path, wholes):
    assert_resumes(tmp_path, wholes, name, *MOMENTS[moment], precision="bf16-mixed")


@pytest.mark.slow  # workers are started anew in each epoch
@pytest.mark.exhaustive
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", MODELS)
def test_so_it_does_with_workers(name, moment, precision, tmp_path, wholes):
    assert_resumes(tmp_path, wholes, name, *MOMENTS[moment], precision=precision, workers=2)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_so_it_does_with_workers_in_the_middle_of_an_epoch(precision, tmp_path, wholes):
    assert_resumes(tmp_path, wholes, "DCGAN", *MOMENTS["in the middle of an epoch"], precision=precision, workers=2)


@pytest.mark.parametrize("step", range(1, 16))
def test_so_it_does_from_every_step_with_a_validation_at_each_end_of_an_epoch(step, tmp_path, wholes):
    assert_resumes(tmp_path, wholes, "GAN", "on_train_batch_end", step, step, validation=None)


@pytest.mark.parametrize("n", [4, 5, 6, 10])
@pytest.mark.parametrize("validation", [VALIDATION, None])
def test_a_run_that_came_to_its_end_can_be_made_longer(n, validation, tmp_path, wholes):
    whole, _, rows, _ = wholes("DCGAN", validation=validation)
    _, _, before, code = fit(tmp_path / "parts", "DCGAN", validation=validation, steps=n)
    assert code is None
    resumed, _, after, _ = fit(tmp_path / "parts", "DCGAN", validation=validation, resume=True)
    assert same(weights(whole), weights(resumed))
    assert rows == before + after


HOOKS = ("on_train_batch_start", "on_train_batch_end", "on_validation_end")
CRASHES = [  # by default each hook at each step, with a validation in the middle of an epoch or at its end by turns
    pytest.param(validation, hook, step, marks=() if (n + m + k) % 2 == 0 else pytest.mark.exhaustive)
    for n, validation in enumerate((VALIDATION, None))
    for m, hook in enumerate(HOOKS)
    for k, step in enumerate((1, 3, 5, 9, 10, 11))
]


@pytest.mark.parametrize(("validation", "hook", "step"), CRASHES)
def test_an_exception_between_steps_loses_nothing(validation, hook, step, tmp_path, wholes):
    """The models here have no batch statistics: with them, a state within a step could be another."""
    whole, _, rows, _ = wholes("GAN", validation=validation)
    try:
        fit(tmp_path / "parts", "GAN", At(hook, step, crash), validation=validation)
    except RuntimeError:
        assert not (tmp_path / "parts" / "exception.ckpt").exists()
        resumed, _, after, _ = fit(tmp_path / "parts", "GAN", resume=True, validation=validation)
        assert same(weights(whole), weights(resumed))
        assert after == rows[-len(after) :]
    else:
        assert hook == "on_validation_end"  # which was not at this step


def test_an_exception_within_a_step_leaves_the_last_whole_state(tmp_path):
    with pytest.raises(RuntimeError, match="no more"):
        fit(tmp_path, "DCGAN", At("on_before_optimizer_step", 8, crash))  # the generator's: D has made its step
    assert torch.load(tmp_path / "exception.ckpt", weights_only=True)["global_step"] == 8
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_each_signal_has_its_code(number, tmp_path):
    told = At("on_train_batch_start", 4, lambda: os.kill(os.getpid(), getattr(signal, number)))
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    model, run, _, code = fit(tmp_path, "GAN", told)
    assert code == 128 + getattr(signal, number)
    assert run.global_step == model.trainer.global_step == 5
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
    assert handlers == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]


@pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0)])
def test_another_number_of_workers_changes_no_bit(before, after, tmp_path):
    whole, whole_run, rows, _ = fit(tmp_path / "whole", "DCGAN", workers=before)
    told = At("on_train_batch_start", 7, lambda: os.kill(os.getpid(), signal.SIGTERM))
    _, _, first, code = fit(tmp_path / "parts", "DCGAN", told, workers=before)
    assert code == 143
    resumed, run, second, _ = fit(tmp_path / "parts", "DCGAN", resume=True, workers=after)
    assert same(weights(whole), weights(resumed))
    assert equal(states(whole_run), states(run))
    assert rows == first + second


def test_another_number_of_threads_is_told_and_the_same_number_is_not(tmp_path, caplog):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        whole, _, rows, _ = fit(tmp_path / "whole", "DCGAN")
        fit(tmp_path / "parts", "DCGAN", steps=7)
        shutil.copytree(tmp_path / "parts", tmp_path / "other")
        with caplog.at_level("INFO"):
            resumed, _, _, _ = fit(tmp_path / "parts", "DCGAN", resume=True)
            assert "bit by bit" not in caplog.text
            torch.set_num_threads(2)
            other, _, after, _ = fit(tmp_path / "other", "DCGAN", resume=True)
    finally:
        torch.set_num_threads(threads)
    assert "resume: threads 1 → 2: all goes on as it was, but sums are rounded otherwise" in caplog.text
    assert same(weights(whole), weights(resumed))
    assert all(torch.allclose(x, weights(whole)[key], atol=1e-5) for key, x in weights(other).items())
    assert [row[:6] for row in after] == [row[:6] for row in rows[-len(after) :]]  # steps and batches are the same


def test_noise_of_dropout_is_a_function_of_the_step_and_not_of_what_was_drawn_before(tmp_path):
    torch.manual_seed(1)
    first = fit(tmp_path / "a", "GAN")[0]
    torch.manual_seed(2)
    torch.rand(5)
    assert same(weights(first), weights(fit(tmp_path / "b", "GAN")[0]))


WORDS = [
    *("fit", "--model", "DCGAN", "--model.generator", "DCGANGenerator", "--model.discriminator", "DCGANDiscriminator"),
    *("--model.generator.width=8", "--model.discriminator.width=8", "--model.generator.image_size=8"),
    *("--model.discriminator.image_size=8", "--model.generator.channels=1", "--model.discriminator.channels=1"),
    *("--model.ema_decay=0.9", "--data.dataset=digits", "--trainer.accelerator=cpu", "--trainer.log_every_n_steps=3"),
    *("--trainer.max_steps=60", "--trainer.val_check_interval=20", "--checkpoint_every=7", "--sample_every=1000"),
    *("--trainer.enable_progress_bar=false", "--resume"),
]


def command(folder, *words):
    folder.mkdir(exist_ok=True)
    return Program("-m", "lit_gans", *words, cwd=folder)


@pytest.mark.slow  # processes that import torch
def test_a_killed_command_resumes_with_logs_without_gap_or_overlap(tmp_path):
    whole = command(tmp_path / "whole", *WORDS)
    parts = command(tmp_path / "parts", *WORDS)
    last = tmp_path / "parts" / "runs" / "dcgan-digits" / "version_0" / "checkpoints" / "last.ckpt"
    while not last.with_name("last.ckpt.previous").exists():  # the second is written: somewhere after step 14
        assert parts.poll() is None, parts.told()
        time.sleep(0.002)
    parts.kill()
    assert parts.finished().returncode == -signal.SIGKILL
    resumed = command(tmp_path / "parts", *WORDS).finished(timeout=120)
    assert resumed.returncode == 0, resumed
    assert f"resume: {last.relative_to(tmp_path / 'parts')}, step" in resumed.stdout + resumed.stderr
    assert whole.finished(timeout=120).returncode == 0
    folders = [tmp_path / part / "runs" / "dcgan-digits" / "version_0" for part in ("whole", "parts")]
    assert [path.name for path in folders[1].parent.iterdir()] == ["version_0"]
    states = [torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True) for folder in folders]
    for key in ("state_dict", "optimizer_states", "lit_gans"):
        assert equal(states[0].get(key), states[1].get(key)), key
    tables = [list(csv.DictReader((folder / "metrics.csv").read_text().splitlines())) for folder in folders]
    assert tables[0] == tables[1]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars = []
    for folder in folders:
        events = EventAccumulator(str(folder), purge_orphaned_data=False).Reload()
        scalars.append({tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]})
    assert scalars[0] == scalars[1]


TWICE = """
import os, signal, sys, time
from interrupted import At, fit
from pathlib import Path

def twice():
    os.kill(os.getpid(), signal.SIGTERM)
    print("told", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

fit(Path("."), "GAN", At("on_train_batch_start", 3, twice))
"""


@pytest.mark.slow  # a process that imports torch
def test_a_second_signal_ends_the_process_at_once(tmp_path):
    done = python("-c", TWICE, cwd=tmp_path, timeout=50)
    assert done.stdout == "told\n"
    assert done.returncode == -signal.SIGTERM
    assert not (tmp_path / "last.ckpt").exists()


class Grouped(GAN):
    """Two groups of the generator's parameters, each with options of its own."""

    def configure_optimizers(self):
        first, *rest = self.generator.parameters()
        groups = [{"params": [first], "lr": 5e-6}, {"params": rest, "weight_decay": 0.01}]
        return [Adam(self.discriminator.parameters(), 1e-3), Adam(groups, 5e-4)], []


def test_options_of_each_group_are_those_of_the_program(tmp_path):
    for steps, path in ((4, None), (6, tmp_path / "x.ckpt")):
        model = Grouped(*networks("GAN"), latent_dim=LATENT)
        run = trainer(tmp_path, max_steps=steps, callbacks=[OptionsOfConfig()] if path else [])
        run.fit(model, loader(), ckpt_path=path)
        run.save_checkpoint(tmp_path / "x.ckpt")
        groups = run.optimizers[1].param_groups
        assert [(group["lr"], group["weight_decay"]) for group in groups] == [(5e-6, 0), (5e-4, 0.01)]
