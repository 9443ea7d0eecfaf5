"""One pass feeds all metrics; what is measured depends neither on processes nor on batches."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from evaluated import judge, run
from launching import python
from torch import nn
from toys import SIDE, Generator, build
from toys import images as floats

from lit_gans.functional import to_uint8
from lit_gans.metrics import (
    Evaluation,
    FeatureExtractor,
    FrechetDistance,
    Moments,
    Protocol,
    frechet_distance,
    real_statistics,
)
from lit_gans.metrics.drawing import model_sampler, quantise, standing_statistics
from lit_gans.metrics.evaluation import METRICS, check_metrics
from lit_gans.metrics.reals import real_images

CPU = torch.device("cpu")
OF_IMAGES = tuple(name for name in METRICS if name != "modes")


def images(n):
    """Random uint8 images."""
    return to_uint8(floats(n))


def reference(extractor, n=80):
    return real_statistics(lambda: real_images(images(n)), extractor, None, keep_features=True)


def measure(protocol, sampler, metrics=OF_IMAGES, extractor=None, **options):
    extractor = extractor or judge()
    return Evaluation(metrics, extractor, protocol, **options).measure(sampler, reference(extractor), CPU)


PROTOCOL = Protocol(fakes=150, kid_subsets=5, kid_subset_size=40, is_splits=3)


@pytest.fixture
def model():
    return build("GAN")


def of(model, protocol=PROTOCOL):
    return lambda seed: model_sampler(model, protocol, seed, None)


def test_all_metrics_in_one_pass(model):
    result = measure(PROTOCOL, of(model), resamples=4)
    assert list(result.metrics) == [
        *("fd_judge", "fd_judge_infinity", "is", "is_std", "kid", "kid_std", "mmd"),
        *("precision", "recall", "density", "coverage", "modes", "entropy", "confidence"),
    ]
    assert all(torch.tensor(value).isfinite() for value in result.metrics.values())
    for key, (low, high) in result.intervals.items():
        assert low <= result.metrics[key] <= high
    assert {"fd_judge", "is", "kid", "precision"} == result.intervals.keys()
    assert sum(result.classes["fake"]) == pytest.approx(1)
    assert sum(result.classes["real"]) == pytest.approx(1)


def test_values_are_those_of_the_samples(model):
    extractor = judge()
    fake = to_uint8(model.sample(150, seed=PROTOCOL.seed))
    expected = frechet_distance(*(Moments.of_features(extractor(v).features) for v in (images(80), fake)))
    found = measure(PROTOCOL, of(model), ["fd"]).metrics["fd_judge"]
    assert found == pytest.approx(float(expected), rel=1e-9)


def test_repeats_are_averaged_over_seeds(model):
    single = [measure(PROTOCOL.changed(seed=seed), of(model), ["fd"]).metrics["fd_judge"] for seed in (4, 5, 6)]
    result = measure(PROTOCOL.changed(seed=4, repeats=3), of(model), ["fd"]).metrics
    assert result["fd_judge"] == pytest.approx(sum(single) / 3)
    assert result["fd_judge_seeds_std"] == pytest.approx(float(torch.tensor(single, dtype=torch.float64).std()))


def test_training_goes_on_as_if_nothing_had_been_measured(model):
    before = torch.get_rng_state()
    measure(PROTOCOL, of(model))
    assert torch.equal(before, torch.get_rng_state())


def test_nan_is_refused(model):
    for parameter in model.generator.parameters():
        parameter.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match="NaN or infinite values: there is nothing to measure"):
        measure(PROTOCOL, of(model))


@pytest.mark.parametrize(
    ("changes", "metrics", "reals", "message"),
    [
        ({"fakes": 2}, ["is"], 80, "at least 3 generated images"),
        ({"fakes": 5}, ["pr"], 80, "more than 5 generated images, there are 5"),
        ({"reals": 90}, ["fd"], 80, "takes 90 real images, but the train split has 80"),
    ],
)
def test_too_few_images_are_refused_before_the_work(changes, metrics, reals, message):
    with pytest.raises(ValueError, match=message):
        Evaluation(metrics, judge(), PROTOCOL.changed(**changes)).check(reals)


@pytest.mark.parametrize(("changes", "reals", "size", "side"), [({}, 30, 30, "real"), ({"fakes": 20}, 80, 20, "gen")])
def test_subsets_are_no_larger_than_there_are_images(changes, reals, size, side):
    """Said in a warning and in the stamp; the value is that of a protocol of this size."""
    evaluation = Evaluation(["kid"], judge(), PROTOCOL.changed(**changes))
    with pytest.warns(UserWarning, match=f"subsets of {size} images, in place of 40: there are no more {side}"):
        evaluation.check(reals)
    stamp = evaluation.stamp({}, True, 1)
    assert (stamp["kid_subset_size"], stamp["name"]) == (size, "custom")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation.check(reals)


def test_as_many_samples_come_as_were_asked_for():
    with pytest.raises(ValueError, match="64 samples were asked for, 16 came"):
        measure(PROTOCOL, lambda seed: lambda block: images(16), ["fd"])


def test_one_resample_makes_no_interval():
    with pytest.raises(ValueError, match="resamples must be 0 or at least 2, got 1"):
        Evaluation(["fd"], judge(), PROTOCOL, resamples=1)


def test_metrics_by_name():
    assert check_metrics(["fid", "pr", "fd"]) == ("fd", "pr")
    with pytest.raises(ValueError, match="no metric 'prdc': there are fd, fd_infinity"):
        check_metrics(["prdc"])
    with pytest.raises(ValueError, match="no metric was asked for"):
        check_metrics([])


def test_metrics_of_classes_need_logits():
    with pytest.raises(ValueError, match="is needs class logits, and the extractor 'flat' has none"):
        Evaluation(["is"], FeatureExtractor(nn.Flatten(), "flat", image_size=4), PROTOCOL)


class TestSampling:
    def test_any_module_with_sample_is_drawn_by_number(self):
        class Foreign(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Sequential(nn.Linear(3, SIDE**2), nn.BatchNorm1d(SIDE**2))

            def sample(self, n):
                assert not self.layer.training
                return self.layer(torch.randn(n, 3)).tanh().view(n, 1, SIDE, SIDE)

        module = Foreign().train()
        before = torch.get_rng_state()
        draw = model_sampler(module, PROTOCOL, 0, None)
        third, first = draw(3), draw(0)
        assert torch.equal(draw(0), first)
        assert torch.equal(draw(3), third)
        assert not torch.equal(first, third)
        assert not torch.equal(model_sampler(module, PROTOCOL, 1, None)(0), first)
        assert torch.equal(before, torch.get_rng_state())
        assert module.layer.training

    def test_a_function_in_place_of_the_method(self):
        drawn = model_sampler(object(), PROTOCOL, 0, lambda module, n: torch.zeros(n, 1, 2, 2))(0)
        assert drawn.shape == (64, 1, 2, 2)

    def test_averaged_or_live(self, model):
        averaged = build("GAN", ema_decay=0.9)
        for parameter in averaged.g_ema.parameters():
            parameter.data.zero_()
        ema, live = (model_sampler(averaged, PROTOCOL.changed(ema=ema), 0, None)(0) for ema in (True, False))
        assert not torch.equal(ema, live)
        assert torch.equal(live, averaged.sample(64, seed=0, ema=False))

    def test_modules_that_cannot_be_drawn_from(self, model):
        with pytest.raises(TypeError, match=r"module\.sample\(n\), which Linear lacks"):
            model_sampler(nn.Linear(2, 2), PROTOCOL, 0, None)
        with pytest.raises(ValueError, match="GAN knows no truncation"):
            model_sampler(model, PROTOCOL.changed(truncation=0.5), 0, None)

    def test_standing_statistics_are_those_of_all_batches_and_are_put_back(self):
        model = build("GAN")
        model.generator = Generator(norm=True)
        norm = next(m for m in model.generator.modules() if isinstance(m, nn.BatchNorm1d))
        kept = norm.running_mean.clone(), norm.running_var.clone(), norm.num_batches_tracked.clone()
        seen = []
        handle = norm.register_forward_pre_hook(lambda _, args: seen.append(args[0].mean(0)))
        with standing_statistics(model, PROTOCOL.changed(standing=5)):
            torch.testing.assert_close(norm.running_mean, torch.stack(seen).mean(0))
            assert len(seen) == 5
            assert not norm.training or model.generator.training
        handle.remove()
        for before, after in zip(kept, (norm.running_mean, norm.running_var, norm.num_batches_tracked), strict=True):
            assert torch.equal(before, after)
        with (
            pytest.raises(ValueError, match="Linear would have to be a lit_gans model"),
            standing_statistics(nn.Linear(2, 2), PROTOCOL.changed(standing=5)),
        ):
            pass

    def test_quantising(self):
        assert quantise(torch.tensor([[-1.0, 0.0], [1.0, 1.004]])).tolist() == [[0, 128], [255, 255]]
        already = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
        assert quantise(already) is already
        with pytest.warns(UserWarning, match="50% of the generated pixels lie outside"):
            quantise(torch.tensor([-1.5, 0.5]))
        with pytest.warns(UserWarning, match=r"none negative: metrics take \[-1, 1\], not \[0, 1\]"):
            quantise(torch.tensor([0.0, 1.0]))
        with pytest.raises(ValueError, match=r"must lie in \[-1, 1\], but these are in \[0, 255\]"):
            quantise(torch.tensor([0.0, 255.0]))


@pytest.mark.slow
def test_one_process_equals_two(tmp_path, monkeypatch):
    monkeypatch.setenv("LIT_GANS_CACHE", str(tmp_path / "one"))
    one, stamp = run(tmp_path, devices=1)
    support = Path(__file__).parents[1] / "support"
    done = python(support / "evaluated.py", tmp_path, cwd=tmp_path, LIT_GANS_CACHE=str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr[-4000:]
    (first, other), (second, _) = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert len(one) == 14
    for key, value in one.items():
        assert first[key] == pytest.approx(value, rel=1e-9), key
    assert stamp | {"processes": 2} == other


def test_batches_of_every_size_give_the_same():
    """What a user feeds by hand, in batches that do not divide the number of images."""
    values = []
    for size in (1, 9, 64, 101):
        metric = FrechetDistance(judge())
        for rows in torch.arange(101).split(size):
            metric.update(images(101)[rows], real=True)
            metric.update(images(101)[rows].flip(2), real=False)
        values.append(float(metric.compute()))
    assert values == pytest.approx([values[0]] * 4, rel=1e-9)
