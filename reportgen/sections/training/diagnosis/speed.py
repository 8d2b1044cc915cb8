"""Steps per second, from wall times: whether a run became slower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from reportgen.sections.training.curve import Curve, Floats, RunCurves
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import Places, mad_sigma, median

_FEWEST_GAPS = 40
_SHORTEST_SECONDS = 5  # of a run; what writes a log in less says nothing about its speed
_SLOW = 0.7  # of the rate of the first half
_LONG = 10  # times the usual gap: an evaluation, a checkpoint, a night
_ERRORS = 3  # standard errors by which the change must exceed the jitter


def find_slowdown(run: RunCurves) -> Iterator[Diagnosis]:
    """`slowdown` if the last tenth runs at less than 0.7 of the rate of the first half.

    Both by the usual gap between points and by the mean: where evaluation follows every other
    point, the median alone could move from one kind of gap to the other. Judged on the curve
    with the most points that have wall times.
    """
    timed = [curve for curve in run.curves.values() if not np.isnan(curve.times).any()]
    curve = max(timed, key=lambda curve: len(curve.steps), default=None)
    if curve is None:
        return
    gaps = usable_gaps(curve)
    if len(gaps) < _FEWEST_GAPS or np.ptp(curve.times) < _SHORTEST_SECONDS:
        return
    tenth = max(len(gaps) // 10, 4)
    # Compilation and empty caches are over after a tenth.
    first, last = (_usual(curve, part) for part in (gaps[tenth : len(gaps) // 2], gaps[-tenth:]))
    rates = [part.steps.sum() / max(part.seconds.sum(), 1e-9) for part in (first, last)]
    if rates[1] < _SLOW * rates[0] and _is_slower(first, last):
        yield Diagnosis(
            kind="slowdown",
            run=run.name,
            tag=curve.tag,
            points=len(gaps),
            evidence={
                "first_rate": float(rates[0]),
                "last_rate": float(rates[1]),
                "since_step": float(curve.steps[gaps[-tenth]]),
                "first_gaps": len(first.steps),
                "last_gaps": len(last.steps),
            },
        )


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Gaps:
    """Steps and seconds between neighboring points, of equal length."""

    steps: Floats
    seconds: Floats

    @property
    def each(self) -> Floats:
        """Seconds per step."""
        return self.seconds / self.steps


def usable_gaps(curve: Curve) -> Places:
    """The index of the point before every gap that goes forward in steps and not back in time."""
    # Repeated steps have no time of their own, and the clock of a machine may be set back.
    return np.flatnonzero((np.diff(curve.steps) > 0) & (np.diff(curve.times) >= 0))


def _usual(curve: Curve, gaps: Places) -> Gaps:
    """Those of `gaps` that take at most 10 × the median time per step of them."""
    steps, seconds = np.diff(curve.steps)[gaps], np.diff(curve.times)[gaps]
    each = seconds / steps
    usual = median(each) or float(each.mean())  # times in whole seconds: most gaps may be 0
    kept = each <= _LONG * usual
    return Gaps(steps=steps[kept], seconds=seconds[kept])


def _is_slower(before: Gaps, after: Gaps) -> bool:
    """Whether seconds per step rose by more than the jitter; true where times are too coarse."""
    first, last = before.each, after.each
    # Where most gaps are 0, their logarithms say nothing; means still do.
    if not median(first) > 0 or not median(last) > 0:
        error = np.hypot(first.std() / len(first) ** 0.5, last.std() / len(last) ** 0.5)
        return bool(last.mean() - first.mean() > _ERRORS * error)
    # Logarithms: jitter of times is a factor, and "0.7 of the rate" a distance.
    logs = [np.log(np.maximum(part, 1e-12)) for part in (first, last)]
    error = np.hypot(*(1.25 * mad_sigma(part) / len(part) ** 0.5 for part in logs))
    change = median(logs[1]) - median(logs[0])
    return bool(change > max(-np.log(_SLOW), _ERRORS * error))
