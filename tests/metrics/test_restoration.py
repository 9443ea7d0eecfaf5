"""Resizing, luma, PSNR and SSIM against versions in numpy that know nothing of ours."""

import math

import numpy as np
import pytest
import torch

from lit_gans.functional import imresize, to_y

SCALES = [1 / 2, 1 / 3, 1 / 4, 2, 3, 4]


def cubic(t):
    """Keys 1981, equation 15: a = -1/2."""
    t = abs(t)
    if t < 1:
        return 1.5 * t**3 - 2.5 * t**2 + 1
    return -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0.0


def matlab_matrix(side, scale):
    """Weights of each pixel of a line in each of the result, pixel by pixel; MATLAB counts from 1."""
    out, wide = math.ceil(side * scale), max(1, 1 / scale)
    matrix = np.zeros((out, side))
    for i in range(1, out + 1):
        u = i / scale + 0.5 * (1 - 1 / scale)
        reach = range(math.floor(u - 2 * wide) - 1, math.ceil(u + 2 * wide) + 2)
        weights = [cubic((u - j) / wide) for j in reach]
        for j, weight in zip(reach, weights, strict=True):
            k = j
            while not 1 <= k <= side:
                k = 1 - k if k < 1 else 2 * side + 1 - k
            matrix[i - 1, k - 1] += weight / sum(weights)
    return matrix


def pictures(seed, channels=3):
    """Twenty pictures of odd and even sizes, uint8 (C, H, W)."""
    rng = np.random.default_rng(seed)
    for _ in range(20):
        height, width = rng.integers(13, 40, 2)
        yield rng.integers(0, 256, (channels, height, width), dtype=np.uint8)


@pytest.mark.parametrize("scale", SCALES)
def test_imresize_is_matlabs(scale):
    sizes = set()
    for picture in pictures(0):
        x = picture / 255
        height, width = x.shape[1:]
        sizes.add((height % 2, width % 2))
        expected = matlab_matrix(height, scale) @ x @ matlab_matrix(width, scale).T
        for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
            resized = imresize(torch.tensor(x, dtype=dtype), scale)
            assert resized.dtype == dtype
            assert resized.shape == (3, math.ceil(height * scale), math.ceil(width * scale))
            assert np.abs(resized.numpy() - expected).max() < tolerance
    assert len(sizes) == 4


def test_imresize_of_pictures_smaller_than_its_kernel():
    for scale in SCALES:
        x = np.random.default_rng(1).random((2, 3, 1))
        expected = matlab_matrix(3, scale) @ x @ matlab_matrix(1, scale).T
        assert np.abs(imresize(torch.from_numpy(x), scale).numpy() - expected).max() < 1e-12


def test_imresize_takes_any_leading_shape_and_has_gradients():
    x = torch.rand(2, 3, 8, 6, dtype=torch.float64, requires_grad=True)
    assert torch.equal(imresize(x, 0.5)[1, 2], imresize(x[1, 2], 0.5))
    assert torch.autograd.gradcheck(lambda x: imresize(x, 0.5), x[:1, :1].detach().requires_grad_())
    assert imresize(x.bfloat16(), 2).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("x", "scale", "message"),
    [
        (torch.zeros(3, 4, 4, dtype=torch.uint8), 2, "floating-point images, got torch.uint8"),
        (torch.zeros(3, 0, 4), 2, "with pixels"),
        (torch.zeros(4), 2, "with pixels"),
        (torch.zeros(4, 4), 0, "above zero"),
    ],
)
def test_imresize_refuses(x, scale, message):
    with pytest.raises(ValueError, match=message):
        imresize(x, scale)


def y_of(picture):
    red, green, blue = picture.astype(np.float64)
    return (65.481 * red + 128.553 * green + 24.966 * blue) / 255 + 16


def test_luma():
    for picture in pictures(2):
        assert np.abs(to_y(torch.from_numpy(picture))[0].numpy() - y_of(picture)).max() < 1e-12
    with pytest.raises(ValueError, match="red, green and blue"):
        to_y(torch.zeros(1, 4, 4))
