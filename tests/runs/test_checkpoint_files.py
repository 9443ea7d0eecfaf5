"""Files that are never half: cut off, spoiled, evil, on a full disk, in a folder that is gone."""

import os
import pickle
import resource
import signal
import threading
from pathlib import Path

import pytest
import torch
from lightning import Callback
from toys import build, loader, same, trainer, weights

from lit_gans.runs import BestCheckpoint, LastCheckpoint
from lit_gans.runs import checkpoint_files as io
from lit_gans.runs.checkpoint_files import CheckpointError, SafeCheckpointIO, read


def state(n):
    return {"step": n, "weights": torch.full((1000, 64), float(n))}


@pytest.fixture
def path(tmp_path):
    """A checkpoint of step 2, with one of step 1 before it."""
    path = tmp_path / "folder" / "last.ckpt"
    for n in (1, 2):
        SafeCheckpointIO().save_checkpoint(state(n), path)
    return path


def load(path):
    loaded = SafeCheckpointIO().load_checkpoint(path)
    assert torch.equal(loaded["weights"], state(loaded["step"])["weights"])
    return loaded["step"]


def test_two_generations_are_kept_and_nothing_else(path):
    SafeCheckpointIO().save_checkpoint(state(3), path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.previous"]
    assert load(path) == 3
    assert read(path.with_name("last.ckpt.previous"))["step"] == 2


@pytest.mark.parametrize("share", [0, 0.001, 0.3, 0.9, 0.9999])
def test_a_truncated_file_gives_way_to_the_one_before(path, share):
    os.truncate(path, int(path.stat().st_size * share))
    with pytest.warns(UserWarning, match=r"last.ckpt is truncated.*previous generation"):
        assert load(path) == 1


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_so_does_one_with_a_flipped_bit(path, place):
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 4
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=r"checksum.*previous generation"):
        assert load(path) == 1


def test_so_does_a_missing_one(path):
    path.unlink()
    with pytest.warns(UserWarning, match="missing"):
        assert load(path) == 1


def test_without_a_whole_file_both_are_named(path, tmp_path):
    for file in path.parent.iterdir():
        file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"last.ckpt is truncated.*last.ckpt.previous is truncated"):
        load(path)
    with pytest.raises(FileNotFoundError, match=r"none\.ckpt"):
        load(tmp_path / "none.ckpt")


class Evil:
    def __reduce__(self):
        return os.system, ("echo executed > executed",)


@pytest.mark.parametrize("save", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing))])
def test_code_is_refused_by_name_and_never_falls_back(path, save, monkeypatch):
    monkeypatch.chdir(path.parent)
    save({"x": Evil()}, path)
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"refused.*would call (posix|nt).system"):
            SafeCheckpointIO().load_checkpoint(path, weights_only=False)
    assert not Path("executed").exists()


@pytest.fixture
def limited():
    """The disk takes files of at most 100 kB, as if it were full."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_error_with_file_and_space_and_changes_nothing(path, limited):
    with pytest.raises(OSError, match=r"needs about 0.2 MiB, [\d.]+ MiB are free: '.*last.ckpt'"):
        SafeCheckpointIO().save_checkpoint(state(3), path)
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.previous"]
    assert load(path) == 2


@pytest.mark.parametrize("moment", ["write", "keep", "flush"])
def test_a_crash_at_any_moment_leaves_a_whole_file_under_the_name(path, moment, monkeypatch):
    class Crash(BaseException):
        pass

    def crash(*args):
        raise Crash

    monkeypatch.setattr(*{"write": (torch, "save"), "keep": (io, "_keep"), "flush": (os, "fsync")}[moment], crash)
    with pytest.raises(Crash):
        SafeCheckpointIO().save_checkpoint(state(3), path)
    monkeypatch.undo()
    assert load(path) == 2
    SafeCheckpointIO().save_checkpoint(state(4), path)
    assert load(path) == 4
    assert sorted(file.name for file in path.parent.iterdir()) == ["last.ckpt", "last.ckpt.previous"]


def test_writing_in_a_thread_has_the_state_of_the_call(path, monkeypatch):
    begin, plugin, checkpoint = threading.Event(), SafeCheckpointIO(asynchronous=True), state(3)
    write = io.write
    monkeypatch.setattr(io, "write", lambda *args: (begin.wait(10), write(*args)))
    plugin.save_checkpoint(checkpoint, path)
    checkpoint["weights"].fill_(7)
    assert load(path) == 2
    begin.set()
    plugin.teardown()
    assert load(path) == 3


def test_an_error_in_the_thread_comes_with_the_next_call_which_writes_all_the_same(path, limited):
    plugin = SafeCheckpointIO(asynchronous=True)
    plugin.save_checkpoint(state(3), path)
    with pytest.raises(OSError, match="needs about"):
        plugin.wait()
    plugin.save_checkpoint(state(4), path)
    plugin._pending.exception()
    limited()
    with pytest.raises(OSError, match="needs about"):
        plugin.save_checkpoint(state(5), path)
    plugin.teardown()
    assert load(path) == 5


def test_removing_takes_both(path):
    SafeCheckpointIO().remove_checkpoint(path)
    assert not list(path.parent.iterdir())


class Space(Callback):
    """Frees the disk at a step."""

    def __init__(self, step, free):
        self.step, self.free = step, free

    def on_train_batch_start(self, trainer, *args):
        if trainer.global_step == self.step:
            self.free()


def test_training_goes_on_without_space_and_saves_when_there_is_some(tmp_path, limited, monkeypatch):
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    model, steps = build("GAN"), []
    monkeypatch.setattr(io, "_keep", lambda path, keep=io._keep: (steps.append(read(path)["global_step"]), keep(path)))
    callbacks = [LastCheckpoint(str(tmp_path), 2), Space(5, limited)]
    with pytest.warns(UserWarning, match=r"no checkpoint at step (2|4), the one before is untouched.*needs about"):
        trainer(tmp_path, max_steps=8, enable_checkpointing=True, callbacks=callbacks).fit(model, loader())
    assert steps == [6]  # written at 6, kept when 8 was
    assert read(tmp_path / "last.ckpt")["global_step"] == 8


def test_the_best_is_what_is_on_the_disk(tmp_path, limited):
    """A best that could not be written must not stand in the way of the next."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

    class Scored(Callback):
        scores = iter([1.0, 2.0, 3.0])

        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("val/score", next(self.scores))

    best = BestCheckpoint("val/score", dirpath=str(tmp_path))
    with pytest.warns(UserWarning, match="no checkpoint at step 6"):
        trainer(
            tmp_path, max_epochs=3, num_sanity_val_steps=0, enable_checkpointing=True,
            callbacks=[Scored(), best, Space(7, limited)],
        ).fit(build("GAN"), loader(), loader(8))  # fmt: skip
    assert read(tmp_path / "best.ckpt")["global_step"] == 12
    assert best.best_model_score == 2.0


def test_models_use_it_unasked_and_leave_the_users_own(tmp_path):
    run = trainer(tmp_path, max_steps=1)
    run.fit(build("GAN"), loader())
    assert isinstance(run.strategy.checkpoint_io, SafeCheckpointIO)
    own = type("Own", (SafeCheckpointIO,), {})()
    run = trainer(tmp_path, max_steps=1, plugins=[own])
    run.fit(build("GAN"), loader())
    assert run.strategy.checkpoint_io is own


def test_a_model_loads_from_the_generation_that_is_whole(tmp_path):
    model = build("GAN")
    run = trainer(tmp_path, max_steps=1)
    run.fit(model, loader())
    for _ in range(2):
        run.save_checkpoint(tmp_path / "x.ckpt")
    os.truncate(tmp_path / "x.ckpt", 1000)
    with pytest.warns(UserWarning, match="previous generation"):
        loaded = type(model).load_from_checkpoint(
            tmp_path / "x.ckpt", generator=model.generator, discriminator=model.discriminator
        )
    assert same(weights(loaded), weights(model))


def test_size_is_weights_optimizers_and_average(tmp_path):
    model = build("DCGAN", ema_decay=0.9)
    run = trainer(tmp_path, max_steps=2)
    run.fit(model, loader())
    run.save_checkpoint(tmp_path / "x.ckpt")
    numbers = sum(p.numel() for p in model.parameters() if p.requires_grad)
    average = sum(p.numel() for p in model.g_ema.parameters())
    records = 200 * (len(model.state_dict()) + 3 * len(list(model.parameters())))  # names and headers
    assert (tmp_path / "x.ckpt").stat().st_size < 4 * (3 * numbers + average) + records + 10_000
