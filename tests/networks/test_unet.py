from itertools import pairwise

import pytest
import torch
from receptive import bare, radius_of
from torch import nn

from lit_gans.networks import UNetGenerator


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_of_the_paper():
    """Convolutions without biases, nine scales and shifts less two of the encoder; by arithmetic."""
    with torch.device("meta"):
        network = UNetGenerator()
    widths = [3, 64, 128, 256, 512, 512, 512, 512, 512]
    down = sum(16 * a * b for a, b in pairwise(widths))
    fan_in = [128, 256, 512, 1024, 1024, 1024, 1024, 512]
    up = sum(16 * a * b for a, b in zip(fan_in, widths, strict=False)) + 3
    norms = 2 * sum(widths[2:8]) + 2 * sum(widths[1:8])
    assert count(network) == down + up + norms == 54_413_955


@pytest.mark.parametrize("upsample", ["transpose", "nearest", "pixel_shuffle"])
@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_shapes_range_and_gradients(norm, upsample):
    torch.manual_seed(0)
    network = UNetGenerator(in_channels=1, out_channels=2, depth=3, base_channels=4, norm=norm, upsample=upsample)
    assert (network.stride, network.scale, network.in_channels, network.out_channels) == (8, 1, 1, 2)
    images = network(torch.randn(2, 1, 8, 24))
    assert images.shape == (2, 2, 8, 24)
    assert images.abs().max() <= 1
    (images * torch.randn_like(images)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())
    assert network.init_args["upsample"] == upsample
    UNetGenerator(**network.init_args).load_state_dict(network.state_dict())


def test_one_picture_of_the_least_size_is_enough_to_train():
    for norm in ("batch", "instance"):
        assert UNetGenerator(depth=3, base_channels=2, norm=norm)(torch.randn(1, 3, 8, 8)).isfinite().all()


def test_it_is_the_recursion_of_the_paper():
    """Level by level from the inside out, with the parameters alone."""
    torch.manual_seed(0)
    network = UNetGenerator(depth=4, base_channels=2).double()
    x = torch.randn(2, 3, 32, 16, dtype=torch.double)
    downs = [[m for m in level.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)] for level in network.downs]
    ups = [[m for m in u.modules() if isinstance(m, nn.ConvTranspose2d | nn.BatchNorm2d)] for u in network.ups]
    assert [len(level) for level in downs] == [1, 2, 2, 1]
    assert [len(level) for level in ups] == [2, 2, 2, 1]

    def level(k, x):
        for layer in downs[k]:
            x = layer(x)
        inner = x if k == 3 else torch.cat([x, level(k + 1, nn.functional.leaky_relu(x, 0.2))], 1)
        inner = inner.clamp_min(0)
        for layer in ups[3 - k]:
            inner = layer(inner)
        return inner

    assert torch.allclose(network(x), level(0, x).tanh(), atol=1e-12)


@pytest.mark.parametrize(("depth", "places"), [(8, [0, 1, 2]), (7, [0, 1, 2]), (6, [0, 1]), (5, [0]), (4, []), (3, [])])
def test_dropout_is_where_the_paper_has_it(depth, places):
    network = UNetGenerator(depth=depth, base_channels=1)
    found = [i for i, up in enumerate(network.ups) if any(isinstance(m, nn.Dropout) for m in up.modules())]
    assert found == places
    dropouts = [m for m in UNetGenerator(depth=depth, base_channels=1, dropout=0).modules() if type(m) is nn.Dropout]
    assert not dropouts


@pytest.mark.parametrize("upsample", ["transpose", "nearest", "pixel_shuffle"])
@pytest.mark.parametrize("depth", [2, 3])
def test_receptive_radius(depth, upsample):
    network = bare(UNetGenerator(depth=depth, base_channels=1, dropout=0, upsample=upsample))
    assert radius_of(network, 96) == network.receptive_radius


@pytest.mark.parametrize(
    ("size", "told"),
    [
        ((96, 64), r"depth=8 .* 96x64 .*depth=5 would fit; or pad the images to 256x256"),
        ((257, 256), "no depth would fit; or pad the images to 512x256"),
        ((258, 256), "no depth would fit"),
        ((260, 512), "depth=2 would fit"),
    ],
)
def test_sizes_that_cannot_be_halved(size, told):
    with torch.device("meta"), pytest.raises(ValueError, match=told):
        UNetGenerator()(torch.zeros(1, 3, *size))


def test_bad_arguments():
    with pytest.raises(ValueError, match="at least 2"):
        UNetGenerator(depth=1)
    with pytest.raises(ValueError, match="batch or instance"):
        UNetGenerator(depth=2, norm=None)
    with pytest.raises(ValueError, match="choose one of transpose, nearest, pixel_shuffle"):
        UNetGenerator(depth=2, upsample="bilinear")
    assert all(f"\n        {name}: " in UNetGenerator.__doc__ for name in UNetGenerator.__init__.__kwdefaults__)
