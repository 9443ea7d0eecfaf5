"""Masks: 1 is the hole; boxes, strokes and files."""

import warnings

import numpy as np
import pytest
from PIL import Image

from lit_gans.data.masks import Box, FileMasks, Place, Strokes, parse_mask


def rng(seed=0):
    return np.random.default_rng(seed)


def draw(kind, count=200, side=64):
    return np.stack([kind(Place(side, side), rng(n)) for n in range(count)])


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.astype(np.uint8)).save(path)


def test_boxes_have_their_size_and_lie_anywhere():
    masks = draw(Box(0.5), 400, 16)
    assert set(masks.sum((1, 2)).tolist()) == {64}
    assert set(masks.any(0)[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()) == {True}
    tops = masks.any(2).argmax(1)
    assert set(tops.tolist()) == set(range(9))
    centre = Box(0.5, "centre")(Place(16, 16), rng())
    assert centre[4:12, 4:12].all()
    assert centre.sum() == 64


def test_sizes_of_boxes_are_drawn_from_their_range():
    areas = draw(Box((0.25, 0.75)), 400, 32).mean((1, 2))
    assert areas.min() < 0.12
    assert areas.max() > 0.45
    assert areas.mean() == pytest.approx(0.25, abs=0.02)  # the product of two uniform sides of mean a half


def test_strokes_cover_what_they_are_said_to():
    masks = draw(Strokes())
    areas = masks.mean((1, 2))
    assert areas.mean() == pytest.approx(0.12, abs=0.03)
    assert areas.min() < 0.03
    assert areas.max() > 0.25
    places = masks.mean(0)
    quarters = places.reshape(4, 16, 4, 16).mean((1, 3))
    assert quarters.min() > 0.4 * quarters.max()  # anywhere
    large = draw(Strokes(strokes=8), 50, 128).mean()
    assert large == pytest.approx(draw(Strokes(strokes=8), 50, 64).mean(), rel=0.15)  # shares of the side
    assert draw(Strokes(strokes=1, vertices=1, length=0.0, width=0.25), 50).mean() == pytest.approx(0.049, abs=0.012)


def test_a_mask_is_the_union_of_its_kinds_with_255_in_the_hole():
    masks = parse_mask([{"kind": "box", "size": 0.5, "place": "centre"}, "strokes"])
    mask = masks(Place(32, 32), rng())
    assert mask.shape == (1, 32, 32)
    assert set(mask.unique().tolist()) == {0, 255}
    assert (mask[0, 8:24, 8:24] == 255).all()
    assert (mask[0] == 255).sum() > 256


def test_files_are_thresholded_at_half_and_white_is_the_hole(tmp_path):
    array = np.zeros((8, 8))
    array[0], array[1], array[2] = 255, 127, 128
    save(tmp_path / "a.png", array)
    mask = FileMasks(str(tmp_path))(Place(8, 8), rng())
    assert mask.all(1).tolist() == [True, False, True] + [False] * 5
    assert (
        FileMasks(str(tmp_path), invert=True)(Place(8, 8), rng()).all(1).tolist() == [False, True, False] + [True] * 5
    )
    larger = FileMasks(str(tmp_path))(Place(16, 24), rng())
    assert larger.all(1).tolist() == [True] * 2 + [False] * 2 + [True] * 2 + [False] * 10


def test_masks_by_name_are_cut_with_their_picture(tmp_path):
    array = (rng().random((12, 10)) < 0.3) * 255
    save(tmp_path / "x" / "b.png", array)
    masks = FileMasks(str(tmp_path), match=True)
    assert np.array_equal(masks(Place(4, 5, 3, 2, (12, 10), "b"), rng()), array[3:7, 2:7] > 0)
    assert masks.complaints(["b"], [(12, 10)]) == []
    assert "not of their picture's size: b (10x12, its picture 10x10)" in masks.complaints(["b"], [(10, 10)])[0]
    assert "1 of 2 pictures have no mask" in masks.complaints(["b", "c"], [(12, 10), (12, 10)])[0]


def test_masks_that_are_mostly_hole_are_warned_of(tmp_path):
    array = np.full((8, 8), 255)
    array[:3] = 0
    save(tmp_path / "full.png", array)
    with pytest.warns(UserWarning, match=r"more than half is hole in 1 of 1 masks in .*full.png.*set invert to true"):
        FileMasks(str(tmp_path)).complaints([], [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert FileMasks(str(tmp_path), invert=True).complaints([], []) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "bx"}, "unknown kind of mask 'bx': did you mean box"),
        ({"size": 2}, "size of a box must lie between 0 and 1"),
        ({"place": "center"}, "unknown place of a box 'center': did you mean centre"),
        ({"kind": "strokes", "witdh": 1}, "unknown parameter of mask of kind strokes 'witdh': did you mean width"),
        ({"kind": "files"}, "masks from files need their folder"),
    ],
)
def test_what_makes_no_mask_says_so(given, message):
    with pytest.raises(ValueError, match=message):
        parse_mask(given)
