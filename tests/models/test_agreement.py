"""Processes that were started differently are told so, all of them, before they would wait for one another."""

import pytest
from toys import build, loader, trainer

from lit_gans.data import ImageDataModule
from lit_gans.preflight import agreement


@pytest.fixture
def run(tmp_path):
    run = trainer(tmp_path, max_steps=2)
    model = build("GAN")
    run.fit(model, ImageDataModule("fake", image_size=6, channels=1, batch_size=4, fake_length=20))
    return model, run


def meets(run, monkeypatch, other):
    """Has rank 0 meet a rank that describes itself otherwise."""
    model, run = run

    gathered = []

    def gather(out, mine):
        out[:] = [mine, other(mine)]
        gathered.extend(out)

    monkeypatch.setattr(type(run), "world_size", 2)
    monkeypatch.setattr(agreement.dist, "all_gather_object", gather)
    agreement.check_ranks_agree(model, run)
    return gathered


def test_equal_processes_pass(run, monkeypatch):
    first, second = meets(run, monkeypatch, lambda mine: dict(mine))
    assert first == second != {}


@pytest.mark.parametrize(
    ("name", "value"),
    [("model.g_lr", "'1e-3'"), ("training images", 21), ("max_steps", 3), ("model", "WGAN"), ("torch", "1.0")],
)
def test_what_differs_is_named_with_both_values(name, value, run, monkeypatch):
    mine = agreement.description(*run)
    with pytest.raises(ValueError, match=f"rank 1 .* than rank 0: {name} is ") as error:
        meets(run, monkeypatch, lambda mine: mine | {name: value})
    assert repr(mine[name]) in str(error.value)
    assert repr(value) in str(error.value)


def test_the_description_has_arguments_data_and_versions(run):
    mine = agreement.description(*run)
    assert (mine["training images"], mine["training batches"], mine["model.n_critic"]) == (20, 5, "1")
    assert mine["parameters"]
    assert mine["torch"]


def test_a_loader_of_ones_own_is_described_too(tmp_path):
    run, model = trainer(tmp_path, max_steps=1), build("GAN")
    run.fit(model, loader())
    assert agreement.description(model, run)["training batches"] == 6
