"""Two processes with parts of different size against ``nn.BatchNorm`` on the joint batch."""

import os
import sys

import pytest
import torch
import torch.distributed as dist
from launching import ranks
from torch import nn

from lit_gans.strategies import BatchNormSync, SyncBatchNorm

CASES = {
    "1d": (nn.BatchNorm1d, (5, 3), {}),
    "2d": (nn.BatchNorm2d, (5, 3, 4, 2), {"momentum": None}),
    "3d": (nn.BatchNorm3d, (5, 3, 2, 2, 2), {"affine": False, "eps": 1e-3}),
    "untracked": (nn.BatchNorm2d, (5, 3, 4, 2), {"track_running_stats": False}),
}
PARTS = (slice(0, 1), slice(1, 5))


def layer(case):
    kind, shape, options = CASES[case]
    rng = torch.Generator().manual_seed(0)
    norm = kind(3, **options).double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter, generator=rng)
    return norm, torch.randn(shape, generator=rng, dtype=torch.double) + 3


def passes(norm, x, batches):
    """Two training passes with a penalty on the input's gradient, then one in eval mode."""
    x = x.clone().requires_grad_()
    for shift in range(batches):
        y = norm(x + shift)
        (slope,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        (y.square().sum() + slope.square().sum()).backward()
    state = list(norm.state_dict().values())
    norm.eval()
    with torch.no_grad():
        out = norm(x)
    return {"y": y.detach(), "x": x.grad, "out": out, "state": state, "weights": [p.grad for p in norm.parameters()]}


if __name__ == "__main__":
    rank = int(os.environ["LOCAL_RANK"])
    dist.init_process_group("gloo", init_method="file://" + sys.argv[1] + "/store", rank=rank, world_size=2)
    for case in CASES:
        norm, x = layer(case)
        if case == "untracked":
            norm.eval()  # normalises by the batch all the same, also now
        norm = BatchNormSync().apply(norm)
        torch.save(passes(norm, x[PARTS[rank]], 2), f"{sys.argv[1]}/{case}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("sync"))
    done = ranks(__file__, folder, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    return {case: [torch.load(f"{folder}/{case}-{rank}.pt", weights_only=True) for rank in (0, 1)] for case in CASES}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_parts_of_different_size_make_one_batch(notes, case):
    norm, x = layer(case)
    one = passes(norm, x, 2)
    first, second = notes[case]
    for key in ("y", "x", "out"):
        torch.testing.assert_close(torch.cat([first[key], second[key]]), one[key], rtol=1e-9, atol=1e-9)
    for ours, a, b in zip(one["weights"], first["weights"], second["weights"], strict=True):
        torch.testing.assert_close(a + b, ours, rtol=1e-9, atol=1e-9)
    for ours, a, b in zip(one["state"], first["state"], second["state"], strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, ours, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_one_process_is_torchs_bit_by_bit(case):
    theirs, x = layer(case)
    ours = BatchNormSync().apply(layer(case)[0])
    for a, b in zip(passes(theirs, x, 2).values(), passes(ours, x, 2).values(), strict=True):
        a, b = ([value] if isinstance(value, torch.Tensor) else value for value in (a, b))
        assert all(torch.equal(some, others) for some, others in zip(a, b, strict=True))


def test_layers_stay_the_objects_they_are():
    norm = nn.BatchNorm2d(3, momentum=0.3, eps=1e-3).eval()
    net, before, hooked = nn.Sequential(nn.Conv2d(1, 3, 1), norm), dict(vars(norm)), []
    norm.register_forward_hook(lambda *_: hooked.append(True))
    names, values = list(net.state_dict()), list(net.parameters())
    sync = BatchNormSync()
    assert sync.apply(net) is net
    assert net[1] is norm
    assert isinstance(norm, SyncBatchNorm)
    assert (norm.momentum, norm.eps, norm.training) == (0.3, 1e-3, False)
    assert list(net.state_dict()) == names
    assert all(a is b for a, b in zip(net.parameters(), values, strict=True))
    net(torch.zeros(2, 1, 2, 2))
    assert hooked
    assert sync.revert(net) is net
    assert type(norm) is nn.BatchNorm2d
    assert vars(norm).keys() == before.keys()


def test_a_subclass_is_left_alone_with_a_warning():
    class Own(nn.BatchNorm1d):
        pass

    net = nn.Sequential(Own(2), SyncBatchNorm(2))
    with pytest.warns(UserWarning, match=r"0 \(Own\) normalises by each process's own images"):
        BatchNormSync().apply(net)
    assert [type(part) for part in net] == [Own, SyncBatchNorm]
    BatchNormSync().revert(net)
    assert type(net[1]) is SyncBatchNorm
