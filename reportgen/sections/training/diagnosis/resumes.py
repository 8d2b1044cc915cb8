"""Resumes, jumps of metrics at resumes, and runs that end before their planned steps."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from reportgen.sections.training.curve import Resume, RunCurves
from reportgen.sections.training.diagnosis.trend import JudgedRun, Trend
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import median

_POINTS_EACH = 5  # few, as the curve itself moves on; the median of five ignores two outliers


def find_resumes(run: RunCurves) -> Iterator[Diagnosis]:
    """`resumed`, once for a run: sessions share their resumes in all tags."""
    resumes = resumes_of(run)
    if resumes:
        yield Diagnosis(
            kind="resumed",
            run=run.name,
            tag="",
            points=max(len(curve.steps) for curve in run.curves.values()),
            evidence={
                "resumes": len(resumes),
                "step": resumes[0].step,
                "last_step_before": resumes[0].last_step,
                "last_resume_step": resumes[-1].step,
                "superseded": sum(resume.superseded for resume in resumes),
            },
        )


def resumes_of(run: RunCurves) -> list[Resume]:
    """The resumes of all tags, each once, by step."""
    found = {resume for curve in run.curves.values() for resume in curve.resumes}
    return sorted(found, key=lambda resume: (resume.step, resume.last_step))


def find_jumps_at_resumes(run: JudgedRun) -> Iterator[Diagnosis]:
    """`jump-at-resume` where a curve is clearly worse after a resume than before it.

    Five points on each side are compared: their medians differ by five times the noise and 5 %.
    An improvement is not reported: running means that restart at a resume cause one.
    """
    for trend in run.trends.values():
        for resume in run.run.curves[trend.tag].resumes:
            diagnosis = _jump(trend, resume)
            if diagnosis is not None:
                yield diagnosis


def _jump(trend: Trend, resume: Resume) -> Diagnosis | None:
    at = int(np.searchsorted(trend.steps, resume.step))
    if at < _POINTS_EACH or len(trend) - at < _POINTS_EACH:
        return None
    before = median(trend.costs[at - _POINTS_EACH : at])
    after = median(trend.costs[at : at + _POINTS_EACH])
    jump = after - before - _expected_rise(trend, at)
    if not jump > max(5 * trend.sigma, 0.05 * abs(before)):
        return None
    return trend.found(
        "jump-at-resume",
        step=resume.step,
        before=trend.value(before),
        after=trend.value(after),
        sigma=trend.sigma,
        points_each=_POINTS_EACH,
    )


def _expected_rise(trend: Trend, at: int) -> float:
    """The rise from five points to the next five beside `at`, as in double descent."""
    bounds = (
        at - 2 * _POINTS_EACH,
        at - _POINTS_EACH,
        at,
        at + _POINTS_EACH,
        at + 2 * _POINTS_EACH,
    )
    if bounds[0] < 0 or bounds[-1] > len(trend):
        return 0.0
    levels = [median(trend.costs[a:b]) for a, b in pairwise(bounds)]
    return max(levels[1] - levels[0], levels[3] - levels[2], 0.0)


def find_early_end(run: RunCurves) -> Iterator[Diagnosis]:
    """`ended-before-plan` where the last step of all curves lies before the planned number.

    A run whose next record would have come after the planned steps is complete.
    """
    if run.planned_steps is None or not run.curves:
        return
    last = max(run.curves.values(), key=lambda curve: float(curve.steps[-1]))
    rises = np.diff(last.steps)
    rises = rises[rises > 0]
    interval = median(rises) if len(rises) else 1.0
    end = float(last.steps[-1])
    if end + max(interval, 1.0) < run.planned_steps:
        yield Diagnosis(
            kind="ended-before-plan",
            run=run.name,
            tag="",
            points=len(last.steps),
            evidence={"last_step": end, "planned_steps": run.planned_steps},
        )
