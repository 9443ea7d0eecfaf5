import copy
import math

import pytest
import torch
import torch.nn.functional as F
from derivatives import check_gradient_penalty

from lit_gans.networks import StyleGAN2Discriminator, StyleGAN2Generator
from lit_gans.networks.layers import FIR
from lit_gans.networks.stylegan2 import EqualConv2d, EqualLinear, ModulatedConv2d, minibatch_std

SMALL = {"channel_base": 256, "channel_max": 8, "mapping_layers": 2}


def generator(size=16, **kwargs):
    torch.manual_seed(0)
    return StyleGAN2Generator(**{"image_size": size, "latent_dim": 6, "w_dim": 8, **SMALL, **kwargs})


def discriminator(size=16, **kwargs):
    torch.manual_seed(0)
    return StyleGAN2Discriminator(image_size=size, **SMALL, **kwargs)


def spread(network):
    """What is zero at first, set free: noise and biases."""
    for parameter in network.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (64, 1)])
def test_shapes_and_gradients(size, channels, num_classes):
    g = generator(size, channels=channels, num_classes=num_classes)
    d = discriminator(size, channels=channels, num_classes=num_classes)
    y = None if num_classes is None else torch.tensor([0, 2, 1])
    images = g(torch.randn(3, 6), y)
    logits = d(images, y)
    assert images.shape == (3, channels, size, size)
    assert logits.shape == (3,)
    logits.sum().backward()
    for network in (g, d):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert g.num_ws == 2 * math.log2(size) - 2
    w = g.mapping(torch.randn(3, 6), y)
    assert w.shape == (3, 8)
    assert g.synthesis(w[:, None].expand(-1, g.num_ws, -1)).shape == images.shape


@pytest.mark.parametrize(("down", "kernel_size"), [(False, 1), (False, 3), (True, 1), (True, 3)])
def test_equalised_learning_rate(down, kernel_size):
    """Unit normal weights are stored; what they make of unit normal inputs has unit variance, whatever the fan-in."""
    torch.manual_seed(0)
    linear = EqualLinear(400, 300, bias=0.5, lr_multiplier=0.01)
    assert linear.weight.std().item() == pytest.approx(100, rel=0.02)
    assert linear(torch.randn(100, 400)).std().item() == pytest.approx(1, rel=0.02)
    assert torch.allclose(linear(torch.zeros(1, 400)), torch.tensor(0.5))
    assert EqualLinear(400, 3000, activate=True)(torch.randn(50, 400)).square().mean().item() == pytest.approx(
        1.04, rel=0.05
    )
    conv = EqualConv2d(64, 96, kernel_size, down=down, activate=False)
    assert conv.weight.std().item() == pytest.approx(1, rel=0.02)
    x = torch.randn(4, 64, 16, 16)
    weight = conv.weight / math.sqrt(64 * kernel_size**2)
    if not down:
        assert torch.allclose(conv(x), F.conv2d(x, weight, padding=kernel_size // 2), atol=1e-5)
    else:
        pad = (2, 2, 2, 2) if kernel_size == 3 else (1, 1, 1, 1)
        assert torch.allclose(conv(x), F.conv2d(filtered(F.pad(x, pad)), weight, stride=2), atol=1e-5)


def filtered(x):
    """[1, 3, 3, 1] ⊗ [1, 3, 3, 1] / 64 by shifted sums."""
    taps = (1, 3, 3, 1)
    h, w = x.shape[2] - 3, x.shape[3] - 3
    return sum(a * b * x[:, :, i : i + h, j : j + w] for i, a in enumerate(taps) for j, b in enumerate(taps)) / 64


def test_resampling():
    torch.manual_seed(0)
    fir, x = FIR(), torch.randn(2, 3, 8, 6)
    assert torch.allclose(fir.down(x), filtered(F.pad(x, (1, 1, 1, 1)))[:, :, ::2, ::2], atol=1e-6)
    zeros = torch.zeros(2, 3, 16, 12)
    zeros[:, :, ::2, ::2] = x
    assert torch.allclose(fir.up(x), 4 * filtered(F.pad(zeros, (2, 1, 2, 1))), atol=1e-6)
    bilinear = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.allclose(fir.up(x)[:, :, 1:-1, 1:-1], bilinear[:, :, 1:-1, 1:-1], atol=1e-6)
    ones = torch.ones(1, 2, 8, 8)
    assert torch.allclose(fir.up(ones)[:, :, 1:-1, 1:-1], torch.tensor(1.0))  # beyond the border lie zeros
    assert torch.allclose(fir.down(ones)[:, :, 1:-1, 1:-1], torch.tensor(1.0))
    x = torch.randn(1, 2, 4, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: fir.double().down(fir.up(x)) ** 2, x)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_modulated_convolution_sample_by_sample(kernel_size, demodulate):
    """Equations 1 to 3, with a weight for each sample."""
    torch.manual_seed(0)
    conv = ModulatedConv2d(5, 7, kernel_size, w_dim=4, demodulate=demodulate)
    x, w = torch.randn(3, 5, 6, 6), torch.randn(3, 4)
    expected = []
    for image, style in zip(x, conv.style(w), strict=True):
        weight = conv.weight / math.sqrt(5 * kernel_size**2) * style[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected.append(F.conv2d(image[None], weight, padding=kernel_size // 2))
    assert torch.allclose(conv(x, w), torch.cat(expected), atol=1e-5)


def test_upsampling_convolution_sample_by_sample():
    torch.manual_seed(0)
    conv = ModulatedConv2d(5, 7, 3, w_dim=4, up=True)
    x, w = torch.randn(2, 5, 6, 6), torch.randn(2, 4)
    expected = []
    for image, style in zip(x, conv.style(w), strict=True):
        weight = conv.weight / math.sqrt(45) * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        zeros = torch.zeros(1, 5, 12, 12)
        zeros[:, :, ::2, ::2] = image
        wide = F.conv2d(F.pad(zeros, (2, 1, 2, 1)), weight.flip(2, 3))  # a transposed convolution turns its kernel
        expected.append(4 * filtered(F.pad(wide, (1, 1, 1, 1))))
    out = conv(x, w)
    assert out.shape == (2, 7, 12, 12)
    assert torch.allclose(out, torch.cat(expected), atol=1e-5)


def test_demodulation_gives_unit_variance():
    torch.manual_seed(0)
    conv, w = ModulatedConv2d(64, 32, 3, w_dim=8), 3 * torch.randn(4, 8)
    out = conv(torch.randn(4, 64, 34, 34), w)[:, :, 1:-1, 1:-1]
    assert torch.allclose(out.var((2, 3)), torch.tensor(1.0), atol=0.25)
    assert out.var().item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (7, 1), (8, 4), (10, 2)])
def test_minibatch_std(n, size):
    torch.manual_seed(0)
    x = torch.randn(n, 3, 4, 4)
    out = minibatch_std(x)
    assert out[:, :3].equal(x)
    for i in range(n):
        group = torch.stack([x[j] for j in range(n) if j % (n // size) == i % (n // size)])
        assert len(group) == size
        std = ((group - group.mean(0)).square().mean(0) + 1e-8).sqrt().mean()
        assert torch.allclose(out[i, 3], std.expand(4, 4), atol=1e-6)


def test_mapping_normalises_latents_and_labels():
    g = generator(num_classes=3)
    z, y = torch.randn(4, 6), torch.tensor([0, 1, 2, 0])
    assert torch.allclose(g.mapping(z, y), g.mapping(5 * z, y), atol=1e-5)
    g.mapper.embed.weight.data[:] *= 2  # its bias is zero
    w = g.mapping(z, y)
    g.mapper.embed.weight.data[:] *= 2
    assert torch.allclose(g.mapping(z, y), w, atol=1e-5)
    assert not torch.allclose(w, g.mapping(z, (y + 1) % 3), atol=1e-3)
    assert g.mapper.layers[0].weight.shape == (8, 6 + 8)
    assert g.mapper.layers[0].lr_multiplier == 0.01
    assert len(StyleGAN2Generator(image_size=8, w_dim=8, channel_base=64).mapper.layers) == 8


def test_each_w_reaches_its_layers():
    """The ws of a block: two convolutions and the image, which shares its own with the next block."""
    g = spread(generator(16)).eval()
    ws, heard = torch.randn(1, g.num_ws, 8), {}
    for name, module in g.synthesis.named_modules():
        if isinstance(module, ModulatedConv2d):
            module.register_forward_hook(lambda _, inputs, __, at=name: heard.__setitem__(at, inputs[1]))
    g.synthesis(ws)
    indices = {name: next(i for i in range(g.num_ws) if ws[:, i].equal(w)) for name, w in heard.items()}
    assert list(indices.values()) == [0, 1, 1, 2, 3, 3, 4, 5]
    assert [name for name, i in indices.items() if i == 3] == ["blocks.0.to_image.conv", "blocks.1.up.conv"]


def test_w_avg_follows_its_moving_average():
    g = generator().train()
    expected = torch.zeros(8)
    for _ in range(3):
        z = torch.randn(5, 6)
        expected = 0.995 * expected + 0.005 * g.mapper(z).mean(0)
        g(z).sum().backward()
        assert torch.allclose(g.w_avg, expected, atol=1e-7)
    assert not g.w_avg.requires_grad
    assert "w_avg" in g.state_dict()
    before = g.w_avg.clone()
    g.synthesis(g.mapping(torch.randn(5, 6))[:, None].repeat(1, g.num_ws, 1))  # as a model does that mixes styles
    assert not g.w_avg.equal(before)
    before = g.w_avg.clone()
    g.eval()(torch.randn(5, 6))
    assert g.w_avg.equal(before)


def test_noise_is_new_in_training_and_fixed_in_eval():
    g = generator()
    z = torch.randn(4, 6)
    with torch.no_grad():
        assert torch.equal(g(z), g(z))  # its strength starts at zero
        for name, parameter in g.named_parameters():
            if name.endswith("noise_strength"):
                assert parameter.item() == 0
                parameter.fill_(0.5)
        assert not torch.allclose(g(z), g(z))
        torch.manual_seed(1)
        first = g(z)
        torch.manual_seed(1)
        assert torch.equal(g(z), first)
        g.eval()
        whole = g(z)
        assert torch.equal(g(z), whole)
        assert torch.allclose(torch.cat([g(z[:1]), g(z[1:])]), whole, atol=1e-6)
        other = copy.deepcopy(g)
        torch.manual_seed(7)
        fresh = generator().eval()
        fresh.load_state_dict(g.state_dict())
        assert torch.equal(other(z), whole)
        assert torch.equal(fresh(z), whole)
    assert g.synthesis.layer.noise.shape == (4, 4)
    assert g.synthesis.blocks[1].layer.noise.shape == (16, 16)


@pytest.mark.parametrize("arguments", [{}, {"channel_base": 2048, "channel_max": 32}, {"size": 64, "w_dim": 64}])
def test_untrained_images_lie_within_the_range_of_the_data(arguments):
    g = generator(**arguments)
    with torch.no_grad():
        images = g.train()(torch.randn(64, 6))
        assert images.abs().max() < 1  # unclamped
        assert images.std() > 0.01
        spread(spread(spread(g)))
        g.synthesis.to_image.bias.fill_(3.0)
        assert g.train()(torch.randn(8, 6)).max() > 1
        images = g.eval()(torch.randn(8, 6))
    assert images.max() == 1
    assert images.min() >= -1


def test_gradient_penalty():
    torch.manual_seed(0)
    d = spread(discriminator(8, channels=1)).double()
    x = torch.randn(4, 1, 8, 8, dtype=torch.double, requires_grad=True)
    weight = d.blocks[1].residual[1].weight
    check_gradient_penalty(d, x, weight)


def test_path_length():
    g = spread(generator(16)).train()
    ws = g.mapping(torch.randn(3, 6))[:, None].repeat(1, g.num_ws, 1)
    images = g.synthesis(ws)
    (slope,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), ws, create_graph=True)
    assert slope.shape == ws.shape
    slope.square().sum(2).mean(1).sqrt().sub(1).square().mean().backward()
    grads = [p.grad for p in g.synthesis.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)
    assert g.synthesis.blocks[0].up.conv.weight.grad.any()
    assert g.mapper.layers[0].weight.grad.any()


def test_projection_on_the_mapped_label():
    d = spread(discriminator(8, num_classes=3))
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
    features = d.out(d.linear(d.conv(minibatch_std(d.blocks(x))).flatten(1)))
    assert torch.allclose(d(x, y), (features * d.mapping(None, y)).sum(1) / math.sqrt(8), atol=1e-5)


@pytest.mark.parametrize(
    ("size", "base", "counts"),
    [
        (1024, 32768, [30_370_060, 29_012_513]),
        (256, 32768, [30_034_338, 28_864_129]),
        (256, 16384, [24_767_458, 24_001_089]),
    ],
)
def test_parameters(size, base, counts):
    """The totals of the authors' TensorFlow release for configuration F at 1024 pixels, constant included.

    30.03 and 28.86 million are configuration F at 256 pixels, 24.767 and 24.001 million (table 2 of R3GAN's paper,
    configuration A) are that with half of the channels beyond 32 pixels. Noise maps are buffers, and not counted.
    """
    with torch.device("meta"):
        networks = [cls(image_size=size, channel_base=base) for cls in (StyleGAN2Generator, StyleGAN2Discriminator)]
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == counts
    assert networks[0].num_ws == 2 * math.log2(size) - 2


def test_parameters_of_layers():
    """The lines that StyleGAN2-ADA prints for 1024 pixels (github.com/open-mmlab/mmgeneration/issues/394)."""
    with torch.device("meta"):
        synthesis = StyleGAN2Generator().synthesis
    for block, conv0, conv1, to_image in [
        (3, 2_622_465, 2_622_465, 264_195),
        (4, 1_442_561, 721_409, 132_099),
        (5, 426_369, 213_249, 66_051),
    ]:
        block = synthesis.blocks[block]
        layers = block.up, block.layer, block.to_image
        assert [sum(p.numel() for p in layer.parameters()) for layer in layers] == [conv0, conv1, to_image]
    assert synthesis.blocks[3].layer.noise.shape == (64, 64)


@pytest.mark.parametrize("build", [generator, discriminator])
def test_wrong_arguments_and_records(build):
    cls = StyleGAN2Generator if build is generator else StyleGAN2Discriminator
    with pytest.raises(ValueError, match=r"image_size=96 .* the nearest: 64, 128"):
        cls(image_size=96)
    with pytest.raises(ValueError, match=r"channel_base=32 .* leave no channel at 64 pixels; channel_base must be 64"):
        cls(image_size=64, channel_base=32)
    with pytest.raises(TypeError, match="positional argument"):
        cls(32)
    assert all(f"\n        {name}: " in cls.__doc__ for name in cls.__init__.__kwdefaults__)
    network = build(num_classes=2)
    x = torch.randn(2, 6) if build is generator else torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match="call it with labels y"):
        network(x)
    with pytest.raises(ValueError, match="build it with num_classes"):
        build()(x, torch.tensor([0, 1]))
    assert network.init_args["num_classes"] == 2
    cls(**network.init_args).load_state_dict(network.state_dict())


def test_as_many_images_are_compared_as_the_group_is_large():
    torch.manual_seed(0)
    x = torch.randn(8, 3, 16, 16)
    alone, one, two = (discriminator(group=group) for group in (1, 4, 8))
    for network in (one, two):
        network.load_state_dict(alone.state_dict())
    changed = torch.cat([x[:1], x[1:2] + 1, x[2:]])  # with groups of four, samples 0, 2, 4 and 6 are compared
    with torch.no_grad():
        moved = [not torch.equal(network(x)[:1], network(changed)[:1]) for network in (alone, one, two)]
    assert moved == [False, False, True]
    with pytest.raises(ValueError, match="group=0 images cannot be compared"):
        discriminator(group=0)
