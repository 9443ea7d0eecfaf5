"""What becomes of pictures, measured by hand beside the package's way."""

import pytest
import torch
from pictures import SIDE, pairs

from lit_gans.functional import checkerboard, to_uint8
from lit_gans.metrics import PICTURE_PROTOCOLS, FrechetDistance, ModuleExtractor, PictureEvaluation, PictureProtocol
from lit_gans.metrics.evaluation import higher_is_better
from lit_gans.metrics.translation import load_picture_protocol

CPU = torch.device("cpu")


class Source:
    """Pairs by number."""

    def __init__(self, source, target, one_size=True):
        self.source, self.target, self.one_size = source, target, one_size

    def __len__(self):
        return len(self.source)

    def batch(self, indices):
        return self.source[indices], self.target[indices]


def extractor():
    network = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten())
    return ModuleExtractor(network, name="pools", channels=1, raw=False)


def eight_bits(x):
    return (x.clamp(-1, 1) * 127.5 + 127.5).round().double()


@pytest.mark.parametrize("one_size", [True, False])
def test_values_are_means_over_pictures_of_what_is_saved(one_size):
    source, target = pairs("Pix2Pix", 40)
    evaluation = PictureEvaluation(["psnr", "l1", "fd"], PICTURE_PROTOCOLS["pictures"], extractor())
    data = Source(source, target, one_size)
    result = evaluation.measure(lambda x, direction: -x * 0.9, data, CPU, baselines=["input", *["mean"] * one_size])
    made = eight_bits(-source * 0.9)
    errors = (made - eight_bits(target)).flatten(1)
    assert result.metrics["l1"] == pytest.approx(float(errors.abs().mean()) / 255, abs=1e-9)
    psnr = (10 * torch.log10(255**2 / errors.square().mean(1))).mean()
    assert result.metrics["psnr"] == pytest.approx(float(psnr), abs=1e-6)
    fd = FrechetDistance(extractor())
    fd.update(made.to(torch.uint8), real=False)
    fd.update(to_uint8(target), real=True)
    assert result.metrics["fd_pools"] == pytest.approx(float(fd.compute()), rel=1e-9)
    plain = (eight_bits(source) - eight_bits(target)).abs().mean() / 255
    assert result.metrics["l1_input"] == pytest.approx(float(plain), abs=1e-9)
    if one_size:
        mean = (eight_bits(target.mean(0, keepdim=True)) - eight_bits(target)).abs().mean() / 255
        assert result.metrics["l1_mean"] == pytest.approx(float(mean), abs=1e-6)


def test_the_way_there_and_back_and_both_distances():
    a, b = pairs("CycleGAN", 30)
    evaluation = PictureEvaluation([], PICTURE_PROTOCOLS["pictures"], extractor(), False, ("a2b", "b2a"))
    assert evaluation.metrics == ("fd", "cycle")
    result = evaluation.measure(
        lambda x, direction: -x if direction == "a2b" else x * 0.5, Source(a, b), CPU, baselines=["input", "mean"]
    )
    expected = (eight_bits(-a * 0.5) - eight_bits(a)).abs().mean() / 255
    assert result.metrics["cycle_a"] == pytest.approx(float(expected), abs=1e-9)
    expected = (eight_bits(-b * 0.5) - eight_bits(b)).abs().mean() / 255
    assert result.metrics["cycle_b"] == pytest.approx(float(expected), abs=1e-9)
    for key, made, wanted in (("fd_pools", -a, b), ("fd_pools_back", b * 0.5, a)):
        fd = FrechetDistance(extractor())
        fd.update(to_uint8(made), real=False)
        fd.update(to_uint8(wanted), real=True)
        assert result.metrics[key] == pytest.approx(float(fd.compute()), rel=1e-9)
    without = {"fd_pools_input", "fd_pools_mean"}  # what is no model has one direction, and no way back
    assert result.metrics.keys() == {"fd_pools", "fd_pools_back", "cycle_a", "cycle_b"} | without


def test_the_border_that_is_left_out_is_the_scale():
    source, target = pairs("SRGAN", 6)
    enlarged = torch.nn.functional.interpolate(source, (SIDE, SIDE))
    spoilt = enlarged.clone()
    spoilt[..., :2, :] = 1.0
    values = []
    for picture in (enlarged, spoilt):
        pictures = iter([picture])
        evaluation = PictureEvaluation(["psnr"], PICTURE_PROTOCOLS["sr_rgb"])
        result = evaluation.measure(lambda x, direction, p=pictures: next(p), Source(source, target), CPU)
        values.append(result.metrics["psnr"])
    assert values[0] == values[1]


def test_only_so_many_pictures_as_the_protocol_says_and_all_of_it_in_the_stamp():
    source, target = pairs("Pix2Pix", 20)
    seen = []
    evaluation = PictureEvaluation(["l1"], PictureProtocol(pictures=7, seed=3))
    evaluation.measure(lambda x, direction: seen.append(len(x)) or x, Source(source, target), CPU)
    assert sum(seen) == 7
    stamp = evaluation.stamp({"dataset": "toys"}, True, 20)
    assert (stamp["data"], stamp["seed"], stamp["channel"]) == ({"dataset": "toys", "count": 7}, 3, "rgb")


def test_a_process_without_pictures_of_its_own_computes_with_the_others(monkeypatch):
    monkeypatch.setattr("lit_gans.metrics.translation.rank_and_world", lambda: (1, 2))
    with pytest.raises(ValueError, match="PSNR has no pictures yet"):  # alone; else the others would wait for ever
        PictureEvaluation(["psnr"], PictureProtocol()).measure(lambda x, _: x, Source(*pairs("Pix2Pix", 4)), CPU)


def test_what_is_not_finite_is_not_measured():
    source, target = pairs("Pix2Pix", 3)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        PictureEvaluation(["l1"], PictureProtocol()).measure(lambda x, _: x * torch.nan, Source(source, target), CPU)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["psnr"], PictureProtocol(), None, False), "psnr compares a picture with its target, and there are no pairs"),
        ((["cycle"], PictureProtocol()), "cycle is measured of models with two directions"),
        ((["is"], PictureProtocol()), "there is no metric 'is' of pictures"),
        ((["fd"], PictureProtocol()), "fd needs an extractor"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PictureEvaluation(*arguments)


def test_protocols_by_name_and_directions():
    assert load_picture_protocol("sr_y").crop is None
    with pytest.raises(ValueError, match="sr_y"):
        load_picture_protocol("sry")
    assert PICTURE_PROTOCOLS["sr_y"].changed(seed=1).name == "custom"
    assert [higher_is_better(f"val/{name}") for name in ("psnr", "ssim", "l1", "cycle_a")] == [True, True, False, False]


def test_patterns_of_every_second_pixel_are_seen():
    rng = torch.Generator().manual_seed(0)
    noise = torch.rand(40, 1, 32, 32, generator=rng) * 2 - 1
    assert float(checkerboard(noise).mean()) == pytest.approx(1.0, abs=0.35)  # white noise: all frequencies alike
    stripes = torch.tensor([1.0, -1.0]).repeat(16)
    for pattern in (stripes.view(1, 1, 1, -1), stripes.view(1, 1, -1, 1)):
        assert float(checkerboard(noise + 0.5 * pattern).min()) > 3
    values = PictureEvaluation(["checkerboard"], PictureProtocol(), None, paired=False)
    result = values.measure(lambda x, _: x, Source(noise, noise), CPU)
    assert result.metrics["checkerboard"] == pytest.approx(float(checkerboard(noise).mean()), rel=1e-5)


def test_a_transposed_convolution_of_stride_2_and_width_3_leaves_them():
    torch.manual_seed(0)
    smooth = torch.nn.functional.interpolate(torch.rand(8, 1, 8, 8), (24, 24), mode="bilinear")
    uneven = torch.nn.ConvTranspose2d(1, 1, 3, 2)
    torch.nn.init.constant_(uneven.weight, 0.2)
    even = torch.nn.functional.interpolate(smooth, scale_factor=2, mode="bilinear")
    with torch.no_grad():
        assert float(checkerboard(uneven(smooth)).mean()) > 20 * float(checkerboard(even).mean())
