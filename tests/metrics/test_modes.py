"""Modes are counted as in closed form: all on one, all alike, none; over processes, in training, by the command."""

import math

import pytest
import torch
from launching import python

from lit_gans.data.points import draw_points, mixture
from lit_gans.metrics import Evaluation, FeatureExtractor, ModeCoverage, PointModes, Protocol, StackedDigits, reverse_kl
from lit_gans.metrics.evaluation import check_metrics
from lit_gans.metrics.modes import modes_of, nearest_modes
from lit_gans.metrics.reference import BLOCK

CPU = torch.device("cpu")
CENTERS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize("count", [2, 25, 1000])
def test_reverse_kl_in_closed_form(count):
    one = torch.zeros(count)
    one[count // 2] = 17
    assert float(reverse_kl(one)) == pytest.approx(math.log(count), rel=1e-12)
    assert float(reverse_kl(torch.full((count,), 3))) == pytest.approx(0, abs=1e-12)
    half = torch.cat([torch.ones(count // 2), torch.zeros(count - count // 2)])
    assert float(reverse_kl(half)) == pytest.approx(math.log(count / (count // 2)), rel=1e-12)
    assert reverse_kl(torch.zeros(count)).isnan()


def test_reverse_kl_is_that_of_its_definition():
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.full((3,), 1 / 3, dtype=torch.float64)
    assert float(reverse_kl(torch.tensor([50, 30, 20]))) == pytest.approx(float((p * (p / q).log()).sum()))
    assert reverse_kl(torch.tensor([50, 30, 20])) == reverse_kl(torch.tensor([5, 3, 2]))


def test_a_mode_reaches_three_standard_deviations():
    beyond = torch.tensor([[0.299, 0.0], [0.301, 0.0], [1.0, -0.299], [0.5, 0.5]])
    assert PointModes(CENTERS, 0.1)(beyond).tolist() == [0, -1, 1, -1]
    assert PointModes(CENTERS, 0.1, within=2.0)(beyond).tolist() == [-1, -1, -1, -1]
    assert nearest_modes(beyond, CENTERS, 1.0).tolist()[:3] == [0, 0, 1]


def test_coverage_of_known_samples():
    coverage = ModeCoverage(PointModes(CENTERS, 0.1))
    coverage.update(torch.cat([CENTERS[:1].repeat(6, 1), CENTERS[1:2].repeat(2, 1)]))
    coverage.update(torch.tensor([[0.5, 0.5], [9.0, 9.0]]))
    found = coverage.compute()
    assert (float(found.modes), float(found.high_quality)) == (2, 0.8)
    assert found.counts.tolist() == [6, 2, 0, 0]
    assert float(found.reverse_kl) == pytest.approx(math.log(4) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25))


def test_far_samples_cover_nothing():
    coverage = ModeCoverage(PointModes(CENTERS, 0.1))
    with pytest.raises(ValueError, match="no samples to count"):
        coverage.compute()
    coverage.update(torch.full((5, 2), 30.0))
    found = coverage.compute()
    assert (float(found.modes), float(found.high_quality)) == (0, 0)
    assert found.reverse_kl.isnan()


@pytest.mark.parametrize("name", ["ring", "grid", "spiral"])
def test_the_data_themselves_cover_all(name):
    coverage = ModeCoverage(PointModes(*mixture(name)))
    coverage.update(draw_points(name, train=False)[0])
    found = coverage.compute()
    assert found.modes == len(mixture(name).centers)
    assert float(found.high_quality) == pytest.approx(1 - math.exp(-4.5), abs=0.005)
    assert float(found.reverse_kl) == pytest.approx(0, abs=1e-3)


def test_batches_do_not_matter_and_states_are_integers():
    points = draw_points("grid", train=False)[0][:3000]
    whole, parts = (ModeCoverage(PointModes(*mixture("grid"))) for _ in range(2))
    whole.update(points)
    for part in points.split(700):
        parts.half().update(part)
    assert torch.equal(whole.compute().counts, parts.compute().counts)
    assert parts.counts.dtype == torch.int64


class Reader(torch.nn.Module):
    """Reads the brightness of an image as its digit."""

    def forward(self, x):
        level = ((x.mean((1, 2, 3)) + 1) * 127.5 / 25).round()
        return x.flatten(1)[:, :4], -(level[:, None] - torch.arange(10)).abs()


def reader():
    return FeatureExtractor(Reader(), "reader", image_size=28, channels=1)


def test_channels_are_read_as_the_digits_of_a_number():
    numbers = torch.tensor([[0, 0, 7], [1, 2, 3], [9, 9, 9]])
    images = (25 * numbers)[..., None, None].expand(3, 3, 28, 28).to(torch.uint8)
    modes = StackedDigits(reader())
    assert modes(images).tolist() == [7, 123, 999]
    coverage = ModeCoverage(modes)
    coverage.update(images)
    found = coverage.compute()
    assert (float(found.modes), float(found.high_quality)) == (3, 1)
    assert float(found.reverse_kl) == pytest.approx(math.log(1000 / 3))
    with pytest.raises(ValueError, match=r"images \(N, 3, H, W\), got shape \(2, 1, 28, 28\)"):
        modes(torch.zeros(2, 1, 28, 28, dtype=torch.uint8))


def test_the_classifier_has_ten_classes():
    with pytest.raises(ValueError, match="ten classes, and 'inputs' has None"):
        StackedDigits(FeatureExtractor(torch.nn.Flatten(), "inputs", image_size=2, channels=1))


def measure(modes, samples, **options):
    evaluation = Evaluation(["modes"], None, Protocol(fakes=len(samples), **options), modes=modes)
    blocks = samples.repeat(2, *[1] * (samples.ndim - 1)).split(BLOCK)  # the last one is full, as models draw them
    return evaluation, evaluation.measure(lambda seed: blocks.__getitem__, None, CPU)


def test_an_evaluation_counts_exactly_the_samples_asked_for():
    points = 5 + draw_points("grid", train=False)[0][:200]  # far beyond [-1, 1]: they are not clamped
    evaluation, result = measure(PointModes(mixture("grid").centers + 5, 0.05), points)
    assert list(result.metrics) == ["modes", "high_quality", "reverse_kl"]
    assert result.metrics["modes"] == 25
    assert result.metrics["high_quality"] > 0.95
    stamp = evaluation.stamp({"dataset": "grid"}, True, 1)
    assert (stamp["modes"]["std"], stamp["extractor"]) == (0.05, {})


def test_stacked_digits_have_no_quality():
    images = torch.full((70, 3, 28, 28), -1.0)
    result = measure(StackedDigits(reader()), images)[1]
    assert result.metrics == pytest.approx({"modes": 1, "reverse_kl": math.log(1000)})


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="on ring, grid, spiral and stacked_mnist: leave modes out"):
        Evaluation(["modes"], None, Protocol())
    with pytest.raises(ValueError, match="fd, kid look at images, and the data are points: ask for modes alone"):
        Evaluation(["modes", "fd", "kid"], None, Protocol(), modes=PointModes(CENTERS, 0.1))
    with pytest.raises(ValueError, match="fd need an extractor"):
        Evaluation(["fd"], None, Protocol())
    with pytest.raises(ValueError, match="classes and modes both measure what is called modes"):
        check_metrics(["classes", "modes"])


def test_the_data_say_what_their_modes_are():
    class Data:
        mixture, dataset = mixture("ring"), "ring"

    class Stacked:
        dataset = "stacked_mnist"

    assert modes_of(Data()).count == 8
    assert isinstance(modes_of(Stacked()), StackedDigits)
    assert modes_of(object()) is None


FORK = """
import os, sys, torch, torch.distributed as dist
from lit_gans.metrics import ModeCoverage, PointModes
rank = int(os.fork() == 0)
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=rank, world_size=2)
coverage = ModeCoverage(PointModes(torch.eye(2), 0.1))
coverage.update(torch.eye(2)[:1].repeat(3, 1) if rank == 0 else torch.cat([torch.eye(2), torch.zeros(5, 2)]))
found = coverage.compute()
os.write(1, f"{found.counts.tolist()} {float(found.high_quality)}\\n".encode())  # in one piece
dist.barrier()
if rank == 0:
    os.wait()
"""


def test_two_processes_add_up_exactly(tmp_path):
    done = python("-c", FORK, tmp_path / "meeting", cwd=tmp_path, timeout=100)
    assert done.stdout.splitlines() == ["[4.0, 1.0] 0.5"] * 2, done.stderr
