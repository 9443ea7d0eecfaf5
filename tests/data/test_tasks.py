"""Tasks: each against a small computation of its own, and what makes none."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from lit_gans.data.tasks import TASKS, Downscale, Matte, parse_task
from lit_gans.functional import imresize

RNG = np.random.default_rng(0)
PICTURE = torch.from_numpy(RNG.integers(0, 256, (1, 3, 24, 36), np.uint8))
SMOOTH = torch.from_numpy(ndimage.gaussian_filter(RNG.normal(size=(3, 48, 64)), (0, 2, 2)) * 400 + 128)
SMOOTH = SMOOTH.clamp(0, 255).to(torch.uint8)[None]


def rng(seed=0):
    return np.random.default_rng(seed)


def pil(image):
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def test_grey_is_pillows():
    expected = np.asarray(pil(PICTURE[0]).convert("L")).astype(int)
    assert np.abs(parse_task("grey")(PICTURE)[0, 0].numpy() - expected).max() <= 1
    assert (parse_task("grey")(PICTURE)[0, 0].numpy() == expected).mean() > 0.99


def test_invert_and_rotate_and_colour():
    assert torch.equal(parse_task("invert")(PICTURE), 255 - PICTURE)
    assert torch.equal(parse_task({"rotate": 90})(PICTURE), PICTURE.rot90(1, (2, 3)))
    grey = PICTURE[:, :1]
    red = parse_task({"colour": [255, 0, 51]})(grey)
    assert torch.equal(red[:, 0], grey[:, 0])
    assert red[:, 1].max() == 0
    assert torch.equal(red[:, 2], (grey[:, 0] / 5).round().byte())
    drawn = parse_task("colour")
    assert drawn.random
    assert drawn.channels(1) == 3
    assert not torch.equal(drawn(grey, rng(0)), drawn(grey, rng(1)))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_downscale_is_the_fields(scale):
    task = parse_task({"downscale": scale})
    expected = imresize(PICTURE.double(), 1 / scale).round().clamp(0, 255).byte()
    assert torch.equal(task(PICTURE), expected)
    assert (task.scale, task.channels(3)) == (scale, 3)


def test_a_window_of_a_downscaled_picture_is_the_downscaled_window_with_its_margin():
    task = parse_task({"downscale": 3})
    whole, margin = task(PICTURE), task.margin
    assert margin % 3 == 0
    around = PICTURE[..., 12 - margin : 12 + 3 + margin, 15 - margin : 15 + 6 + margin]
    inner = task(around)[..., margin // 3 : margin // 3 + 1, margin // 3 : margin // 3 + 2]
    assert torch.equal(inner, whole[..., 4:5, 5:7])


def test_blur_is_scipys():
    expected = ndimage.gaussian_filter(
        PICTURE[0].numpy().astype(float), (0, 1.5, 1.5), mode="reflect", radius=(0, 5, 5)
    )
    assert np.abs(parse_task({"blur": 1.5})(PICTURE)[0].numpy() - expected).max() < 0.51
    assert not parse_task({"blur": 1.5}).random
    assert parse_task("blur").random


def test_an_anisotropic_blur_has_the_variances_drawn():
    point = torch.zeros(1, 1, 41, 41)
    point[0, 0, 20, 20] = 255
    blur = parse_task({"blur": {"sigma": [1.0, 3.0], "anisotropic": 1.0}}).steps[0]
    spread = blur(point, rng(3), (41, 41))[0, 0].double().numpy() / 255
    y, x = np.mgrid[-20:21, -20:21]
    covariance = np.array([[(spread * a * b).sum() for a in (x, y)] for b in (x, y)])
    same = rng(3)
    first, _, second = same.uniform(1.0, 3.0), same.random(), same.uniform(1.0, 3.0)
    assert abs(first - second) > 0.3
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    assert np.sqrt(np.linalg.eigvalsh(covariance)) == pytest.approx(sorted([first, second]), rel=0.03)
    assert abs(covariance[0, 1]) > 0.01  # turned


def test_sinc_keeps_what_is_slower_than_its_cutoff_and_stops_what_is_faster():
    x = torch.arange(64.0)
    for frequency, gain in ((0.4, 1.0), (2.2, 0.0)):
        wave = (100 * torch.cos(frequency * x) + 128).expand(1, 1, 64, 64)
        sinc = parse_task({"sinc": {"cutoff": 1.3, "size": 41, "share": 1.0}}).steps[0]
        passed = (sinc(wave, rng(), (64, 64)) - 128)[..., 22:42, 22:42]
        assert float((passed - gain * (wave - 128)[..., 22:42, 22:42]).abs().max()) < 6


def test_noise_has_the_deviation_and_grey_noise_is_the_same_in_all_channels():
    flat = torch.full((1, 3, 128, 128), 128, dtype=torch.uint8)
    noise = parse_task({"noise": 20})(flat, rng()).double() - 128
    assert noise.std().item() == pytest.approx(20, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.3)
    assert not torch.equal(noise[:, 0], noise[:, 1])
    grey = parse_task({"noise": {"sigma": 20, "grey": 1.0}})(flat, rng())
    assert torch.equal(grey[:, 0], grey[:, 1])
    shots = parse_task({"noise": {"poisson": 1.0, "gaussian": 0}})(flat, rng()).double()
    assert shots.std().item() == pytest.approx(math.sqrt(128), rel=0.03)
    spread = [parse_task({"noise": {"sigma": [5, 50]}})(flat, rng(n)).double().std().item() for n in range(12)]
    assert min(spread) < 15 < 35 < max(spread)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels):
    picture = SMOOTH[:, :channels]
    file = io.BytesIO()
    image = pil(SMOOTH[0]) if channels == 3 else Image.fromarray(SMOOTH[0, 0].numpy())
    image.save(file, "JPEG", quality=30)
    expected = np.asarray(Image.open(file))
    found = parse_task({"jpeg": 30})(picture)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(found if channels == 3 else found[..., 0], expected)
    assert not parse_task({"jpeg": 30}).random
    assert parse_task({"jpeg": [30, 95]}).random


def test_edges_are_thin_and_lie_where_the_picture_changes():
    square = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    square[..., 8:24, 8:24] = 200
    edges = parse_task("edges")(square)[0, 0]
    assert set(edges.unique().tolist()) == {0, 255}
    rows, columns = (edges > 0).nonzero().T
    assert all(min(abs(r - 7.5), abs(r - 23.5)) < 2 or min(abs(c - 7.5), abs(c - 23.5)) < 2
               for r, c in zip(rows.tolist(), columns.tolist(), strict=True))  # fmt: skip
    assert (edges[16] > 0).sum() == 2  # one pixel for each of two sides
    assert (edges[:, 16] > 0).sum() == 2
    assert parse_task("edges")(torch.full((1, 3, 9, 9), 77, dtype=torch.uint8)).max() == 0


def test_edges_go_on_below_the_high_threshold_only_where_they_are_connected():
    ramp = torch.zeros(1, 1, 40, 40)
    ramp[..., 20:] = torch.linspace(24, 200, 40)[:, None]  # one long edge, weak at the top
    ramp[..., :6, 4:8] = 30  # a weak spot with nothing strong about it
    options = {"sigma": 0, "low": 5, "high": 45}
    edges = parse_task({"edges": options})(ramp.byte())[0, 0] > 0
    alone = parse_task({"edges": {**options, "low": 45}})(ramp.byte())[0, 0] > 0
    assert edges[1:, 19:21].any(1).all()
    assert not alone[:8].any()
    assert not edges[:8, :12].any()


CHAIN = [
    {"blur": {"sigma": [0.2, 3], "anisotropic": 0.4, "sinc": 0.1, "size": [7, 21]}},
    {"resize": {"scale": [0.15, 1.5], "chances": [0.2, 0.7]}},
    {"noise": {"sigma": [1, 30], "poisson": [0.05, 3], "grey": 0.4}},
    {"jpeg": [30, 95]},
    {"blur": {"sigma": [0.2, 1.5], "size": [7, 21], "share": 0.8}},
    {"resize": {"scale": [0.3, 1.2], "of": "goal"}},
    {"noise": {"sigma": [1, 25]}},
    {"jpeg": [30, 95]},
    "sinc",
    {"downscale": 4},
]


def test_a_chain_ends_at_its_scale_whatever_happens_between_and_depends_on_its_draw_alone():
    task = parse_task(CHAIN)
    picture = SMOOTH[..., :48, :64]
    results = [task(picture, rng(n)) for n in range(8)]
    assert {tuple(result.shape) for result in results} == {(1, 3, 12, 16)}
    assert torch.equal(results[3], task(picture, rng(3)))
    assert len({result.double().mean().item() for result in results}) == 8
    clean = parse_task({"downscale": 4})(picture).double()
    errors = [(result.double() - clean).abs().mean().item() for result in results]
    assert 1 < np.mean(errors) < 60
    assert task.random
    assert task.margin % 4 == 0


def test_steps_are_applied_in_their_order():
    task = parse_task([{"blur": 2.0}, "edges"])
    blur, edges = task.steps
    expected = edges(blur(SMOOTH.float(), rng(), (48, 64)), rng(), (48, 64))
    assert torch.equal(task(SMOOTH), expected.byte())
    assert not torch.equal(parse_task(["edges", {"blur": 2.0}])(SMOOTH), task(SMOOTH))
    assert torch.equal(parse_task(["edges", "invert"])(SMOOTH), 255 - parse_task("edges")(SMOOTH))


def test_a_share_leaves_the_rest_as_it_is():
    task = parse_task({"jpeg": {"quality": 5, "share": 0.5}})
    same = [torch.equal(task(SMOOTH, rng(n)), SMOOTH) for n in range(40)]
    assert 10 < sum(same) < 30
    assert task.random


def test_shapes_of_mattes_are_round_soft_and_not_all_alike():
    matte = Matte(soft=0.1, size=0.3)
    shapes = [matte.shape(64, 64, rng(n)) for n in range(30)]
    assert all(shape.min() == 0 and shape.max() == 1 for shape in shapes)
    areas = [shape.mean().item() for shape in shapes]
    assert 0.1 < np.mean(areas) < 0.45
    assert np.std(areas) > 0.01
    edge = [((shape > 0.02) & (shape < 0.98)).float().mean().item() for shape in shapes]
    assert all(0.02 < share < 0.3 for share in edge)
    assert ((Matte(soft=0, size=0.3).shape(64, 64, rng()) * 255).round().unique().numel()) <= 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gray", "unknown task 'gray': did you mean grey"),
        ({"nois": 3}, "unknown task 'nois': did you mean noise"),
        ({"noise": {"sgima": 3}}, "unknown parameter of noise 'sgima': did you mean sigma"),
        ({"noise": {"sigma": [30, 1]}}, "sigma of noise must lie between 0 and 1000, least first"),
        ({"noise": "much"}, "sigma of noise must be a number or"),
        ({"downscale": 0}, "downscale wants a whole number from 1 up"),
        ({"downscale": 2.5}, "downscale wants a whole number from 1 up"),
        ([{"downscale": 2}, {"downscale": 2}], "a task holds one downscale"),
        ({"jpeg": 200}, "quality of jpeg must lie between 1 and 100"),
        ({"grey": 3}, "grey takes no parameter"),
        ({"rotate": 45}, "a multiple of 90 degrees"),
        (["mask", "grey"], "a mask ends a task: move grey before it"),
        (["matte", "grey"], "matte is a task of its own"),
        ([], "the list of tasks is empty"),
        ({"grey": None, "blur": 1}, "a task is a name"),
        ({"resize": {"modes": ["cubic"]}}, "unknown mode of resize 'cubic': did you mean bicubic"),
        ({"mask": {"kind": "stroks"}}, "unknown kind of mask 'stroks': did you mean strokes"),
    ],
)
def test_what_is_no_task_says_so(spec, message):
    with pytest.raises(ValueError, match=message):
        parse_task(spec)


def test_text_of_a_command_line_is_yaml():
    assert parse_task("{downscale: 4}").steps == (Downscale(4),)
    assert len(parse_task("[{blur: 1.0}, grey]").steps) == 2
    assert {"grey", "edges", "mask", "noise", "jpeg", "blur", "matte", "downscale"} <= set(TASKS)
