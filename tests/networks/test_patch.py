from itertools import pairwise

import pytest
import torch
from receptive import bare, seen_by
from torch import nn

from lit_gans.networks import PatchDiscriminator
from lit_gans.networks.layers import Blur


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("channels", "norm", "total"), [(6, "batch", 2_768_705), (3, "instance", 2_764_737)])
def test_parameters_of_the_papers(channels, norm, total):
    widths = [channels, 64, 128, 256, 512, 1]
    expected = sum(16 * a * b for a, b in pairwise(widths)) + 64 + 1 + (128 + 256 + 512) * (2 if norm == "batch" else 1)
    for antialias in (False, True):
        assert count(PatchDiscriminator(in_channels=channels, norm=norm, antialias=antialias)) == expected == total


@pytest.mark.parametrize(("layers", "field"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
def test_receptive_field(layers, field):
    network = bare(PatchDiscriminator(in_channels=1, layers=layers, base_channels=1))
    x = torch.zeros(1, 1, 2 * field + 64, 2 * field + 64)
    middle = network(x.double()).shape[-1] // 2
    top, bottom, left, right = seen_by(network, x, middle, middle)
    assert (bottom - top + 1, right - left + 1) == (field, field)


@pytest.mark.parametrize("antialias", [False, True])
def test_map_of_256_pixels(antialias):
    network = PatchDiscriminator(base_channels=1, antialias=antialias)
    assert network(torch.zeros(1, 3, 256, 256)).shape == (1, 1, 30, 30)
    assert network(torch.zeros(1, 3, 96, 64)).shape == (1, 1, 10, 6)
    assert PatchDiscriminator(base_channels=1, layers=0)(torch.zeros(2, 3, 9, 5)).shape == (2, 1, 9, 5)


def test_source_comes_first():
    torch.manual_seed(0)
    network = PatchDiscriminator(in_channels=5, layers=1, base_channels=2)
    x, source = torch.randn(2, 2, 16, 16), torch.randn(2, 3, 16, 16)
    assert torch.equal(network(x, source), network(torch.cat([source, x], 1)))


@pytest.mark.parametrize("norm", ["batch", "instance", None])
@pytest.mark.parametrize("layers", [0, 3])
def test_gradients_and_records(layers, norm):
    torch.manual_seed(0)
    network = PatchDiscriminator(in_channels=1, layers=layers, base_channels=2, norm=norm, antialias=layers == 3)
    (network(torch.randn(2, 1, 40, 40)) * torch.randn(1)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    PatchDiscriminator(**network.init_args).load_state_dict(network.state_dict())


def test_layers_are_in_the_papers_order():
    kinds = [type(layer) for layer in PatchDiscriminator(base_channels=1, layers=2).layers]
    middle = [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]
    assert kinds == [nn.Conv2d, nn.LeakyReLU, *middle, *middle, nn.Conv2d]
    kinds = [type(layer) for layer in PatchDiscriminator(base_channels=1, layers=2, antialias=True).layers]
    assert kinds == [nn.Conv2d, nn.LeakyReLU, Blur, *middle, Blur, *middle, nn.Conv2d]


def test_blur_pixel_by_pixel():
    x = torch.randn(1, 2, 5, 6, dtype=torch.double)
    padded = nn.functional.pad(x, (1, 1, 1, 1), mode="reflect")
    blurred = Blur().double()(x)
    assert blurred.shape == (1, 2, 3, 3)
    weights = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 16
    for i in range(3):
        for j in range(3):
            expected = (padded[0, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * weights).sum((1, 2))
            assert torch.allclose(blurred[0, :, i, j], expected)


def test_bad_arguments():
    with pytest.raises(ValueError, match="0 \\(pixels\\) or more, got -1"):
        PatchDiscriminator(layers=-1)
    with pytest.raises(ValueError, match="is not known"):
        PatchDiscriminator(norm="bath")
    assert all(
        f"\n        {name}: " in PatchDiscriminator.__doc__ for name in PatchDiscriminator.__init__.__kwdefaults__
    )
