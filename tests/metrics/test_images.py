"""What metrics take for images, and how they resize them."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from lit_gans.metrics.images import check_images, convert_channels, resize


def pictures(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 3, 64, 48), (1, 1, 299, 299), (1, 3, 400, 310)])
def test_tf1_is_the_resizing_of_the_original(shape):
    x = pictures(*shape).float()
    theirs = interpolate_bilinear_2d_like_tensorflow1x(x, size=(299, 299), align_corners=False)
    torch.testing.assert_close(resize(x, 299, "tf1"), theirs, atol=2e-4, rtol=0)


def test_bilinear_is_torchs():
    x = pictures(2, 3, 50, 32).float()
    torch.testing.assert_close(
        resize(x, 75, "bilinear"), F.interpolate(x, (75, 75), mode="bilinear"), atol=2e-4, rtol=0
    )


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [24, 75, 128])
def test_pil_resizing_is_pillows_on_floating_point_channels(kind, size):
    x = pictures(1, 3, 64, 96)
    filter_ = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[kind]
    theirs = [Image.fromarray(c.numpy().astype(np.float32)).resize((size, size), filter_) for c in x[0]]
    theirs = torch.from_numpy(np.stack([np.asarray(c) for c in theirs])).clamp(0, 255)
    torch.testing.assert_close(resize(x.float(), size, f"pil-{kind}")[0], theirs, atol=5e-3, rtol=0)


def test_the_ways_to_resize_differ():
    x = pictures(1, 3, 64, 64).float()
    results = [resize(x, 40, method) for method in ("tf1", "bilinear", "pil-bilinear", "pil-bicubic")]
    assert all((a - b).abs().mean() > 1 for i, a in enumerate(results) for b in results[:i])


def test_images_of_the_right_size_are_not_touched():
    x = pictures(1, 3, 40, 40).float()
    assert all(resize(x, 40, method) is x for method in ("tf1", "pil-bicubic"))


def test_grey_becomes_rgb_and_back():
    grey = pictures(2, 1, 4, 4).float()
    assert torch.equal(convert_channels(grey, 3), grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(convert_channels(convert_channels(grey, 3), 1), grey)
    red = torch.zeros(1, 3, 1, 1).index_fill(1, torch.tensor(0), 100.0)
    assert float(convert_channels(red, 1)) == pytest.approx(29.9)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((2, 3, 4, 4), 7.0), r"torch.float32 in \[7, 7\], which is neither \[0, 1\] nor \[-1, 1\]"),
        (torch.rand(2, 3, 4, 4) * 2 - 1, r"from \[-1, 1\] lit_gans.functional.to_uint8 converts them"),
        (torch.full((2, 3, 4, 4), torch.nan), "NaN or infinite values"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.int64), "uint8 in 0..255, got torch.int64"),
        (torch.zeros(2, 2, 4, 4, dtype=torch.uint8), r"C = 1 \(grey\) or 3 \(RGB\), got shape \(2, 2, 4, 4\)"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), r"got shape \(3, 4, 4\)"),
        (torch.zeros(2, 3, 0, 4, dtype=torch.uint8), r"got shape \(2, 3, 0, 4\)"),
        (np.zeros((2, 3, 4, 4), np.uint8), "must be a torch.Tensor, got ndarray"),
    ],
)
def test_what_are_no_images_is_refused_in_a_sentence(images, message):
    with pytest.raises(ValueError, match=message):
        check_images(images)
