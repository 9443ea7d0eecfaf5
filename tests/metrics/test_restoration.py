"""Resizing, luma, PSNR and SSIM against versions in numpy that know nothing of ours."""

import ast
import copy
import math
import pickle
import urllib.error

import numpy as np
import pytest
import torch
import torchmetrics.functional.image as theirs
from launching import python
from torch import nn
from torchmetrics import MetricCollection

from lit_gans.functional import imresize, to_uint8, to_y
from lit_gans.metrics import L1, LPIPS, PSNR, SSIM

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


def cropped(picture, crop):
    return picture[..., crop : picture.shape[-2] - crop, crop : picture.shape[-1] - crop].astype(np.float64)


def psnr_of(x, t):
    return 10 * math.log10(255**2 / np.mean((x - t) ** 2))


def ssim_of(x, t):
    """Wang et al. 2004, equation 13, window by window."""
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for a, b in zip(x, t, strict=True):
        for i in range(a.shape[0] - 10):
            for j in range(a.shape[1] - 10):
                p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
                mp, mq = (window * p).sum(), (window * q).sum()
                vp, vq = (window * (p - mp) ** 2).sum(), (window * (q - mq) ** 2).sum()
                c = (window * (p - mp) * (q - mq)).sum()
                c1, c2 = 6.5025, 58.5225
                values.append((2 * mp * mq + c1) * (2 * c + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    return np.mean(values)


def noisy(picture, seed, strength=40):
    noise = np.random.default_rng(seed).normal(0, strength, picture.shape)
    return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)


def smooth(picture):
    """Something with structure, in place of noise."""
    x = imresize(imresize(torch.from_numpy(picture).double(), 1 / 4), 4)
    return x[:, : picture.shape[1], : picture.shape[2]].round().clamp(0, 255).to(torch.uint8).numpy()


@pytest.mark.parametrize(("channel", "crop", "channels"), [("rgb", 0, 3), ("y", 0, 3), ("y", 1, 3), ("rgb", 1, 1)])
def test_psnr_ssim_and_l1_are_the_fields(channel, crop, channels):
    metrics = {name: cls(channel=channel, crop=crop) for name, cls in (("psnr", PSNR), ("ssim", SSIM), ("l1", L1))}
    expected = {name: [] for name in metrics}
    for k, picture in enumerate(pictures(3, channels)):
        target = smooth(picture)
        output = noisy(target, k, 5 + 2 * k)
        a, b = (cropped(y_of(p)[None] if channel == "y" else p, crop) for p in (output, target))
        one = {"psnr": psnr_of(a, b), "ssim": ssim_of(a, b), "l1": np.abs(a - b).mean() / 255}
        for name, metric in metrics.items():
            single = type(metric)(channel=channel, crop=crop)
            single.update(torch.from_numpy(output)[None], torch.from_numpy(target)[None])
            assert single.compute().item() == pytest.approx(one[name], abs={"psnr": 1e-4}.get(name, 1e-6))
            metric.update(torch.from_numpy(output)[None], torch.from_numpy(target)[None])
            expected[name].append(one[name])
    for name, metric in metrics.items():
        tolerance = 1e-4 if name == "psnr" else 1e-6
        assert metric.compute().item() == pytest.approx(np.mean(expected[name]), abs=tolerance)


def batch(n=4, channels=3, size=(17, 23), seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 256, (n, channels, *size), dtype=np.uint8)
    return tuple(torch.from_numpy(x) for x in (noisy(targets, seed), targets))


def test_floating_point_is_rounded_and_clamped_first():
    generator = torch.Generator().manual_seed(0)
    outputs, targets = (torch.rand(3, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(2))
    outputs = 1.2 * outputs
    for cls in (PSNR, SSIM, L1):
        floats, bytes_ = cls(), cls()
        floats.update(outputs, targets)
        bytes_.update(to_uint8(outputs), to_uint8(targets))
        assert torch.equal(floats.compute(), bytes_.compute())
    exact = -10 * torch.log10((outputs.clamp(-1, 1) - targets).square().mean((1, 2, 3)) / 4).mean()
    assert floats.compute() != exact


def test_a_mean_of_pictures_not_of_errors():
    outputs, targets = batch()
    targets[0] = outputs[0].clone()
    targets[0, 0, 0, 0] ^= 1  # nearly equal: its PSNR is high, its share of the error small
    metric = PSNR()
    metric.update(outputs, targets)
    pooled = 10 * torch.log10(255**2 / (outputs.double() - targets.double()).square().mean())
    assert metric.compute() > pooled + 5


def test_torchmetrics_under_its_own_conventions():
    outputs, targets = batch()
    x, t = outputs.double(), targets.double()
    metric = PSNR()
    metric.update(outputs, targets)
    value = theirs.peak_signal_noise_ratio(x, t, data_range=255.0, reduction="elementwise_mean", dim=(1, 2, 3))
    assert metric.compute().item() == pytest.approx(value.item(), abs=1e-6)
    metric = SSIM()
    metric.update(outputs, targets)
    padded = theirs.structural_similarity_index_measure(x, t, data_range=255.0, return_full_image=True)[1]
    inside = padded[..., 5:-5, 5:-5].mean()  # it reflects at the border, and the field does not
    assert metric.compute().item() == pytest.approx(inside.item(), abs=1e-6)


def test_identical_pictures():
    outputs, targets = batch()
    metric = PSNR()
    metric.update(outputs[1:], targets[1:])
    others = metric.compute()
    metric.update(targets[:1], targets[:1])
    with pytest.warns(UserWarning, match=f"1 of 4 pictures .* infinite; that of the others is {others:.2f} dB"):
        assert metric.compute() == math.inf
    assert metric.identical == 1
    metric.reset()
    metric.update(targets, targets)
    with pytest.warns(UserWarning, match="4 of 4 pictures equal their targets, so the mean PSNR is infinite$"):
        assert metric.compute() == math.inf
    for cls, value in ((SSIM, 1), (L1, 0)):
        metric = cls()
        metric.update(targets, targets)
        assert metric.compute().item() == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("cls", [PSNR, SSIM, L1])
def test_batches_copies_precision_and_collections(cls):
    outputs, targets = batch(6)
    whole, parts = cls(channel="y"), cls(channel="y")
    whole.update(outputs, targets)
    for rows in (slice(0, 1), slice(1, 4), slice(4, 6)):
        parts.update(outputs[rows], targets[rows])
    assert parts.compute().item() == pytest.approx(whole.compute().item(), rel=1e-12)
    assert torch.equal(copy.deepcopy(whole).compute(), whole.compute())
    assert torch.equal(pickle.loads(pickle.dumps(whole)).compute(), whole.compute())
    value = parts.compute()
    assert torch.equal(nn.ModuleList([parts]).to(torch.bfloat16)[0].total / 6, value)
    value = cls()(outputs, targets)
    single = cls()
    single.update(outputs, targets)
    assert torch.equal(value, single.compute())
    collection = MetricCollection({"all": cls(), "inner": cls(crop=2)})
    collection.update(targets, targets)  # equal states, but not equal metrics
    collection.update(outputs, targets)
    inner = cls(crop=2)
    inner.update(targets, targets)
    inner.update(outputs, targets)
    if cls is not PSNR:
        assert torch.equal(collection.compute()["inner"], inner.compute())
    assert collection["inner"].total == inner.total


FORK = """
import os, sys, warnings, torch, torch.distributed as dist
from lit_gans.metrics import L1, PSNR, SSIM
warnings.simplefilter("ignore")
rank = int(os.fork() == 0)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
outputs, targets = torch.load(sys.argv[2])
for last in (4, 5):
    rows = slice(0, last) if rank == 0 else slice(last, 5)
    values = []
    for cls in (PSNR, SSIM, L1):
        metric = cls(channel="y", crop=1)
        if len(outputs[rows]):
            metric.update(outputs[rows], targets[rows])
        values.append(metric.compute().item())
    os.write(1, f"{values}\\n".encode())  # in one piece
    dist.barrier()
if rank == 0:
    os.wait()
"""


def test_two_processes_agree_with_one(tmp_path):
    """Also where one of them has no pictures."""
    outputs, targets = batch(5)
    torch.save((outputs, targets), tmp_path / "pictures.pt")
    done = python("-c", FORK, tmp_path / "meeting", tmp_path / "pictures.pt", cwd=tmp_path, timeout=100)
    expected = []
    for cls in (PSNR, SSIM, L1):
        metric = cls(channel="y", crop=1)
        metric.update(outputs, targets)
        expected.append(metric.compute().item())
    found = [ast.literal_eval(line) for line in done.stdout.splitlines()]
    assert len(found) == 4, done.stderr
    assert all(values == pytest.approx(expected, rel=1e-12) for values in found)


@pytest.mark.parametrize(
    ("outputs", "targets", "told"),
    [
        (torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 15), "of one shape"),
        (torch.zeros(3, 16, 16), torch.zeros(3, 16, 16), r"\(N, C, H, W\)"),
        (torch.zeros(1, 4, 16, 16), torch.zeros(1, 4, 16, 16), "got 4 channels"),
        (torch.zeros(1, 3, 4, 16), torch.zeros(1, 3, 4, 16), "nothing left without 2 pixels"),
        (
            torch.zeros(1, 3, 16, 16),
            torch.full((1, 3, 16, 16), 255.0),
            r"targets must be in \[-1, 1\], got \[255, 255\]",
        ),
        (torch.full((1, 3, 16, 16), math.nan), torch.zeros(1, 3, 16, 16), "outputs have NaN"),
        (torch.zeros(1, 3, 16, 16).long(), torch.zeros(1, 3, 16, 16), "or uint8, got torch.int64"),
    ],
)
def test_pictures_that_cannot_be_compared(outputs, targets, told):
    for cls in (PSNR, SSIM, L1):
        with pytest.raises(ValueError, match=told):
            cls(crop=2).update(outputs, targets)


def test_bad_arguments():
    for cls in (PSNR, SSIM, L1):
        with pytest.raises(ValueError, match="rgb or y, got 'Y'"):
            cls(channel="Y")
        with pytest.raises(ValueError, match="0 or more pixels"):
            cls(crop=-1)
        with pytest.raises(ValueError, match="no pictures yet"), pytest.warns(UserWarning, match="before"):
            cls().compute()
    with pytest.raises(ValueError, match="window of 11 pixels"):
        SSIM(crop=3).update(*batch(size=(16, 20)))
    with pytest.raises(ValueError, match="one of alex, vgg, squeeze"):
        LPIPS("resnet")


@pytest.fixture
def no_backbone(monkeypatch):
    """A backbone that was never trained in the place of the downloaded one."""
    import torchvision

    def build(weights=None, network=torchvision.models.alexnet):
        torch.manual_seed(0)
        return network(weights=None)

    monkeypatch.setattr(torchvision.models, "alexnet", build)


def test_lpips_is_torchmetrics_of_the_rounded_pictures(no_backbone):
    outputs, targets = batch(3, size=(64, 64))
    metric = LPIPS(crop=2)
    metric.update(outputs[:1], targets[:1])
    metric.update(outputs[1:], targets[1:])
    x, t = ((p.float() / 127.5 - 1)[..., 2:-2, 2:-2].clamp(-1, 1) for p in (outputs, targets))
    expected = theirs.learned_perceptual_image_patch_similarity(x, t, net_type="alex")
    assert expected > 0
    assert metric.compute().item() == pytest.approx(expected.item(), rel=1e-5)
    assert not list(metric.parameters())
    grey = LPIPS()
    grey.update(outputs[:, :1], targets[:, :1])
    assert grey.compute().isfinite()


def test_lpips_without_its_backbone(monkeypatch):
    import torchvision

    def fetch(**_):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torchvision.models, "alexnet", fetch)
    with pytest.raises(
        FileNotFoundError, match=r"weights of alexnet, .*no route to host.*put https://.*alexnet.* into"
    ):
        LPIPS()
