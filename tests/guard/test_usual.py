"""Running median and spread in log space, against numpy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_gans.guard.usual import Usual


def filled(values, **kwargs):
    usual = Usual(**kwargs)
    for value in values:
        usual.add(value)
    return usual


@given(st.lists(st.floats(1e-6, 1e9), min_size=25, max_size=300).map(lambda x: x[: len(x) // 25 * 25]))
def test_median_and_spread_are_those_of_the_logarithms(values):
    usual, logs = filled(values), np.log(values[-200:])
    center = np.median(logs)
    assert usual.value == pytest.approx(math.exp(center))
    assert usual.spread == pytest.approx(1.4826 * np.median(np.abs(logs - center)))
    assert usual.deviation(values[0]) == pytest.approx(math.log(values[0]) - center)
    assert usual.beyond_highest(1.0) == pytest.approx(-np.sort(logs)[-1 - max(1, len(logs) // 40)])


@pytest.mark.parametrize("scale", [1e-8, 1.0, 6e4])
def test_the_unit_does_not_matter(scale):
    noise = np.exp(np.random.default_rng(0).normal(0, 0.3, 200))
    usual, other = filled(noise), filled(noise * scale)
    assert other.spread == pytest.approx(usual.spread)
    assert other.deviation(50 * scale) == pytest.approx(usual.deviation(50))


def test_the_spread_of_a_normal_distribution_is_its_standard_deviation():
    usual = filled(np.exp(np.random.default_rng(0).normal(2, 0.5, 4000)), window=4000, memory=4000)
    assert usual.spread == pytest.approx(0.5, rel=0.05)
    assert usual.value == pytest.approx(math.exp(2), rel=0.05)


def test_outliers_do_not_move_it():
    values = [1.0] * 200
    values[50:90] = [1e6] * 40
    assert filled(values).value == 1.0


def test_it_is_known_after_the_warm_up_unless_all_was_zero():
    assert not filled([1.0] * 24, warmup=25).known
    assert filled([1.0] * 25, warmup=25).known
    assert not filled([0.0] * 100, warmup=25).known


@pytest.mark.parametrize("factor", [20.0, 1 / 300])
def test_a_lasting_change_is_seen_when_it_has_lasted(factor):
    usual = filled([1.0] * 300)
    for n in range(50):
        assert abs(usual.shift) < 1e-9, n
        usual.add(factor)
    assert usual.shift == pytest.approx(math.log(factor))
    assert usual.before == pytest.approx(1.0)


def test_a_short_change_is_none():
    assert filled([1.0] * 300 + [20.0] * 30 + [1.0] * 20).shift == 0


def test_it_goes_on_from_its_state():
    values = list(np.exp(np.random.default_rng(1).normal(0, 1, 330)))
    whole, first = filled(values), filled(values[:130])
    second = Usual()
    second.load(**first.state())
    for value in values[130:]:
        second.add(value)
    assert second.state() == whole.state()
    assert (second.value, second.spread, second.shift) == (whole.value, whole.spread, whole.shift)
