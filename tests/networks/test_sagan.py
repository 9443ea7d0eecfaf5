from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from derivatives import check_gradient_penalty
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from lit_gans.networks import SAGANDiscriminator, SAGANGenerator, SelfAttention


def labels(num_classes):
    return None if num_classes is None else torch.tensor([0, num_classes - 1])


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(("size", "channels", "attention"), [(8, 1, None), (16, 3, 8), (32, 1, 8), (64, 3, 32)])
def test_shapes_range_and_gradients(size, channels, attention, num_classes):
    torch.manual_seed(0)
    arguments = {"image_size": size, "channels": channels, "width": 2, "attention_size": attention}
    generator = SAGANGenerator(**arguments, latent_dim=5, num_classes=num_classes)
    discriminator = SAGANDiscriminator(**arguments, num_classes=num_classes)
    images = generator(torch.randn(2, 5), labels(num_classes))
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1
    logits = discriminator(images, labels(num_classes))
    assert logits.shape == (2,)
    logits.sum().backward()
    for network in (generator, discriminator):
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_attention_is_equations_1_to_3():
    """Row by row, with no matrix product in sight."""
    torch.manual_seed(0)
    layer, x = SelfAttention(16).double(), torch.randn(2, 16, 6, 4, dtype=torch.double)
    layer.gamma.data.fill_(0.7)
    query, key, value = (conv.weight[:, :, 0, 0] for conv in (layer.query, layer.key, layer.value))
    assert (query.shape, key.shape, value.shape) == ((2, 16), (2, 16), (8, 16))
    expected = torch.empty_like(x)
    for n in range(2):
        keys, values = (torch.einsum("oc,chw->ohw", w, x[n]).unfold(1, 2, 2).unfold(2, 2, 2) for w in (key, value))
        keys, values = keys.amax((3, 4)).flatten(1), values.amax((3, 4)).flatten(1)
        for i in range(6):
            for j in range(4):
                scores = torch.stack([(query @ x[n, :, i, j]) @ k for k in keys.T]).exp()
                seen = (values * scores / scores.sum()).sum(1)
                expected[n, :, i, j] = 0.7 * (layer.project.weight[:, :, 0, 0] @ seen) + x[n, :, i, j]
    assert torch.allclose(layer(x), expected)
    attention = layer.attend(x)
    assert attention.shape == (2, 24, 6)
    assert torch.allclose(attention.sum(2), torch.ones(2, 24, dtype=torch.double))
    assert attention.min() > 0


def test_attention_sees_the_whole_map():
    layer, x = SelfAttention(8), torch.randn(1, 8, 8, 8, requires_grad=True)
    layer.gamma.data.fill_(1.0)
    (gradient,) = torch.autograd.grad(layer(x)[0, :, 0, 0].sum(), x)
    assert gradient[0, :, 6:, 6:].any()  # one of each four pooled values


@pytest.mark.parametrize("cls", [SAGANGenerator, SAGANDiscriminator])
def test_gamma_starts_at_zero_where_attention_does_nothing(cls):
    torch.manual_seed(0)
    network = cls(image_size=32, width=4, attention_size=16)
    without = cls(image_size=32, width=4, attention_size=None)
    missing = without.load_state_dict(network.state_dict(), strict=False)
    assert not missing.missing_keys
    assert all(key.startswith("attention.") for key in missing.unexpected_keys)
    x = torch.randn(3, 128) if cls is SAGANGenerator else torch.randn(3, 3, 32, 32)
    assert network.attention.gamma.ndim == 0
    assert network.attention.gamma.item() == 0
    assert torch.equal(network(x), without(x))
    network.attention.gamma.data.fill_(0.5)
    assert not torch.allclose(network(x), without(x), atol=1e-4)


@pytest.mark.parametrize(("cls", "possible"), [(SAGANGenerator, "8, 16, 32"), (SAGANDiscriminator, "4, 8, 16")])
def test_attention_is_where_it_was_asked_for(cls, possible):
    for size in map(int, possible.split(", ")):
        network, seen = cls(image_size=32, width=4, attention_size=size), []
        network.attention.register_forward_hook(lambda _, inputs, __, seen=seen: seen.append(inputs[0].shape[-1]))
        network(torch.randn(2, 128) if cls is SAGANGenerator else torch.randn(2, 3, 32, 32))
        assert seen == [size]
    with pytest.raises(ValueError, match=f"attention_size=64 is no map .* one of {possible}"):
        cls(image_size=32, attention_size=64)


def test_gradient_penalty():
    torch.manual_seed(0)
    discriminator = SAGANDiscriminator(image_size=16, channels=1, width=4, attention_size=8).double()
    discriminator.attention.gamma.data.fill_(0.5)
    x = torch.randn(2, 1, 16, 16, dtype=torch.double, requires_grad=True)
    weight = discriminator.attention.query.weight
    check_gradient_penalty(discriminator, x, weight)


def conv(fan_in, fan_out, kernel):
    return fan_in * fan_out * kernel**2 + fan_out


@pytest.mark.parametrize("num_classes", [None, 1000])
def test_parameters_at_128(num_classes):
    """SNGAN-projection's tables for 128 pixels (Miyato & Koyama, figure 14), by arithmetic, and one attention layer."""

    def attention(width):
        return 2 * width * width // 8 + width * width // 2 + width // 2 * width + 1

    with torch.device("meta"):
        generator, discriminator = SAGANGenerator(num_classes=num_classes), SAGANDiscriminator(num_classes=num_classes)
    widths = [1024, 1024, 512, 256, 128, 64]
    up = sum(
        conv(a, b, 3) + conv(b, b, 3) + conv(a, b, 1) + 2 * (a + b) * (num_classes or 1) for a, b in pairwise(widths)
    )
    expected = 128 * 16384 + 16384 + up + 2 * 64 + conv(64, 3, 3) + attention(256)
    assert (
        sum(p.numel() for p in generator.parameters()) == expected == {None: 32_232_708, 1000: 42_078_852}[num_classes]
    )
    widths = [3, 64, 128, 256, 512, 1024]
    down = sum(conv(a, b, 3) + conv(b, b, 3) + conv(a, b, 1) for a, b in pairwise(widths))
    expected = down + 2 * conv(1024, 1024, 3) + 1024 + 1 + 1024 * (num_classes or 0) + attention(128)
    total = {None: 38_439_618, 1000: 39_463_618}[num_classes]
    assert sum(p.numel() for p in discriminator.parameters()) == expected == total


def test_projection_and_sum_pooling():
    network = SAGANDiscriminator(image_size=16, width=4, attention_size=None, num_classes=3)
    x, y = torch.randn(3, 3, 16, 16), torch.tensor([2, 0, 1])
    maps = x
    for block in network.blocks:
        maps = block(maps)
    features = F.relu(maps).sum((2, 3))
    expected = features @ network.head.weight[0] + network.head.bias + (features * network.label.weight[y]).sum(1)
    assert torch.allclose(network(x, y), expected, atol=1e-5)


@pytest.mark.parametrize("cls", [SAGANGenerator, SAGANDiscriminator])
def test_wrong_sizes_labels_and_records(cls):
    with pytest.raises(ValueError, match=r"image_size=48 is not .* the nearest: 32, 64"):
        cls(image_size=48)
    network = cls(image_size=16, width=4, attention_size=8, num_classes=2)
    x = torch.randn(2, 128) if cls is SAGANGenerator else torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match="call it with labels y"):
        network(x)
    with pytest.raises(ValueError, match="build it with num_classes"):
        cls(image_size=16, width=4, attention_size=8)(x, torch.tensor([0, 1]))
    assert network.init_args == {"image_size": 16, "width": 4, "attention_size": 8, "num_classes": 2}
    cls(**network.init_args).load_state_dict(network.state_dict())
    assert all(f"\n        {name}: " in cls.__doc__ for name in cls.__init__.__kwdefaults__)
    with pytest.raises(TypeError, match="positional argument"):
        cls(32)


def test_spectral_norm_spares_the_scales_and_shifts_of_labels():
    """A model may parametrise all layers; the shifts, zero at first, have no norm to be divided by."""
    torch.manual_seed(0)
    generator = SAGANGenerator(image_size=8, width=4, attention_size=8, num_classes=3)
    for module in [*generator.modules()]:
        if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            spectral_norm(module)
    assert generator(torch.randn(4, 128), torch.tensor([0, 1, 2, 0])).isfinite().all()
    assert generator.blocks[0].norm1.scale["weight"].equal(torch.ones(3, 4))


def test_labels_scale_and_shift():
    torch.manual_seed(0)
    generator = SAGANGenerator(image_size=8, width=4, attention_size=None, num_classes=3)
    plain = SAGANGenerator(image_size=8, width=4, attention_size=None)
    plain.load_state_dict(generator.state_dict(), strict=False)
    z, y = torch.randn(4, 128), torch.tensor([0, 1, 2, 0])
    assert torch.allclose(generator(z, y), plain(z), atol=1e-6)  # all labels begin alike
    norm, x = generator.blocks[0].norm1, torch.randn(4, 4, 8, 8)
    for table in (norm.scale, norm.shift):
        nn.init.normal_(table["weight"])
    scale, shift = (table["weight"][y][:, :, None, None] for table in (norm.scale, norm.shift))
    assert torch.allclose(norm(x, y), norm(x, None) * scale + shift, atol=1e-6)
