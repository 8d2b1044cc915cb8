"""Steps per second, from wall times: whether a run became slower."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from reportgen.sections.training.curve import Curve, Floats, RunCurves
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import Places, mad_sigma, median

_FEWEST_GAPS = 40
_SLOW = 0.7  # of the rate of the first half
_LONG = 10  # times the usual gap: an evaluation, a checkpoint, a night
_ERRORS = 3  # standard errors by which the change must exceed the jitter


def find_slowdown(run: RunCurves) -> Iterator[Diagnosis]:
    """`slowdown` where the last tenth runs at less than 0.7 of the rate of the first half.

    Both by the usual gap between points and by the mean: an evaluation now and then moves only
    the mean. Judged on the curve with the most points that have wall times.
    """
    timed = [curve for curve in run.curves.values() if not np.isnan(curve.times).any()]
    curve = max(timed, key=lambda curve: len(curve.steps), default=None)
    if curve is None:
        return
    steps, seconds, places = usual_gaps(curve)
    if len(steps) < _FEWEST_GAPS:
        return
    tenth = max(len(steps) // 10, 4)
    half = slice(tenth, len(steps) // 2)  # compilation and caches are over after a tenth
    if not _is_slower(seconds[half] / steps[half], seconds[-tenth:] / steps[-tenth:]):
        return
    first = float(steps[half].sum() / max(seconds[half].sum(), 1e-9))
    last = float(steps[-tenth:].sum() / seconds[-tenth:].sum())
    if last < _SLOW * first:
        yield Diagnosis(
            kind="slowdown",
            run=run.name,
            tag=curve.tag,
            points=len(steps),
            evidence={
                "first_rate": first,
                "last_rate": last,
                "since_step": float(curve.steps[places[-tenth]]),
                "first_gaps": len(steps[half]),
                "last_gaps": tenth,
            },
        )


def usual_gaps(curve: Curve) -> tuple[Floats, Floats, Places]:
    """(steps, seconds, index of the point before) of the gaps between points, in order.

    Gaps backward or without a step are left out, and those more than 10 × the median per step.
    """
    steps, seconds = np.diff(curve.steps), np.diff(curve.times)
    usable = np.flatnonzero((steps > 0) & (seconds >= 0))
    steps, seconds = steps[usable], seconds[usable]
    if not len(steps):
        return steps, seconds, usable
    each = seconds / steps
    usual = median(each) or float(each.mean())  # times in whole seconds: most gaps may be 0
    kept = each <= _LONG * usual
    return steps[kept], seconds[kept], usable[kept]


def _is_slower(first: Floats, last: Floats) -> bool:
    """Whether seconds per step rose by more than the jitter; true where times are too coarse."""
    if not median(first) > 0 or not median(last) > 0:
        error = np.hypot(first.std() / len(first) ** 0.5, last.std() / len(last) ** 0.5)
        return bool(last.mean() - first.mean() > _ERRORS * error)
    logs = [np.log(np.maximum(part, 1e-12)) for part in (first, last)]
    error = np.hypot(*(1.25 * mad_sigma(part) / len(part) ** 0.5 for part in logs))
    change = median(logs[1]) - median(logs[0])
    return bool(change > max(-np.log(_SLOW), _ERRORS * error))
