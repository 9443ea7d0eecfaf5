"""What a run leaves behind, and the bar over it."""

import io

import pytest
import torch
import yaml
from lightning import LightningModule
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch.utils.data import DataLoader
from toys import build, loader, trainer

from lit_gans.callbacks import GameProgressBar
from lit_gans.runs import BestCheckpoint, LastCheckpoint, SaveConfig


class Foreign(LightningModule):
    """Somebody else's module, whose validation loss is told to it."""

    def __init__(self, losses=()):
        super().__init__()
        self.net, self.losses = torch.nn.Linear(2, 1), iter(losses)

    def training_step(self, batch, batch_idx):
        if self.trainer.global_step == getattr(self, "fails_at", -1):
            raise RuntimeError("power cut")
        loss = self.net(batch).square().mean()
        self.log_dict({"train/d_loss": loss * 0 + 1.25, "train/g_loss": loss * 0 + self.trainer.global_step})
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/score", next(self.losses))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def data(n=4):
    return DataLoader(torch.ones(n, 2), 1)


def fit(tmp_path, module, *callbacks, val=None, **kwargs):
    saving = any(isinstance(callback, (LastCheckpoint, BestCheckpoint)) for callback in callbacks)
    bar = any(isinstance(callback, GameProgressBar) for callback in callbacks)
    kwargs = {"callbacks": list(callbacks), "enable_checkpointing": saving, "enable_progress_bar": bar, **kwargs}
    run = trainer(tmp_path, log_every_n_steps=1, **kwargs)
    run.fit(module, data(), val)
    return run


def saved(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize(("steps", "every", "writes"), [(7, 3, [3, 6, 7]), (6, 3, [3, 6]), (2, 5, [2])])
@pytest.mark.parametrize("ours", [True, False])
def test_last_is_written_every_so_often_and_at_the_end(steps, every, writes, ours, tmp_path, monkeypatch):
    steps_written = []
    write = LastCheckpoint._save_checkpoint
    monkeypatch.setattr(
        LastCheckpoint,
        "_save_checkpoint",
        lambda self, t, path: (steps_written.append(t.global_step), write(self, t, path)),
    )
    module, batches = (build("GAN", n_critic=2), loader()) if ours else (Foreign(), data())
    trainer(tmp_path, max_steps=steps, enable_checkpointing=True, callbacks=[LastCheckpoint(str(tmp_path), every)]).fit(
        module, batches
    )
    assert steps_written == writes
    both = {"last.ckpt"} | ({"last.ckpt.previous"} if ours and len(writes) > 1 else set())
    assert {path.name for path in tmp_path.iterdir()} == both
    assert saved(tmp_path / "last.ckpt")["global_step"] == steps
    for key, value in module.state_dict().items():
        assert torch.equal(saved(tmp_path / "last.ckpt")["state_dict"][key], value)


def test_last_is_written_at_an_exception(tmp_path):
    module = Foreign()
    module.fails_at = 5
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, module, LastCheckpoint(str(tmp_path), 3), max_steps=9)
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["last.ckpt"]
    checkpoint = saved(tmp_path / "last.ckpt")
    assert checkpoint["global_step"] == 5
    assert all(torch.equal(checkpoint["state_dict"][key], value) for key, value in module.state_dict().items())


def test_last_is_no_copy_of_the_best(tmp_path):
    module = Foreign([1.0, 2.0, 3.0])  # worse each time: TRAPS A8
    callbacks = LastCheckpoint(str(tmp_path), 4), BestCheckpoint("val/score", dirpath=str(tmp_path))
    fit(tmp_path, module, *callbacks, val=data(1), max_epochs=3, num_sanity_val_steps=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]
    assert saved(tmp_path / "best.ckpt")["global_step"] == 4
    assert saved(tmp_path / "last.ckpt")["global_step"] == 12


@pytest.mark.parametrize(
    ("mode", "scores", "best"),
    [("min", [3.0, 1.0, 2.0], 8), ("max", [3.0, 1.0, 2.0], 4), ("min", [torch.nan, 2, 3], 8)],
)
def test_best_is_judged_by_the_metric(mode, scores, best, tmp_path):
    callback = BestCheckpoint("val/score", mode, str(tmp_path))
    fit(tmp_path, Foreign(scores), callback, val=data(1), max_epochs=3, num_sanity_val_steps=0)
    assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
    assert saved(tmp_path / "best.ckpt")["global_step"] == best


def test_fast_dev_run_saves_nothing(tmp_path):
    fit(tmp_path, Foreign(), LastCheckpoint(str(tmp_path), 1), fast_dev_run=True)
    assert list(tmp_path.glob("*.ckpt")) == []


def test_the_config_is_written_before_training(tmp_path):
    class Reads(Foreign):
        def on_train_start(self):
            assert (folder / "config.yaml").read_text() == "model: {g_lr: 0.5}  # ä"

    folder = tmp_path / "deep" / "run"
    callback = SaveConfig("model: {g_lr: 0.5}  # ä", {"model": {"g_lr": 0.5}}, folder)
    for _ in range(2):  # a second run into the same folder is no error
        fit(tmp_path, Reads(), callback, max_steps=1)
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]
    assert yaml.safe_load((folder / "config.yaml").read_text("utf-8")) == callback.config


def test_wandb_is_told_the_config(tmp_path):
    class Config(dict):
        def update(self, values, allow_val_change):
            assert allow_val_change
            super().update(values)

    class Recorder(WandbLogger):
        def __init__(self):
            self.run = type("Run", (), {"config": Config(model="old")})()

        experiment = property(lambda self: self.run)

    logger = Recorder()
    callback = SaveConfig("", {"model": {"g_lr": 0.5}}, tmp_path)
    callback.on_train_start(type("T", (), {"loggers": [logger]})(), None)
    assert logger.run.config == {"model": {"g_lr": 0.5}}


def drawn(tmp_path, monkeypatch, module=None, rate=2, **kwargs):
    """The state of the bar at every redraw."""
    states = []
    draw = GameProgressBar._draw

    def spy(self, run):
        draw(self, run)
        states.append((self._bar.n, self._bar.total, self._bar.postfix))

    monkeypatch.setattr(GameProgressBar, "_draw", spy)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    fit(tmp_path, module or Foreign(), GameProgressBar(rate), **kwargs)
    return states


def test_the_bar_counts_steps_and_shows_both_losses(tmp_path, monkeypatch):
    states = drawn(tmp_path, monkeypatch, max_steps=5)
    assert [(n, total) for n, total, _ in states] == [(2, 5), (4, 5), (5, 5)]
    assert states[-1][2] == "d_loss=1.250, g_loss=4.000"


def test_the_bar_knows_its_end(tmp_path, monkeypatch):
    assert drawn(tmp_path, monkeypatch, max_epochs=2)[-1][:2] == (8, 8)
    assert drawn(tmp_path, monkeypatch, max_epochs=2, max_steps=3)[-1][:2] == (3, 3)
    stop = EarlyStopping("train/d_loss", patience=1, check_on_train_epoch_end=True)
    run = trainer(tmp_path, max_epochs=-1, callbacks=[stop, bar := GameProgressBar()], enable_progress_bar=True)
    run.fit(Foreign(), data())
    assert bar._bar.total is None


def test_the_bar_reads_no_loss_between_redraws(tmp_path, monkeypatch):
    assert len(drawn(tmp_path, monkeypatch, max_steps=8, rate=4)) == 3
    with pytest.raises(ValueError, match="refresh_rate must be at least 1, got 0"):
        GameProgressBar(0)


def test_the_bar_goes_on_where_training_was(tmp_path, monkeypatch):
    fit(tmp_path, Foreign(), LastCheckpoint(str(tmp_path), 9), max_steps=3)
    states = []
    draw = GameProgressBar._draw
    monkeypatch.setattr(GameProgressBar, "_draw", lambda self, run: (draw(self, run), states.append(self._bar.n)))
    run = trainer(tmp_path, max_steps=6, callbacks=[GameProgressBar(1)], enable_progress_bar=True)
    run.fit(Foreign(), data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert states[0] == 4
    assert states[-1] == 6


def test_the_bar_is_closed_after_an_error_and_silent_where_disabled(tmp_path, monkeypatch, capsys):
    module = Foreign()
    module.fails_at = 1
    bar = GameProgressBar()
    with pytest.raises(RuntimeError, match="power cut"):
        fit(tmp_path, module, bar, max_steps=3)
    assert bar._bar.disable  # what tqdm says of a closed bar
    capsys.readouterr()
    silent = GameProgressBar(1)
    silent.disable()
    monkeypatch.setattr(silent, "enable", lambda: None)
    fit(tmp_path, Foreign(), silent, max_steps=2)
    assert "step/s" not in capsys.readouterr().err


def test_the_bar_is_the_only_one(tmp_path, capsys):
    fit(tmp_path, Foreign(), GameProgressBar(1), max_steps=2)
    err = capsys.readouterr().err
    assert "2/2" in err
    assert "Epoch" not in err


@pytest.mark.parametrize(
    ("world_size", "exception", "saves"),
    [
        (1, RuntimeError(), True),
        (2, RuntimeError(), False),
        (2, KeyboardInterrupt(), False),
        (2, SIGTERMException(), True),
    ],
)
def test_of_several_processes_only_a_common_end_is_saved(world_size, exception, saves, tmp_path, monkeypatch):
    """A process that saved alone would wait for the others for ever."""
    module = Foreign()
    run = fit(tmp_path, module, LastCheckpoint(str(tmp_path), 100), max_steps=2)
    (tmp_path / "last.ckpt").unlink()
    callback = run.checkpoint_callback
    callback._last_global_step_saved = 0
    run.fit_loop.epoch_loop.batch_progress.is_last_batch = False
    run.state.fn, run.training = TrainerFn.FITTING, True
    monkeypatch.setattr(type(run), "world_size", world_size)
    monkeypatch.setattr(LightningModule, "on_save_checkpoint", lambda *_: None)
    callback.on_exception(run, module, exception)
    assert (tmp_path / "last.ckpt").exists() == saves
