"""Networks for points: shapes, packs, labels, heads, and what is learned from."""

import pytest
import torch

from lit_gans.networks import Answer, PointAutoencoder, PointDiscriminator, PointGenerator


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_sizes_are_those_of_the_notebook():
    assert count(PointGenerator()) == 257 * 128 + 129 * 128 + 129 * 2
    assert count(PointDiscriminator()) == 3 * 128 + 129 * 128 + 129


def test_points_have_no_range():
    generator = PointGenerator(latent_dim=2)
    assert generator(1000 * torch.randn(50, 2)).abs().max() > 1


@pytest.mark.parametrize("pack", [1, 3])
def test_a_pack_gets_one_logit_that_every_point_matters_to(pack):
    x = torch.randn(5, 2 * pack, requires_grad=True)
    logits = PointDiscriminator(pack=pack)(x)
    assert logits.shape == (5,)
    logits.sum().backward()
    assert (x.grad != 0).any(0).all()


def test_labels_and_heads():
    y = torch.tensor([0, 2])
    assert PointGenerator(latent_dim=4, num_classes=3)(torch.randn(2, 4), y).shape == (2, 2)
    answer = PointDiscriminator(num_classes=3, head=7)(torch.randn(2, 2), y)
    assert isinstance(answer, Answer)
    assert (answer.logits.shape, answer.head.shape) == ((2,), (2, 7))
    for network, x in ((PointGenerator(latent_dim=4, num_classes=3), torch.randn(2, 4)), (PointDiscriminator(), None)):
        with pytest.raises(ValueError, match="conditional"):
            network(x) if x is not None else network(torch.randn(2, 2), y)


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_depth_is_the_number_of_hidden_layers(depth):
    networks = PointGenerator(depth=depth), PointDiscriminator(depth=depth), PointAutoencoder(depth=depth).encoder
    for network in networks:
        linear = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)]
        assert len(linear) == depth + 1


def test_an_autoencoder_answers_a_reconstruction_through_its_code():
    network = PointAutoencoder(code_dim=1)
    x = torch.randn(6, 2)
    image, code = network(x)
    assert (image.shape, code.shape) == ((6, 2), (6, 1))
    assert torch.equal(image, network.decoder(code))


def test_more_coordinates():
    assert PointGenerator(points=3)(torch.randn(2, 256)).shape == (2, 3)
    assert PointDiscriminator(points=3, pack=2)(torch.randn(2, 6)).shape == (2,)
