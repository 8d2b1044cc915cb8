"""Curves that the rules judge: one tag of one run, sessions joined; their points on an x axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reportgen.sections.training.result import Direction, Role
from reportgen.training_logs.log_run import LoggedHistogram

Floats = NDArray[np.float64]
Kind = Literal["metric", "learning rate", "gradient norm", "other"]
STEP, EPOCH, RELATIVE, WALL, ORDER = "step", "epoch", "relative time", "wall time", "order"
AXES = (STEP, EPOCH, RELATIVE, WALL, ORDER)
"""The horizontal axes that are not the tag of a metric."""
_SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricName:
    """Properties of a metric, derived from its tag.

    Attributes:
        role: train or validation, by a word in the tag; "none" if it has neither word.
        family: the tag without that word and without `_step`/`_epoch`, in lower case: what a
            train curve and its validation curve share.
        direction: which way the metric improves.
        kind: a metric that is judged, a learning rate, a gradient norm, or something else.
        trend: whether it should improve at all (losses of GANs and of RL need not).
    """

    role: Role
    family: str
    direction: Direction
    kind: Kind
    trend: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """A resume at `step`, after the log had reached `last_step`; `superseded` points replaced."""

    step: float
    last_step: float
    superseded: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Curve:
    """The points of one tag in the order of steps; float64 arrays of equal length.

    Attributes:
        values: NaN and infinities included.
        times: seconds since 1970, NaN where unknown.
        resumes: where sessions were joined, in order.
    """

    tag: str
    name: MetricName
    steps: Floats
    values: Floats
    times: Floats
    resumes: tuple[Resume, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RunCurves:
    """The curves and histograms of one run, by tag."""

    name: str
    curves: dict[str, Curve]
    histograms: dict[str, list[LoggedHistogram]] = field(default_factory=dict)
    planned_steps: int | None = None


def as_floats(values: Any) -> Floats:
    """A copy of `values` as a float64 array."""
    return np.array(values, dtype=np.float64)


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
        # One unknown time is enough to fall back: its point would have no place on the axis.
        found = None if np.isnan(curve.times).any() else curve.times
        if found is not None and axis == RELATIVE:
            found = (found - first_time(run)) / _SECONDS_PER_HOUR
    elif axis != STEP:
        found = interpolate(curve, run.get(_epoch_tag(run) if axis == EPOCH else axis))
    if found is not None:
        return found, "hours since the start" if axis == RELATIVE else axis
    # `add_scalar` without a step writes 0 each time; as the steps are sorted, the ends suffice.
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
    # Train and validation are logged at different steps, so steps rarely match exactly.
    return np.asarray(np.interp(curve.steps, other.steps[finite], other.values[finite]))


def _epoch_tag(run: Mapping[str, Curve]) -> str:
    return next((tag for tag in run if tag.rpartition("/")[2].lower() == "epoch"), "")
