import pytest
import torch
from torch import nn

from lit_gans.networks import BigGANDiscriminator, BigGANGenerator
from lit_gans.networks.biggan import ModulatedNorm


def labels(num_classes):
    return None if num_classes is None else torch.tensor([0, num_classes - 1])


@pytest.mark.parametrize("num_classes", [None, 3])
@pytest.mark.parametrize(
    ("size", "channels", "latent_dim", "attention"),
    [(8, 1, 6, None), (16, 3, 6, 8), (32, 1, 8, 16), (64, 3, 10, 32), (1024, 1, 18, None)],
)
def test_shapes_range_and_gradients(size, channels, latent_dim, attention, num_classes):
    torch.manual_seed(0)
    arguments = {"image_size": size, "channels": channels, "width": 1, "attention_size": attention}
    with torch.device("meta" if size == 1024 else "cpu"):
        generator = BigGANGenerator(**arguments, latent_dim=latent_dim, shared_dim=5, num_classes=num_classes)
        discriminator = BigGANDiscriminator(**arguments, num_classes=num_classes)
        y = labels(num_classes)
        images = generator(torch.randn(2, latent_dim), y)
        logits = discriminator(images, y)
    assert images.shape == (2, channels, size, size)
    assert logits.shape == (2,)
    if size < 1024:
        assert images.abs().max() <= 1
        logits.sum().backward()
        for network in (generator, discriminator):
            assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_each_block_hears_its_own_chunk():
    """Another chunk k changes the condition of block k alone, and by it the norms of that block alone."""
    torch.manual_seed(0)
    generator = BigGANGenerator(image_size=32, width=2, latent_dim=8, attention_size=None, num_classes=3)
    z, y, heard = torch.randn(2, 8), torch.tensor([0, 2]), {}
    for index, block in enumerate(generator.blocks):
        for norm in (block.norm1, block.norm2):
            norm.register_forward_hook(lambda m, i, o, at=(index, norm): heard.__setitem__(at, (m.gain(i[1]), i[1])))
    generator(z, y)
    before = dict(heard)
    for chunk in range(4):
        other = z.clone()
        other[:, 2 * chunk : 2 * chunk + 2] += 1
        generator(other, y)
        changed = {index for (index, norm), (gain, _) in heard.items() if not gain.equal(before[index, norm][0])}
        assert changed == ({chunk - 1} if chunk else set())
        (first, conditions), (first_before, _) = generator.conditions(other, y), generator.conditions(z, y)
        assert first.equal(first_before) == (chunk > 0)
        assert all(condition[:, 2:].equal(generator.shared(y)) for condition in conditions)


def test_without_labels_the_chunks_alone_modulate():
    generator = BigGANGenerator(image_size=16, width=2, latent_dim=9, attention_size=None)
    first, conditions = generator.conditions(z := torch.randn(2, 9))
    assert [first, *conditions][2].equal(z[:, 6:])
    assert not hasattr(generator, "shared")
    assert generator.blocks[0].norm1.gain.weight.shape == (8, 3)


def test_modulated_norm_closed_form():
    torch.manual_seed(0)
    norm, x, condition = ModulatedNorm(3, 2), 5 * torch.randn(4, 3, 6, 6) + 1, torch.randn(4, 2)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    gain, bias = 1 + condition @ norm.gain.weight.T, condition @ norm.bias.weight.T
    expected = (x - mean) / (var + 1e-5).sqrt() * gain[:, :, None, None] + bias[:, :, None, None]
    assert torch.allclose(norm(x, condition), expected, atol=1e-5)
    nn.init.zeros_(norm.gain.weight)
    nn.init.zeros_(norm.bias.weight)
    assert torch.allclose(norm(x, condition), (x - mean) / (var + 1e-5).sqrt(), atol=1e-5)


@pytest.mark.parametrize("cls", [BigGANGenerator, BigGANDiscriminator])
def test_orthogonal_initialisation(cls):
    network = cls(image_size=16, width=4, attention_size=8, num_classes=3, **LATENTS[cls])
    checked = 0
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.Embedding):
            rows = module.weight.flatten(1)
            rows = rows if len(rows) <= rows.shape[1] else rows.T
            assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
            assert getattr(module, "bias", None) is None or not module.bias.any()
            checked += 1
    assert checked > 10


LATENTS = {BigGANGenerator: {"latent_dim": 6}, BigGANDiscriminator: {}}


def test_gamma_starts_at_zero_where_attention_does_nothing():
    torch.manual_seed(0)
    for cls, x in ((BigGANGenerator, torch.randn(3, 6)), (BigGANDiscriminator, torch.randn(3, 3, 16, 16))):
        network, without = (cls(image_size=16, width=4, attention_size=a, **LATENTS[cls]) for a in (8, None))
        without.load_state_dict(network.state_dict(), strict=False)
        assert torch.equal(network(x), without(x))
        network.attention.gamma.data.fill_(0.5)
        assert not torch.allclose(network(x), without(x), atol=1e-4)


@pytest.mark.parametrize(
    ("size", "attention", "generator", "discriminator"),
    [
        (32, None, "16 16 16 16", "16 16 16 16"),
        (64, 32, "64 64 32 16 8", "4 8 16 32 64"),
        (128, 64, "64 64 32 16 8 4", "4 8 16 32 64 64"),
        (256, 64, "64 64 32 32 16 8 4", "4 8 16 32 32 64 64"),
        (512, 64, "64 64 32 32 16 8 4 4", "4 4 8 16 32 32 64 64"),
        (1024, 64, "64 64 32 32 16 8 4 4 4", "4 4 4 8 16 32 32 64 64"),
    ],
)
def test_tables_of_appendix_b(size, attention, generator, discriminator):
    """Tables 4 to 6; that of 32 pixels is appendix C's for CIFAR-10, 64 and 1024 pixels have none."""
    chunks = size.bit_length() - 2
    with torch.device("meta"):
        g = BigGANGenerator(image_size=size, width=4, latent_dim=2 * chunks, attention_size=attention)
        d = BigGANDiscriminator(image_size=size, width=4, attention_size=None)
    widths = [block.conv1[-1].in_channels for block in g.blocks] + [g.to_image[2].in_channels]
    assert " ".join(map(str, widths)) == generator
    convs = [next(m for m in block.residual if isinstance(m, nn.Conv2d)) for block in d.blocks]
    assert " ".join(str(conv.out_channels) for conv in convs) == discriminator
    if attention:
        assert g.attention.query.in_channels == widths[attention.bit_length() - 3]


def test_parameters_at_128():
    """The numbers that compare_gan's resnet_biggan_test.py and BigGAN-PyTorch print: 70,433,988 and 87,982,370.

    Spectral norm has no parameters of its own, neither there nor here.
    """
    with torch.device("meta"):
        networks = BigGANGenerator(num_classes=1000), BigGANDiscriminator(num_classes=1000)
    assert [sum(p.numel() for p in network.parameters()) for network in networks] == [70_433_988, 87_982_370]


def test_gradient_penalty():
    torch.manual_seed(0)
    discriminator = BigGANDiscriminator(image_size=16, channels=1, width=2, attention_size=8)
    discriminator.attention.gamma.data.fill_(0.5)
    x = torch.randn(2, 1, 16, 16, requires_grad=True)
    (slope,) = torch.autograd.grad(discriminator(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    grads = {name: p.grad for name, p in discriminator.named_parameters() if p.grad is not None}
    assert all(grad.isfinite().all() for grad in grads.values())
    assert grads["blocks.0.residual.0.weight"].any()
    assert grads["attention.query.weight"].any()


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"latent_dim=128 does not divide into 6 .* nearest that do: 126, 132"):
        BigGANGenerator(latent_dim=128)
    with pytest.raises(ValueError, match=r"latent_dim=3 does not divide into 4 .* nearest that do: 4"):
        BigGANGenerator(image_size=32, latent_dim=3, attention_size=None)
    with pytest.raises(ValueError, match=r"attention_size=64 is no map .* one of 8, 16, 32"):
        BigGANGenerator(image_size=32, latent_dim=80)
    with pytest.raises(ValueError, match=r"attention_size=64 is no map .* one of 8, 16"):
        BigGANDiscriminator(image_size=32)
    for cls in LATENTS:
        with pytest.raises(ValueError, match=r"image_size=100 .* the nearest: 64, 128"):
            cls(image_size=100)
        with pytest.raises(TypeError, match="positional argument"):
            cls(32)
        assert all(f"\n        {name}: " in cls.__doc__ for name in cls.__init__.__kwdefaults__)
        arguments = {"image_size": 16, "width": 2, "attention_size": None, "num_classes": 2, **LATENTS[cls]}
        network = cls(**arguments)
        assert network.init_args == arguments
        cls(**network.init_args).load_state_dict(network.state_dict())
        x = torch.randn(2, 6) if cls is BigGANGenerator else torch.randn(2, 3, 16, 16)
        with pytest.raises(ValueError, match="call it with labels y"):
            network(x)
        with pytest.raises(ValueError, match="build it with num_classes"):
            cls(**{**arguments, "num_classes": None})(x, torch.tensor([0, 1]))
