"""Inception: torch-fidelity's network and numbers, from a file that is found, checked, and never executed."""

import hashlib

import pytest
import torch
from inception import random_network, save_random_weights
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from lit_gans.metrics import (
    FeatureExtractor,
    Features,
    FrechetDistance,
    InceptionScore,
    InceptionV3,
    KernelDistance,
    PrecisionRecall,
    inception,
    load_extractor,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*is not the file of 2015-12-05.*", "ignore:.*far too high.*")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_random_weights(tmp_path_factory.mktemp("inception") / "weights.pth")


@pytest.fixture(scope="module")
def extractor(weights):
    return InceptionV3(weights)


@pytest.fixture(scope="module")
def network():
    """torch-fidelity's own, with the same weights."""
    return random_network()


def pictures(n, size, seed):
    """Blurred noise, whose features differ less than those of noise."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 3, size // 4, size // 4, generator=rng)
    fine = nn.functional.interpolate(coarse, size, mode="bilinear") * 220 + 30 * torch.rand(
        n, 3, size, size, generator=rng
    )
    return fine.clamp(0, 255).to(torch.uint8)


WHOLE = [pytest.param(16, (size, size), 2048, marks=[pytest.mark.exhaustive, pytest.mark.slow]) for size in (32, 64)]


@pytest.mark.parametrize(("n", "sizes", "width"), [(10, (32, 64), 256), *WHOLE])
def test_numbers_are_torch_fidelitys(n, sizes, width, extractor, network):
    """By default of few images, fakes and reals of another size, and FID of a part of the features.

    Most of the time of the whole is the network's, and what torch-fidelity takes for the root of a matrix of 2048 rows.
    """
    fake, real = (pictures(n, size, seed) for seed, size in enumerate(sizes, 1))
    with torch.no_grad():
        (fake_features, fake_logits), (real_features, _) = (network(images) for images in (fake, real))
    metrics = {
        "fid": FrechetDistance(FeatureExtractor(nn.Flatten(), "given")),
        "isc": InceptionScore(extractor, splits=2),
        "kid": KernelDistance(extractor, 10, 8),
        "prc": PrecisionRecall(extractor),
    }
    for images, theirs, is_real in ((fake, fake_features, False), (real, real_features, True)):
        seen = extractor(images)
        torch.testing.assert_close(seen.features, theirs, rtol=1e-4, atol=1e-5)
        for name, metric in metrics.items():
            metric.update(Features(seen.features[:, :width], seen.logits) if name == "fid" else seen, real=is_real)
    ours = {name: metric.compute() for name, metric in metrics.items()}
    both = (features[:, :width].double() for features in (fake_features, real_features))
    statistics = [fid_features_to_statistics(features) for features in both]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)
    assert float(ours["fid"]) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    theirs = isc_features_to_metric(fake_logits, splits=2)
    assert float(ours["isc"].mean) == pytest.approx(theirs["inception_score_mean"], rel=1e-3)
    both = (features.double() for features in (fake_features, real_features))  # single, their sums lose four digits
    theirs = kid_features_to_metric(*both, kid_subsets=10, kid_subset_size=8, verbose=False)
    assert float(ours["kid"].mean) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    theirs = prc_features_to_metric(
        fake_features, real_features, prc_neighborhood=3, prc_batch_size=100, save_cpu_ram=False, verbose=False
    )
    assert float(ours["prc"].precision) == pytest.approx(theirs["precision"], rel=1e-3)
    assert float(ours["prc"].recall) == pytest.approx(theirs["recall"], rel=1e-3)


def test_what_is_seen_in_an_image_does_not_depend_on_its_batch(extractor):
    images = pictures(11, 32, 0)
    whole = extractor(images)
    for part in (slice(0, 1), slice(3, 7), slice(8, 11)):
        assert torch.equal(extractor(images[part]).features, whole.features[part])


def test_folding_and_layout_change_nothing_but_the_last_digits(extractor, network):
    with torch.no_grad():
        plain = network(pictures(4, 48, 0))
    ours = extractor(pictures(4, 48, 0))
    for a, b in zip(ours, plain, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in extractor.network.modules())


def test_another_file_of_the_same_form_is_never_called_fid(weights):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    with pytest.warns(UserWarning, match=f"{digest[:8]}.* not FID"):
        extractor = InceptionV3(weights)
    assert extractor.key == f"fd_inception_{digest[:8]}"
    assert extractor.weights == digest


def test_the_true_file_is_called_fid(weights, monkeypatch):
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
    assert InceptionV3(weights).key == "fid"


class TestFindingTheWeights:
    def test_variable_before_cache_before_download(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        fetched = []

        def download(url, path, hash_prefix):
            fetched.append((url, hash_prefix))
            save(path)

        def save(path):
            with open(path, "wb") as file:
                file.write(b"weights")

        monkeypatch.setattr(torch.hub, "download_url_to_file", download)
        monkeypatch.delenv("LIT_GANS_INCEPTION", raising=False)
        cached = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
        assert inception.find_weights() == cached
        assert inception.find_weights() == cached  # there now
        assert fetched == [(URL_INCEPTION_V3, inception.SHA256)]
        save(tmp_path / "mine.pth")
        monkeypatch.setenv("LIT_GANS_INCEPTION", str(tmp_path / "mine.pth"))
        assert inception.find_weights() == tmp_path / "mine.pth"

    def test_one_process_a_machine_downloads(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("LOCAL_RANK", "1")
        monkeypatch.delenv("LIT_GANS_INCEPTION", raising=False)
        monkeypatch.setattr(torch.hub, "download_url_to_file", lambda *_, **__: pytest.fail("downloaded"))
        with pytest.raises(FileNotFoundError):
            inception.find_weights()

    def test_offline_and_absent_is_one_sentence(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.delenv("LIT_GANS_INCEPTION", raising=False)

        def no_network(*_, **__):
            raise OSError("no route to host")

        monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
        with pytest.raises(FileNotFoundError) as error:
            load_extractor("inception")
        message = str(error.value)
        assert "weights-inception-2015-12-05-6726825d.pth" in message
        assert URL_INCEPTION_V3 in message
        assert "LIT_GANS_INCEPTION" in message
        assert "no route to host" in message

    def test_a_variable_that_names_nothing(self, monkeypatch):
        monkeypatch.setenv("LIT_GANS_INCEPTION", "nowhere.pth")
        with pytest.raises(FileNotFoundError, match=r"LIT_GANS_INCEPTION names nowhere.pth"):
            inception.find_weights()


def test_files_that_hold_something_else(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (print, ("executed",))

    (tmp_path / "empty.pth").touch()
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "linear.pth")
    torch.save({"fc.weight": Bomb()}, tmp_path / "bomb.pth")
    for file in ("empty.pth", "linear.pth", "bomb.pth"):
        with pytest.raises(ValueError, match=f"{file} does not hold the weights of the FID's Inception .*: fetch"):
            InceptionV3(tmp_path / file)
