"""Statistics of real images: right, looked at once, kept in files that are verified."""

import numpy as np
import pytest
import torch
from torch import nn

from lit_gans.data import ImageDataModule
from lit_gans.metrics import FeatureExtractor, Moments, real_statistics
from lit_gans.metrics.reals import real_images
from lit_gans.metrics.reference import cache_folder


class Counting(FeatureExtractor):
    """Counts the images that it looks at."""

    def __init__(self, name="pixels", **options):
        self.seen = 0
        super().__init__(Pair(), name, image_size=4, channels=1, **options)
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return super().__call__(images)


class Pair(nn.Module):
    def forward(self, x):
        return x.flatten(1), x.flatten(1)[:, :10]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def images():
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (150, 1, 4, 4), generator=rng, dtype=torch.uint8)


def statistics(images, extractor=None, identity=(("dataset", "toy"), ("split", "train")), **options):
    identity = None if identity is None else dict(identity)
    return real_statistics(lambda: real_images(images), extractor or Counting(), identity, **options)


def same(one, other):
    for a, b in ((one.moments, other.moments),):
        assert a.n == b.n
        assert torch.equal(a.mean, b.mean)
        assert torch.equal(a.covariance, b.covariance)
    assert torch.equal(one.counts, other.counts)
    assert (one.features is None) == (other.features is None)
    assert one.features is None or torch.equal(one.features, other.features)


def test_statistics_are_those_of_the_features(images):
    found = statistics(images, keep_features=True)
    seen = Counting()(images)
    np.testing.assert_allclose(found.moments.covariance, np.cov(seen.features.double().numpy().T), rtol=1e-9)
    assert torch.equal(found.features, seen.features)
    assert torch.equal(found.counts[:-1], torch.bincount(seen.logits.argmax(1), minlength=10).double())
    assert float(found.counts[-1]) == pytest.approx(float(seen.logits.double().softmax(1).amax(1).sum()))


def test_the_first_so_many_and_mirrored_ones(images):
    found = statistics(images, reals=70, mirror=True, keep_features=True)
    expected = Counting()(torch.cat([images[:70], images[:70].flip(3)])).features
    assert torch.equal(found.features, expected)
    assert found.moments.n == 140
    with pytest.raises(ValueError, match="asks for 200 real images, but the data has 150: choose another"):
        statistics(images, reals=200)


def test_the_second_time_nothing_is_looked_at_or_even_opened(images):
    first = statistics(images, keep_features=True)
    extractor = Counting()
    again = real_statistics(
        lambda: pytest.fail("opened"), extractor, {"dataset": "toy", "split": "train"}, keep_features=True
    )
    assert extractor.seen == 0
    same(first, again)


def test_moments_alone_are_enough_for_moments(images):
    statistics(images)
    first, second = Counting(), Counting()
    assert statistics(images, first).features is None
    assert statistics(images, second, keep_features=True).features is not None
    assert (first.seen, second.seen) == (0, 150)  # features were not kept the first time


@pytest.mark.parametrize(
    "other",
    [
        {"identity": (("dataset", "toy"), ("split", "test"))},
        {"identity": (("dataset", "toy"), ("split", "train"), ("image_size", 8))},
        {"extractor": Counting("other")},
        {"extractor": Counting(mean=0.4)},
        {"extractor": Counting(resize="tf1")},
        {"mirror": True},
        {"reals": 100},
    ],
)
def test_nothing_is_taken_for_something_else(images, other):
    statistics(images)
    extractor = other.get("extractor") or Counting()
    extractor.seen = 0
    statistics(images, **{**other, "extractor": extractor})
    assert extractor.seen >= 100


def test_another_network_with_the_same_weights_is_noticed(images):
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    class Max(nn.Module):
        def forward(self, x):
            return x.amax((2, 3))

    one, other = (FeatureExtractor(net, "pool", image_size=4, channels=1) for net in (Mean(), Max()))
    assert one.describe() == other.describe()
    first, second = statistics(images, one), statistics(images, other)
    assert not torch.equal(first.moments.mean, second.moments.mean)


def test_images_without_identity_are_not_kept(images, cache):
    statistics(images, identity=None)
    assert not cache.exists()


def damage(path, how):
    content = path.read_bytes()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "a bit flipped":
        path.write_bytes(content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    else:
        path.write_bytes(content.replace(b"toy", b"try"))


@pytest.mark.parametrize("how", ["truncated", "empty", "a bit flipped", "of other images"])
@pytest.mark.parametrize("kind", ["moments", "features"])
def test_a_broken_file_is_computed_anew_with_a_warning(images, cache, how, kind):
    first = statistics(images, keep_features=True)
    (path,) = cache.glob(f"*.{kind}.safetensors")
    damage(path, how)
    extractor = Counting()
    with pytest.warns(UserWarning, match=rf"{path.name} are broken .* computed anew"):
        same(first, statistics(images, extractor, keep_features=True))
    assert extractor.seen == 150
    extractor = Counting()
    same(first, statistics(images, extractor, keep_features=True))
    assert extractor.seen == 0


def test_no_half_file_is_left_behind(images, cache, monkeypatch):
    def full(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr("lit_gans.metrics.reference.save_file", full)
    with pytest.warns(UserWarning, match="could not be kept for next time: no space left"):
        assert statistics(images).moments.n == 150
    assert not list(cache.iterdir())


def test_where_they_are_kept(monkeypatch, tmp_path):
    monkeypatch.delenv("LIT_GANS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lit_gans"


class TestRealImages:
    def test_items_of_all_forms(self, images):
        x = images.float() / 127.5 - 1
        for dataset in (images, x, [(v, 0) for v in x], [{"image": v} for v in x]):
            assert torch.equal(real_images(dataset).images(torch.tensor([3, 140])), images[[3, 140]])

    def test_random_transforms_leave_the_global_generators_alone(self, images):
        class Random:
            def __len__(self):
                return 20

            def __getitem__(self, index):
                return (images[index].float() / 127.5 - 1) * torch.rand(())

        before = torch.get_rng_state()
        first = real_images(Random()).images(torch.arange(20))
        assert torch.equal(before, torch.get_rng_state())
        torch.rand(3)
        assert torch.equal(real_images(Random()).images(torch.arange(20)), first)  # whatever was drawn before
        assert not torch.equal(real_images(Random()).images(torch.arange(1, 20)), first[1:])

    @pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-2.0, 2.0), (0.0, 255.0)])
    def test_other_ranges_are_refused(self, low, high):
        x = torch.linspace(low, high, 160).view(10, 1, 4, 4)
        with pytest.raises(ValueError, match=r"as generators make them, in \[-1, 1\]: normalise them"):
            real_images(x).images(torch.arange(10))

    def test_what_cannot_be_asked_by_number(self):
        with pytest.raises(TypeError, match="list_iterator is none"):
            real_images(iter([1]))
        with pytest.raises(ValueError, match="must be tensors, got str"):
            real_images(["image"]).images(torch.tensor([0]))


class TestIdentity:
    def test_official_data_are_known_by_name(self):
        one = ImageDataModule("digits").describe("train")
        assert one == {"dataset": "digits", "split": "train", "limit": None, "image_size": 8, "channels": 1}
        assert ImageDataModule("digits", image_size=16).describe("train") != one
        assert ImageDataModule("digits", root="elsewhere", batch_size=3).describe("train") == one

    def test_a_folder_is_known_by_its_files(self, tmp_path):
        from PIL import Image

        def folder(name, values):
            (tmp_path / name).mkdir()
            for i, value in enumerate(values):
                Image.new("L", (6, 6), value).save(tmp_path / name / f"{i}.png")
            return ImageDataModule("folder", root=tmp_path / name).describe("train")

        one = folder("one", [1, 2])
        assert one == folder("copy", [1, 2])
        assert one != folder("other", [1, 3])
        assert one != folder("more", [1, 2, 3])


def test_moments_survive_the_file_to_the_last_bit(images):
    first = statistics(images)
    again = statistics(images)
    assert isinstance(again.moments, Moments)
    same(first, again)
