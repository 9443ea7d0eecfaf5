import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from jsonargparse import ArgumentParser
from torch import nn

from lit_gans import networks
from lit_gans.networks import (
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    Network,
    ResNetDiscriminator,
    ResNetGenerator,
)
from lit_gans.networks.layers import factor_size

SMALL = {"mlp": {"widths": (32, 32)}, "dcgan": {"width": 8}, "resnet": {"width": 8}}
GENERATORS = {"mlp": MLPGenerator, "dcgan": DCGANGenerator, "resnet": ResNetGenerator}
DISCRIMINATORS = {"mlp": MLPDiscriminator, "dcgan": DCGANDiscriminator, "resnet": ResNetDiscriminator}
NORMS = [None, "batch", "layer", "group", "instance"]


def norms_of(family):
    return [norm for norm in NORMS if not (family == "mlp" and norm == "instance")]


GRID = [
    (family, size, channels, norm, classes)
    for family in GENERATORS
    for size, channels in [(8, 1), (28, 1), (32, 3), (48, 4)]
    for norm in norms_of(family)
    for classes in (None, 3)
]


def build(players, family, **kwargs):
    torch.manual_seed(0)
    return players[family](**SMALL[family], **kwargs)


@pytest.mark.parametrize(("family", "size", "channels", "norm", "classes"), GRID)
def test_shapes_range_and_gradients(family, size, channels, norm, classes):
    if not (family == "resnet" and norm is None and classes):
        generator = build(
            GENERATORS, family, image_size=size, channels=channels, latent_dim=6, norm=norm, num_classes=classes
        )
        y = None if classes is None else torch.tensor([0, 1, 2, 0])
        images = generator(torch.randn(4, 6)) if y is None else generator(torch.randn(4, 6), y)
        assert images.shape == (4, channels, size, size)
        assert images.dtype == torch.float32
        assert images.abs().max() <= 1
        (images * torch.randn_like(images)).sum().backward()
        assert_all_learn(generator)

    discriminator = build(DISCRIMINATORS, family, image_size=size, channels=channels, norm=norm, num_classes=classes)
    x = torch.randn(4, channels, size, size)
    y = None if classes is None else torch.tensor([0, 1, 2, 0])
    logits = discriminator(x, y)
    assert logits.shape == (4,)
    (logits * torch.randn(4)).sum().backward()
    assert_all_learn(discriminator)


def assert_all_learn(network):
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), f"{name} got no gradient"


def test_range_holds_for_wild_latents():
    for family in GENERATORS:
        generator = build(GENERATORS, family, latent_dim=6, image_size=16)
        for parameter in generator.parameters():
            nn.init.normal_(parameter)
        images = generator(1e4 * torch.randn(8, 6))
        assert images.min() >= -1
        assert images.max() <= 1
        assert images.abs().max() > 0.99  # a tanh that saturates, no clipping of something smaller


@pytest.mark.parametrize("family", GENERATORS)
def test_logits_are_no_probabilities(family):
    discriminator = build(DISCRIMINATORS, family, image_size=16, norm=None)
    x = torch.randn(64, discriminator.init_args.get("channels", 1 if family == "mlp" else 3), 16, 16)
    logits = discriminator(100 * x)
    assert logits.min() < 0 or logits.max() > 1


@pytest.mark.parametrize("family", GENERATORS)
def test_labels_change_the_output(family):
    y, other = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.long)
    for players, x in ((GENERATORS, torch.randn(4, 6)), (DISCRIMINATORS, torch.randn(4, 1, 16, 16))):
        sizes = {"latent_dim": 6} if players is GENERATORS else {}
        network = build(players, family, image_size=16, channels=1, num_classes=2, **sizes).eval()
        for table in (module for module in network.modules() if isinstance(module, nn.Embedding | nn.ParameterDict)):
            nn.init.normal_(table.weight)  # conditional batch norm starts equal for all labels
        assert torch.equal(network(x, y), network(x, y))
        assert not torch.allclose(network(x, y), network(x, other), atol=1e-6)
        mixed = network(x, torch.tensor([0, 1, 0, 1]))
        assert torch.allclose(mixed[::2], network(x, y)[::2], atol=1e-6)  # a label acts on its own sample only
        assert torch.allclose(mixed[1::2], network(x, other)[1::2], atol=1e-6)


def test_conditional_batch_norm_starts_as_plain_batch_norm():
    conditional = build(GENERATORS, "resnet", image_size=16, num_classes=3)
    plain = build(GENERATORS, "resnet", image_size=16)
    plain.load_state_dict(conditional.state_dict(), strict=False)
    z = torch.randn(5, 128)
    assert torch.allclose(conditional(z, torch.tensor([0, 1, 2, 1, 0])), plain(z), atol=1e-6)


def test_projection_adds_the_inner_product():
    network = build(DISCRIMINATORS, "resnet", image_size=16, num_classes=3).eval()
    x, y = torch.randn(3, 3, 16, 16), torch.tensor([2, 0, 1])
    features = network.blocks(x).sum((2, 3))
    expected = features @ network.head.weight[0] + network.head.bias + (features * network.label.weight[y]).sum(1)
    assert torch.allclose(network(x, y), expected, atol=1e-5)


@pytest.mark.parametrize("family", GENERATORS)
def test_labels_missing_or_unasked_for(family):
    x, y = torch.randn(2, 1, 16, 16), torch.tensor([0, 1])
    generator = build(GENERATORS, family, image_size=16, channels=1, latent_dim=6, num_classes=2)
    with pytest.raises(ValueError, match="call it with labels y"):
        generator(torch.randn(2, 6))
    with pytest.raises(ValueError, match="call it with labels y"):
        build(DISCRIMINATORS, family, image_size=16, channels=1, num_classes=2)(x)
    with pytest.raises(ValueError, match="build it with num_classes"):
        build(DISCRIMINATORS, family, image_size=16, channels=1)(x, y)
    with pytest.raises(ValueError, match="build it with num_classes"):
        build(GENERATORS, family, image_size=16, channels=1, latent_dim=6)(torch.randn(2, 6), y)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", GENERATORS)
def test_double_backward(family, norm):
    if norm not in norms_of(family):
        pytest.skip("an MLP has no pixels to normalise over")
    discriminator = build(DISCRIMINATORS, family, image_size=16, channels=1, norm=norm, activation="silu").double()
    x = torch.randn(3, 1, 16, 16, dtype=torch.double, requires_grad=True)
    weight = next(p for name, p in discriminator.named_parameters() if p.ndim > 1)

    def penalty():
        (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
        return slope.square().sum()

    (analytic,) = torch.autograd.grad(penalty(), weight)
    direction, step = torch.randn_like(weight), 1e-6
    with torch.no_grad():
        weight += step * direction
    above = penalty().item()
    with torch.no_grad():
        weight -= 2 * step * direction
    numeric = (above - penalty().item()) / (2 * step)
    assert (analytic * direction).sum().item() == pytest.approx(numeric, rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("norm", ["layer", "group", "instance", None])
@pytest.mark.parametrize("family", GENERATORS)
def test_samples_do_not_mix_without_batch_norm(family, norm):
    if norm not in norms_of(family):
        pytest.skip("an MLP has no pixels to normalise over")
    discriminator = build(DISCRIMINATORS, family, image_size=16, channels=1, norm=norm)
    x = torch.randn(4, 1, 16, 16)
    assert torch.allclose(discriminator(x)[:1], discriminator(x[:1]), atol=1e-5)


def test_mlp_generator_against_convolutional_discriminator():
    torch.manual_seed(0)
    generator = MLPGenerator(image_size=16, channels=1, latent_dim=8, widths=(32,))
    discriminator = DCGANDiscriminator(image_size=16, channels=1, width=8, norm=None)
    g_optimizer = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.999))
    d_optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3, betas=(0.5, 0.999))
    real = torch.full((32, 1, 16, 16), 0.5)
    brightness = [generator(torch.randn(64, 8)).mean().item()]
    for _ in range(60):
        d_optimizer.zero_grad()
        fake = generator(torch.randn(32, 8)).detach()
        (F.softplus(discriminator(fake)) + F.softplus(-discriminator(real))).mean().backward()
        d_optimizer.step()
        g_optimizer.zero_grad()
        F.softplus(-discriminator(generator(torch.randn(32, 8)))).mean().backward()
        g_optimizer.step()
        brightness.append(generator(torch.randn(64, 8)).mean().item())
    assert abs(brightness[0]) < 0.1
    assert max(brightness) > 0.3  # dark images have become bright, as the real ones are


@pytest.mark.parametrize("size", [-8, 0, 7, 9, 30, 33, 100])
@pytest.mark.parametrize("cls", [DCGANGenerator, DCGANDiscriminator, ResNetGenerator, ResNetDiscriminator])
def test_impossible_sizes_name_the_possible(cls, size):
    with pytest.raises(ValueError, match=rf"image_size={size} cannot") as error:
        cls(image_size=size)
    named = str(error.value).partition("nearest that can: ")[2].partition(". ")[0]
    nearest = [int(word) for word in named.split(", ")]
    assert len(nearest) >= 2
    for possible in nearest:
        factor_size(possible)
    between = range(min(nearest), max(nearest) + 1)
    assert nearest == [n for n in between if can(n)]
    assert size < 8 or min(nearest) < size < max(nearest)


def can(size):
    try:
        factor_size(size)
    except ValueError:
        return False
    return True


def test_factor_size_is_exhaustive():
    possible = {base * 2**k: (base, k) for base in range(4, 8) for k in range(1, 8)}
    for size in range(512):
        assert can(size) == (size in possible), size
        if size in possible:
            assert factor_size(size) == possible[size]


@pytest.mark.parametrize("kernel_size", [3, 4, 5, 6])
def test_kernel_sizes(kernel_size):
    images = DCGANGenerator(image_size=28, channels=2, width=4, kernel_size=kernel_size)(torch.randn(2, 100))
    assert images.shape == (2, 2, 28, 28)
    network = DCGANDiscriminator(image_size=28, channels=2, width=4, kernel_size=kernel_size)
    assert network(images).shape == (2,)


def test_dcgan_normalises_neither_images_nor_last_layer():
    discriminator = DCGANDiscriminator(image_size=16, width=4)
    kinds = [type(layer) for layer in discriminator.layers]
    assert kinds[:3] == [nn.Conv2d, nn.Identity, nn.LeakyReLU]
    assert kinds[3:6] == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]
    assert discriminator.layers[2].negative_slope == 0.2
    kinds = [type(layer) for layer in DCGANGenerator(image_size=16, width=4).layers]
    assert kinds[-2:] == [nn.ConvTranspose2d, nn.Tanh]
    assert kinds[:2] == [nn.BatchNorm2d, nn.ReLU]


def test_dropout_and_activations_are_used():
    x, z = torch.randn(8, 1, 16, 16), torch.randn(8, 6)
    for family in GENERATORS:
        for players, inputs, sizes in ((GENERATORS, z, {"latent_dim": 6}), (DISCRIMINATORS, x, {})):
            network = build(players, family, image_size=16, channels=1, norm="layer", dropout=0.5, **sizes)
            assert not torch.equal(network(inputs), network(inputs))
            network.eval()
            assert torch.equal(network(inputs), network(inputs))
            outputs = []
            for activation in ("elu", "gelu", "leaky_relu", "relu", "silu", "tanh"):
                network = build(players, family, image_size=16, channels=1, activation=activation, **sizes)
                outputs.append(network.eval()(inputs))
            assert not any(torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


def test_unknown_names():
    with pytest.raises(ValueError, match="activation='swish' is not known; choose one of elu, gelu"):
        MLPGenerator(activation="swish")
    with pytest.raises(ValueError, match="norm='spectral' is not known; choose null or one of batch"):
        DCGANDiscriminator(norm="spectral")
    with pytest.raises(ValueError, match="needs pixels"):
        MLPDiscriminator(norm="instance")
    with pytest.raises(ValueError, match="pool='max' is not known"):
        ResNetDiscriminator(pool="max")
    with pytest.raises(ValueError, match="norm must not be null"):
        ResNetGenerator(norm=None, num_classes=10)


def test_pools_differ_by_the_number_of_pixels():
    sums, means = (build(DISCRIMINATORS, "resnet", image_size=32, pool=pool) for pool in ("sum", "mean"))
    means.load_state_dict(sums.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.allclose(sums(x), 64 * means(x), rtol=1e-4, atol=1e-5)  # 8 x 8 pixels are left; biases start at zero


def test_resnet_initialisation():
    torch.manual_seed(0)
    network = ResNetDiscriminator(image_size=32, width=64)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
            continue
        fan_out, fan_in = (n * parameter[0, 0].numel() for n in parameter.shape[:2])
        gain = 2**0.5 if parameter.shape[2:] == (3, 3) else 1
        assert parameter.std().item() == pytest.approx(gain * (2 / (fan_in + fan_out)) ** 0.5, rel=0.2), name


PUBLIC = [*GENERATORS.values(), *DISCRIMINATORS.values()]  # the other families' records are tested in their own files


def test_public_names_are_sorted_and_complete():
    assert list(networks.__all__) == sorted(networks.__all__)
    assert {*PUBLIC} <= {getattr(networks, name) for name in networks.__all__}


@pytest.mark.parametrize("cls", PUBLIC)
def test_a_network_can_be_rebuilt_from_its_record(cls):
    width = {"widths": [8]} if cls in (MLPGenerator, MLPDiscriminator) else {"width": 8}
    network = cls(image_size=16, channels=1, **width)
    assert network.init_args == {"image_size": 16, "channels": 1, **width}
    for copied in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert copied.init_args == network.init_args
        assert copied.init_args is not network.init_args
        assert [p.shape for p in copied.parameters()] == [p.shape for p in network.parameters()]
    assert not any("init_args" in key for key in network.state_dict())
    cls(**network.init_args).load_state_dict(network.state_dict())


def test_a_record_belongs_to_one_network():
    first, second = MLPGenerator(image_size=8), MLPGenerator(image_size=9, channels=2)
    assert first.init_args == {"image_size": 8}
    assert second.init_args == {"image_size": 9, "channels": 2}
    assert isinstance(first, Network)


@pytest.mark.parametrize("cls", PUBLIC)
def test_arguments_are_keyword_only(cls):
    with pytest.raises(TypeError, match="positional argument"):
        cls(32)


@pytest.mark.parametrize("cls", PUBLIC)
def test_the_command_line_sees_every_argument(cls):
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "net")
    config = parser.parse_args([f"--net={cls.__name__}", "--net.image_size=16", "--net.norm=null"])
    known = set(cls.__init__.__kwdefaults__)
    assert set(vars(config.net.init_args)) == known
    assert all(f"\n        {name}: " in cls.__doc__ for name in known)  # each has its line of help
    assert config.net.init_args.image_size == 16
