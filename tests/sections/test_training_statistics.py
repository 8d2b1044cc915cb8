"""Noise, medians and smoothing against plain definitions of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.sections.training.statistics import (
    MOST_CENTERS,
    mad_sigma,
    median,
    midmean,
    noise,
    running_median,
    smooth,
    standard_error,
    trailing_medians,
    window_length,
)

NUMBERS = st.floats(min_value=-1e6, max_value=1e6)
CURVES = st.lists(NUMBERS, min_size=1, max_size=300).map(np.array)


def smooth_by_definition(values: Sequence[float], half_life: float) -> list[float]:
    """One value after another: the weighted mean of all values so far."""
    decay, total, weight, means = 0.5 ** (1 / half_life), 0.0, 0.0, []
    for value in values:
        if math.isfinite(value):
            total, weight = decay * total + value, decay * weight + 1
        means.append(total / weight if weight else math.nan)
    return means


@pytest.mark.parametrize("half_life", [0.05, 0.5, 1, 7, 100, 1e4, 1e7])
@pytest.mark.parametrize("count", [1, 2, 39, 40, 5_000])
def test_smoothing_is_the_debiased_exponential_mean(half_life: float, count: int) -> None:
    values = np.random.default_rng(count).standard_normal(count) + 100
    expected = smooth_by_definition(values.tolist(), half_life)
    np.testing.assert_allclose(smooth(values, half_life), expected, rtol=1e-11)


@given(
    values=st.lists(NUMBERS | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=100),
    half_life=st.floats(0.1, 1e3),
)
def test_smoothing_leaves_out_what_is_not_finite(values: list[float], half_life: float) -> None:
    smoothed = smooth(np.array(values, dtype=np.float64), half_life)
    expected = smooth_by_definition(values, half_life)
    np.testing.assert_allclose(smoothed, expected, rtol=1e-9, atol=1e-6)


def test_the_first_smoothed_value_is_the_first_value() -> None:
    assert smooth(np.array([5.0, 1.0]), 100)[0] == 5.0
    assert smooth(np.full(1_000, 3.0), 20) == pytest.approx(3.0, rel=1e-12)


def test_the_largest_values_are_smoothed_without_overflow() -> None:
    values = np.array([1.7e308, -1.7e308, 1.7e308])
    assert np.isfinite(smooth(values, 5)).all()


def test_without_half_life_nothing_is_smoothed() -> None:
    values = np.array([1.0, math.nan, 3.0])
    np.testing.assert_array_equal(smooth(values, 0), values)


@pytest.mark.parametrize("sigma", [1e-6, 0.3, 50.0])
@pytest.mark.parametrize("count", [150, 3_000])
def test_noise_is_that_of_the_curve_without_its_slope(sigma: float, count: int) -> None:
    rng = np.random.default_rng(1)
    slope = 20 * sigma * np.exp(-np.linspace(0, 3, count))
    assert noise(slope + sigma * rng.standard_normal(count)) == pytest.approx(sigma, rel=0.25)


def test_noise_of_a_share_over_few_samples_is_not_zero() -> None:
    values = np.random.default_rng(0).binomial(64, 0.98, 500) / 64
    assert noise(np.round(values, 2)) > 0.005
    assert noise(np.full(50, 2.0)) == 0
    assert noise(np.array([])) == noise(np.array([1.0])) == 0


def test_outliers_do_not_move_the_noise() -> None:
    values = np.random.default_rng(0).standard_normal(1_000)
    spoiled = values.copy()
    spoiled[::50] = 1e6
    assert noise(spoiled) == pytest.approx(noise(values), rel=0.15)
    assert mad_sigma(spoiled) == pytest.approx(1, rel=0.15)


def test_the_error_of_a_median_falls_with_its_points() -> None:
    values = np.random.default_rng(0).standard_normal(10_000)
    assert standard_error(values, 100) == pytest.approx(0.125, rel=0.2)


def test_correlated_noise_does_not_average_out() -> None:
    steps = np.random.default_rng(0).standard_normal(10_000)
    walk = np.zeros(10_000)
    for i in range(1, 10_000):
        walk[i] = 0.99 * walk[i - 1] + steps[i]
    assert standard_error(walk, 100) > 5 * 1.25 * noise(walk) / 10


@given(values=CURVES, window=st.integers(1, 40))
def test_running_medians_are_medians(values: np.ndarray, window: int) -> None:
    places, medians = running_median(values, window)
    assert len(places) == len(medians) <= MOST_CENTERS
    width = min(window, len(values))
    for place, found in zip(places, medians, strict=True):
        start = int(place) - width // 2
        assert found == np.median(values[start : start + width])
    assert places[-1] == len(values) - width + width // 2


def test_running_medians_of_long_curves_are_few_and_reach_the_end() -> None:
    places, medians = running_median(np.arange(50_000.0), 101)
    assert len(places) <= MOST_CENTERS
    assert places[-1] == 49_949
    np.testing.assert_array_equal(medians, places)
    assert np.diff(places).max() <= 50


@given(values=CURVES, window=st.integers(1, 30), stride=st.integers(1, 7))
def test_trailing_medians_see_only_what_came_before(
    values: np.ndarray, window: int, stride: int
) -> None:
    medians, deviations = trailing_medians(values, window, stride)
    assert np.isnan(medians[:window]).all()
    for i in range(window, len(values)):
        anchor = i - (i - window) % stride
        before = values[anchor - window : anchor]
        assert medians[i] == np.median(before)
        spread = np.median(np.abs(before - np.median(before)))
        assert deviations[i] == pytest.approx(1.4826 * spread)


@given(values=CURVES)
def test_the_midmean_lies_inside_the_middle_half(values: np.ndarray) -> None:
    low = np.quantile(values, 0.25, method="lower")
    high = np.quantile(values, 0.75, method="higher")
    assert low - 1e-6 <= midmean(values) <= high + 1e-6


def test_the_midmean_is_finer_than_the_median_of_few_values() -> None:
    values = np.array([0.0, 0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 9.0])
    assert midmean(values) == pytest.approx(0.15)


def test_windows_are_a_twentieth_between_their_bounds_and_odd() -> None:
    assert [window_length(n) for n in (5, 100, 400, 10_000)] == [3, 5, 21, 101]


def test_the_median_of_nothing_is_nan() -> None:
    assert math.isnan(median(np.array([])))
    assert median(np.array([3.0, 1.0, 2.0])) == 2.0
