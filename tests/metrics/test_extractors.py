"""Extractors: frozen, named, indifferent to batches, and refused in a sentence where they cannot work."""

import copy
import pickle
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from lit_gans.metrics import Classifier, FeatureExtractor, ModuleExtractor, load_extractor
from lit_gans.metrics.classifiers import WEIGHTS
from lit_gans.metrics.extractors import hash_of
from lit_gans.metrics.images import resize


class ConvNet(nn.Module):
    """With batch norm and dropout, which eval mode changes."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(3, 8, 3)
            self.norm = nn.BatchNorm2d(8)
            self.norm.running_mean.normal_()
            self.head = nn.Linear(8, 4)

    def forward(self, x):
        features = nn.functional.dropout(self.norm(self.conv(x)).relu(), 0.5, self.training).mean((2, 3))
        return features, self.head(features)


class Maps(nn.Module):
    def forward(self, x):
        return x


def pictures(n, size=12, channels=3, seed=0):
    shape = n, channels, size, size
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_preprocessing_is_as_described():
    extractor = FeatureExtractor(nn.Flatten(), "pixels", image_size=4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    x = pictures(2, size=9)
    scaled = resize(x.float(), 4, "bilinear") / 255
    expected = (scaled - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) / torch.tensor([0.5, 0.6, 0.7])[:, None, None]
    torch.testing.assert_close(extractor(x).features, expected.flatten(1))
    described = extractor.describe()
    assert described["normalisation"] == "(x / 255 - (0.1, 0.2, 0.3)) / (0.5, 0.6, 0.7)"
    assert (described["image_size"], described["resize"], described["num_features"]) == (4, "bilinear", 48)


def test_it_is_frozen_in_eval_mode_and_in_float32_whatever_surrounds_it():
    net = ConvNet().train().to(torch.bfloat16)
    extractor = ModuleExtractor(net)
    assert net.training  # a copy was frozen, not the user's own
    assert next(net.parameters()).requires_grad
    assert not extractor.network.training
    assert not any(p.requires_grad for p in extractor.network.parameters())
    x = pictures(5)
    expected = extractor(x)
    with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
        seen = extractor(x)
    assert seen.features.dtype == seen.logits.dtype == torch.float32
    assert torch.equal(seen.features, expected.features)
    assert not seen.features.requires_grad


def test_what_is_seen_in_an_image_does_not_depend_on_its_batch():
    extractor = ModuleExtractor(ConvNet())
    x = pictures(100)
    whole = extractor(x)
    for size in (1, 7, 16, 33):
        parts = [extractor(part) for part in x.split(size)]
        assert torch.equal(torch.cat([part.features for part in parts]), whole.features)
        assert torch.equal(torch.cat([part.logits for part in parts]), whole.logits)


def test_images_of_several_sizes():
    extractor = FeatureExtractor(nn.Flatten(), "pixels", image_size=4, resize="pil-bicubic")
    images = [pictures(1, size)[0] for size in (4, 9, 30)]
    images.append(pictures(1, 9, channels=1)[0])
    singly = torch.cat([extractor(image[None]).features for image in images])
    assert torch.equal(extractor(images).features, singly)
    with pytest.raises(ValueError, match="no image_size, and the images are of several sizes"):
        FeatureExtractor(nn.Flatten(), "any")(images)


def test_it_is_no_module_and_one_copy_is_enough():
    extractor = ModuleExtractor(ConvNet())
    assert not isinstance(extractor, nn.Module)
    assert copy.deepcopy({"a": extractor})["a"] is extractor
    x = pictures(3)
    assert torch.equal(pickle.loads(pickle.dumps(extractor))(x).features, extractor(x).features)


def test_names_and_hashes():
    one, other = ModuleExtractor(ConvNet(0)), ModuleExtractor(ConvNet(1), name="other")
    assert (one.key, other.key) == ("fd_convnet", "fd_other")
    assert one.weights == ModuleExtractor(ConvNet(0)).weights != other.weights
    assert len(one.weights) == 64


def test_another_resize_is_another_description_of_the_same_network():
    extractor = FeatureExtractor(nn.Flatten(), "pixels", image_size=4)
    other = extractor.with_resize("pil-bicubic")
    assert (extractor.resize, other.resize) == ("bilinear", "pil-bicubic")
    assert other.network is extractor.network
    assert not torch.equal(other(pictures(2)).features, extractor(pictures(2)).features)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_shipped_classifiers(name):
    extractor = load_extractor(name)
    assert isinstance(extractor, Classifier)
    assert extractor.key == f"fd_{name}"
    assert f"`{extractor.weights}`" in (WEIGHTS / "README.md").read_text()  # the card
    seen = extractor(pictures(3, size=28))
    assert seen.features.shape == (3, extractor.num_features)
    assert seen.logits.shape == (3, 10)


class TestWaysToNameANetwork:
    def test_class_path_with_weights(self, tmp_path):
        net = ConvNet(3)
        torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "net.th")
        save_file(net.state_dict(), tmp_path / "net.safetensors")
        x = pictures(3)
        expected = ModuleExtractor(net)(x).features
        for file in ("net.th", "net.safetensors"):
            extractor = ModuleExtractor(ConvNet(), weights=tmp_path / file)
            assert torch.equal(extractor(x).features, expected)
            assert extractor.weights == hash_of(net)

    def test_options_in_the_name(self):
        extractor = load_extractor("torch.nn.Flatten?image_size=5&channels=1&mean=0.2&std=0.4&name=flat&resize=tf1")
        assert extractor.key == "fd_flat"
        assert extractor.describe() | {"weights": 0} == {
            "name": "flat",
            "weights": 0,
            "image_size": 5,
            "channels": 1,
            "resize": "tf1",
            "normalisation": "(x / 255 - 0.2) / 0.4",
            "num_features": 25,
        }
        assert load_extractor("torch.nn.Flatten").name == "flatten"

    def test_torchscript(self, tmp_path):
        net = ConvNet(3).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            torch.jit.trace(net, torch.zeros(2, 3, 12, 12)).save(tmp_path / "judge.pt")
        extractor = load_extractor(str(tmp_path / "judge.pt"))
        assert extractor.key == "fd_judge"
        torch.testing.assert_close(extractor(pictures(3)).features, ModuleExtractor(net)(pictures(3)).features)

    def test_torchvision(self, monkeypatch):
        import torchvision.models

        def get_model(name, weights):
            return torchvision.models.resnet18(weights=None)  # the published ones need a network

        monkeypatch.setattr(torchvision.models, "get_model", get_model)
        extractor = load_extractor("torchvision:resnet18")
        assert (extractor.key, extractor.image_size, extractor.num_features) == ("fd_resnet18", 224, 512)
        assert extractor.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digit", "no extractor 'digit': give inception, digits, mnist, torchvision:<model>"),
        ("torchvision:resnet19", "torchvision:resnet19 cannot be had: .*resnet19"),
        ("timm:vit", "timm:vit needs timm: pip install timm"),
        ("no.such.Class", "neither a file nor a class that can be built"),
        ("torch.nn.Linear", "neither a file nor a class that can be built"),
        ("torch.nn.Flatten?size=3", "size=3 is no option; there are weights, name"),
        ("torch.nn.Flatten?image_size=big", "image_size=big is no option"),
    ],
)
def test_names_that_mean_nothing(name, message):
    with pytest.raises(ValueError, match=message):
        load_extractor(name)


def test_files_that_hold_something_else(tmp_path):
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.safetensors").write_text("not weights")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    with pytest.raises(ValueError, match=r"empty\.pt is no TorchScript file"):
        load_extractor(str(tmp_path / "empty.pt"))
    for file in ("empty.pt", "text.safetensors", "linear.pth", "missing.pth"):
        with pytest.raises(ValueError, match=f"{file} does not hold the weights of ConvNet"):
            ModuleExtractor(ConvNet(), weights=tmp_path / file)


def test_weights_are_never_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"conv.weight": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(ValueError, match="does not hold the weights"):
        ModuleExtractor(ConvNet(), weights=tmp_path / "bomb.pth")


def test_maps_in_place_of_vectors_are_refused_at_once():
    with pytest.raises(ValueError, match=r"'maps' returns \(16, 3, 8, 8\) for 16 images, .* x.mean\(\(2, 3\)\)"):
        FeatureExtractor(Maps(), "maps", image_size=8)
    extractor = FeatureExtractor(Maps(), "maps")  # of any size: no image has been seen yet
    with pytest.raises(ValueError, match="one vector for each is needed"):
        extractor(pictures(2))


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="no resize 'lanczos': there are tf1, bilinear"):
        FeatureExtractor(nn.Flatten(), "x", resize="lanczos")
    with pytest.raises(ValueError, match="one value or 3"):
        FeatureExtractor(nn.Flatten(), "x", mean=(0.1, 0.2))
    with pytest.raises(ValueError, match="no classifier 'cifar10'"):
        Classifier("cifar10")


@pytest.mark.parametrize("name", ["inception", "digits", "mnist", "inception_1a2b3c4d"])
def test_nothing_else_bears_the_name_of_a_shipped_extractor(name):
    with pytest.raises(ValueError, match=f"the name '{name}' is that of another extractor: .* with name="):
        ModuleExtractor(nn.Flatten(), name=name)
    assert FeatureExtractor(nn.Flatten(), "inception").key == "fd_inception"  # FID is InceptionV3's alone


def test_the_default_precision_leaves_no_trace():
    torch.set_default_dtype(torch.bfloat16)
    try:
        extractor = FeatureExtractor(nn.Flatten(), "pixels", image_size=5)
        assert extractor(pictures(2, 11)).features.dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)
    assert extractor(pictures(2, 11)).features.dtype == torch.float32


def test_precision_of_matrix_products_is_the_highest_and_put_back():
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append(torch.get_float32_matmul_precision())
            return x.flatten(1)

    torch.set_float32_matmul_precision("medium")
    try:
        FeatureExtractor(Look(), "look")(pictures(2))
        assert (seen, torch.get_float32_matmul_precision()) == (["highest"], "medium")
    finally:
        torch.set_float32_matmul_precision("highest")
