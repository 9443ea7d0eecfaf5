import pytest
import torch
import torch.nn.functional as F
from receptive import bare, radius_of, seen_by
from torch import nn

from lit_gans.networks import ResNetTranslator

SMALL = {"blocks": 5, "base_channels": 2}
WAYS = [(up, antialias) for up in ("transpose", "nearest", "pixel_shuffle") for antialias in (False, True)]


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


def test_parameters_of_the_paper():
    def conv(a, b, kernel):
        return a * b * kernel**2 + b

    down = conv(3, 64, 7) + conv(64, 128, 3) + conv(128, 256, 3)
    expected = down + 18 * conv(256, 256, 3) + conv(256, 128, 3) + conv(128, 64, 3) + conv(64, 3, 7)
    assert count(ResNetTranslator()) == expected == 11_378_179
    assert count(ResNetTranslator(antialias=True)) == expected
    assert count(ResNetTranslator(blocks=6)) == expected - 6 * conv(256, 256, 3)


@pytest.mark.parametrize(("upsample", "antialias"), WAYS)
@pytest.mark.parametrize("norm", ["instance", "batch", None])
def test_shapes_range_and_gradients(norm, upsample, antialias):
    torch.manual_seed(0)
    arguments = {"in_channels": 1, "out_channels": 2, "norm": norm, "upsample": upsample, "antialias": antialias}
    network = ResNetTranslator(**SMALL, **arguments, dropout=0.5)
    images = network(torch.randn(2, 1, 8, 12))
    assert images.shape == (2, 2, 8, 12)
    assert images.abs().max() <= 1
    (images * torch.randn_like(images)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    ResNetTranslator(**network.init_args).load_state_dict(network.state_dict())
    assert sum(isinstance(m, nn.Dropout) for m in network.modules()) == 5


@pytest.mark.parametrize(("upsample", "antialias"), WAYS)
def test_receptive_radius(upsample, antialias):
    network = bare(ResNetTranslator(blocks=2, base_channels=1, upsample=upsample, antialias=antialias))
    assert (network.stride, network.scale) == (4, 1)
    assert radius_of(network, 104) == network.receptive_radius
    paper = ResNetTranslator(base_channels=1, upsample=upsample)
    assert paper.receptive_radius == {"transpose": 84, "nearest": 87, "pixel_shuffle": 90}[upsample]


def test_a_block_is_that_of_the_paper():
    torch.manual_seed(0)
    block, x = ResNetTranslator(**SMALL).encoder[12].double(), torch.randn(2, 8, 5, 6, dtype=torch.double)
    first, second = (m for m in block.modules() if isinstance(m, nn.Conv2d))

    def normalised(conv, x):
        x = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), conv.weight, conv.bias)
        centred = x - x.mean((2, 3), keepdim=True)
        return centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()

    assert torch.allclose(block(x), x + normalised(second, normalised(first, x).clamp_min(0)), atol=1e-10)


@pytest.mark.parametrize(("layer", "field"), [(0, 1), (4, 9), (8, 15), (12, 35), (16, 99)])
def test_features_see_what_the_paper_says(layer, field):
    network = bare(ResNetTranslator(**SMALL, antialias=True))
    x = torch.zeros(1, 3, 240, 240)

    def call(x):
        return network.features(x, [layer])[0]

    middle = call(x.double()).shape[-1] // 2
    top, bottom, left, right = seen_by(call, x, middle, middle)
    assert (bottom - top + 1, right - left + 1) == (field, field)


@pytest.mark.parametrize("antialias", [False, True])
def test_features_are_those_of_the_pass(antialias):
    torch.manual_seed(0)
    network, x = ResNetTranslator(**SMALL, antialias=antialias), torch.randn(2, 3, 16, 16)
    pixels, first, second, block, fifth = network.features(x, (0, 4, 8, 12, 16))
    assert torch.equal(pixels, F.pad(x, (3, 3, 3, 3), mode="reflect"))
    halved = 1 if antialias else 2  # the blur comes after
    assert [maps.shape[1:] for maps in (first, second)] == [
        (4, 16 // halved, 16 // halved),
        (8, 8 // halved, 8 // halved),
    ]
    assert block.shape == fifth.shape == (2, 8, 4, 4)
    assert torch.equal(network.decoder(fifth), network(x))
    backwards = network.features(x, (16, 0))
    assert torch.equal(backwards[0], fifth)
    assert torch.equal(backwards[1], pixels)


def test_the_pass_ends_with_the_last_layer_wanted():
    network, called = ResNetTranslator(**SMALL), []
    for number, layer in enumerate(network.encoder):
        layer.register_forward_hook(lambda *_, number=number: called.append(number))
    network.features(torch.zeros(1, 3, 16, 16), (8, 4))
    assert called == list(range(9))
    for wrong in ((), (-1,), (17,)):
        with pytest.raises(ValueError, match="numbered 0 to 16"):
            network.features(torch.zeros(1, 3, 16, 16), wrong)


def test_antialiased_doubling_is_the_filter_1331():
    """Zeros between the pixels, the filter after them, borders repeated."""
    x = torch.randn(1, 1, 4, 5, dtype=torch.double)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.double)
    kernel = torch.outer(taps, taps)[None, None] / 16
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    expected = F.conv_transpose2d(padded, kernel, stride=2, padding=3)
    up = next(m for m in ResNetTranslator(**SMALL, antialias=True).decoder if isinstance(m, nn.Upsample))
    assert torch.allclose(up(x), expected)


@pytest.mark.parametrize(("size", "near"), [((4, 8), "8x8"), ((10, 16), "12x16"), ((255, 257), "256x260")])
def test_sizes_that_do_not_serve(size, near):
    network = ResNetTranslator(**SMALL)
    for call in (network, lambda x: network.features(x, (0,))):
        with pytest.raises(ValueError, match=f"multiples of 4 and at least 8, not {size[0]}x{size[1]}: pad .* {near}"):
            call(torch.zeros(1, 3, *size))


def test_bad_arguments():
    with pytest.raises(ValueError, match="is not known"):
        ResNetTranslator(norm="bath")
    with pytest.raises(ValueError, match="choose one of transpose, nearest, pixel_shuffle"):
        ResNetTranslator(upsample="linear")
    assert all(f"\n        {name}: " in ResNetTranslator.__doc__ for name in ResNetTranslator.__init__.__kwdefaults__)
