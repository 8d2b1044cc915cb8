"""Robust statistics of curves: noise, running medians, smoothing. Arrays are float64, 1-D.

All of these take time proportional to the number of points. Running medians are computed at no
more than `MOST_CENTERS` places, so that a curve of 20,000 points costs as much as one of 1,000.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from reportgen.sections.training.curve import Floats

Places = NDArray[np.intp]

MOST_CENTERS = 1_000
_TO_SIGMA = 1.4826  # 1 / 0.6745, the median absolute deviation of a standard normal
_FEW_POINTS = 200  # of which a slope may be most of the differences
_FEWEST_BLOCKS = 6  # whose medians say how far apart they are
_LARGEST = 1e250  # value that `smooth` adds up as it is; larger ones are scaled first
_LOG_OF_LARGEST_FACTOR = 25.0  # inside a block of `smooth`, so that no factor overflows


def median(values: Floats) -> float:
    """The median of finite `values`; NaN of none."""
    return float(np.median(values)) if len(values) else math.nan


def midmean(values: Floats) -> float:
    """The mean of the middle half of `values`: as robust as needed, and finer than a median.

    Medians of a share over few samples only take the values of that share.
    """
    ordered = np.sort(values)
    quarter = len(ordered) // 4
    return float(ordered[quarter : len(ordered) - quarter].mean())


def mad_sigma(values: Floats) -> float:
    """The standard deviation of `values` by their median absolute deviation; 0 of none."""
    if not len(values):
        return 0.0
    return _TO_SIGMA * float(np.median(np.abs(values - np.median(values))))


def noise(values: Floats) -> float:
    """The standard deviation of the noise of a curve, from its first differences.

    In a curve of few points the slope is part of the differences; there those of second order are
    taken if they say less. Where most neighbors are equal, as in an accuracy over few samples, the
    median says nothing: the root mean square of the differences is taken, the largest 5 % cut.
    """
    changes = np.diff(values)
    if not len(changes):
        return 0.0
    # The difference of two independent values has twice their variance; that of second order,
    # with weights 1, -2 and 1, six times.
    first = _noise_of(changes) / math.sqrt(2)
    if len(values) >= _FEW_POINTS or len(changes) < 2:
        return first
    return min(first, _noise_of(np.diff(changes)) / math.sqrt(6))


def _noise_of(changes: Floats) -> float:
    sigma = mad_sigma(changes)
    if sigma == 0:
        sizes = np.abs(changes)
        cut = np.minimum(sizes, np.quantile(sizes, 0.95))
        sigma = float(np.sqrt(np.mean(cut**2)))
    return sigma


def standard_error(values: Floats, count: int, sigma: float | None = None) -> float:
    """The standard error of the median of `count` neighboring points of `values`.

    That of white noise, 1.25 σ / √count, or what the medians of neighboring stretches of `count`
    points differ by, if that is more: noise that is correlated does not average out.

    Args:
        sigma: the noise of `values` where it is known already.
    """
    # 1.25 is sqrt(pi / 2): the standard error of a median of normal values over that of their mean.
    sigma = noise(values) if sigma is None else sigma
    white = 1.25 * sigma / math.sqrt(max(count, 1))
    blocks = len(values) // max(count, 1)
    if blocks < _FEWEST_BLOCKS:
        return white
    medians = np.median(values[: blocks * count].reshape(blocks, count), axis=1)
    return max(white, mad_sigma(np.diff(medians)) / math.sqrt(2))


def window_length(points: int, shortest: int = 3, longest: int = 101) -> int:
    """A twentieth of `points` between `shortest` and `longest`, odd."""
    return min(max(points // 20, shortest), longest) | 1  # odd, so that a window has a center


def running_median(values: Floats, window: int) -> tuple[Places, Floats]:
    """Medians of `window` neighboring points.

    Returns:
        The place of the center of each window, rising, at most `MOST_CENTERS` of them; and the
        medians there. The first and last window lie inside `values` as a whole.
    """
    window = max(1, min(window, len(values)))
    windows = sliding_window_view(values, window)
    stride = math.ceil(len(windows) / MOST_CENTERS)
    # Counted from the end: the last points are what most verdicts are about.
    starts = np.arange(len(windows) - 1, -1, -stride)[::-1]
    return starts + window // 2, np.median(windows[starts], axis=1)


def trailing_medians(values: Floats, window: int, stride: int) -> tuple[Floats, Floats]:
    """For each point the median and the scaled MAD of the `window` points before it.

    Both are computed every `stride` points and hold until the next. The first `window` points
    have NaN.
    """
    count = len(values)
    medians, deviations = np.full(count, np.nan), np.full(count, np.nan)
    if count <= window:
        return medians, deviations
    windows = sliding_window_view(values, window)[:-1][::stride]
    centers = np.median(windows, axis=1)
    spreads = _TO_SIGMA * np.median(np.abs(windows - centers[:, None]), axis=1)
    rest = count - window
    medians[window:] = np.repeat(centers, stride)[:rest]
    deviations[window:] = np.repeat(spreads, stride)[:rest]
    return medians, deviations


def smooth(values: Floats, half_life: float) -> Floats:
    """The debiased exponential moving mean over all points.

    Debiased: the weights of the points seen so far add up to 1, so that the first points are not
    drawn toward zero. A value that is not finite is left out, and the mean before it goes on;
    before the first finite value the result is NaN.

    Args:
        half_life: after how many points a weight has halved; 0 or less returns `values`.
    """
    result = np.array(values, dtype=np.float64)
    if half_life <= 0:
        return result
    finite = np.isfinite(result)
    seen = np.cumsum(finite)
    if not finite.any():
        return np.full(len(result), np.nan)
    means = _exponential_means(result[finite], math.log(2) / half_life)
    return np.where(seen > 0, means[np.maximum(seen, 1) - 1], np.nan)


def _exponential_means(values: Floats, decay: float) -> Floats:
    """Debiased means of finite `values` with weights exp(-decay · age), a block at a time."""
    count = len(values)
    # Sums of values near 1e308 overflow.
    scale = max(float(np.abs(values).max()) / _LARGEST, 1.0)
    size = max(1, min(count, int(_LOG_OF_LARGEST_FACTOR / decay)))
    blocks = math.ceil(count / size)
    padded = np.zeros(blocks * size)
    padded[:count] = values / scale
    # sum(v[i] * exp(-decay * (n - i))) is cumsum(v * growth) / growth, without a loop over points.
    growth = np.exp(decay * np.arange(size))
    sums = np.cumsum(padded.reshape(blocks, size) * growth, axis=1) / growth
    # What earlier blocks contribute to the last place of each; blocks are few and long.
    carried, before = np.zeros(blocks), 0.0
    fade = math.exp(-decay * size)
    for block, last in enumerate(sums[:, -1]):
        carried[block] = before
        before = before * fade + float(last)
    sums += carried[:, None] * np.exp(-decay * np.arange(1, size + 1))
    # The sum of a geometric series; expm1 is exact where the decay is tiny.
    weights = -np.expm1(-decay * np.arange(1, count + 1)) / -math.expm1(-decay)
    means: Floats = sums.ravel()[:count] / weights * scale
    return means
