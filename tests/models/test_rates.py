"""Learning rates that are held and then fall: when, to what, and exactly so after a checkpoint and from a config."""

from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import build, loader, same, trainer, weights

from lit_gans.cli import main
from lit_gans.models import GAN, HoldThenDecay

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


def rule(step):
    """Five steps of the first rate, and as many on the way to zero."""
    return 1.0 if step <= 5 else max(10 - step, 0) / 5


class Note(Callback):
    def __init__(self):
        self.rates = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers])


def falling(**kwargs):
    def schedule(optimizer):
        return HoldThenDecay(optimizer, hold=5, decay=5)

    return build("GAN", seed=0, g_lr=1e-3, d_lr=2e-3, g_scheduler=schedule, d_scheduler=schedule, **kwargs)


def test_rates_are_those_of_the_rule_step_by_step(tmp_path):
    note = Note()
    trainer(tmp_path, max_steps=13, callbacks=[note]).fit(falling(), loader())
    assert note.rates == [pytest.approx([2e-3 * rule(step), 1e-3 * rule(step)]) for step in range(13)]
    assert note.rates[-1] == [0, 0]


def test_groups_fall_from_their_own_rates():
    ends = [torch.zeros(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": ends[:1], "lr": 1.0}, {"params": ends[1:], "lr": 4.0}])
    schedule = HoldThenDecay(optimizer, hold=0, decay=4)
    seen = []
    for _ in range(6):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert seen == [[1, 4], [0.75, 3], [0.5, 2], [0.25, 1], [0, 0], [0, 0]]


def test_it_goes_on_exactly_after_a_checkpoint_that_names_it(tmp_path):
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")
    whole, rest, note = falling(), falling(), Note()
    trainer(tmp_path, max_steps=9, callbacks=[saver], enable_checkpointing=True).fit(whole, loader())
    run = trainer(tmp_path, max_steps=9, callbacks=[note])
    run.fit(rest, loader(), ckpt_path=tmp_path / "step=6.ckpt", weights_only=True)
    assert same(weights(whole), weights(rest))
    assert note.rates == [pytest.approx([2e-3 * rule(step), 1e-3 * rule(step)]) for step in (6, 7, 8)]


def test_a_config_names_it_and_so_does_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--trainer.max_steps=3", "--trainer.callbacks=[]", "--monitor=null", "--trainer.enable_progress_bar=false"]
    scheduler = "{class_path: HoldThenDecay, init_args: {hold: 1, decay: 4}}"
    main(["fit", "--config", str(QUICKSTART), *words, f"--model.g_scheduler={scheduler}", "--data.limit=64"])
    (checkpoint,) = Path("runs").rglob("last.ckpt")
    model = GAN.load_from_checkpoint(checkpoint)
    _, (schedule,) = model.configure_optimizers()
    assert type(schedule) is HoldThenDecay
    assert (schedule.hold, schedule.decay) == (1, 4)
    saved = torch.load(checkpoint, weights_only=True)["optimizer_states"]
    assert [state["param_groups"][0]["lr"] for state in saved] == pytest.approx([5e-4, 2.5e-4])


@pytest.mark.parametrize(("hold", "decay"), [(-1, 5), (5, 0)])
def test_lengths_out_of_range_are_refused(hold, decay):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)])
    with pytest.raises(ValueError, match=f"hold must be at least 0, decay at least 1, got {hold} and {decay}"):
        HoldThenDecay(optimizer, hold, decay)
