"""Protocols: presets that say what the field's names mean, stamps, and what makes two of them unlike."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from lit_gans.functional import to_uint8
from lit_gans.metrics import PROTOCOLS, FeatureExtractor, Protocol, differences, load_protocol
from lit_gans.metrics.protocol import stamp

EXTRACTOR = FeatureExtractor(nn.Flatten(), "pixels", image_size=4, channels=1).describe()


def stamped(protocol="quick", averaged=True, processes=1, **data):
    return stamp(load_protocol(protocol), {"dataset": "digits", "count": 1438, **data}, EXTRACTOR, averaged, processes)


def test_presets():
    assert {name: (p.split, p.reals, p.fakes, p.resize, p.repeats) for name, p in PROTOCOLS.items()} == {
        "fid50k_full": ("train", None, 50_000, "tf1", 1),
        "studiogan": ("train", None, 50_000, "pil-bilinear", 1),
        "fid10k_test": ("test", 10_000, 10_000, "tf1", 1),
        "mimicry": ("train", 50_000, 50_000, "tf1", 3),
        "cleanfid": ("train", None, 50_000, "pil-bicubic", 1),
        "quick": ("train", None, 5_000, None, 1),
        "modes_2500": ("train", None, 2_500, None, 1),
        "modes_26k": ("train", None, 26_000, None, 1),
    }
    assert all(name == p.name for name, p in PROTOCOLS.items())
    assert PROTOCOLS["studiogan"].standing == 256


def test_a_protocol_is_frozen_and_a_changed_one_says_so():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PROTOCOLS["quick"].fakes = 3
    assert PROTOCOLS["quick"].changed(fakes=10).name == "custom"
    assert PROTOCOLS["quick"].changed(fakes=5000) == PROTOCOLS["quick"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fakes": 1}, "fakes of a protocol must be at least 2, got 1"),
        ({"kid_subset_size": 1}, "kid_subset_size of a protocol must be at least 2"),
        ({"seed": 2**62}, "seed of a protocol must be in 0"),
        ({"seed": -1}, "seed of a protocol must be in 0"),
        ({"repeats": 0}, "repeats of a protocol must be at least 1"),
        ({"split": "held out"}, "split must be train, val or test, got 'held out'"),
        ({"resize": "lanczos"}, "resize must be one of tf1, bilinear"),
    ],
)
def test_values_out_of_range(values, message):
    with pytest.raises(ValueError, match=message):
        Protocol(**values)


def test_a_name_that_does_not_exist():
    with pytest.raises(ValueError, match=r"unknown protocol 'fid50k': did you mean fid50k_full or fid10k_test\?"):
        load_protocol("fid50k")


def test_a_stamp_says_all_and_is_plain():
    found = stamped(split="train")
    assert json.loads(json.dumps(found)) == found
    assert found["data"] == {"dataset": "digits", "count": 1438, "split": "train"}
    assert found["extractor"]["weights"] == EXTRACTOR["weights"]
    assert {"fakes", "resize", "ema", "seed", "truncation", "is_splits", "kid_subset_size", "mirror"} <= found.keys()
    assert {"torch", "torch-fidelity", "numpy", "lit-gans"} <= found["versions"].keys()
    assert found["processes"] == 1
    x = torch.tensor([-1.2, -0.3, 0.0, 0.999, 1.004])
    assert found["quantiser"] == "round(127.5 x + 127.5), clamped to 0..255"
    assert torch.equal(to_uint8(x), (127.5 * x + 127.5).round().clamp(0, 255).byte())


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (stamped(Protocol(fakes=4000)), "fakes"),
        (stamped(Protocol(fakes=5000, seed=1)), "seed"),
        (stamped(averaged=False), "ema"),
        (stamped(dataset="mnist"), "data.dataset"),
        (stamped(image_size=16), "data.image_size"),
        (stamped() | {"extractor": EXTRACTOR | {"weights": "0"}}, "extractor.weights"),
        (stamped() | {"extractor": EXTRACTOR | {"name": "other"}}, "extractor.name"),
        (stamped() | {"quantiser": "floor"}, "quantiser"),
    ],
)
def test_unlike_stamps_differ_in_the_field_that_differs(other, field):
    assert list(differences(stamped(), other)) == [field]
    assert list(differences(other, stamped())) == [field]


def test_what_must_not_matter_does_not():
    assert not differences(stamped(), stamped(processes=2))
    assert not differences(stamped(), stamped() | {"versions": {"torch": "3.0"}})
    assert not differences(stamped(), stamped(Protocol(name="mine", fakes=5000)))


def test_images_made_elsewhere_may_be_compared_with_ours():
    elsewhere = stamped(averaged=None)
    assert elsewhere["seed"] == elsewhere["ema"] == "unknown"
    assert not differences(stamped(), elsewhere)
    assert list(differences(stamped(Protocol(fakes=4000)), elsewhere)) == ["fakes"]
