import pytest
import torch
import torch.nn.functional as F
from receptive import bare, radius_of
from torch import nn

from lit_gans.networks import RRDBNet, UNetDiscriminator

SMALL = {"base_channels": 8, "blocks": 2, "growth": 4}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def conv(fan_in, fan_out, kernel=3, bias=True):
    return fan_in * fan_out * kernel**2 + fan_out * bias


def test_parameters_of_the_paper():
    dense = sum(conv(64 + 32 * k, 32) for k in range(4)) + conv(64 + 4 * 32, 64)
    expected = conv(3, 64) + 23 * 3 * dense + 4 * conv(64, 64) + conv(64, 3)
    assert count(RRDBNet()) == expected == 16_697_987
    assert count(RRDBNet(scale=2)) == expected + 9 * 9 * 64
    u_net = sum(conv(64 * 2**k, 128 * 2**k, 4, False) + conv(128 * 2**k, 64 * 2**k, 3, False) for k in range(3))
    rest = conv(3, 64) + 2 * conv(64, 64, bias=False) + conv(64, 1)
    assert count(UNetDiscriminator(spectral=False)) == rest + u_net


def test_weights_have_the_fields_names():
    convs = [f"body.{n}.rdb{m}.conv{k}" for n in range(2) for m in (1, 2, 3) for k in (1, 2, 3, 4, 5)]
    layers = ["conv_first", *convs, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]
    expected = {f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")}
    assert set(RRDBNet(**SMALL).state_dict()) == expected


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_it_opens_in_the_fields_tool_with_equal_outputs(scale):
    spandrel = pytest.importorskip("spandrel", reason="spandrel, which opens other people's weights, is not installed")
    torch.manual_seed(0)
    network = RRDBNet(scale=scale, base_channels=16, blocks=2).eval()
    opened = spandrel.ModelLoader().load_from_state_dict(network.state_dict())
    assert opened.architecture.id == "ESRGAN"
    assert (opened.scale, opened.input_channels, opened.output_channels) == (scale, 3, 3)
    x = torch.rand(1, 3, 12, 8)
    with torch.no_grad():
        theirs, ours = opened.model.eval()(x), (network(2 * x - 1) + 1) / 2
    assert ours.std() > 1e-3
    assert (ours - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_shapes_and_gradients(scale):
    torch.manual_seed(0)
    network = RRDBNet(scale=scale, channels=1, **SMALL)
    images = network(torch.rand(2, 1, 8, 4) * 2 - 1)
    assert images.shape == (2, 1, 8 * scale, 4 * scale)
    (images * torch.randn_like(images)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())
    RRDBNet(**network.init_args).load_state_dict(network.state_dict())
    assert (network.stride, network.scale) == (4 // scale, scale)
    if scale < 4:
        with pytest.raises(ValueError, match=f"multiples of {4 // scale} .* not 7x8: pad .* 8x8"):
            network(torch.zeros(1, 1, 7, 8))


@pytest.mark.parametrize(("scale", "side"), [(4, 80), (2, 160), (1, 296)])
def test_receptive_radius(scale, side):
    network = bare(RRDBNet(scale=scale, channels=1, base_channels=1, blocks=2, growth=1))
    assert radius_of(network, side) == network.receptive_radius == (1 + 30 + 1 + 2) * 4 // scale
    assert RRDBNet(base_channels=1).receptive_radius == 349


def test_a_block_is_figure_4():
    torch.manual_seed(0)
    block = RRDBNet(**SMALL).body[0].double()
    x = torch.randn(2, 8, 5, 5, dtype=torch.double)

    def dense(layer, x):
        seen = x
        for k in (1, 2, 3, 4):
            grown = getattr(layer, f"conv{k}")(seen)
            seen = torch.cat([seen, torch.where(grown > 0, grown, 0.2 * grown)], 1)
        return x + layer.conv5(seen) / 5

    expected = x + dense(block.rdb3, dense(block.rdb2, dense(block.rdb1, x))) / 5
    assert torch.allclose(block(x), expected, atol=1e-12)
    weight = RRDBNet(blocks=1).body[0].rdb1.conv5.weight
    assert weight.std().item() == pytest.approx(0.1 * (2 / (192 * 9)) ** 0.5, rel=0.03)


def test_discriminator_of_pixels():
    torch.manual_seed(0)
    network = UNetDiscriminator(channels=1, base_channels=4, spectral=False).double()
    x = torch.randn(2, 1, 16, 24, dtype=torch.double)

    def lrelu(x):
        return F.leaky_relu(x, 0.2)

    zero = lrelu(network.first(x))
    one = lrelu(network.downs[0](zero))
    two = lrelu(network.downs[1](one))
    up = lrelu(network.downs[2](two))
    for conv_up, skip in zip(network.ups, (two, one, zero), strict=True):
        up = lrelu(conv_up(nn.Upsample(scale_factor=2, mode="bilinear")(up))) + skip
    expected = network.last[4](lrelu(network.last[2](lrelu(network.last[0](up)))))
    assert torch.allclose(network(x), expected, atol=1e-12)
    assert network(torch.zeros(1, 1, 33, 9).double()).shape == (1, 1, 33, 9)


def test_spectral_norms_are_one():
    torch.manual_seed(0)
    network = UNetDiscriminator(base_channels=4)
    for _ in range(60):
        network(torch.randn(2, 3, 16, 16)).sum().backward()
    bound = [m.weight for m in network.modules() if hasattr(m, "parametrizations")]
    assert len(bound) == 8
    for weight in bound:
        assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    UNetDiscriminator(**network.init_args).load_state_dict(network.state_dict())


@pytest.mark.parametrize("cls", [RRDBNet, UNetDiscriminator])
def test_bad_arguments(cls):
    assert all(f"\n        {name}: " in cls.__doc__ for name in cls.__init__.__kwdefaults__)
    with pytest.raises(ValueError, match="choose one of 1, 2, 4"):
        RRDBNet(scale=3)
