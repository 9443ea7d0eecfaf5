"""DiffAugment: each transformation against another computation, its random numbers, its derivatives."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from lit_gans.augment import DiffAugment
from lit_gans.augment.diffaugment import cut, shift_color, translate

PARTS = ["color", "translation", "cutout"]


def images(n, channels=3, height=16, width=16, seed=0, dtype=torch.float64):
    return (
        torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 1.8 - 0.9
    )


def seeded(augment, x, seed=0):
    torch.manual_seed(seed)
    return augment(x)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_colours_are_three_steps_in_one(channels):
    x = images(4, channels)
    brightness, saturation, contrast = torch.rand(3, 4, 1, 1, 1, dtype=torch.float64)
    y = x + brightness
    y = y.mean(1, keepdim=True) + saturation * (y - y.mean(1, keepdim=True))
    y = y.mean((1, 2, 3), keepdim=True) + contrast * (y - y.mean((1, 2, 3), keepdim=True))
    torch.testing.assert_close(shift_color(x, brightness, saturation, contrast), y)


def test_colours_are_drawn_from_the_papers_ranges():
    x = images(2000, height=4, width=4)
    y = seeded(DiffAugment(["color"]), x)
    design = torch.stack([x, x.mean(1, keepdim=True).expand_as(x), torch.ones_like(x)], -1).flatten(1, 3)
    factors = torch.linalg.lstsq(design, y.flatten(1)[:, :, None]).solution[:, :, 0]
    contrast = factors[:, 0] + factors[:, 1]
    saturation = factors[:, 0] / contrast
    brightness = factors[:, 2] - (1 - contrast) * x.mean((1, 2, 3))
    for values, low, high in [(brightness, -0.5, 0.5), (saturation, 0, 2), (contrast, 0.5, 1.5)]:
        assert values.min().item() == pytest.approx(low, abs=0.01)
        assert values.max().item() == pytest.approx(high, abs=0.01)
        assert values.mean().item() == pytest.approx((low + high) / 2, abs=0.05)
    mixed = torch.corrcoef(torch.stack([brightness, saturation, contrast]))
    torch.testing.assert_close(mixed, torch.eye(3, dtype=mixed.dtype), atol=0.07, rtol=0)


def test_grey_images_have_no_saturation():
    x = images(3, channels=1)
    brightness, contrast = torch.rand(2, 3, 1, 1, 1, dtype=torch.float64)
    one, other = (shift_color(x, brightness, torch.full_like(brightness, s), contrast) for s in (0.0, 2.0))
    torch.testing.assert_close(one, other)
    assert seeded(DiffAugment(), x).shape == x.shape


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 24), (3, 5)])
def test_translation_lets_zeros_flow_in(height, width):
    x = images(600, 2, height, width)
    down, right = height // 8, max(1, width // 8) if width > 3 else 0
    padded = F.pad(x, (right, right, down, down))
    moved = {
        (i, j): padded[:, :, down - i : down - i + height, right - j : right - j + width]
        for i in range(-down, down + 1)
        for j in range(-right, right + 1)
    }
    y = seeded(DiffAugment(["translation"]), x)
    hits = {place: (y == there).flatten(1).all(1) for place, there in moved.items()}
    assert torch.stack(list(hits.values())).sum(0).eq(1).all()
    share = torch.stack([hit.double().mean() for hit in hits.values()])
    torch.testing.assert_close(share, torch.full_like(share, 1 / len(hits)), atol=0.07, rtol=0)
    for (i, j), there in moved.items():
        assert torch.equal(translate(x[:1], torch.tensor([i]), torch.tensor([j])), there[:1])


def test_cutout_is_one_square_of_half_the_size():
    x = torch.ones(4000, 2, 12, 12)
    hole = seeded(DiffAugment(["cutout"]), x) == 0
    assert torch.equal(hole[:, 0], hole[:, 1])
    rows, columns = hole[:, 0].any(2), hole[:, 0].any(1)
    assert torch.equal(hole[:, 0], rows[:, :, None] & columns[:, None, :])
    for side in (rows, columns):
        assert side.sum(1).max() == 6
        assert side.sum(1).min() == 3  # the centre is within the image, or on its border
        assert (side.int().diff(dim=1) != 0).sum(1).max() == 2  # in one piece
        covered = torch.tensor([min(i + 3, 12) - max(i - 2, 0) + 1 for i in range(12)]) / 13  # by centres nearby
        assert torch.equal(covered, covered.flip(0))
        torch.testing.assert_close(side.float().mean(0), covered, atol=0.04, rtol=0)
    expected = torch.ones(1, 1, 5, 5)
    expected[:, :, 1:4, :2] = 0
    assert torch.equal(cut(torch.ones(1, 1, 5, 5), torch.tensor([1]), torch.tensor([-1])), expected)


def test_policies_are_applied_in_the_order_given():
    x = images(5)
    for order in (["translation", "cutout"], ["cutout", "translation"]):
        y = seeded(DiffAugment(order), x)
        torch.manual_seed(0)
        assert torch.equal(y, DiffAugment(order[1:])(DiffAugment(order[:1])(x)))
    assert torch.equal(DiffAugment([])(x), x)


@pytest.mark.parametrize("part", PARTS)
def test_images_have_their_own_numbers_and_a_seed_repeats_them(part):
    x = images(1).expand(8, -1, -1, -1)
    y = seeded(DiffAugment([part]), x)
    assert len(y.unique(dim=0)) > 4
    assert torch.equal(y, seeded(DiffAugment([part]), x))
    assert not torch.equal(y, seeded(DiffAugment([part]), x, seed=1))


@pytest.mark.parametrize("policy", [*([part] for part in PARTS), PARTS])
@pytest.mark.parametrize("fast", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_it_can_be_differentiated_twice(policy, fast):
    """Along a random direction by default, along each axis in turn if all is asked for."""
    x = images(2, height=6, width=6).requires_grad_()

    def cubed(x):
        return seeded(DiffAugment(policy), x).pow(3)

    assert gradcheck(cubed, x)
    assert gradgradcheck(cubed, x, gen_non_contig_grad_outputs=True, fast_mode=fast)


def test_half_precision_is_computed_in_float32():
    x = images(4, dtype=torch.float32).bfloat16()
    y = seeded(DiffAugment(), x)
    with torch.autocast("cpu", torch.bfloat16):
        within = seeded(DiffAugment(), x)
    assert y.dtype == within.dtype == torch.bfloat16
    assert torch.equal(y, within)
    assert torch.equal(y, seeded(DiffAugment(), x.float()).bfloat16())


def test_what_is_no_image_and_no_policy_is_refused():
    with pytest.raises(ValueError, match=r"DiffAugment takes images \(N, C, H, W\).*got shape \(8, 2\)"):
        DiffAugment()(torch.zeros(8, 2))
    with pytest.raises(ValueError, match=r"floating point.*torch.uint8"):
        DiffAugment()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="unknown policy 'colour': did you mean color"):
        DiffAugment(["colour"])
    assert DiffAugment("cutout").init_args == {"policy": "cutout"}
