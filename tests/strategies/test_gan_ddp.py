"""A module that knows nothing of lit_gans on two processes under ``gan_ddp``; and what is said when one of them fails.

One launch of this file trains all runs; the tests read what it noted.
"""

import copy
import gc
import os
import sys
import time
import weakref
from datetime import timedelta
from functools import partial

import pytest
import torch
import torch.distributed as dist
from launching import ranks
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import StrategyRegistry
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, powerSGD_hook
from toys import trainer

import lit_gans
from lit_gans.strategies import GANDDPStrategy

STEPS = 8
RUNS = {  # arguments of the strategy
    "plain": {},
    "views": {"gradient_as_bucket_view": True, "bucket_cap_mb": 0.0001},
    "unused": {"find_unused_parameters": True},
}


def layer(bias=True):
    return nn.Linear(4, 4, bias=bias)


class Foreign(LightningModule):
    """Three players and three optimizers; nothing is toggled, one layer is in two optimizers and one in none."""

    def __init__(self, sent):
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second, self.third = nn.Sequential(layer(), nn.Tanh(), layer()), layer(), layer(bias=False)
        self.shared, self.nobodys, self.later = layer(), layer(), layer()
        self.register_buffer("told", torch.randn(3))
        self.first[0].requires_grad_(False)
        self.sent, self.errors, self.bytes = sent, [], []

    def configure_optimizers(self):
        owned = [[self.first], [self.second, self.shared], [self.third, self.shared]]
        return [torch.optim.SGD([p for part in parts for p in part.parameters()], lr=0.1) for parts in owned]

    def update(self, index, *losses):
        """An update whose gradients are compared with the mean over ranks of those found without any reducer."""
        optimizer = self.optimizers()[index]
        live = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        expected = torch.autograd.grad(sum(loss() for loss in losses), live)
        for gradient in expected:
            dist.all_reduce(gradient)
        before = len(self.sent)
        optimizer.zero_grad()
        for loss in losses[:-1]:
            with self.trainer.strategy.block_backward_sync():
                self.manual_backward(loss())
        assert len(self.sent) == before, "a part was sent on its own"
        self.manual_backward(losses[-1]())
        pairs = zip(live, expected, strict=True)
        self.errors.append(max((p.grad - g / 2).abs().max() for p, g in pairs).item())
        self.bytes.append(sum(self.sent[before:]))
        optimizer.step()

    def training_step(self, batch, batch_idx):
        x = batch + torch.randn(4, 4)
        if batch_idx == 2:
            self.first[0].requires_grad_(True)  # frozen from the beginning
        if batch_idx == 3:
            self.load_state_dict(copy.deepcopy(self.state_dict()))
            for optimizer in self.trainer.optimizers:
                optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        if batch_idx == 4:
            self.first[2].bias.requires_grad_(False)  # frozen later
        if batch_idx == 5:
            self.trainer.optimizers[2].add_param_group({"params": list(self.later.parameters()), "lr": 0.1})
        self.update(0, lambda: self.first(self.shared(x).detach()).square().mean())
        self.update(1, lambda: self.first(self.second(self.shared(x))).square().mean())
        self.update(2, *[partial(self.third_loss, part) for part in x.split(2)])

    def third_loss(self, part):
        y = self.third(self.shared(part))
        return (self.later(y) if len(self.trainer.optimizers[2].param_groups) > 1 else y).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.first(batch).mean(), sync_dist=True)

    def train_dataloader(self):
        return torch.zeros(STEPS, 4, 4)

    def val_dataloader(self):
        return torch.zeros(1, 4, 4)


def train(run):
    """Train on this process as one of two, and save what was noted."""
    sent = []

    def hook(state, bucket):
        sent.append(bucket.buffer().nbytes)
        return allreduce_hook(None, bucket)

    torch.manual_seed(int(os.environ.get("LOCAL_RANK", "0")))
    model = Foreign(sent)
    strategy = GANDDPStrategy(ddp_comm_hook=hook, **RUNS[run])
    pair = trainer(".", devices=2, strategy=strategy, max_epochs=1, limit_val_batches=0)
    beginning, reducers = [], []

    def look():
        beginning.extend(value.clone() for value in model.state_dict().values())
        reducers.extend(weakref.ref(share.ddp) for share in strategy._shares)

    model.on_train_start = look
    names = list(model.state_dict())
    pair.fit(model)
    gc.collect()
    notes = {"errors": model.errors, "bytes": model.bytes, "names": [names, list(model.state_dict())]}
    notes |= {"beginning": beginning, "groups": len(reducers)}
    notes["end"] = [value.clone() for value in model.state_dict().values()]  # validating makes replicas equal again
    notes["freed"] = all(reducer() is None for reducer in reducers)
    pair.validate(model, verbose=False)
    torch.save(notes, f"{run}-{pair.global_rank}.pt")


def train_compressed():
    """PowerSGD remembers the errors of each bucket; here each backward pass reaches one group."""
    torch.manual_seed(0)
    model = Foreign([])

    def training_step(batch, batch_idx):
        x = batch + torch.randn(4, 4)
        step(model, 0, model.first(x).square().mean())
        step(model, 2, model.third(x).square().mean())

    model.training_step = training_step
    model.shared.requires_grad_(False)
    state = PowerSGDState(None, start_powerSGD_iter=2, min_compression_rate=0.1)
    strategy = GANDDPStrategy(ddp_comm_hook=powerSGD_hook, ddp_comm_state=state)
    pair = trainer(".", devices=2, strategy=strategy, max_epochs=1, limit_val_batches=0)
    pair.fit(model)
    torch.save({"end": list(model.state_dict().values())}, f"compressed-{pair.global_rank}.pt")


def step(model, index, loss):
    optimizer = model.optimizers()[index]
    optimizer.zero_grad()
    model.manual_backward(loss)
    optimizer.step()


def fail(how):
    """The second rank comes too late, or not at all."""

    class Failing(Foreign):
        def training_step(self, batch, batch_idx):
            if batch_idx == 1 and self.global_rank == 1:
                if how == "dead":
                    os._exit(0)
                time.sleep(4)
            super().training_step(batch, batch_idx)

    model = Failing([])
    model.update = lambda index, *losses: step(model, index, losses[0]())
    # not from the beginning, as the second rank may start much later
    model.on_train_start = lambda: dist.distributed_c10d._set_pg_timeout(timedelta(seconds=2))
    trainer(".", devices=2, strategy="gan_ddp", max_epochs=1, limit_val_batches=0).fit(model)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        fail(sys.argv[1])
    for run in RUNS:
        train(run)
    train_compressed()


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    """What each rank noted in each run."""
    folder = tmp_path_factory.mktemp("gan_ddp")
    done = ranks(__file__, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        run: [torch.load(folder / f"{run}-{rank}.pt", weights_only=True) for rank in (0, 1)]
        for run in [*RUNS, "compressed"]
    }


def equal(some, others):
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_gradients_are_means_over_ranks_whatever_is_frozen_or_added(notes, run):
    for note in notes[run]:
        assert note["errors"] == pytest.approx([0] * 3 * STEPS, abs=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_all_begins_and_stays_equal_and_keeps_its_name(notes, run):
    first, second = notes[run]
    assert equal(first["beginning"], second["beginning"])
    assert equal(first["end"], second["end"])
    assert not equal(first["beginning"], first["end"])
    assert first["names"][0] == first["names"][1]


@pytest.mark.slow
def test_an_update_sends_what_its_backward_pass_reaches_and_no_more(notes):
    bias, weight = 16, 64
    sent = notes["plain"][0]["bytes"]
    shared, first, half = bias + weight, 2 * (bias + weight), bias + weight
    by_step = [
        [half if i < 2 else first - bias * (i >= 4) for i in range(STEPS)],
        [shared + half + (half if i < 2 else first - bias * (i >= 4)) for i in range(STEPS)],
        [weight + shared + (half if i >= 5 else 0) for i in range(STEPS)],
    ]
    assert sent == [by_step[index][i] for i in range(STEPS) for index in range(3)]


@pytest.mark.slow
def test_groups_are_the_sets_of_optimizers_and_go_when_training_ends(notes):
    assert notes["plain"][0]["groups"] == 4
    assert all(note["freed"] for run in RUNS for note in notes[run])


@pytest.mark.slow
def test_compression_keeps_a_state_for_each_group(notes):
    first, second = notes["compressed"]
    assert equal(first["end"], second["end"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "what"),
    [
        ("late", "waited 2 s for another rank"),
        pytest.param("dead", "lost its connection to another rank", marks=pytest.mark.exhaustive),
    ],
)
def test_who_waited_for_whom_and_where(how, what, tmp_path):
    done = ranks(__file__, how, cwd=tmp_path, timeout=120)
    assert done.returncode != 0
    assert f"Rank 0 {what} at global step 3; usual causes are a rank that died" in done.stderr


def test_it_has_a_name():
    assert isinstance(Trainer(strategy="gan_ddp", accelerator="cpu", devices=2, logger=False).strategy, GANDDPStrategy)
    assert StrategyRegistry.get("gan_ddp")._timeout == timedelta(minutes=10)
    assert lit_gans.GANDDPStrategy is GANDDPStrategy


def test_a_static_graph_is_refused():
    with pytest.raises(ValueError, match=r"static_graph=True\).*leave it out"):
        GANDDPStrategy(static_graph=True)


def test_automatic_optimisation_is_refused():
    strategy = GANDDPStrategy()
    strategy.model = LightningModule()
    with pytest.raises(ValueError, match=r"manual optimisation: use strategy='ddp'"):
        strategy.configure_ddp()


def test_an_update_that_leaves_parameters_out_hears_of_the_remedy():
    error = RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one. ...")
    GANDDPStrategy().on_exception(error)
    assert "requires_grad_(False), or use strategy=GANDDPStrategy(find_unused_parameters=True)" in str(error)


def test_other_errors_are_left_alone():
    error = RuntimeError("DataLoader timed out after 5 seconds")
    GANDDPStrategy().on_exception(error)
    assert str(error) == "DataLoader timed out after 5 seconds"
