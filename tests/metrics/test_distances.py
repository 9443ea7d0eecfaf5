"""Each metric against a closed form, a naive computation, and torch-fidelity given the same features."""

import itertools
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics import MetricCollection

from lit_gans.metrics import (
    ClassStatistics,
    FeatureExtractor,
    Features,
    FrechetDistance,
    InceptionScore,
    KernelDistance,
    Manifold,
    Moments,
    PrecisionRecall,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
)
from lit_gans.metrics.kernel import unbiased_mmd


def gaussian(n, width, seed, mean=0.0, scale=1.0):
    return mean + scale * torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def features_like_inceptions(n, seed, width=2048):
    """Non-negative, correlated, of falling spectrum, as those after a ReLU."""
    basis = gaussian(64, width, 99) / 8
    return torch.relu(gaussian(n, 64, seed) @ basis + 0.1 * gaussian(n, width, seed + 50))


class Pair(nn.Module):
    """Pixels as features, and their first ten as logits."""

    def forward(self, x):
        return x.flatten(1), x.flatten(1)[:, :10]


def pixels(**options):
    return FeatureExtractor(Pair(), "pixels", image_size=4, channels=1, **options)


def any_features():
    """For features given as such, of any width."""
    return FeatureExtractor(nn.Flatten(), "any")


def pictures(n, seed):
    return torch.randint(0, 256, (n, 1, 4, 4), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def feed(metric, real, fake, size=7):
    for images, is_real in ((real, True), (fake, False)):
        for part in images.split(size):
            metric.update(part, real=is_real)
    return metric.compute()


class TestFrechet:
    @pytest.mark.parametrize("n", [5, 100])  # of fewer samples than dimensions, and of more
    def test_moments_are_numpys(self, n):
        x = gaussian(n, 12, 0, mean=3)
        moments = Moments.of_features(x)
        np.testing.assert_allclose(moments.mean, x.double().numpy().mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.covariance, np.cov(x.double().numpy(), rowvar=False), rtol=1e-9, atol=1e-12)

    def test_gaussians_that_share_their_axes(self):
        a, b = (torch.tensor(v, dtype=torch.float64) for v in ([4.0, 1.0, 0.0], [1.0, 9.0, 4.0]))
        one = Moments(9, torch.zeros(3, dtype=torch.float64), a.diag())
        two = Moments(9, torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64), b.diag())
        expected = 9 + float((a.sqrt() - b.sqrt()).square().sum())
        assert float(frechet_distance(one, two)) == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize("n", [40, 400])
    def test_matrix_square_root(self, n):
        x, y = gaussian(n, 60, 1).numpy() @ gaussian(60, 60, 2).numpy(), gaussian(400, 60, 3).numpy() * 2 + 1
        s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
        root = scipy.linalg.sqrtm(s @ t).real
        expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * root)
        ours = frechet_distance(*(Moments.of_features(torch.from_numpy(v)) for v in (x, y)))
        assert float(ours) == pytest.approx(expected, rel=1e-5 if n < 60 else 1e-9)  # sqrtm of a singular matrix

    def test_weights_count_repeats(self):
        x, weights = gaussian(6, 3, 0), torch.tensor([2, 0, 1, 3, 0, 1])
        weighted, repeated = Moments.of_features(x, weights), Moments.of_features(x.repeat_interleave(weights, 0))
        assert weighted.n == repeated.n == 7
        torch.testing.assert_close(weighted.mean, repeated.mean)
        torch.testing.assert_close(weighted.covariance, repeated.covariance)

    @pytest.mark.parametrize("n", [20, 50, 200])  # by a sketch, by eigenvectors, by Cholesky
    def test_the_factor_is_one(self, n):
        moments = Moments.of_features(gaussian(n, 64, 0) @ gaussian(64, 64, 1))
        factor, size = moments.factor, moments.covariance.abs().max()
        assert factor.shape == (64, min(n - 1, 64))
        torch.testing.assert_close(factor @ factor.T, moments.covariance, rtol=0, atol=float(size) * 1e-12)

    def test_zero_for_equal_sets_and_symmetric(self):
        one, two = Moments.of_features(gaussian(50, 80, 0)), Moments.of_features(gaussian(300, 80, 1, 0.3, 2))
        assert 0 <= float(frechet_distance(one, one)) < 1e-9 * float(one.covariance.trace())
        assert float(frechet_distance(one, two)) == pytest.approx(float(frechet_distance(two, one)), rel=1e-9)

    def test_features_that_never_change_do_no_harm(self):
        x, y = gaussian(200, 10, 0), gaussian(200, 10, 1)
        x[:, 3], y[:, 3] = 2.0, 2.5
        without = [Moments.of_features(v[:, torch.arange(10) != 3]) for v in (x, y)]
        ours = float(frechet_distance(Moments.of_features(x), Moments.of_features(y)))
        assert ours == pytest.approx(float(frechet_distance(*without)) + 0.25, rel=1e-6)

    @pytest.mark.parametrize("width", [512, pytest.param(2048, marks=[pytest.mark.exhaustive, pytest.mark.slow])])
    def test_torch_fidelity_on_the_same_features(self, width):
        """By default on fewer than Inception's 2048, for whose root torch-fidelity takes twenty seconds."""
        x, y = (features_like_inceptions(500, seed, width) for seed in (1, 2))
        y = 1.05 * y + 0.02
        theirs = fid_statistics_to_metric(*(fid_features_to_statistics(v.double()) for v in (x, y)), verbose=False)
        ours = float(frechet_distance(Moments.of_features(y), Moments.of_features(x)))
        assert ours == pytest.approx(theirs["frechet_inception_distance"], rel=1e-6)

    def test_fewer_samples_than_dimensions(self):
        """The exact value, in the space of the samples; torch-fidelity takes roots of what is rounding alone."""
        x, y = features_like_inceptions(100, 1, 300).double(), 1.1 * features_like_inceptions(120, 2, 300).double()
        a, b = ((v - v.mean(0)) / (len(v) - 1) ** 0.5 for v in (x, y))
        root = torch.linalg.svdvals(a @ b.T).sum()
        exact = (x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * root
        ours = frechet_distance(Moments.of_features(x), Moments.of_features(y))
        assert float(ours) == pytest.approx(float(exact), rel=1e-10)

    def test_the_metric_is_the_distance_of_its_features(self):
        real, fake = pictures(60, 0), pictures(50, 1)
        extractor = pixels()
        expected = frechet_distance(*(Moments.of_features(extractor(v).features) for v in (real, fake)))
        assert float(feed(FrechetDistance(extractor), real, fake)) == pytest.approx(float(expected), rel=1e-12)

    def test_a_reference_stands_for_the_real_images(self):
        real, fake = pictures(60, 0), pictures(50, 1)
        extractor = pixels()
        metric = FrechetDistance(extractor, reference=Moments.of_features(extractor(real).features))
        metric.update(fake, real=False)
        assert float(metric.compute()) == pytest.approx(float(feed(FrechetDistance(extractor), real, fake)), rel=1e-12)
        with pytest.raises(ValueError, match="give it fakes alone"):
            metric.update(real, real=True)

    def test_infinity_takes_the_bias_of_few_samples_away(self):
        width, n = 40, 3000
        true = Moments(10**9, torch.zeros(width, dtype=torch.float64), torch.eye(width, dtype=torch.float64))
        metric = FrechetDistance(any_features(), true, keep_features=True)
        metric.update(Features(gaussian(n, width, 1)), real=False)
        biased, free = float(metric.compute()), float(metric.infinity(least=500))
        leading = width / n + width * (width + 1) / (4 * n)  # of the mean, and of the covariance, for unit Gaussians
        assert biased == pytest.approx(leading, rel=0.1)
        assert abs(free) < 0.1 * biased

    def test_the_interval_is_as_wide_as_new_samples_scatter(self):
        reference, values, halves = Moments.of_features(gaussian(5000, 4, 0)), [], []
        for seed in range(1, 31):
            metric = FrechetDistance(any_features(), reference, keep_features=True)
            metric.update(Features(gaussian(200, 4, seed, mean=0.5)), real=False)
            values.append(float(metric.compute()))
            low, high = (float(v) for v in metric.interval(resamples=30))
            halves.append((high - low) / 2)
            assert low < values[-1] < high
        assert np.mean(halves) == pytest.approx(1.96 * np.std(values), rel=0.3)

    def test_interval_and_infinity_need_the_features(self):
        metric = FrechetDistance(pixels())
        metric.update(pictures(5, 0), real=True)
        metric.update(pictures(5, 0), real=False)
        for method in (metric.interval, metric.infinity):
            with pytest.raises(ValueError, match="keep_features=True"):
                method()

    @pytest.mark.parametrize("side", ["real", "fake"])
    def test_fewer_than_two_images_are_refused(self, side):
        metric = FrechetDistance(pixels())
        metric.update(pictures(5, 0), real=side == "fake")
        metric.update(pictures(1, 0), real=side == "real")
        with pytest.raises(ValueError, match=rf"needs at least 2 {side} images .* got 1"):
            metric.compute()

    def test_fewer_images_than_features_are_warned_about(self):
        with pytest.warns(UserWarning, match=r"10 images of 16 features: .* far too high, .* take more images"):
            feed(FrechetDistance(pixels()), pictures(100, 0), pictures(10, 0))


class TestInceptionScore:
    def test_clear_images_of_all_classes_score_their_number(self):
        assert float(inception_score(1e4 * torch.eye(7).repeat(40, 1), splits=1).mean) == pytest.approx(7)

    def test_images_alike_score_one(self):
        assert float(inception_score(torch.ones(30, 7), splits=3).mean) == pytest.approx(1)
        assert float(inception_score(1e4 * torch.eye(7)[:1].repeat(30, 1), splits=3).mean) == pytest.approx(1)

    @pytest.mark.parametrize("n", [500, 503])
    def test_torch_fidelity(self, n):
        logits = 3 * gaussian(n, 1008, 0)
        theirs, ours = isc_features_to_metric(logits), inception_score(logits)
        assert float(ours.mean) == pytest.approx(theirs["inception_score_mean"], rel=1e-9)
        assert float(ours.std) == pytest.approx(theirs["inception_score_std"], rel=1e-9)

    def test_images_sorted_by_class_score_as_if_mixed(self):
        logits = 100 * torch.eye(5).repeat_interleave(200, 0)
        assert float(inception_score(logits).mean) > 4.9
        assert float(inception_score(logits, splits=5, shuffle=False).mean) == pytest.approx(1)

    def test_real_images_are_passed_over(self):
        fake, extractor = pictures(40, 1), pixels()
        expected = inception_score(extractor(fake).logits, 4)
        assert feed(InceptionScore(extractor, splits=4), pictures(40, 0), fake) == expected

    def test_fewer_images_than_splits_are_refused(self):
        with pytest.raises(ValueError, match="at least 10 fake images for 10 splits, got 9"):
            feed(InceptionScore(pixels()), pictures(9, 0), pictures(9, 0))


class TestKernel:
    def test_closed_form(self):
        x, y = torch.zeros(3, 4), torch.full((5, 4), 2.0)
        assert float(unbiased_mmd(x, y)) == pytest.approx(1 + 5**3 - 2)  # k(0,0)=1, k(y,y)=(16/4+1)^3, k(0,y)=1

    def test_naive_double_sum(self):
        x, y = gaussian(6, 3, 0), gaussian(5, 3, 1)

        def k(a, b):
            return (float(a @ b) / 3 + 1) ** 3

        within = [np.mean([k(a, b) for a, b in itertools.permutations(v, 2)]) for v in (x, y)]
        across = np.mean([k(a, b) for a in x for b in y])
        assert float(unbiased_mmd(x, y)) == pytest.approx(sum(within) - 2 * across, rel=1e-6)

    def test_two_halves_of_one_set_are_as_near_as_chance_has_it(self):
        values = [float(unbiased_mmd(gaussian(100, 8, s), gaussian(100, 8, s + 500))) for s in range(200)]
        assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(len(values))  # unbiased: below zero as often

    def test_torch_fidelity(self):
        x, y = features_like_inceptions(500, 1), 1.05 * features_like_inceptions(500, 2)
        theirs = kid_features_to_metric(x.double(), y.double(), kid_subset_size=100, kid_subsets=20, verbose=False)
        ours = kernel_distance(x, y, subsets=20, subset_size=100)
        assert float(ours.mean) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)
        assert float(ours.std) == pytest.approx(theirs["kernel_inception_distance_std"], rel=1e-6)

    def test_all_images_at_once(self):
        real, fake, extractor = pictures(30, 0), pictures(20, 1), pixels()
        value = feed(KernelDistance(extractor, subsets=None), real, fake)
        assert value.mean == unbiased_mmd(extractor(fake).features, extractor(real).features)

    def test_the_metric_is_the_distance_of_its_features(self):
        real, fake, extractor = pictures(30, 0), pictures(20, 1), pixels()
        value = feed(KernelDistance(extractor, 5, 10), real, fake)
        assert value == kernel_distance(extractor(fake).features, extractor(real).features, 5, 10)

    def test_subsets_larger_than_the_set_are_refused(self):
        with pytest.raises(ValueError, match=r"subsets of 1000 images, but there are only 20 fake .* at most 20"):
            feed(KernelDistance(pixels()), pictures(30, 0), pictures(20, 1))


class TestPrecisionRecall:
    @staticmethod
    def brute_force(real, fake, k, k_density):
        """The papers' definitions, pair by pair."""

        def radius(points, k):
            return [sorted(float((p - q).norm()) for q in points)[k] for p in points]

        def inside(x, centre, r):
            return float((x - centre).norm()) <= r

        near, far, dense = radius(real, k), radius(fake, k), radius(real, k_density)
        counts = [[inside(f, p, r) for p, r in zip(real, dense, strict=True)] for f in fake]
        return (
            np.mean([any(inside(f, p, r) for p, r in zip(real, near, strict=True)) for f in fake]),
            np.mean([any(inside(p, f, r) for f, r in zip(fake, far, strict=True)) for p in real]),
            np.sum(counts) / (k_density * len(fake)),
            np.mean(np.any(counts, axis=0)),
        )

    @pytest.mark.parametrize(("k", "k_density"), [(3, 5), (1, 2), (12, 3)])
    def test_brute_force(self, k, k_density):
        real, fake = gaussian(40, 3, 0), gaussian(30, 3, 1, mean=0.7, scale=0.6)
        ours = precision_recall(Manifold(real), Manifold(fake), k, k_density)
        assert [float(v) for v in ours] == pytest.approx(self.brute_force(real, fake, k, k_density))

    def test_blocks_change_nothing(self, monkeypatch):
        real, fake = gaussian(100, 5, 0), gaussian(90, 5, 1, mean=0.5)
        whole = precision_recall(Manifold(real), Manifold(fake))
        monkeypatch.setattr("lit_gans.metrics.prdc._ROWS", 17)
        monkeypatch.setattr("lit_gans.metrics.prdc._COLUMNS", 23)
        assert precision_recall(Manifold(real), Manifold(fake)) == whole

    def test_torch_fidelity(self):
        fake, real = features_like_inceptions(500, 1), 1.02 * features_like_inceptions(500, 2)
        theirs = prc_features_to_metric(
            fake.double(), real.double(), prc_neighborhood=3, prc_batch_size=1000, save_cpu_ram=False, verbose=False
        )
        ours = precision_recall(Manifold(real), Manifold(fake))
        assert 0 < theirs["precision"] < 1
        assert float(ours.precision) == pytest.approx(theirs["precision"], rel=1e-6)
        assert float(ours.recall) == pytest.approx(theirs["recall"], rel=1e-6)

    def test_equal_and_far_sets(self):
        points = gaussian(30, 4, 0)
        assert [float(v) for v in precision_recall(Manifold(points), Manifold(points))[:2]] == [1, 1]
        far = precision_recall(Manifold(points), Manifold(points + 1000))
        assert [float(v) for v in far] == [0, 0, 0, 0]

    def test_a_collapsed_generator_is_precise_and_recalls_little(self):
        real = gaussian(200, 4, 0)
        values = precision_recall(Manifold(real), Manifold(real[:1] + 1e-3 * gaussian(100, 4, 1)))
        assert float(values.precision) == 1
        assert float(values.recall) <= 0.01
        assert float(values.coverage) < 0.1

    def test_the_metric(self):
        real, fake, extractor = pictures(30, 0), pictures(20, 1), pixels()
        expected = precision_recall(Manifold(extractor(real).features), Manifold(extractor(fake).features))
        assert feed(PrecisionRecall(extractor), real, fake) == expected

    def test_fewer_images_than_neighbours_are_refused(self):
        with pytest.raises(ValueError, match="at least 6 fake images for the 5th nearest neighbour of each, got 5"):
            feed(PrecisionRecall(pixels()), pictures(30, 0), pictures(5, 1))


class TestClasses:
    @staticmethod
    def statistics(real, fake):
        metric = ClassStatistics(pixels())
        for labels, is_real in ((real, True), (fake, False)):
            logits = 100 * nn.functional.one_hot(torch.tensor(labels), 10).float()
            metric.update(Features(torch.zeros(len(labels), 16), logits), real=is_real)
        return metric.compute()

    def test_shares_entropy_modes(self):
        found = self.statistics(list(range(10)) * 10, [0] * 50 + [1] * 50)
        assert found.shares.tolist() == [0.5, 0.5] + [0] * 8
        assert found.real_shares.tolist() == pytest.approx([0.1] * 10)
        assert float(found.entropy) == pytest.approx(math.log(2))
        assert float(found.modes) == 2
        assert float(found.confidence) == pytest.approx(1)

    def test_a_class_hardly_ever_drawn_is_no_mode(self):
        found = self.statistics([0] * 50 + [1] * 50, [0] * 960 + [1] * 40)
        assert float(found.modes) == 1

    def test_confidence_is_the_mean_of_the_highest_probability(self):
        metric = ClassStatistics(pixels())
        logits = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])
        for is_real in (True, False):
            metric.update(Features(torch.zeros(2, 16), logits), real=is_real)
        assert float(metric.compute().confidence) == pytest.approx((0.75 + 0.5) / 2)


@pytest.mark.parametrize("make", [InceptionScore, ClassStatistics])
def test_an_extractor_without_logits_is_refused(make):
    metric = make(FeatureExtractor(nn.Flatten(), "flat", image_size=4, channels=1))
    with pytest.raises(ValueError, match="needs class logits, and the extractor 'flat' has none"):
        metric.update(pictures(4, 0), real=False)


METRICS = [FrechetDistance, InceptionScore, lambda e: KernelDistance(e, 5, 10), PrecisionRecall, ClassStatistics]


@pytest.mark.parametrize("make", METRICS)
class TestAllMetrics:
    def test_batches_and_order_do_not_matter(self, make):
        real, fake = pictures(45, 0), pictures(37, 1)
        whole = feed(make(pixels(chunk=8)), real, fake, size=64)
        torch.testing.assert_close(feed(make(pixels(chunk=8)), real, fake, size=1), whole, rtol=1e-12, atol=1e-12)
        shuffled, order = make(pixels(chunk=8)), torch.randperm(37, generator=torch.Generator().manual_seed(0))
        shuffled.update(real, real=True)
        for part in order.split(10):
            shuffled.update(fake[part], real=False, index=part)
        torch.testing.assert_close(shuffled.compute(), whole, rtol=1e-12, atol=1e-12)

    def test_reset_forgets(self, make):
        metric = make(pixels())
        feed(metric, pictures(40, 5), pictures(40, 6))
        metric.reset()
        torch.testing.assert_close(
            feed(metric, pictures(45, 0), pictures(37, 1)), feed(make(pixels()), pictures(45, 0), pictures(37, 1))
        )

    def test_no_global_random_number_is_taken(self, make):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        feed(make(pixels()), pictures(45, 0), pictures(37, 1))
        assert torch.equal(before[0], torch.get_rng_state())
        assert (before[1] == np.random.get_state()[1]).all()

    def test_a_module_that_holds_it_has_no_weights_of_the_extractor_and_keeps_its_precision(self, make):
        class Conv(nn.Sequential):
            def forward(self, x):
                features = super().forward(x)
                return features, features

        extractor = FeatureExtractor(Conv(nn.Conv2d(1, 12, 4), nn.Flatten()), "conv", image_size=4, channels=1)
        holder = nn.Module()
        holder.metric = make(extractor)
        assert not holder.state_dict()
        assert not list(holder.parameters())
        expected = feed(make(extractor), pictures(45, 0), pictures(37, 1))
        holder.to(torch.bfloat16).train()
        assert not extractor.network.training
        with torch.autocast("cpu", torch.bfloat16):
            value = feed(holder.metric, pictures(45, 0), pictures(37, 1))
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("real_first", [True, False])
def test_a_collection_keeps_metrics_of_different_extractors_apart(real_first):
    make = {"one": InceptionScore(pixels(), 2), "other": InceptionScore(pixels(mean=0.2), 2)}
    collection, sides = MetricCollection(make), [(pictures(40, 0), True), (pictures(40, 1), False)]
    for images, is_real in sides if real_first else sides[::-1]:
        collection.update(images, real=is_real)
    alone = [feed(InceptionScore(extractor, 2), *(v for v, _ in sides)) for extractor in (pixels(), pixels(mean=0.2))]
    found = collection.compute()
    assert [found["one"], found["other"]] == alone
    assert alone[0] != alone[1]
