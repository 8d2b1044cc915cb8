"""Summarizes a curve for the report: statistics over all points, and a decimated series."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from reportgen.charts.axes import decimate, robust_range
from reportgen.sections.training.curve import Curve, Floats
from reportgen.sections.training.result import (
    Extremum,
    NonFiniteKind,
    NonFinitePoint,
    Scalar,
    Step,
)
from reportgen.sections.training.statistics import smooth

MOST_POINTS = 500
"""The most points of one series in report.json and on the page."""
_ALL_POINTS, _FEWEST_POINTS = 60_000, 24  # of all series of a model together; of one series
_FEWEST_TO_SMOOTH = 100  # with fewer, the half-life of 1 % is less than one point
_HALF_LIFE_SHARE = 0.01  # of the points of a series
_MOST_MARKS = 100
_KEPT_NON_FINITE = 8  # of the points to show, which NaN from some step on would fill otherwise


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Summary:
    """Statistics and decimation of one curve, for plots and report.json.

    Attributes:
        kept: indices of the points to show.
        smoothed: over all points; empty where the curve is too short to smooth.
    """

    curve: Curve
    kept: np.ndarray[tuple[int], np.dtype[np.int64]]
    smoothed: Floats
    half_life: float
    best: Extremum | None
    low: Extremum | None
    high: Extremum | None


def points_per_series(series: int) -> int:
    """The number of points to keep of each series, if there are `series` of them."""
    return max(_FEWEST_POINTS, min(MOST_POINTS, _ALL_POINTS // max(1, series)))


def summarize(curve: Curve, most: int) -> Summary:
    """Extremes of `curve`, its smoothed form, and at most `most` of its points to show."""
    half_life = round(_HALF_LIFE_SHARE * len(curve.values), 1)
    smoothed = np.empty(0)
    if len(curve.values) >= _FEWEST_TO_SMOOTH and _is_noisy(curve):
        smoothed = smooth(_drawn_values(curve), half_life)
        # `smooth` carries the mean over a gap: a line through NaN would hide it.
        smoothed[~np.isfinite(curve.values)] = np.nan
    else:
        half_life = 0.0
    low, high = _extremum(curve, "lowest"), _extremum(curve, "highest")
    best = {"lower": low, "higher": high, "none": None}[curve.name.direction]
    return Summary(
        curve=curve,
        kept=decimate(curve.values, most, _must_stay(curve)),
        smoothed=smoothed,
        half_life=half_life,
        best=best,
        low=low,
        high=high,
    )


def _is_noisy(curve: Curve) -> bool:
    """Whether values go up and down; a schedule is drawn as it is."""
    if curve.name.kind == "learning rate":
        return False
    changes = np.diff(curve.values[np.isfinite(curve.values)])
    # A counter such as `epoch` only rises: its smoothed line would lag behind it.
    return bool((changes > 0).any() and (changes < 0).any())


def _drawn_values(curve: Curve) -> Floats:
    """The values with NaN for those so far out that a plot leaves them outside its range.

    One value of 1e6 would lift the mean of a loss for hundreds of steps.
    """
    limits = robust_range([(curve.steps, curve.values)])
    inside = (curve.values >= limits.low) & (curve.values <= limits.high)
    return np.where(inside, curve.values, np.nan)


def _must_stay(curve: Curve) -> list[int]:
    # Text and table state the extremes: a reader looks for them in the plot.
    finite = np.isfinite(curve.values)
    bad: list[int] = np.flatnonzero(~finite)[:_KEPT_NON_FINITE].tolist()
    if not finite.any():
        return bad
    values = np.where(finite, curve.values, np.nan)
    return [*bad, int(np.nanargmin(values)), int(np.nanargmax(values))]


def _extremum(curve: Curve, which: Literal["lowest", "highest"]) -> Extremum | None:
    finite = np.flatnonzero(np.isfinite(curve.values))
    if not len(finite):
        return None
    values = curve.values[finite]
    place = finite[int(values.argmin() if which == "lowest" else values.argmax())]
    return Extremum(step=whole(curve.steps[place]), value=float(curve.values[place]))


def as_scalar(summary: Summary, *, csv: str, plot: str) -> Scalar:
    """The report's entry for one curve."""
    curve, kept = summary.curve, summary.kept
    bad = np.flatnonzero(~np.isfinite(curve.values))
    times = curve.times[kept]
    return Scalar(
        points=len(curve.values),
        non_finite=len(bad),
        first_step=whole(curve.steps[0]),
        last_step=whole(curve.steps[-1]),
        min=summary.low.value if summary.low else None,
        min_step=summary.low.step if summary.low else None,
        max=summary.high.value if summary.high else None,
        max_step=summary.high.step if summary.high else None,
        last=finite_or_none(curve.values[-1]),
        best=summary.best,
        direction=curve.name.direction,
        role=curve.name.role,
        steps=tuple(map(whole, curve.steps[kept].tolist())),
        values=tuple(map(finite_or_none, curve.values[kept].tolist())),
        times=() if np.isnan(times).any() else tuple(int(t) for t in times),
        smoothed=tuple(
            None if not math.isfinite(v) else float(f"{v:.6g}") for v in summary.smoothed[kept]
        )
        if len(summary.smoothed)
        else (),
        half_life=summary.half_life,
        non_finite_points=tuple(
            NonFinitePoint(step=whole(curve.steps[i]), kind=non_finite_kind(curve.values[i]))
            for i in bad[:_MOST_MARKS]
        ),
        csv=csv,
        plot=plot,
    )


def whole(step: float) -> Step:
    """`step` as an int if it is whole."""
    return int(step) if step == int(step) else float(step)


def finite_or_none(value: float) -> float | None:
    """`value`, or None for NaN and infinities, which JSON cannot represent."""
    return float(value) if math.isfinite(value) else None


def non_finite_kind(value: float) -> NonFiniteKind:
    """The kind of a non-finite value."""
    if math.isnan(value):
        return "nan"
    return "inf" if value > 0 else "-inf"
