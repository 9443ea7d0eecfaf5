"""ADA: each transformation against another computation, probabilities and strengths, derivatives, the control of p."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import Callback
from torch.autograd import gradcheck, gradgradcheck
from toys import LATENT, Generator, loader, trainer

from lit_gans import GAN
from lit_gans.augment import ADA, ada
from lit_gans.augment.resampling import (
    DELAY,
    SYM2,
    SYM6,
    band_matrices,
    bilinear,
    downsampling,
    resample,
    upsampling,
)

GROUPS = ("blit", "geometry", "color", "filter", "noise", "cutout")
EXACT = {"dtype": torch.float64, "device": torch.device("cpu")}


def only(*groups, **kwargs):
    return ADA(**{group: group in groups for group in GROUPS}, **kwargs)


def images(n, channels=3, height=8, width=8, seed=0, dtype=torch.float64):
    return (
        torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 1.8 - 0.9
    )


def seeded(augment, x, seed=0):
    torch.manual_seed(seed)
    return augment(x)


def full(n, value):
    return torch.full((n,), float(value), dtype=torch.float64)


@pytest.fixture
def calls(monkeypatch):
    """Parameters with which a transformation is computed, by its name, while p is 1."""

    def watch(name):
        seen, function = [], getattr(ada, name)

        def spy(x, *parameters):
            seen.append(parameters)
            return function(x, *parameters)

        monkeypatch.setattr(ada, name, spy)
        return seen

    return watch


# p = 0 and the two ways to choose


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 6, 9), (3, 32, 32)])
@pytest.mark.parametrize("everywhere", [False, True])
def test_without_probability_nothing_changes_bit_by_bit(shape, everywhere, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: everywhere)  # as on a GPU, where all are computed
    x = images(5, *shape, dtype=torch.float32)
    x[:, :, 0, 0] = -0.0
    y = seeded(only(*GROUPS, p=0.0), x)
    assert torch.equal(y.view(torch.int32), x.view(torch.int32))


@pytest.mark.parametrize("group", GROUPS)
def test_computing_all_or_only_the_chosen_is_the_same(group, monkeypatch):
    x, augment = images(16), only(group, p=0.4)
    few = seeded(augment, x)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(seeded(augment, x), few)
    untouched = (few == x).flatten(1).all(1)
    assert 0 < untouched.sum() < 16


# transformations


def test_pixels_are_copied():
    x = images(2, height=6, width=6)
    for flip in (0, 1):
        for turns in range(4):
            for down, right in [(0, 0), (2, -1), (-3, 3)]:
                numbers = (torch.tensor([number, 0]) for number in (flip, turns, down, right))
                y = ada.copy_pixels(x, *numbers)
                turned = torch.rot90(x[:1].flip(3) if flip else x[:1], turns, (2, 3))
                padded = F.pad(turned, (3, 3, 3, 3), mode="reflect")
                assert torch.equal(y[:1], padded[:, :, 3 - down : 9 - down, 3 - right : 9 - right])
                assert torch.equal(y[1], x[1])


def test_images_that_are_not_square_are_turned_by_half_turns():
    x = images(1, height=2, width=3).expand(400, -1, -1, -1)
    y = seeded(only("blit", p=1.0), x)
    expected = torch.stack([x[0], x[0].flip(2), x[0].flip(1), x[0].flip(1, 2)])
    share = (y[:, None] == expected).flatten(2).all(2).double().mean(0)
    torch.testing.assert_close(share, full(4, 0.25), atol=0.09, rtol=0)


def test_wavelets_are_orthonormal_and_have_their_moments():
    for taps, moments in ((SYM2, 2), (SYM6, 6)):
        taps = np.array(taps)
        products = [taps[2 * k :] @ taps[: len(taps) - 2 * k] for k in range(moments)]
        assert products == pytest.approx([1.0] + [0.0] * (moments - 1), abs=1e-12)
        signs = (-1.0) ** np.arange(len(taps))
        for power in range(moments):
            assert signs @ (taps * np.linspace(-1, 1, len(taps)) ** power) == pytest.approx(0, abs=1e-12)
        assert taps.sum() == pytest.approx(math.sqrt(2), abs=1e-12)


@pytest.mark.parametrize("n", [2, 8, 9, 32])
def test_up_and_down_is_the_identity(n):
    up, down = upsampling(n, **EXACT), downsampling(n, **EXACT)
    finer = up[torch.arange(down.shape[1]) % (len(up) - 1)]  # goes on periodically
    torch.testing.assert_close(down @ finer, torch.eye(n, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(up[0], up[-1])


def test_the_finer_grid_is_that_of_the_smooth_signal():
    n = 64
    places = (torch.arange(4 * n - 3, dtype=torch.float64) - DELAY) / 2
    for cycles in range(5):  # cosines are their own reflections
        frequency = math.pi * cycles / (n - 1)
        finer = upsampling(n, **EXACT) @ (frequency * torch.arange(n)).cos().double()
        torch.testing.assert_close(finer, (frequency * places).cos(), atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_whole_pixels_are_shifted_exactly_and_no_shift_is_the_identity(dtype):
    x = images(2, height=9, width=12, dtype=dtype)
    identity, shift = torch.eye(2, dtype=dtype).expand(2, -1, -1), torch.tensor([[0, 0], [3, -2]], dtype=dtype)
    y = resample(x, identity, shift)
    padded = F.pad(x[1:], (3, 3, 3, 3), mode="reflect")
    expected = torch.cat([x[:1], padded[:, :, 5:14, 0:12]])
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=0)
    far = resample(x, identity, shift + torch.tensor([2 * 22, -5 * 16], dtype=dtype))  # whole periods
    torch.testing.assert_close(far, y, atol=1e-4, rtol=0)


def test_a_smooth_image_is_deformed_as_its_formula():
    size, angle = 48, 0.7
    centred = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    down, right = torch.meshgrid(centred, centred, indexing="ij")

    def picture(right, down):
        return (0.11 * right + 0.07 * down).sin() + (0.05 * right - 0.13 * down).cos()

    cos, sin = math.cos(angle), math.sin(angle)
    forward = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64) @ torch.diag(
        torch.tensor([1.1, 0.9], dtype=torch.float64)
    )
    inverse, shift = torch.linalg.inv(forward), torch.tensor([1.3, -2.6], dtype=torch.float64)
    y = resample(picture(right, down)[None, None], inverse[None], shift[None])[0, 0]
    source = (torch.stack([right, down], -1) - shift) @ inverse.mT
    inside = (slice(14, -14), slice(14, -14))
    expected = picture(source[..., 0], source[..., 1])
    torch.testing.assert_close(y[inside], expected[inside], atol=5e-3, rtol=0)


def test_bilinear_reproduces_whole_pixels_and_turns():
    x = images(1, height=7, width=7)
    along = torch.linspace(-1, 1, 7, dtype=torch.float64)
    rows, columns = torch.meshgrid(along, along, indexing="ij")
    same, turned = torch.stack([columns, rows], -1)[None], torch.stack([-rows, columns], -1)[None]
    torch.testing.assert_close(bilinear(x, same), x)
    torch.testing.assert_close(bilinear(x, turned), torch.rot90(x, 1, (2, 3)))
    between = bilinear(x, same[:, :, :-1] + torch.tensor([1 / 6, 0.0]))
    torch.testing.assert_close(between, (x[..., 1:] + x[..., :-1]) / 2)


def householder_and_friends(x, brightness, contrast, luma, hue, saturation):
    """The pseudocode of appendix B, one matrix after another, for one image."""
    v = torch.ones(3, 1, dtype=torch.float64) / math.sqrt(3)
    a, b, c = v[:, 0].tolist()
    across = torch.tensor([[0, -c, b], [c, 0, -a], [-b, a, 0]], dtype=torch.float64)
    eye, grey = torch.eye(3, dtype=torch.float64), v @ v.T
    y = (x + brightness) * contrast
    y = torch.einsum("ij,jhw->ihw", eye - 2 * grey * (luma < 0), y)
    y = torch.einsum("ij,jhw->ihw", torch.matrix_exp(hue * across), y)
    return torch.einsum("ij,jhw->ihw", grey + (eye - grey) * saturation, y)


def test_colours_are_the_papers_matrices():
    x = images(4)
    numbers = torch.tensor(
        [[0.1, 1.3, 1.0, 0.5, 0.7], [-0.2, 0.8, -1.0, -2.5, 1.9], [0, 1, -1, 0, 1], [0, 1, 1, 2.0944, 1]]
    ).double()
    y = ada.shift_color(x, *numbers.T)
    for one, image, row in zip(y, x, numbers, strict=True):
        torch.testing.assert_close(one, householder_and_friends(image, *row))
    torch.testing.assert_close(y[3], x[3].roll(1, 0), atol=1e-4, rtol=0)  # a third of the circle: red becomes green


def test_grey_images_are_brightened_stretched_and_inverted():
    x = images(3, channels=1)
    b, c, f, any_hue, any_saturation = torch.rand(5, 3, dtype=torch.float64)
    y = ada.shift_color(x, b, c, f, any_hue, any_saturation)
    torch.testing.assert_close(y, (c * f)[:, None, None, None] * (x + b[:, None, None, None]))
    assert seeded(only(*GROUPS, p=1.0), x).shape == x.shape


def test_bands_are_those_of_the_wavelet():
    n = 101
    bands = band_matrices(n, **EXACT)
    torch.testing.assert_close(bands.sum(0), torch.eye(n, dtype=torch.float64), atol=1e-12, rtol=0)
    response = torch.fft.fft(bands[:, n // 2].roll(-(n // 2), 1)).real
    frequency = 2 * math.pi * torch.arange(n, dtype=torch.float64) / n

    def low(frequency):  # the maximally flat half-band polynomial of two vanishing moments
        y = (frequency / 2).sin().square()
        return (1 - y).square() * (1 + 2 * y)

    halves = [low(frequency), low(2 * frequency), low(4 * frequency)]
    expected = torch.stack(
        [
            halves[0] * halves[1] * halves[2],
            halves[0] * halves[1] * (1 - halves[2]),
            halves[0] * (1 - halves[1]),
            1 - halves[0],
        ]
    )
    torch.testing.assert_close(response, expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", [2, 8, 33])
def test_filtering_keeps_flat_images_by_the_lowest_band_alone(size):
    gains = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [3, 5, 7, 9]], dtype=torch.float64)
    x = images(3, height=size, width=size)
    torch.testing.assert_close(ada.filter_bands(x, gains)[0], x[0])
    flat = torch.ones_like(x)
    torch.testing.assert_close(ada.filter_bands(flat, gains), flat * gains[:, 0].square()[:, None, None, None])


def test_noise_is_half_normal_and_white():
    y = seeded(only("noise", p=1.0), torch.zeros(3000, 3, 4, 4, dtype=torch.float64))
    deviation = y.flatten(1).std(1)
    assert deviation.mean().item() == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.04)
    assert deviation.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.04)
    assert abs((y[:, 0] * y[:, 1]).mean().item()) < 1e-3


def test_cutout_is_a_square_with_its_centre_anywhere():
    hole = seeded(only("cutout", p=1.0), torch.ones(3000, 3, 16, 16))[:, 0] == 0
    rows, columns = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(hole.sum((1, 2)), rows * columns)
    assert rows.max() == columns.max() == 8
    assert rows.double().mean().item() == pytest.approx(
        7, abs=0.15
    )  # half the time a part sticks out, a half on average
    covered = hole.double().mean(0)
    torch.testing.assert_close(covered, covered.flip(0, 1), atol=0.05, rtol=0)
    torch.testing.assert_close(covered, covered.T, atol=0.05, rtol=0)


# strengths and probabilities


def test_strengths_of_the_geometry(calls):
    seen = calls("resample")
    seeded(only("geometry", p=1.0), images(4000, 1, 4, 6))
    ((inverse, shift),) = seen
    singular = torch.linalg.svdvals(inverse)
    scale = -singular.log2().mean(1)  # of both axes
    stretch = (singular[:, 0] / singular[:, 1]).log2() / 2  # its absolute value
    assert scale.std().item() == pytest.approx(0.2, rel=0.05)
    assert scale.mean().item() == pytest.approx(0, abs=0.01)
    assert stretch.square().mean().sqrt().item() == pytest.approx(0.2, rel=0.05)
    assert shift.std(0).tolist() == pytest.approx([0.125 * 6, 0.125 * 4], rel=0.05)
    angle = torch.atan2(inverse[:, 1, 0], inverse[:, 0, 0])
    assert angle.std().item() == pytest.approx(2 * math.pi / math.sqrt(12), rel=0.05)


def test_strengths_of_the_colours(calls):
    seen = calls("shift_color")
    seeded(only("color", p=1.0), images(4000, 3, 1, 1))
    brightness, contrast, luma, hue, saturation = seen[0]
    assert brightness.std().item() == pytest.approx(0.2, rel=0.05)
    assert contrast.log2().std().item() == pytest.approx(0.5, rel=0.05)
    assert saturation.log2().std().item() == pytest.approx(1, rel=0.05)
    assert hue.std().item() == pytest.approx(2 * math.pi / math.sqrt(12), rel=0.05)
    assert set(luma.tolist()) == {-1, 1}
    assert luma.mean().item() == pytest.approx(0, abs=0.05)


def test_strengths_of_the_filter(calls):
    seen = calls("filter_bands")
    seeded(only("filter", p=1.0), images(4000, 1, 2, 2))
    gains = seen[0][0]
    assert (gains[:, 0] / gains[:, 1]).log2().std().item() == pytest.approx(math.sqrt(2), rel=0.05)
    seeded(only("filter", p=0.1), images(4000, 1, 2, 2))
    gains = seen[1][0]
    power = torch.tensor([10, 1, 1, 1], dtype=torch.float64) / 13
    for band in range(4):
        others = gains[:, [i for i in range(4) if i != band]]
        alone = gains[(others == others[:, :1]).all(1) & (gains[:, band] != others[:, 0])]
        assert len(alone) > 100
        torch.testing.assert_close(alone.square() @ power, torch.ones(len(alone), dtype=torch.float64))
        strength = (alone[:, band] / alone[:, (band + 1) % 4]).log2()
        assert strength.std().item() == pytest.approx(1, rel=0.2)


def mixing(n, p):
    """A cyclic group's element, drawn uniformly with probability p, else none: how it mixes n distributions."""
    return (1 - p) * np.eye(n) + p / n


@pytest.mark.parametrize("n", [2, 4])
def test_what_happens_sometimes_does_not_leak(n):
    """For p < 1 the mixture of an image's turns determines what was turned; at p = 1 it does not."""
    for p in (0.0, 0.5, 0.9, 0.99):
        assert np.linalg.eigvalsh(mixing(n, p)) == pytest.approx([1 - p] * (n - 1) + [1])
        original = np.random.default_rng(0).dirichlet(np.ones(n))
        assert np.linalg.solve(mixing(n, p), mixing(n, p) @ original) == pytest.approx(original)
    assert np.linalg.matrix_rank(mixing(n, 1.0)) == 1


@pytest.mark.parametrize("p", [0.2, 0.7, 1.0])
def test_flips_and_turns_have_those_probabilities(p):
    image = images(1, 1, 3, 3)  # so small that shifts are rounded to none
    count = 6000
    y = seeded(only("blit", p=p), image.expand(count, -1, -1, -1))
    elements = [torch.rot90(flipped, turns, (1, 2)) for flipped in (image[0], image[0].flip(2)) for turns in range(4)]
    share = (y[:, None] == torch.stack(elements)).flatten(2).all(2).double().mean(0).view(2, 4)
    assert share.sum().item() == pytest.approx(1)
    expected = torch.from_numpy(np.outer(mixing(2, p)[0], mixing(4, p)[0]))
    torch.testing.assert_close(share, expected, atol=4 * 0.5 / math.sqrt(count), rtol=0)
    flips, turns = share.sum(1), share.sum(0)
    assert (flips[0] - flips[1]).item() == pytest.approx(1 - p, abs=0.04)  # the eigenvalues, which p = 1 makes zero
    assert (turns[0] - turns[2]).item() == pytest.approx(1 - p, abs=0.04)


@pytest.mark.parametrize(
    ("group", "untouched"),
    [
        ("geometry", lambda p: (1 - p) ** 4),  # scale, both rotations together, stretch, shift
        ("color", lambda p: (1 - p) ** 4 * (1 - p / 2)),  # half of the luma flips flip
        ("filter", lambda p: (1 - p) ** 4),
        ("noise", lambda p: 1 - p),
        ("cutout", lambda p: 1 - p),
    ],
)
def test_each_transformation_has_the_probability_p(group, untouched):
    x = images(3000, 3, 4, 4)
    for p in (0.15, 0.5):
        same = (seeded(only(group, p=p), x) == x).flatten(1).all(1).double().mean()
        assert same.item() == pytest.approx(untouched(p), abs=0.03)


def test_images_are_shifted_by_up_to_an_eighth(calls):
    seen = calls("copy_pixels")
    seeded(only("blit", p=1.0), images(2000, 1, 16, 32))
    _, turns, down, right = seen[0]
    assert set(down.tolist()) == set(range(-2, 3))
    assert set(right.tolist()) == set(range(-4, 5))
    assert set(turns.tolist()) == {0, 2}


@pytest.mark.parametrize("group", GROUPS)
def test_images_have_their_own_numbers_and_a_seed_repeats_them(group):
    x, augment = images(1).expand(12, -1, -1, -1), only(group, p=1.0)
    y = seeded(augment, x)
    assert len(y.unique(dim=0)) > 5
    assert torch.equal(y, seeded(augment, x))
    assert not torch.equal(y, seeded(augment, x, seed=1))


# derivatives


@pytest.mark.parametrize("groups", [*((group,) for group in GROUPS), GROUPS])
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_it_can_be_differentiated_twice(groups, fast):
    """Along a random direction by default, along each axis in turn if all is asked for."""
    x = images(2, height=4, width=4).requires_grad_()

    def cubed(x):
        return seeded(only(*groups, p=0.8), x).pow(3)

    assert gradcheck(cubed, x)
    assert gradgradcheck(cubed, x, gen_non_contig_grad_outputs=True, fast_mode=fast)


# p


def test_p_moves_by_the_share_of_images():
    augment = ADA(kimg=2, p=0.5)
    for signs, expected in [(0.7, 0.6), (0.61, 0.7), (0.6, 0.6), (-1.0, 0.5), (0.0, 0.4)]:
        augment.adapt(torch.tensor(signs), images=200)
        assert augment.p.item() == pytest.approx(expected)
    assert augment.p.dtype == torch.float32
    assert augment.p.shape == ()


def test_p_goes_from_end_to_end_in_kimg_and_stays_within():
    augment, batch = ADA(kimg=5, every=4), 50
    for count in range(1, 121):
        augment.adapt(torch.tensor(1.0), images=batch)
        assert augment.p.item() == pytest.approx(min(count / 100, 1), abs=1e-5)
    for count in range(1, 121):
        augment.adapt(torch.tensor(-1.0), images=batch)
        assert augment.p.item() == pytest.approx(max(1 - count / 100, 0), abs=1e-5)


def test_p_is_saved_and_stays_float32():
    augment = ADA(p=0.3, filter=True)
    augment.adapt(torch.tensor(1.0), images=50_000)
    other = ADA(**augment.init_args)
    assert other.p.item() == pytest.approx(0.3)
    other.load_state_dict(augment.state_dict())
    assert torch.equal(other.p, augment.p)
    assert list(augment.state_dict()) == ["p", "seen"]
    assert augment.bfloat16().p.dtype == augment.seen.dtype == torch.float32


def test_half_precision_is_computed_in_float32():
    x, augment = images(4, dtype=torch.float32).bfloat16(), only(*GROUPS, p=0.8)
    y = seeded(augment, x)
    with torch.autocast("cpu", torch.bfloat16):
        within = seeded(augment, x)
    assert y.dtype == within.dtype == torch.bfloat16
    assert torch.equal(y, within)
    assert torch.equal(y, seeded(augment, x.float()).bfloat16())


def test_matrices_first_made_while_inferring_can_be_trained_with():
    x = images(2, height=11, width=13)
    with torch.inference_mode():
        seeded(only(*GROUPS, p=1.0), x)
    seeded(only(*GROUPS, p=1.0), x.requires_grad_()).sum().backward()
    assert x.grad.abs().sum() > 0


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match=r"ADA takes images \(N, C, H, W\).*got shape \(8, 2\)"):
        ADA()(torch.zeros(8, 2))
    with pytest.raises(ValueError, match=r"1 or 3 channels, got 2; use color=False"):
        ADA()(torch.zeros(1, 2, 8, 8))
    assert ADA(color=False)(torch.zeros(1, 2, 8, 8)).shape == (1, 2, 8, 8)
    for wrong, message in [
        ({"p": 1.5}, "p must be in"),
        ({"every": 0}, "every must be"),
        ({"kimg": 0}, "kimg must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            ADA(**wrong)


def test_it_is_judged_by_the_logits_that_the_updates_saw(tmp_path):
    """r_t is the mean sign over all reals of four updates, each before its step, and costs no forward pass."""
    torch.manual_seed(0)
    told, answers = [], []
    critic = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 1))
    model = GAN(Generator(), critic, latent_dim=LATENT, d_lr=0.1, augment=only(kimg=1.0))
    adapt = model.augment.adapt
    model.augment.adapt = lambda signs, images: (told.append((signs.item(), images)), adapt(signs, images))

    class Listen(Callback):
        def on_train_start(self, trainer, pl_module):  # what is asked before is a check of the networks
            critic.register_forward_hook(lambda module, x, logits: answers.append(logits.detach().clone()))

    trainer(tmp_path, max_steps=8, callbacks=[Listen()]).fit(model, loader())
    assert len(answers) == 24  # in each step: real, fake, and the generator's turn
    halves = [torch.cat(answers[start : start + 12 : 3]).sign().mean().item() for start in (0, 12)]
    assert told == [(pytest.approx(half), 32) for half in halves]
    assert model.augment.seen.tolist() == [0, 0]
    assert model.augment.p.item() == pytest.approx(max(sum(32e-3 * (1 if half > 0.6 else -1) for half in halves), 0))
