"""Diagnoses a run from its curves; every diagnosis has its evidence.

One file per topic. Curves that are too short are not judged. A diagnosis that explains others
replaces them: a curve that diverged is not also reported as a plateau.
`benchmarks/training_verdicts.md` has the false alarms and misses of every rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np

from reportgen.sections.training.curve import RunCurves
from reportgen.sections.training.diagnosis.gradients import find_gradient_faults
from reportgen.sections.training.diagnosis.invalid_values import (
    Range,
    find_non_finite,
    find_out_of_range,
)
from reportgen.sections.training.diagnosis.learning import (
    find_divergence,
    find_no_learning,
    find_plateau,
)
from reportgen.sections.training.diagnosis.learning_rate import (
    find_constant_rate,
    find_rate_jumps,
    restart_steps,
)
from reportgen.sections.training.diagnosis.overfitting import (
    find_missing_validation,
    find_overfitting,
    find_past_best,
)
from reportgen.sections.training.diagnosis.resumes import (
    find_early_end,
    find_jumps_at_resumes,
    find_resumes,
)
from reportgen.sections.training.diagnosis.speed import find_slowdown
from reportgen.sections.training.diagnosis.spikes import find_spikes
from reportgen.sections.training.diagnosis.trend import JudgedRun, Trend, judge
from reportgen.sections.training.result import Diagnosis

__all__ = ["diagnose"]


def diagnose(run: RunCurves, ranges: Mapping[str, Range] | None = None) -> tuple[Diagnosis, ...]:
    """All diagnoses of `run`, in the order of the files here.

    Args:
        ranges: the manifest's valid ranges, (lowest, highest) by tag, None for no limit.
    """
    # Values such as 1e300 overflow in differences: evidence that is not finite proves nothing.
    with np.errstate(over="ignore", invalid="ignore"):
        return tuple(found for found in _findings(run, ranges or {}) if _is_finite(found))


def _is_finite(found: Diagnosis) -> bool:
    return all(isinstance(e, str) or math.isfinite(e) for e in found.evidence.values())


def _findings(run: RunCurves, ranges: Mapping[str, Range]) -> tuple[Diagnosis, ...]:
    judged = judge(run)
    return (
        *find_non_finite(run),
        *_diagnose_trends(judged),
        *_diagnose_validation(judged),
        *find_missing_validation(judged),
        *find_constant_rate(judged),
        *find_rate_jumps(judged),
        *find_resumes(run),
        *find_jumps_at_resumes(judged),
        *find_early_end(run),
        *find_slowdown(run),
        *find_gradient_faults(judged),
        *find_out_of_range(run, ranges),
    )


def _diagnose_trends(run: JudgedRun) -> Iterator[Diagnosis]:
    """Divergence, no learning, plateau and spikes, curve by curve."""
    restarts = restart_steps(run)
    partners = {validation.tag: train for train, validation in run.pairs}
    partners |= {train.tag: validation for train, validation in run.pairs}
    for trend in run.trends.values():
        verdict = None
        # Overfitting makes a validation curve worse, too: it has a finding of its own.
        if trend.role != "validation":
            verdict = find_divergence(trend) or find_no_learning(trend, run.learning_rates)
        verdict = verdict or find_plateau(trend, run.learning_rates, partners.get(trend.tag))
        if verdict is not None:
            yield verdict
        # A curve that diverged is one spike that never ends.
        if verdict is None or verdict.kind != "diverged":
            yield from find_spikes(trend, restarts)


def _diagnose_validation(run: JudgedRun) -> Iterator[Diagnosis]:
    """Overfitting of pairs, and a last value past the best for curves that select checkpoints."""
    overfitting = {
        validation.tag: found
        for train, validation in run.pairs
        if (found := find_overfitting(train, validation, run.trends)) is not None
    }
    yield from overfitting.values()
    for trend in run.trends.values():
        if trend.tag not in overfitting and _selects_checkpoints(trend):
            found = find_past_best(trend)
            if found is not None:
                yield found


def _selects_checkpoints(trend: Trend) -> bool:
    """Whether checkpoints are selected by it: a validation metric, or a score without a role."""
    return trend.role == "validation" or (trend.role == "none" and trend.sign < 0)
