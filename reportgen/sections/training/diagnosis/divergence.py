"""Divergence: a train metric that became much worse and did not recover."""

from __future__ import annotations

import numpy as np

from reportgen.sections.training.diagnosis.trend import Trend
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import median

_FEWEST_POINTS = 20
_TAIL_SHARE = 0.05


def find_divergence(trend: Trend) -> Diagnosis | None:
    """`diverged` if all of the last 5 % of points are far above the best.

    Far: half of the progress made, six standard errors and a fifth of the best itself. None if
    the best lies in those points, or with fewer than 20 points.
    """
    count = len(trend)
    if count < _FEWEST_POINTS:
        return None
    tail = max(3, round(_TAIL_SHARE * count))
    last = median(trend.costs[-tail:])
    in_tail = trend.median_places >= count - tail - trend.window // 2
    if in_tail[trend.best_place]:
        return None
    best, progress = trend.best, trend.progress
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
