import pytest
import torch
import torch.nn.functional as F
from receptive import bare, radius_of
from torch import nn

from lit_gans.networks import (
    ContextEncoderDiscriminator,
    ContextEncoderGenerator,
    GatedConv2d,
    GatedGenerator,
    PartialConv2d,
    SNPatchDiscriminator,
)


@pytest.mark.parametrize(("stride", "padding", "dilation"), [(1, 0, 1), (1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 3, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_partial_convolution_window_by_window(stride, padding, dilation, bias):
    """Equations 1 and 2, value by value."""
    torch.manual_seed(0)
    layer = PartialConv2d(2, 3, 3, stride, padding, dilation, bias).double()
    x = torch.randn(2, 2, 9, 8, dtype=torch.double)
    mask = (torch.rand(2, 1, 9, 8) < 0.5).double()
    mask[0, :, :7] = 1  # whole windows without a known pixel
    x = torch.where(mask.bool(), 1e6, x)  # what lies in the hole does not matter
    maps, hole = layer(x, mask)
    emptied = 0
    for n in range(2):
        for i in range(maps.shape[2]):
            for j in range(maps.shape[3]):
                total, known = torch.zeros(3, dtype=torch.double), 0
                for di in range(3):
                    for dj in range(3):
                        row, column = i * stride + di * dilation - padding, j * stride + dj * dilation - padding
                        if 0 <= row < 9 and 0 <= column < 8 and mask[n, 0, row, column] == 0:
                            total += layer.conv.weight[:, :, di, dj] @ x[n, :, row, column]
                            known += 1
                expected = total * 9 / max(known, 1)
                if known and bias:
                    expected = expected + layer.conv.bias
                assert torch.allclose(maps[n, :, i, j], expected)
                assert hole[n, 0, i, j] == (known == 0)
                emptied += known == 0
    assert emptied


def test_partial_convolution_of_a_known_picture_is_a_convolution():
    layer, x = PartialConv2d(2, 3, 3), torch.randn(1, 2, 6, 6)
    maps, hole = layer(x, torch.zeros(1, 1, 6, 6))
    assert torch.allclose(maps, layer.conv(x), atol=1e-6)
    assert not hole.any()
    maps, hole = layer(x, torch.ones(1, 1, 6, 6))
    assert not maps.any()
    assert hole.all()
    hole = torch.ones(1, 1, 9, 9)
    hole[..., 0] = 0
    layer = PartialConv2d(1, 1, 3, padding=1)
    for k in range(1, 9):  # a hole closes from its rim, a pixel a layer
        _, hole = layer(torch.zeros(1, 1, 9, 9), hole)
        assert torch.equal(hole[0, 0], (torch.arange(9) > k).float().expand(9, 9))
    layer(torch.randn(1, 1, 9, 9), torch.ones(1, 1, 9, 9))[0].sum().backward()
    assert layer.conv.bias.grad.isfinite().all()


def test_gated_convolution():
    torch.manual_seed(0)
    layer, x = GatedConv2d(2, 3, 5, stride=2).double(), torch.randn(2, 2, 8, 6, dtype=torch.double)
    features = F.conv2d(x, layer.conv.weight[:3], layer.conv.bias[:3], 2, 2)
    gates = F.conv2d(x, layer.conv.weight[3:], layer.conv.bias[3:], 2, 2)
    expected = torch.where(features > 0, features, features.exp() - 1) / (1 + (-gates).exp())
    assert torch.allclose(layer(x), expected)
    assert GatedConv2d(1, 1, dilation=16)(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)


def test_gated_convolution_keeps_the_variance():
    torch.manual_seed(0)
    maps = GatedConv2d(64, 512)(torch.randn(4, 64, 32, 32))[..., 1:-1, 1:-1]
    assert maps.square().mean().item() == pytest.approx(1, abs=0.15)


def test_gated_generator_sees_its_input_at_first():
    torch.manual_seed(0)
    source = torch.cat([torch.rand(8, 1, 32, 32) * 2 - 1, torch.zeros(8, 1, 32, 32)], 1)
    for images in GatedGenerator(channels=1, base_channels=16)(source):
        assert images.std(0).mean() > 1e-3  # a billionth with torch's own start


def test_context_encoder_of_the_paper():
    """4x4 convolutions by arithmetic; batch norm in the place of biases."""
    with torch.device("meta"):
        network = ContextEncoderGenerator()
    down = [16 * a * b for a, b in [(3, 64), (64, 64), (64, 128), (128, 256), (256, 512), (512, 4000)]]
    up = [16 * a * b for a, b in [(4000, 512), (512, 256), (256, 128), (128, 64), (64, 3)]]
    norms = 2 * (64 + 128 + 256 + 512 + 4000 + 512 + 256 + 128 + 64)
    assert sum(p.numel() for p in network.parameters()) == sum(down) + 64 + sum(up) + 3 + norms
    with torch.device("meta"):
        whole = ContextEncoderGenerator(region="whole")
    widths = [m.out_channels for m in whole.decoder if isinstance(m, nn.ConvTranspose2d)]
    assert widths == [512, 256, 128, 64, 64, 3]


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("region", ["center", "whole"])
def test_context_encoder(region, size):
    torch.manual_seed(0)
    network = ContextEncoderGenerator(channels=1, image_size=size, base_channels=2, bottleneck=8, region=region)
    source = torch.randn(3, 2, size, size)
    images = network(source)
    side = size if region == "whole" else size // 2
    assert images.shape == (3, 1, side, side)
    assert images.abs().max() <= 1
    other = torch.cat([source[:, :1], 1 - source[:, 1:]], 1)
    assert torch.equal(network(other), images)  # the mask is not read
    discriminator = ContextEncoderDiscriminator(channels=1, image_size=side, base_channels=2)
    logits = discriminator(images, source)
    assert logits.shape == (3,)
    logits.sum().backward()
    for module in (network, discriminator):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
        type(module)(**module.init_args).load_state_dict(module.state_dict())
    assert (network.in_channels, network.out_channels, network.receptive_radius) == (2, 1, None)
    with pytest.raises(ValueError, match=rf"pictures of {size}x{size} with their mask, 2 channels"):
        network(source[:, :1])
    with pytest.raises(ValueError, match="with their mask"):
        network(torch.zeros(1, 2, 2 * size, size))


def test_gated_generator():
    torch.manual_seed(0)
    network = GatedGenerator(channels=1, base_channels=4)
    x, mask = torch.rand(2, 1, 16, 24) * 2 - 1, (torch.rand(2, 1, 16, 24) < 0.5).float()
    coarse, refined = network(torch.cat([x * (1 - mask), mask], 1))
    assert coarse.shape == refined.shape == x.shape
    assert max(coarse.abs().max(), refined.abs().max()) <= 1
    filled = torch.where(mask.bool(), coarse, x)
    assert torch.allclose(refined, network.refine(torch.cat([filled, mask], 1)))
    (coarse.square().sum() + refined.square().sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    dilations = [m.dilation[0] for m in network.coarse.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
    assert dilations == [2, 4, 8, 16]
    GatedGenerator(**network.init_args).load_state_dict(network.state_dict())
    with pytest.raises(ValueError, match=r"multiples of 4 .* not 18x24: pad .* 20x24"):
        network(torch.zeros(1, 2, 18, 24))


def test_gated_generator_sees_as_far_as_it_says():
    network = bare(GatedGenerator(channels=1, base_channels=2))
    assert (network.stride, network.scale) == (4, 1)
    assert 2 * radius_of(network, 340, network.coarse) == network.receptive_radius == 306


def test_sn_patch_discriminator():
    torch.manual_seed(0)
    network = SNPatchDiscriminator(in_channels=2, base_channels=2)
    x, source = torch.randn(2, 1, 128, 192), torch.randn(2, 2, 128, 192)
    logits = network(x, source)
    assert logits.shape == (2, 8, 2, 3)
    assert torch.equal(network.eval()(x, source), network.layers(torch.cat([x, source[:, 1:]], 1)))
    assert not torch.equal(network(x, source), network(x, 1 - source))
    convs = [m for m in network.layers if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [2, 4, 8, 8, 8, 8]
    assert all((m.kernel_size, m.stride, hasattr(m, "parametrizations")) == ((5, 5), (2, 2), True) for m in convs)
    assert isinstance(network.layers[-1], nn.Conv2d)
    with pytest.raises(ValueError, match="call it with the source"):
        network(x)
    SNPatchDiscriminator(**network.init_args).load_state_dict(network.state_dict())


@pytest.mark.parametrize(
    ("cls", "arguments", "told"),
    [
        (ContextEncoderGenerator, {"image_size": 8}, "16 at least"),
        (ContextEncoderGenerator, {"image_size": 48}, "the nearest: 32, 64"),
        (ContextEncoderGenerator, {"region": "left"}, "center or whole"),
        (ContextEncoderDiscriminator, {"image_size": 9}, "nearest that can"),
        (GatedGenerator, {"base_channels": 3}, "half of them are gates"),
        (SNPatchDiscriminator, None, None),
    ],
)
def test_bad_arguments(cls, arguments, told):
    assert all(f"\n        {name}: " in cls.__doc__ for name in cls.__init__.__kwdefaults__)
    if told:
        with pytest.raises(ValueError, match=told):
            cls(**arguments)
