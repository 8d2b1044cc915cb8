"""Curves that never improve, plateaus, and divergence."""

from __future__ import annotations

import numpy as np

from reportgen.sections.training.curve import Curve
from reportgen.sections.training.diagnosis.trend import Trend
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import median, midmean, standard_error

# Thresholds here were tuned on generated curves; benchmarks/training_verdicts.md has the results.
_FEWEST_POINTS = 50
_FEWEST_FOR_PLATEAU, _FEWEST_LAST = 30, 10
_SMALL_GAIN = 0.01  # of all progress
_CEILING = 0.98  # of a share; nothing is left to learn there
_FEWEST_TO_DIVERGE = 20
_TAIL_SHARE = 0.05


def find_no_learning(trend: Trend, learning_rates: list[Curve]) -> Diagnosis | None:
    """`not-learning` if the end is no better than the start, within the noise.

    The last fifth is compared with the first points and with the first fifth, never with the
    best: the minimum of noise always looks like progress. None with fewer than 50 points, or if
    the log begins late in the training.
    """
    count = len(trend)
    if count < _FEWEST_POINTS or _begins_late(trend) or _is_solved(trend):
        return None
    fifth = count // 5
    first, last = midmean(trend.costs[:fifth]), midmean(trend.costs[-fifth:])
    error = trend.error(fifth)
    if trend.start - last >= 3 * trend.error(trend.starts):
        return None
    # A gain of 2 % counts even where the noise is large, but not one below a standard error.
    if first - last >= min(3 * error, max(0.02 * abs(first), error)):
        return None
    warming = any(_is_warming_up(curve) for curve in learning_rates)
    return trend.found(
        "not-learning-in-warm-up" if warming else "not-learning",
        first=trend.value(first),
        last=trend.value(last),
        points_of_each=fifth,
        sigma=trend.sigma,
        first_step=float(trend.steps[0]),
        last_step=float(trend.steps[-1]),
    )


def _begins_late(trend: Trend) -> bool:
    """Whether the first fifth of the steps is missing from the log."""
    return bool(trend.steps[0] > 0.2 * trend.steps[-1])


def _is_solved(trend: Trend) -> bool:
    """Whether a share such as an accuracy is near 1 from the start."""
    return trend.sign < 0 and _CEILING <= -trend.start <= 1 and bool(trend.values.max() <= 1)


def _is_warming_up(curve: Curve) -> bool:
    """Whether a learning rate rises to its end."""
    rates = curve.values[np.isfinite(curve.values)]
    return len(rates) > 2 and bool((np.diff(rates) >= 0).all() and rates[-1] > rates[-2])


def find_plateau(
    trend: Trend, learning_rates: list[Curve], partner: Trend | None
) -> Diagnosis | None:
    """`plateau` if the last 30 % of points made less than 1 % of the total progress.

    None with fewer than 30 points, or fewer than 10 in those 30 %.
    """
    count = len(trend)
    last = int(0.3 * count)
    if count < _FEWEST_FOR_PLATEAU or last < _FEWEST_LAST or trend.progress == 0:
        return None
    quarter = max(last // 4, 1)
    before, after = median(trend.costs[-last:][:quarter]), median(trend.costs[-quarter:])
    margin = _SMALL_GAIN * trend.progress
    # The noise of the last points, not of all: it often shrinks with the loss.
    slack = margin + 2 * standard_error(trend.costs[-last:], quarter)
    if not -slack <= before - after < margin:
        return None
    # It must have been there before: a curve that has just arrived may still improve.
    near = np.flatnonzero(trend.medians <= trend.best + slack)
    since = int(near[0])
    if trend.median_places[since] >= count - last - trend.window // 2:
        return None
    return trend.found(
        "plateau",
        step=float(trend.median_steps[since]),
        last_step=float(trend.steps[-1]),
        value=trend.value(after),
        gain=trend.sign * (after - before),
        progress=trend.progress,
        last_points=last,
        reading="converged" if _is_converged(trend, learning_rates, partner) else "unknown",
    )


def _is_converged(trend: Trend, learning_rates: list[Curve], partner: Trend | None) -> bool:
    """Whether the learning rate fell to a tenth, or both curves of a pair ended alike."""
    for curve in learning_rates:
        rates = curve.values[np.isfinite(curve.values)]
        if len(rates) and 0 <= rates[-1] <= 0.1 * rates.max():
            return True
    if partner is None or not len(partner):
        return False
    gap = abs(median(partner.costs[-3:]) - median(trend.costs[-3:]))
    return bool(gap < 0.1 * trend.progress)


def find_divergence(trend: Trend) -> Diagnosis | None:
    """`diverged` if all of the last 5 % of points are far above the best.

    Far: half of the progress made, six standard errors and a fifth of the best itself. None if
    the best lies in those points, or with fewer than 20 points.
    """
    count = len(trend)
    if count < _FEWEST_TO_DIVERGE:
        return None
    tail = max(3, round(_TAIL_SHARE * count))
    last = median(trend.costs[-tail:])
    # A window whose center is before the tail may still reach into it.
    in_tail = trend.median_places >= count - tail - trend.window // 2
    if in_tail[trend.best_place]:
        return None
    best, progress = trend.best, trend.progress
    # A fifth of the best: where the curve is almost flat, progress and noise are both tiny.
    far = best + max(0.5 * progress, 6 * trend.error(tail), 0.2 * abs(best))
    line = best + max(0.25 * progress, 4 * trend.error(trend.window))
    if not (last > far and (trend.medians[in_tail] > line).all()):
        return None
    below = np.flatnonzero(trend.medians <= line)
    left = min(int(below[-1]) + 1, len(trend.medians) - 1)
    return trend.found(
        "diverged",
        step=float(trend.median_steps[left]),
        best=trend.value(best),
        best_step=float(trend.median_steps[trend.best_place]),
        last=trend.value(last),
        last_points=tail,
        start=trend.value(trend.start),
    )
