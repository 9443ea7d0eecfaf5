"""Tiles: what is made of parts is what is made of the whole, in less memory."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pictures import INPAINTING, TRANSLATORS, build
from sklearn.datasets import load_sample_images
from torch import nn

from lit_gans.functional import imresize, to_uint8
from lit_gans.game import tiling
from lit_gans.game.tiling import auto_tile, cuts, moments_held, obstacle, overlap_of, seam, tiled
from lit_gans.models import CUT, CycleGAN, Pix2Pix
from lit_gans.modules import initialise
from lit_gans.networks import (
    GatedGenerator,
    PatchDiscriminator,
    ResNetTranslator,
    RRDBNet,
    SRResNet,
    UNetGenerator,
)


def noise(height, width, channels=3, seed=1):
    return torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def photograph(number=0, top=100, left=150, height=100, width=150, scale=2):
    """A part of a photograph, enlarged."""
    picture = torch.from_numpy(np.array(load_sample_images().images[number])).permute(2, 0, 1)[None] / 127.5 - 1
    return imresize(picture[..., top : top + height, left : left + width], scale).clamp(-1, 1)


def weighty(network, seed=0):
    """A network whose every layer counts, in evaluation: weights as He et al. draw them, statistics of its own."""
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, 0.2)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("side", [1, 7, 40, 41, 100])
def test_cuts_cover_a_side_once_and_begin_at_multiples(side, stride):
    for tile in (1, 8, 33, 200):
        spans = cuts(side, tile, 10, stride)
        assert [pixel for span in spans for pixel in range(span.start, span.end)] == list(range(side))
        for span in spans:
            assert span.start % stride == span.first % stride == 0
            assert span.end - span.start <= max(tile, stride)
            assert span.first == 0 or span.start - span.first >= 10
            assert span.last == side or span.last - span.end >= 10


@torch.no_grad()
@pytest.mark.parametrize("kind", ["SRResNet", "RRDBNet", "RRDBNet x2", "GatedGenerator", "ResNetTranslator", "UNet"])
def test_tiles_equal_the_whole_where_no_norm_mixes_the_picture(kind):
    network = {
        "SRResNet": lambda: SRResNet(scale=4, base_channels=8, blocks=2),
        "RRDBNet": lambda: RRDBNet(scale=4, base_channels=8, blocks=2, growth=4),
        "RRDBNet x2": lambda: RRDBNet(scale=2, base_channels=8, blocks=1, growth=4),
        "GatedGenerator": lambda: GatedGenerator(base_channels=4).coarse,
        "ResNetTranslator": lambda: ResNetTranslator(base_channels=4, blocks=1, norm="batch"),
        "UNet": lambda: UNetGenerator(depth=3, base_channels=4),
    }[kind]()
    if kind == "GatedGenerator":  # one of its two networks, of which each sees half as far
        network.stride, network.receptive_radius = 4, 153
    network = weighty(network)
    channels = 4 if kind == "GatedGenerator" else 3
    x = noise(56, 344 if kind == "GatedGenerator" else 104, channels)
    overlap, stride = overlap_of(network, exact=True), network.stride
    whole = network(x)
    made = tiled(network, x, 16, overlap, stride)
    assert whole.std() > 0.1
    assert made.shape == whole.shape
    assert (made - whole).abs().max() / max(float(whole.abs().max()), 1) < 1e-5
    less = tiled(network, x, 16, overlap // 4 // stride * stride, stride)
    assert kind == "GatedGenerator" or (less - whole).abs().max() > 1e-4  # that it sees what it is said to see


@pytest.mark.parametrize("name", TRANSLATORS)
def test_translate_in_tiles(name):
    """Sides that are no multiples of anything; known pixels of inpainting as they were; whole numbers, likewise."""
    model, x = build(name), F.interpolate(noise(9, 11, 1), (67, 91), mode="bilinear")
    hole = torch.zeros(1, 1, 67, 91)
    hole[..., 30:36, 40:47] = 1
    if name in INPAINTING:
        x = torch.cat([x * (1 - hole), hole], 1)
    whole = model.translate(x)
    whole_is_seen = name in ("ContextEncoder", "Pix2Pix")  # with batch statistics of the picture at hand
    if whole_is_seen:
        with pytest.warns(UserWarning, match="the whole picture: it is shown whole"):
            made = model.translate(x, tile=24)
        assert torch.equal(made, whole)
    else:
        made = model.translate(x, tile=24)
        assert (made - whole).abs().max() < 1e-5
    levels = torch.cat([((x[:, :1] + 1) * 127.5).round(), 255 * x[:, 1:]], 1).to(torch.uint8)
    source = torch.cat([levels[:, :1] / 127.5 - 1, x[:, 1:]], 1)
    if name in INPAINTING:
        source[:, :1] *= 1 - hole
        for given in (made, model.translate(source, tile=None)):
            known = x if given is made else source
            assert torch.equal(given * (1 - hole), known[:, :1] * (1 - hole))
    tile = None if whole_is_seen else 24
    assert torch.equal(model.translate(levels, tile=tile), to_uint8(model.translate(source, tile=tile)))


@torch.no_grad()
@pytest.mark.parametrize("strength", [1, 8])
def test_esrgan_sees_far_but_what_is_far_hardly_counts(strength):
    """23 blocks, as they begin, and with much stronger ones, whose answer is many times the input."""
    torch.manual_seed(0)
    network = RRDBNet(scale=4, base_channels=8, growth=4).eval()
    for name, parameter in network.named_parameters():
        if "body" in name and name.endswith("weight"):
            parameter.mul_(strength)
    assert (overlap_of(network), overlap_of(network, exact=True)) == (64, 349)
    x = noise(8, 300)
    assert all(span.last - span.first < 300 for span in cuts(300, 100, 64))
    whole = network(x)
    scale = 0.5 / whole.std()  # as a picture of much contrast has it
    error, too_near = (
        float((tiled(network, x, 100, overlap) - whole).abs().max() * scale) for overlap in (overlap_of(network), 4)
    )
    assert error < 2 / 510
    assert too_near > 2 * error


class Half(nn.Module):
    """Instance normalisation after a layer that halves the size, and one that doubles it."""

    def __init__(self, affine=False):
        super().__init__()
        self.stride, self.receptive_radius = 2, 6
        norms = [nn.InstanceNorm2d(6, affine=affine) for _ in range(2)]
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), norms[0], nn.ReLU(), nn.ConvTranspose2d(6, 6, 4, 2, 1), norms[1], nn.ReLU()
        )
        self.last = nn.Conv2d(6, 3, 3, padding=1)
        for norm in norms if affine else ():
            nn.init.normal_(norm.weight)
            nn.init.normal_(norm.bias)

    def forward(self, x):
        return self.last(self.layers(x)).tanh()


@torch.no_grad()
@pytest.mark.parametrize("affine", [False, True])
def test_moments_are_those_of_the_whole_picture(affine):
    torch.manual_seed(0)
    network, x = Half(affine).eval(), torch.cat([noise(64, 90), photograph(width=45, height=32)])
    whole, seen = network(x), []
    with moments_held(network, lambda part: part, network, x, 16, 6, 2):
        made = tiled(network, x, 16, 6, 2)
    assert (made - whole).abs().max() < 1e-5
    with moments_held(network, lambda part: part, lambda part: seen.append(part) or network(part), x, 16, 6, 2, True):
        fast = tiled(network, x, 16, 6, 2)
    (small,) = seen
    assert small.shape == (2, 3, 16, 23)
    assert torch.allclose(small[..., :-1], F.avg_pool2d(x, 4)[..., : small.shape[-1] - 1], atol=1e-6)
    assert 0.01 < (fast - whole).abs().mean() < 0.3
    assert torch.equal(network(x), whole)  # nothing stays
    assert (tiled(network, x, 16, 6, 2) - whole).abs().max() > 0.1  # each tile by its own


@pytest.mark.parametrize("model", [CycleGAN, CUT])
def test_pictures_of_instance_normalisation_in_tiles(model):
    """The bar is 3 / 255; with moments of its own each tile would be far from it. Another tone would be told."""
    torch.manual_seed(0)
    generator = ResNetTranslator(base_channels=4, blocks=2)
    options = {"layers": (0, 2), "patches": 4, "width": 4} if model is CUT else {}
    translator = model(generator, PatchDiscriminator(in_channels=3, layers=1, base_channels=4), **options)
    initialise(translator.generator, 0.1)
    for x in (photograph(), photograph(1)):
        whole, made = translator.translate(x), translator.translate(x, tile=48)
        assert whole.std() > 0.1
        assert (made - whole).abs().max() * 127.5 < 0.1
        spans = cuts(200, 48, 0, 4), cuts(300, 48, 0, 4)
        across, beside = seam(made[0], spans, 4)
        assert (across, beside) == pytest.approx(seam(whole[0], spans, 4), abs=1e-4)
        with torch.no_grad():
            network = translator.translator()
            alone = tiled(network, x, 48, overlap_of(network), 4)
        assert (alone - whole).abs().max() * 127.5 > 10
        assert across < 1.2 * beside
        made[..., : spans[1][1].start] += 0.4
        assert seam(made[0], spans, 4)[0] > 1.3 * beside


def test_a_seam_is_measured():
    slope = torch.arange(100.0).expand(1, 80, 100).clone()
    spans = cuts(80, 40, 0), cuts(100, 50, 0)  # four borders, two in each direction
    assert seam(slope, spans) == (0, 0)
    stepped = slope.clone()
    stepped[..., 50:] += 7
    for picture in (stepped, stepped.to(torch.uint8)):
        assert seam(picture, spans) == pytest.approx((7 * math.sqrt(1 / 2), 0))
    assert seam(stepped.mT.contiguous(), spans[::-1]) == pytest.approx((7 * math.sqrt(1 / 2), 0))
    stepped[:, 40:] -= 6  # and a step between the tiles below one another
    assert seam(stepped, spans) == pytest.approx((math.sqrt((49 + 36) / 2), 0))
    stepped[..., 52:] += 4  # one of the picture's own
    assert seam(stepped, spans)[1] == pytest.approx(4 / 2)
    assert seam(slope, (cuts(80, 80, 0), cuts(100, 100, 0))) is None
    grid = (torch.arange(100) // 5 % 2).float().expand(1, 80, 100)  # what a network leaves is no seam
    assert seam(grid, spans)[0] > 0.5
    assert seam(grid, spans, 10) == (0, 0)


def test_which_networks_are_shown_tiles():
    told = {
        nn.Conv2d(1, 1, 3): "may depend on the whole picture",
        Pix2Pix(UNetGenerator(depth=3), nn.Conv2d(6, 1, 1)).generator.train(): "BatchNorm2d of UNetGenerator",
        UNetGenerator(depth=4, norm="instance", base_channels=4).train(): None,
        UNetGenerator(depth=5, norm="instance", base_channels=4).train(): "Dropout of UNetGenerator",
        UNetGenerator(depth=3).eval(): None,
        ResNetTranslator(blocks=1): None,
    }
    grouped = ResNetTranslator(blocks=1)
    grouped.encoder[2] = nn.GroupNorm(4, 64)
    for network, reason in (told | {grouped: "GroupNorm of ResNetTranslator"}).items():
        found = obstacle(network)
        assert (found is None) == (reason is None)
        assert reason is None or reason in found


def test_how_large_tiles_are(monkeypatch):
    monkeypatch.setattr(tiling, "SIDE", 128)
    plain = ResNetTranslator(blocks=1, base_channels=4, norm="batch")
    overlap = overlap_of(plain)
    assert overlap == 20
    assert auto_tile(plain, 128, 128) is None
    assert auto_tile(plain, 129, 128) == 128 - 2 * overlap
    mixing = ResNetTranslator(blocks=1, base_channels=4)
    assert auto_tile(mixing, 256, 256) is None
    assert auto_tile(mixing, 257, 256) == 128 - 2 * overlap
    large = SRResNet(scale=4, base_channels=4, blocks=1)
    assert overlap_of(large) == 10
    assert auto_tile(large, 64, 64) is None
    assert auto_tile(large, 65, 64) == 64 - 2 * 10
    far = GatedGenerator(base_channels=4)  # sees 306 pixels: tiles of two overlaps
    assert auto_tile(far, 4 * 306, 4 * 306) is None
    assert auto_tile(far, 4 * 306 + 1, 4 * 306) == 2 * 306
    assert math.isclose(overlap_of(RRDBNet(scale=2, base_channels=4, growth=2)), 64)


def test_values_that_are_not_finite_are_no_whole_numbers():
    model = build("SRGAN")
    with torch.no_grad():
        model.generator.last[0].bias.fill_(math.nan)
    x = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    assert model.translate(x / 127.5 - 1).isnan().all()
    for tile in (None, 4):
        with pytest.raises(FloatingPointError, match="SRResNet makes NaN"):
            model.translate(x, tile=tile)
