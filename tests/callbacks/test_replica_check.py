from types import SimpleNamespace

import pytest
import torch
from launching import python
from lightning import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.utils.data import DataLoader

from lit_gans.callbacks import ReplicaCheck
from lit_gans.callbacks.replicas import checksum


class Foreign(LightningModule):
    """Somebody else's module; ``others`` are the parameters that the other ranks have."""

    def __init__(self, others=()):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
        self.others = others

    def all_gather(self, mine):
        return torch.stack([mine, *(torch.stack([checksum(p) for p in other.parameters()]) for other in self.others)])

    def training_step(self, batch, batch_idx):
        return self.net(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def replicas(count):
    modules = [Foreign() for _ in range(count)]
    for module in modules:
        module.load_state_dict(modules[0].state_dict())
    modules[0].others = modules[1:]
    return modules


def check(module, world_size=2, epoch=0, **kwargs):
    trainer = SimpleNamespace(world_size=world_size, current_epoch=epoch)
    ReplicaCheck(**kwargs).on_train_epoch_end(trainer, module)


def test_equal_replicas_pass_whatever_their_buffers():
    first, second = replicas(2)
    second.net[1].running_mean += 1
    check(first)


def test_the_last_bit_of_one_weight_is_seen():
    first, second, _, fourth = replicas(4)
    with torch.no_grad():
        for module in (second, fourth):
            weight = module.net[2].weight
            weight[0, 1] = torch.nextafter(weight[0, 1], torch.tensor(9.0))
        fourth.net[2].bias += 1
    with pytest.raises(
        RuntimeError, match=r"differ in 2 of 6 parameters, first in 'net\.2\.weight': rank 1, 3 against"
    ):
        check(first, world_size=4)


def test_the_usual_causes_are_named():
    first, second = replicas(2)
    nn.init.zeros_(second.net[0].weight)
    with pytest.raises(RuntimeError, match=r"manual_backward.*unfrozen later.*added after setup"):
        check(first)


def test_only_every_nth_epoch():
    first, second = replicas(2)
    nn.init.zeros_(second.net[0].weight)
    check(first, epoch=0, every_n_epochs=3)
    check(first, epoch=1, every_n_epochs=3)
    with pytest.raises(RuntimeError, match="After epoch 2"):
        check(first, epoch=2, every_n_epochs=3)


def test_one_process_gathers_nothing(tmp_path):
    module = Foreign()
    module.all_gather = None  # calling it would be an error
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        default_root_dir=tmp_path,
        logger=False,
        callbacks=[ReplicaCheck()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader([torch.randn(4, 3)], batch_size=None))
    assert trainer.current_epoch == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64])
def test_checksum_sees_values_and_order(dtype):
    a = torch.tensor([1.0, 2.0, -3.0], dtype=dtype)
    assert torch.equal(checksum(a), checksum(a.clone()))
    assert not torch.equal(checksum(a), checksum(a.flip(0)))
    assert not torch.equal(checksum(a), checksum(a * 2))
    assert checksum(a.view(3, 1).expand(3, 2)).dtype == torch.int64
    assert torch.equal(checksum(torch.full((3,), torch.nan)), checksum(torch.full((3,), torch.nan)))


def test_sharded_strategies_are_refused():
    with pytest.raises(TypeError, match="FSDPStrategy has no replicas"):
        ReplicaCheck().setup(SimpleNamespace(strategy=FSDPStrategy()), Foreign(), "fit")


def test_bad_argument():
    with pytest.raises(ValueError, match="every_n_epochs=0"):
        ReplicaCheck(every_n_epochs=0)


SCRIPT = """
import sys
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader
from lit_gans.callbacks import ReplicaCheck

class Foreign(LightningModule):
    def __init__(self, right):
        super().__init__()
        self.right = right
        self.automatic_optimization = False
        self.net = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = self.net(batch + self.global_rank).square().mean()
        self.manual_backward(loss) if self.right else loss.backward()  # the second is never averaged
        optimizer.step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

if __name__ == "__main__":
    for right in (True, False):
        trainer = Trainer(
            accelerator="cpu", devices=2, strategy="ddp_fork", max_epochs=1, default_root_dir=sys.argv[1], logger=False,
            callbacks=[ReplicaCheck()], enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False,
        )
        try:
            trainer.fit(Foreign(right), DataLoader([torch.ones(4, 3)] * 2, batch_size=None))
            print("equal")
        except Exception as error:
            print("differs:", error)
"""


def test_two_real_processes(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    run = python("script.py", str(tmp_path), cwd=tmp_path, timeout=120)
    assert run.returncode == 0, run.stderr
    good, bad = run.stdout.split("differs:")
    assert "equal" in good
    assert "first in 'net.weight': rank 1 against rank 0" in bad
