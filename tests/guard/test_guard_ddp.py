"""Two gloo processes, a fault on one of them: both act, in the same step, and stay equal."""

import json

import pytest
import torch
from launching import ranks

pytestmark = pytest.mark.slow  # one launch trains them all

CASES = {  # what goes wrong, and what is to be done
    "nan": ("nan", "skip"),
    "spike": ("1e5", "skip"),
    "clip": ("1e5", "clip"),
    "rollback": ("nan", "rollback"),
    "weight": ("weight", "skip"),
    "batch": ("batch", "skip"),
    "collapse": ("dead", "rollback"),
}

SCRIPT = """
import sys

import torch
from faults import Fault
from lightning import Callback
from toys import build, trainer

from lit_gans import CollapseDetector, ExplosionDetector, GradientNormMonitor, Guard, ImageDataModule
from lit_gans.callbacks import ReplicaCheck


class Notes(Callback):
    def on_train_batch_end(self, trainer, pl_module, *_):
        notes["states"].append(torch.cat([p.detach().flatten().clone() for p in pl_module.parameters()]))


class Dead(Callback):
    # the generator's last layer is lost, on both ranks: what is seen of real images still differs between them
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if 40 <= trainer.global_step < 55:
            for p in pl_module.generator.body[-2].parameters():
                p.data.zero_()


for case in sys.argv[1:]:
    name, what, action = case.split(":")
    notes = {"states": []}
    collapse = CollapseDetector("warn", every_n_steps=7)
    if what == "dead":
        fault = Dead()
        collapse = CollapseDetector(action, every_n_steps=5, looks=2, warmup=20)
    else:
        fault = Fault(what if what in ("weight", "batch") else float(what), 41, rank=1)
    data = ImageDataModule("fake", image_size=6, channels=1, batch_size=4, fake_length=48)
    ddp = trainer(
        name, devices=2, strategy="ddp", max_steps=60, use_distributed_sampler=False, num_sanity_val_steps=0,
        log_every_n_steps=10, callbacks=[fault, GradientNormMonitor(input_every=1),
        ExplosionDetector(action), Guard(snapshot_every=10, window=10), collapse, Notes(), ReplicaCheck()],
    )
    model = build("GAN", ema_decay=0.9)
    ddp.fit(model, data)
    notes["rates"] = [o.param_groups[0]["lr"] for o in ddp.optimizers]
    torch.save(notes | {"offset": model.seed_offset}, f"{name}-{ddp.global_rank}.pt")
"""


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What each rank noted, and the health log, of each case."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "script.py").write_text(SCRIPT)
    words = [f"{name}:{what}:{action}" for name, (what, action) in CASES.items()]
    done = ranks("script.py", *words, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return {
        name: (
            [torch.load(folder / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)],
            [json.loads(line) for line in (folder / name / "health.jsonl").read_text().splitlines()],
        )
        for name in CASES
    }


@pytest.mark.parametrize("name", CASES)
def test_replicas_are_equal_bit_by_bit_after_every_step(launched, name):
    first, second = launched[name][0]
    assert len(first["states"]) == 60
    for a, b in zip(first["states"], second["states"], strict=True):
        assert torch.isfinite(a).all() or name == "weight"
        assert torch.equal(a, b) or (name == "weight" and not torch.isfinite(b).all())
    assert torch.equal(first["states"][-1], second["states"][-1])
    assert (first["rates"], first["offset"]) == (second["rates"], second["offset"])


@pytest.mark.parametrize(
    ("name", "kind", "action"),
    [
        ("nan", "nan", "skip"),
        ("spike", "spike", "skip"),
        ("clip", "spike", "skip"),  # gradients that differ between ranks cannot be scaled to agree
        ("rollback", "nan", "rollback"),
        ("weight", "nan", "rollback"),
        ("batch", "nan", "skip"),
    ],
)
def test_the_fault_of_one_rank_is_found_in_its_step(launched, name, kind, action):
    events = launched[name][1]
    assert [(e["step"], e["kind"], e["action"]) for e in events if e["detector"] == "ExplosionDetector"] == [
        (41, kind, action)
    ]


def test_a_weight_of_the_other_rank_is_named(launched):
    assert launched["weight"][1][0]["tensor"] == "discriminator.body.0.weight"


def test_looks_at_different_images_lead_to_one_decision(launched):
    (first, second), events = launched["collapse"]
    assert {e["kind"] for e in events} == {"dead"}
    assert events[0]["action"] == "rollback"
    assert first["offset"] == second["offset"] == len(events)
