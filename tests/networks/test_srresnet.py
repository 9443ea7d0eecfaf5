from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from receptive import bare, radius_of
from torch import nn

from lit_gans.networks import MSRResNet, SRDiscriminator, SRResNet

GENERATORS = [SRResNet, MSRResNet]


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def conv(fan_in, fan_out, kernel=3, bias=True):
    return fan_in * fan_out * kernel**2 + fan_out * bias


def test_parameters():
    blocks = 16 * 2 * conv(64, 64)
    expected = conv(3, 64) + blocks + 2 * conv(64, 256) + conv(64, 64) + conv(64, 3)
    assert count(MSRResNet()) == expected == 1_517_571
    norms, slopes = (2 * 16 + 1) * 2 * 64, 16 + 1 + 2
    body = 33 * conv(64, 64, bias=False) + norms
    assert count(SRResNet()) == conv(3, 64, 9) + body + 2 * conv(64, 256) + conv(64, 3, 9) + slopes
    widths = [64, 64, 128, 128, 256, 256, 512, 512]
    layers = conv(3, 64) + sum(conv(a, b, bias=False) + 2 * b for a, b in pairwise(widths))
    assert count(SRDiscriminator()) == layers + 512 * 36 * 1024 + 1024 + 1024 + 1


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("cls", GENERATORS)
def test_shapes_and_gradients(cls, scale):
    torch.manual_seed(0)
    network = cls(scale=scale, channels=1, base_channels=4, blocks=2)
    assert (network.scale, network.stride, network.in_channels, network.out_channels) == (scale, 1, 1, 1)
    for size in ((1, 1), (5, 3)):
        images = network(torch.rand(2, 1, *size) * 2 - 1)
        assert images.shape == (2, 1, scale * size[0], scale * size[1])
    (images * torch.randn_like(images)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    cls(**network.init_args).load_state_dict(network.state_dict())


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("cls", GENERATORS)
def test_receptive_radius(cls, scale):
    network = bare(cls(scale=scale, channels=1, base_channels=1, blocks=2))
    assert radius_of(network, 40) == network.receptive_radius
    assert cls(base_channels=1).receptive_radius == {SRResNet: 40, MSRResNet: 35}[cls]


def test_srresnet_is_figure_4():
    torch.manual_seed(0)
    network = SRResNet(scale=4, base_channels=4, blocks=2).double()
    x = torch.rand(2, 3, 6, 5, dtype=torch.double) * 2 - 1
    assert network(x).abs().max() <= 1
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    slopes = [m.weight for m in network.modules() if isinstance(m, nn.PReLU)]
    for slope in slopes:
        nn.init.uniform_(slope)
    first = maps = F.prelu(convs[0](x / 2 + 0.5), slopes[0])
    for k in range(2):
        inner = F.prelu(norms[2 * k](convs[1 + 2 * k](maps)), slopes[1 + k])
        maps = maps + norms[2 * k + 1](convs[2 + 2 * k](inner))
    maps = first + norms[4](convs[5](maps))
    for k in range(2):
        maps = F.prelu(F.pixel_shuffle(convs[6 + k](maps), 2), slopes[3 + k])
    assert torch.allclose(network(x), torch.tanh(convs[8](maps)), atol=1e-12)
    assert (len(convs), len(norms), len(slopes)) == (9, 5, 5)


def test_msrresnet_corrects_bilinear_interpolation():
    torch.manual_seed(0)
    network, x = MSRResNet(base_channels=8, blocks=2), torch.rand(2, 3, 6, 5) * 2 - 1
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    bilinear = F.interpolate(x, scale_factor=4, mode="bilinear")
    assert (network(x) - bilinear).abs().max() < 0.05  # the weights start small
    nn.init.zeros_(network.conv_last.weight)
    assert torch.allclose(network(x), bilinear, atol=1e-6)
    nn.init.constant_(network.conv_last.bias, 0.125)
    assert torch.allclose(network(x), bilinear + 0.25, atol=1e-6)  # [0, 1] inside
    assert all(not m.bias.any() for m in network.modules() if isinstance(m, nn.Conv2d) and m is not network.conv_last)


def test_weights_start_as_he_et_al_times_a_tenth():
    weight = MSRResNet(base_channels=64, blocks=1).body[0].conv1.weight
    assert weight.std().item() == pytest.approx(0.1 * (2 / (64 * 9)) ** 0.5, rel=0.03)


def test_discriminator_of_any_crop():
    torch.manual_seed(0)
    network = SRDiscriminator(channels=1, base_channels=2)
    for size in ((96, 96), (128, 96), (24, 17), (192, 192)):
        assert network(torch.randn(2, 1, *size)).shape == (2,)
    x = torch.randn(2, 1, 96, 96)
    maps = network.features(x)
    assert maps.shape == (2, 16, 6, 6)
    assert torch.equal(network.head[0](maps), maps)  # as in the paper, at the paper's size
    network(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    strides = [m.stride[0] for m in network.features if isinstance(m, nn.Conv2d)]
    assert strides == [1, 2, 1, 2, 1, 2, 1, 2]
    assert not isinstance(network.features[1], nn.BatchNorm2d)


@pytest.mark.parametrize("cls", [*GENERATORS, SRDiscriminator])
def test_bad_arguments(cls):
    assert all(f"\n        {name}: " in cls.__doc__ for name in cls.__init__.__kwdefaults__)
    if cls in GENERATORS:
        with pytest.raises(ValueError, match="scale=5 is not known; choose one of 2, 3, 4, 8"):
            cls(scale=5)
