from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from derivatives import check_gradient_penalty
from torch import nn

from lit_gans.networks import R3GANDiscriminator, R3GANGenerator
from lit_gans.networks.r3gan import ResidualBlock


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (64, 1)])
def test_shapes_and_gradients(size, channels, num_classes):
    torch.manual_seed(0)
    generator = R3GANGenerator(image_size=size, channels=channels, latent_dim=6, width=8, num_classes=num_classes)
    discriminator = R3GANDiscriminator(image_size=size, channels=channels, width=8, num_classes=num_classes)
    y = None if num_classes is None else torch.tensor([0, 2, 1])
    images = generator(torch.randn(3, 6), y)
    logits = discriminator(images, y)
    assert images.shape == (3, channels, size, size)
    assert logits.shape == (3,)
    logits.sum().backward()
    for network in (generator, discriminator):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_blocks_start_as_the_identity():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 4)
    for network in (R3GANGenerator(width=8), R3GANDiscriminator(width=8)):
        blocks = [module for module in network.modules() if isinstance(module, ResidualBlock)]
        assert len(blocks) == 2 * 4
        for block in blocks:
            assert torch.equal(block(x), x)
            block(x).sum().backward()
            assert block.residual[-1].weight.grad.any()  # and yet it learns


def test_untrained_networks_are_their_transitions():
    """With the identity for each block, D is a filter of its input, and G is linear in the modulation."""
    torch.manual_seed(0)
    generator, discriminator = R3GANGenerator(width=8, latent_dim=4), R3GANDiscriminator(width=8)
    z, x = torch.randn(2, 4), torch.randn(2, 3, 32, 32)
    assert torch.allclose(generator(2 * z), 2 * generator(z), atol=1e-5)
    assert torch.allclose(discriminator(2 * x), 2 * discriminator(x), atol=1e-5)


def test_a_block_by_hand():
    torch.manual_seed(0)
    block, x = ResidualBlock(8, group_size=4, expansion=2, blocks=3), torch.randn(2, 8, 5, 5)
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    first, bias1, second, bias2, third = block.parameters()
    assert (first.shape, second.shape, third.shape) == ((16, 8, 1, 1), (16, 4, 3, 3), (8, 16, 1, 1))
    hidden = F.leaky_relu(torch.einsum("oi,nihw->nohw", first[:, :, 0, 0], x) + bias1[:, None, None], 0.2)
    groups = [F.conv2d(hidden[:, i : i + 4], second[i : i + 4], padding=1) for i in range(0, 16, 4)]
    hidden = F.leaky_relu(torch.cat(groups, 1) + bias2[:, None, None], 0.2)
    assert torch.allclose(block(x), x + torch.einsum("oi,nihw->nohw", third[:, :, 0, 0], hidden), atol=1e-3)


@pytest.mark.parametrize(
    ("width", "group_size", "groups"), [(768, 16, 96), (96, 16, 12), (8, 16, 1), (12, 16, 1), (20, 16, 2)]
)
def test_groups(width, group_size, groups):
    with torch.device("meta"):
        assert ResidualBlock(width, group_size, 2, 1).residual[2].groups == groups


def test_fixup_initialisation():
    torch.manual_seed(0)
    blocks = 8
    block = ResidualBlock(128, 16, 2, blocks)
    gain = (2 / 1.04) ** 0.5 * blocks**-0.25
    assert block.residual[0].weight.std().item() == pytest.approx(gain / 128**0.5, rel=0.02)
    assert block.residual[2].weight.std().item() == pytest.approx(gain / (16 * 9) ** 0.5, rel=0.02)
    assert not block.residual[4].weight.any()
    assert not block.residual[1].bias.any()


def test_the_basis_is_scaled_by_latents_and_label():
    generator = R3GANGenerator(width=8, latent_dim=4, num_classes=3, embed_dim=5)
    z, y = torch.randn(2, 4), torch.tensor([0, 2])
    scale = torch.cat([z, generator.label.embedding(y)], 1) @ generator.modulate.weight.T
    images = generator.stages(generator.basis[None] * scale[:, :, None, None])
    assert torch.equal(generator(z, y), images)
    assert generator.basis.shape == (8, 4, 4)


def test_projection_and_depthwise_head():
    torch.manual_seed(0)
    network = R3GANDiscriminator(image_size=8, width=8, num_classes=3)
    x, y = torch.randn(3, 3, 8, 8), torch.tensor([2, 0, 1])
    maps = network.stages[:-2](x)
    features = (maps * network.stages[-2].weight.squeeze(1)).sum((2, 3))
    expected = (network.out(features) * network.label(y)).sum(1)
    assert torch.allclose(network(x, y), expected, atol=1e-5)


def test_samples_do_not_mix():
    network, x = R3GANDiscriminator(image_size=16, width=8), torch.randn(4, 3, 16, 16)
    assert torch.allclose(network(x)[:1], network(x[:1]), atol=1e-6)
    assert not any("norm" in type(module).__name__.lower() for module in network.modules())


def test_untrained_images_lie_within_the_range_of_the_data():
    torch.manual_seed(0)
    generator, z = R3GANGenerator(width=32), torch.randn(64, 64)
    with torch.no_grad():
        assert 0.05 < generator(z).abs().max() < 1
        generator.stages[-1].weight.mul_(1000)
        assert generator(z).abs().max() > 1
        assert generator.eval()(z).abs().max() == 1


def test_gradient_penalty():
    torch.manual_seed(0)
    network = R3GANDiscriminator(image_size=8, channels=1, width=8).double()
    for parameter in network.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    x = torch.randn(2, 1, 8, 8, dtype=torch.double, requires_grad=True)
    weight = next(module for module in network.modules() if isinstance(module, ResidualBlock)).residual[2].weight
    check_gradient_penalty(network, x, weight)


@pytest.mark.parametrize(
    ("size", "classes", "counts"),
    [
        (256, None, [23_057_952, 23_009_568]),
        (64, None, [22_429_824, 22_381_440]),
        (32, 10, [20_781_952, 20_732_800]),
    ],
)
def test_parameters(size, classes, counts):
    """Table 2 of the paper has 23.058 and 23.010 million for FFHQ at 256 pixels (configuration E).

    The other two sizes have no printed counts; they are the arithmetic of the release's presets for FFHQ-64 and
    CIFAR-10: two blocks at each size, 768 channels, expansion 2, groups of 16 channels.
    """
    with torch.device("meta"):
        networks = [cls(image_size=size, num_classes=classes) for cls in (R3GANGenerator, R3GANDiscriminator)]
    widths = {32: [768] * 4, 64: [768] * 4 + [384], 256: [768] * 4 + [384, 192, 96]}[size]
    blocks = 2 * sum(w * 2 * w + 2 * w * 16 * 9 + 2 * w * w + 4 * w for w in widths)
    changes = sum(a * b for a, b in pairwise(widths) if a != b)
    both = blocks + changes + 3 * widths[-1] + 768 * 4 * 4 + (10 * 64 if classes else 0)
    expected = [both + 768 * (128 if classes else 64), both + 768 * (64 if classes else 1)]
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == expected == counts


@pytest.mark.parametrize("cls", [R3GANGenerator, R3GANDiscriminator])
def test_wrong_arguments_and_records(cls):
    with pytest.raises(ValueError, match=r"image_size=28 .* the nearest: 16, 32"):
        cls(image_size=28)
    with pytest.raises(ValueError, match="width=4 leaves no channel at 256 pixels; it must be 8 at least"):
        cls(image_size=256, width=4)
    with pytest.raises(TypeError, match="positional argument"):
        cls(32)
    assert all(f"\n        {name}: " in cls.__doc__ for name in cls.__init__.__kwdefaults__)
    network = cls(image_size=8, width=8, num_classes=2)
    x = torch.randn(2, 64) if cls is R3GANGenerator else torch.randn(2, 3, 8, 8)
    with pytest.raises(ValueError, match="call it with labels y"):
        network(x)
    with pytest.raises(ValueError, match="build it with num_classes"):
        cls(image_size=8, width=8)(x, torch.tensor([0, 1]))
    assert network.init_args == {"image_size": 8, "width": 8, "num_classes": 2}
    cls(**network.init_args).load_state_dict(network.state_dict())


@pytest.mark.parametrize("embed_dim", [16, 64, 768])
def test_logits_begin_as_wide_with_any_embedding(embed_dim):
    """A logit is a sum over the embedding; the release's gain 1 / √E keeps its variance at |f|² / (width · classes)."""
    torch.manual_seed(0)
    network = R3GANDiscriminator(image_size=8, channels=1, width=32, depth=1, num_classes=10, embed_dim=embed_dim)
    x, y = torch.randn(512, 1, 8, 8), torch.arange(512) % 10
    with torch.no_grad():
        power = network.stages(x).square().sum(1).mean()
        spread = torch.stack([network_again(network, seed)(x, y).square().mean() for seed in range(30)]).mean()
    assert spread.item() == pytest.approx(power.item() / 32 / 10, rel=0.25)


def network_again(network, seed):
    """The same body under newly drawn last layers."""
    torch.manual_seed(seed)
    drawn = R3GANDiscriminator(**network.init_args)
    drawn.stages = network.stages
    return drawn


def test_widths_of_imagenet_can_be_built():
    """The release's 1,536 channels at all sizes up to 64 pixels, in groups of 32; here an eighth of them."""
    for cls in (R3GANGenerator, R3GANDiscriminator):
        network = cls(image_size=64, width=192, group_size=32, full_width_up_to=64, depth=1)
        convolutions = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)]
        assert [(m.in_channels, m.in_channels // m.groups) for m in convolutions] == [(384, 32)] * 5
    with pytest.raises(ValueError, match="width=1 leaves no channel at 64 pixels; it must be 2 at least"):
        R3GANGenerator(image_size=64, width=1)
