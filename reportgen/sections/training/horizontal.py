"""The x axis of a plot: step, epoch, time, order in the log, or another metric."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from reportgen.sections.training.curve import Curve, Floats

STEP, EPOCH, RELATIVE, WALL, ORDER = "step", "epoch", "relative time", "wall time", "order"
AXES = (STEP, EPOCH, RELATIVE, WALL, ORDER)
"""The horizontal axes that are not the tag of a metric."""
_SECONDS_PER_HOUR = 3600.0


def place_points(curve: Curve, axis: str, run: Mapping[str, Curve]) -> tuple[Floats, str]:
    """The x of every point of `curve` on `axis`, and the title of the axis.

    Falls back on steps if the log has no wall times or no such metric, and on the order of the
    log if all steps are equal.

    Args:
        curve: the points to place.
        axis: `step`, `epoch`, `relative time`, `wall time`, `order`, or the tag of a metric.
        run: the other curves of the same run, by tag.
    """
    found: Floats | None = None
    if axis == ORDER:
        found = np.arange(len(curve.steps), dtype=np.float64)
    elif axis in (RELATIVE, WALL):
        found = None if np.isnan(curve.times).any() else curve.times
        if found is not None and axis == RELATIVE:
            found = (found - first_time(run)) / _SECONDS_PER_HOUR
    elif axis != STEP:
        found = interpolate(curve, run.get(_epoch_tag(run) if axis == EPOCH else axis))
    if found is not None:
        return found, "hours since the start" if axis == RELATIVE else axis
    if len(curve.steps) > 1 and curve.steps[0] == curve.steps[-1]:
        return np.arange(len(curve.steps), dtype=np.float64), "order in the log"
    return curve.steps, STEP


def epochs_of(curve: Curve, run: Mapping[str, Curve]) -> Floats | None:
    """The epoch of every point, where the run logs it."""
    return interpolate(curve, run.get(_epoch_tag(run)))


def first_time(run: Mapping[str, Curve]) -> float:
    """The earliest wall time of a run, in seconds; NaN where none is known."""
    times = [float(np.nanmin(c.times)) for c in run.values() if not np.isnan(c.times).all()]
    return min(times, default=float("nan"))


def interpolate(curve: Curve, other: Curve | None) -> Floats | None:
    """The value of `other` at each step of `curve`, by interpolation; None where it has none."""
    if other is None:
        return None
    finite = np.isfinite(other.values)
    if not finite.any():
        return None
    return np.asarray(np.interp(curve.steps, other.steps[finite], other.values[finite]))


def _epoch_tag(run: Mapping[str, Curve]) -> str:
    return next((tag for tag in run if tag.rpartition("/")[2].lower() == "epoch"), "")
