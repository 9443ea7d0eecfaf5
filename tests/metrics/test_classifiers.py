"""The shipped classifiers: what they return, how well they read, that they are what the card says, and their making."""

import hashlib
import re
from pathlib import Path

import pytest
import torch
from launching import python
from safetensors.torch import load_file, safe_open, save_file

from lit_gans.data import ImageDataModule
from lit_gans.metrics import classifiers
from lit_gans.metrics.classifiers import (
    RECIPES,
    WEIGHTS,
    DigitClassifier,
    accuracy,
    jitter,
    load_classifier,
    main,
    read_images,
    train_classifier,
)

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SIZES = {"digits": 8, "mnist": 28}
BARS = {"digits": 0.97, "mnist": 0.993}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """The folder of the official MNIST files, where they are at hand."""
    if not (SHARED / "prepare.py").exists():
        pytest.skip(f"no real data in {SHARED}")
    root = tmp_path_factory.mktemp("real")
    assert python(SHARED / "prepare.py", root, "mnist", cwd=root).returncode == 0
    return root


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """An empty folder in place of the shipped one."""
    monkeypatch.setattr(classifiers, "WEIGHTS", tmp_path)
    return tmp_path


def noise(n, size):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def row(folder, name):
    """Cells of a classifier's row in the card."""
    (line,) = re.findall(rf"^\| {name} \|(.*)\|$", (folder / "README.md").read_text("utf-8"), re.MULTILINE)
    return [cell.strip(" `") for cell in line.split("|")]


@pytest.mark.parametrize("name", SIZES)
def test_features_and_logits_of_a_frozen_network(name):
    network = load_classifier(name)
    features, logits = network(noise(5, SIZES[name]))
    assert (features.shape, logits.shape) == ((5, 64), (5, 10))
    assert torch.equal(logits, network.last(features))
    assert not any(module.training for module in network.modules())
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", SIZES)
def test_an_image_is_seen_alike_in_any_company(name):
    network, images = load_classifier(name), noise(8, SIZES[name])
    others = torch.cat([images[:1], 3 - 10 * images[1:]])
    for alone, among in zip(network(images), network(others), strict=True):
        assert torch.equal(alone[0], among[0])
        assert not torch.equal(alone[1], among[1])


@pytest.mark.parametrize("name", SIZES)
def test_loading_draws_no_random_numbers(name):
    state = torch.get_rng_state()
    load_classifier(name)
    assert torch.equal(torch.get_rng_state(), state)


def test_digits_are_read():
    assert accuracy(load_classifier("digits"), *read_images("digits", train=False)) >= BARS["digits"]


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.exhaustive)])
def test_mnist_is_read(every, mnist):
    """Each fourth image by default."""
    images, labels = (part[::every] for part in read_images("mnist", train=False, root=mnist))
    assert accuracy(load_classifier("mnist"), images, labels) >= BARS["mnist"]


def test_accuracy_counts():
    class Echo(torch.nn.Module):
        def forward(self, x):
            return x, torch.nn.functional.one_hot(x.flatten().long(), 10)

    digits = torch.arange(2500).view(-1, 1) % 10
    assert accuracy(Echo(), digits, digits.flatten()) == 1
    assert accuracy(Echo(), digits, digits.flatten().where(torch.arange(2500) % 4 > 0, 10)) == 0.75


@pytest.mark.parametrize("name", SIZES)
def test_weights_are_those_of_the_card(name):
    path = WEIGHTS / f"{name}.safetensors"
    widths, parameters, features, score, _, digest = row(WEIGHTS, name)
    network = load_classifier(name)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert int(parameters.replace(",", "")) == sum(tensor.numel() for tensor in network.parameters())
    assert int(features) == network.last.in_features
    assert widths == " / ".join(", ".join(map(str, stage)) for stage in RECIPES[name].stages)
    assert float(score.partition("%")[0]) / 100 >= BARS[name]
    with safe_open(path, "pt") as file:
        assert f'"held_out_accuracy": "{score}"' in file.metadata()["lit_gans"]


def test_the_card_tells_the_accuracy_of_digits():
    images, labels = read_images("digits", train=False)
    score, _, n = row(WEIGHTS, "digits")[3].partition("% of ")
    assert int(n) == len(images)
    one = 1.01 / len(images)  # image on the border between two digits, which another processor may round across
    assert accuracy(load_classifier("digits"), images, labels) == pytest.approx(float(score) / 100, abs=one)


def test_weights_are_small():
    files = list(WEIGHTS.glob("*.safetensors"))
    assert sorted(file.stem for file in files) == sorted(RECIPES)
    assert sum(file.stat().st_size for file in files) <= 500_000


@pytest.mark.parametrize("part", ["train", "test"])
def test_digits_are_split_as_the_data_module_does(part):
    source = ImageDataModule("digits").open(part)
    images, labels = read_images("digits", train=part == "train")
    assert torch.equal(images, source.images(torch.arange(len(source))).float() / 127.5 - 1)
    assert torch.equal(labels, source.labels)


@pytest.mark.parametrize("part", ["train", "test"])
def test_mnist_is_split_as_the_data_module_does(mnist, part):
    source = ImageDataModule("mnist", root=mnist, download=False).open(part)
    images, labels = read_images("mnist", train=part == "train", root=mnist)
    rows = torch.arange(0, len(source), 101)
    assert len(images) == len(source)
    assert torch.equal(images[rows], source.images(rows).float() / 127.5 - 1)
    assert torch.equal(labels, source.labels)


def test_jitter_moves_a_little_on_black():
    images = -torch.ones(200, 1, 28, 28)
    images[:, :, 14, 14] = 1
    still = RECIPES["mnist"]._replace(angle=0, stretch=0, shift=0)
    assert jitter(images, still) == pytest.approx(images, abs=1e-5)
    moved = jitter(images, still._replace(shift=2)) + 1
    assert moved.min() >= 0
    weight, place = moved.sum((1, 2, 3)), torch.arange(28.0)
    for axis in (2, 3):
        shift = (moved.sum((1, 5 - axis)) * place).sum(1) / weight - 14
        assert shift.abs().max() == pytest.approx(2, abs=0.1)
        assert shift.mean() == pytest.approx(0, abs=0.3)


def test_training_repeats_and_leaves_the_global_seed_alone():
    recipe, data = RECIPES["digits"]._replace(epochs=2), read_images("digits", train=True)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        network = train_classifier(recipe, *data)
        assert torch.equal(torch.get_rng_state(), state)
        assert not network.training
        runs.append(network.state_dict())
    assert all(torch.equal(runs[0][key], runs[1][key]) for key in runs[0])
    other = train_classifier(recipe._replace(seed=1), *data).state_dict()
    assert not torch.equal(runs[0]["last.weight"], other["last.weight"])


def test_the_command_writes_weights_and_card(weights, capsys):
    out = weights / "new"
    for epochs in ("1", "2"):
        main(["digits", "--epochs", epochs, "-o", str(out)])
    first = (out / "digits.safetensors").read_bytes()
    score, digest = row(out, "digits")[3], row(out, "digits")[5]
    assert digest == hashlib.sha256(first).hexdigest()
    assert f"digits: {score} held-out images" in capsys.readouterr().out
    assert not list(weights.glob("*.*")), "the shipped folder is not touched"
    main(["digits", "--epochs", "2"])
    assert (weights / "digits.safetensors").read_bytes() == first
    assert load_classifier("digits")(noise(1, 8))[1].shape == (1, 10)


def test_only_its_row_of_the_card_is_replaced(tmp_path):
    text = (WEIGHTS / "README.md").read_text("utf-8")
    (tmp_path / "README.md").write_text(text, "utf-8")
    classifiers.update_card(tmp_path, "mnist", "| mnist | new |\n")
    old, new = text.splitlines(), (tmp_path / "README.md").read_text("utf-8").splitlines()
    assert [line for line in new if line not in old] == ["| mnist | new |"]
    assert [line[:9] for line in old if line not in new] == ["| mnist |"]


@pytest.mark.parametrize(
    "words", [["--epochs", "5"], pytest.param([], marks=[pytest.mark.exhaustive, pytest.mark.slow])]
)
def test_digits_are_learnt_from_scratch(words, weights):
    """To what is promised of the shipped weights; five epochs of sixty do, and without training it is one in ten."""
    main(["digits", *words])
    assert accuracy(load_classifier("digits"), *read_images("digits", train=False)) >= BARS["digits"]


def damage(path, kind):
    shipped = WEIGHTS / "digits.safetensors"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(shipped.read_bytes()[:5000])
    elif kind == "of another network":
        save_file(DigitClassifier((8,), (64,)).state_dict(), path)
    elif kind == "incomplete":
        save_file({key: value for key, value in load_file(shipped).items() if key != "last.bias"}, path)
    elif kind == "a folder":
        path.mkdir()


@pytest.mark.parametrize("kind", ["missing", "empty", "truncated", "of another network", "incomplete", "a folder"])
def test_wrong_weights_are_refused(weights, kind):
    path = weights / "digits.safetensors"
    damage(path, kind)
    with pytest.raises(
        ValueError, match=r"^.*: install lit_gans again.*python -m lit_gans.metrics.classifiers digits$"
    ) as e:
        load_classifier("digits")
    assert str(path) in str(e.value)
