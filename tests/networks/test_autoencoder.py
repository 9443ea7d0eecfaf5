import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_gans.networks import BEGANAutoencoder, BEGANGenerator, DCGANAutoencoder, MLPAutoencoder, Reconstruction

AUTOENCODERS = {MLPAutoencoder: {"widths": (32,)}, DCGANAutoencoder: {"width": 8}, BEGANAutoencoder: {"width": 4}}


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (16, 3), (32, 1)])
@pytest.mark.parametrize("cls", AUTOENCODERS)
def test_shapes_and_gradients(cls, size, channels):
    torch.manual_seed(0)
    network = cls(image_size=size, channels=channels, code_dim=6, **AUTOENCODERS[cls])
    x = torch.rand(4, channels, size, size) * 2 - 1
    answer = network(x)
    assert isinstance(answer, Reconstruction)
    assert answer.image.shape == x.shape
    assert answer.code.shape == (4, 6)
    F.mse_loss(answer.image, x).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("cls", AUTOENCODERS)
def test_the_code_is_all_that_the_decoder_sees(cls):
    network = cls(image_size=16, channels=1, code_dim=6, **AUTOENCODERS[cls]).eval()
    image, code = network(torch.randn(3, 1, 16, 16))
    assert torch.equal(network.decoder(code), image)


@pytest.mark.parametrize("cls", [*AUTOENCODERS, BEGANGenerator])
def test_rebuilt_from_its_record_and_keyword_only(cls):
    arguments = {"image_size": 16, "channels": 1, **AUTOENCODERS.get(cls, {"width": 4})}
    network = cls(**arguments)
    assert network.init_args == arguments
    cls(**network.init_args).load_state_dict(network.state_dict())
    assert all(f"\n        {name}: " in cls.__doc__ for name in cls.__init__.__kwdefaults__)
    with pytest.raises(TypeError, match="positional argument"):
        cls(32)


def test_an_autoencoder_learns_to_reconstruct():
    torch.manual_seed(0)
    network = BEGANAutoencoder(image_size=8, channels=1, width=8, code_dim=4)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    x = torch.randn(8, 4) @ torch.randn(4, 64)  # four numbers describe each image
    x = (x / x.abs().max()).reshape(8, 1, 8, 8)
    before = F.l1_loss(network(x).image, x).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.l1_loss(network(x).image, x)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.5 * before


@pytest.mark.parametrize("num_classes", [None, 3])
def test_began_generator(num_classes):
    generator = BEGANGenerator(image_size=16, channels=1, latent_dim=5, width=4, num_classes=num_classes)
    y = None if num_classes is None else torch.tensor([0, 2])
    images = generator(1e4 * torch.randn(2, 5), y)
    assert images.shape == (2, 1, 16, 16)
    assert images.abs().max() <= 1
    with pytest.raises(ValueError, match="labels"):
        generator(torch.randn(2, 5), torch.tensor([0, 1]) if y is None else None)


def test_began_figure_1():
    """Filters grow linearly as the size halves; ELU after each convolution but the last; no ELU around the code."""
    network = BEGANAutoencoder(image_size=32, width=4, code_dim=6)
    convs = [layer for layer in network.encoder if isinstance(layer, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.stride[0]) for c in convs] == [
        (3, 4, 1), (4, 4, 1), (4, 8, 2), (8, 8, 1), (8, 12, 2)
    ]  # fmt: skip
    assert [type(layer) for layer in network.encoder][-3:] == [nn.ELU, nn.Flatten, nn.Linear]
    assert network.encoder[-1].in_features == 12 * 8 * 8
    assert [type(layer) for layer in network.decoder][:3] == [nn.Linear, nn.Unflatten, nn.Conv2d]
    assert sum(isinstance(layer, nn.Upsample) for layer in network.decoder) == 2
    assert isinstance(network.decoder[-1], nn.Conv2d)


def test_began_generator_has_the_decoders_architecture():
    generator, critic = BEGANGenerator(width=8, latent_dim=6), BEGANAutoencoder(width=8, code_dim=6)
    generator.decoder.load_state_dict(critic.decoder.state_dict())
    z = torch.rand(2, 6)
    assert torch.equal(generator(z), critic.decoder(z).tanh())


def test_began_parameters_at_128():
    """Section 4.1 counts 17.3 million for n = 128 at 128 pixels; the two networks have 2 % fewer."""
    with torch.device("meta"):
        networks = BEGANGenerator(image_size=128, width=128), BEGANAutoencoder(image_size=128, width=128)
    decoder = 64 * 8192 + 8192 + 10 * (128 * 128 * 9 + 128) + 128 * 3 * 9 + 3
    convs = [(3, 128), *((128 * k, 128 * (k + step)) for k in (1, 2, 3, 4) for step in (0, 1))]
    encoder = sum(9 * a * b + b for a, b in convs) + 640 * 64 * 64 + 64
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts == [decoder, encoder + decoder]
    assert sum(counts) == 16_973_638


@pytest.mark.parametrize("cls", [BEGANAutoencoder, BEGANGenerator])
@pytest.mark.parametrize(("size", "named"), [(4, "the nearest: 8"), (28, "the nearest: 16, 32"), (0, "the nearest: 8")])
def test_impossible_sizes_name_the_possible(cls, size, named):
    with pytest.raises(ValueError, match=rf"image_size={size} .* {named}"):
        cls(image_size=size)
