"""A validation curve against its train curve and against its own best; and where none is logged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from reportgen.sections.training.diagnosis.trend import JudgedRun, Trend
from reportgen.sections.training.metric_names import is_return
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import median, running_median

_FEWEST_CHECKS = 8
_MANY_CHECKS = 60  # from here on, one lucky evaluation among them is likely
_FEWEST_FOR_BEST = 5
_FEWEST_WITHOUT_VALIDATION = 20


def find_overfitting(
    train: Trend, validation: Trend, trends: Mapping[str, Trend]
) -> Diagnosis | None:
    """`overfitting` if validation is clearly past its best while train still improves.

    The best lies at least 3 checks and a fifth of all checks back. The end is worse by 5 % of the
    best, a tenth of the progress and three times the noise. None with fewer than 8 checks.

    Args:
        trends: of the run; an accuracy of the same set that still rises is named.
    """
    checks = len(validation)
    if checks < _FEWEST_CHECKS:
        return None
    places, medians = running_median(validation.costs, 5 if checks >= _MANY_CHECKS else 3)
    best_at = int(np.argmin(medians))
    # The first check can be the best of all; the first median lies one check later.
    best, back = float(medians[best_at]), len(medians) - 1 - best_at
    if back < max(3, 0.2 * checks):
        return None
    progress = max(validation.start - best, 0.0)
    last = float(medians[-1])
    if last - best <= max(0.05 * abs(best), 0.1 * progress, 3 * validation.sigma):
        return None
    best_step = float(validation.steps[places[best_at]])
    # If train rises as well, the run diverges; if it is flat, more steps change nothing.
    fall = _fall_since(train, best_step, float(validation.steps[-1]))
    if fall is None:
        return None
    before, after = fall
    rising = _still_improving(validation, trends, best_step)
    # Medians decide; the figures are those of the log, as tables and plots show them.
    logged_best = int(np.argmin(validation.costs))
    return validation.found(
        "overfitting",
        step=float(validation.steps[logged_best]),
        best=validation.value(float(validation.costs[logged_best])),
        last=validation.value(float(validation.costs[-1])),
        last_step=float(validation.steps[-1]),
        train_tag=train.tag,
        train_at_best=train.value(before),
        train_last=train.value(after),
        still_improving=rising.tag if rising else "",
    )


def _fall_since(train: Trend, step: float, last_step: float) -> tuple[float, float] | None:
    """The train cost at `step` and at `last_step`, if it fell by 2 % of its range between them."""
    at = int(np.searchsorted(train.median_steps, step).clip(0, len(train.medians) - 1))
    end = int(np.searchsorted(train.median_steps, last_step).clip(0, len(train.medians) - 1))
    before, after = float(train.medians[at]), float(train.medians[end])
    extent = float(train.medians.max() - train.medians.min())
    return (before, after) if before - after > 0.02 * extent and extent > 0 else None


def _still_improving(validation: Trend, trends: Mapping[str, Trend], step: float) -> Trend | None:
    """An accuracy of the same set that is better at the end than around `step`."""
    for other in trends.values():
        if other.role != "validation" or other.sign > 0 or validation.sign < 0:
            continue
        if _set_of(validation.tag) != _set_of(other.tag) or len(other) < _FEWEST_CHECKS:
            continue
        at = int(np.searchsorted(other.steps, step))
        around = median(other.costs[max(at - 1, 0) : at + 2])
        if around - median(other.costs[-3:]) > max(0.0, other.sigma):
            return other
    return None


def _set_of(tag: str) -> str:
    """`tag` without its last word, which names the metric: `eval_g0_` of `eval_g0_loss`."""
    cut = max(tag.rfind("/"), tag.rfind("_"))
    return tag[: cut + 1]


def find_past_best(trend: Trend) -> Diagnosis | None:
    """`past-the-best` if the end is worse than the best by 2 % and by the noise.

    The best of many noisy checks is better than their mean: the allowance for noise grows with
    the number of checks. From 60 checks on, running medians are compared, so that one lucky check
    does not count as the best. None with fewer than 5 checks.
    """
    checks = len(trend)
    if checks < _FEWEST_FOR_BEST:
        return None
    costs, steps, error = trend.costs, trend.steps, trend.sigma
    if checks >= _MANY_CHECKS:
        costs, steps, error = trend.medians, trend.median_steps, trend.error(trend.window)
    best_at = int(np.argmin(costs))
    best, last = float(costs[best_at]), float(costs[-1])
    # sqrt(2 ln n) standard deviations is what the best of n normal values lies beyond their mean.
    expected = float(2 + np.sqrt(2 * np.log(len(costs)))) * error
    if not last - best > max(0.02 * abs(best), expected):
        return None
    return trend.found(
        "past-the-best",
        best=trend.value(best),
        best_step=float(steps[best_at]),
        last=trend.value(last),
        last_step=float(trend.steps[-1]),
        checks_since=int((trend.steps > steps[best_at]).sum()),
    )


def find_missing_validation(run: JudgedRun) -> Iterator[Diagnosis]:
    """`missing-validation` if a train curve has 20 points and no curve is of a validation set."""
    curves = run.run.curves.values()
    # Reinforcement learning has no held-out data: its return is measured in the environment.
    if any(c.name.role == "validation" for c in curves) or any(map(is_return, run.run.curves)):
        return
    losses = [trend for trend in run.trends.values() if _counts_as_train(trend)]
    longest = max(losses, key=len, default=None)
    if longest is not None and len(longest) >= _FEWEST_WITHOUT_VALIDATION:
        yield longest.found("missing-validation", last_step=float(longest.steps[-1]))


def _counts_as_train(trend: Trend) -> bool:
    return trend.role == "train" or (trend.role == "none" and trend.sign > 0)
