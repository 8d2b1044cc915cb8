"""The limits of the manifest against the metrics that were found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import date

from reportgen.manifest import Bound, Budget, Budgets, Side, Waiver, find_waiver
from reportgen.metrics import Metric
from reportgen.report import BudgetCheck, BudgetLevel, BudgetLimit


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """The metrics of the same model in an older report.

    `same_machine` is whether its measured metrics can be compared with new ones.
    """

    metrics: Mapping[str, Metric]  # by key
    same_machine: bool


def check_budgets(
    budgets: Budgets,
    metrics: Iterable[Metric],
    *,
    complete: bool = True,
    timings: bool = True,
    baseline: Baseline | None = None,
    waivers: tuple[Waiver, ...] = (),
    today: date,
) -> tuple[BudgetCheck, ...]:
    """One check for each budget.

    A budget names a metric by its key, `onnx.bytes`, or by the key without its section,
    `parameters`. One whose metric is missing or unknown fails, since nothing shows that it is
    kept; neither does a lower bound that is within the limit. It is not judged with
    `unknown: allow`, and where its metric was left out on request: the report is not `complete`,
    or has no `timings` and it limits one. A limit relative to the baseline is not judged without
    one, nor for a metric that was measured on another machine.
    """
    # The short name means the first section that has it; a full key always means its own metric.
    known: dict[str, Metric] = {}
    for metric in metrics:
        known[metric.key] = metric
        known.setdefault(metric.key.partition(".")[2], metric)
    required = complete and budgets.unknown == "fail"
    checks = []
    for name, budget in budgets.limits().items():
        found = known.get(name)
        check = _check(name, budget, found, baseline)
        depends = baseline is None and all(limit.relative for limit in check.limits)
        if not depends and (check.value is None or check.state == "not proven"):
            check = _without_value(check, required and (timings or check.unit != "ms"))
        checks.append(_waived(check, waivers, today))
    return tuple(checks)


def _check(
    name: str, budget: Budget, metric: Metric | None, baseline: Baseline | None
) -> BudgetCheck:
    """The check of a metric; its state is preliminary if the metric has no value."""
    old, why_not = _baseline_value(metric, baseline)
    levels: tuple[tuple[BudgetLevel, Bound | None], ...] = (
        ("fail", budget.fail),
        ("warn", budget.warn),
    )
    limits = tuple(
        _limit(level, bound, metric, old) for level, bound in levels if bound is not None
    )
    check = BudgetCheck(
        name=name,
        limit=limits[0].limit,
        value=metric.value if metric else None,
        passed=None,
        unit=metric.unit if metric else _unit_of(name),
        lower_bound=metric.lower_bound if metric else False,
        state="not judged",
        limits=limits,
        baseline=old if any(limit.relative for limit in limits) else None,
    )
    # the worst level first: the first limit that is exceeded decides
    for limit in limits:
        if _is_exceeded(check, limit):
            fails = limit.level == "fail"
            return replace(
                check,
                state="exceeded" if fails else "warning",
                level=limit.level,
                limit=limit.limit,
                passed=not fails,
            )
    judged = [limit for limit in limits if limit.limit is not None]
    if not judged:
        return replace(check, note=why_not)
    check = replace(check, limit=judged[0].limit)
    if check.lower_bound and not all(_is_proven(check, limit) for limit in judged):
        return replace(check, state="not proven")
    note = why_not if len(judged) < len(limits) else ""
    return replace(check, state="within", passed=True, note=note)


def _baseline_value(metric: Metric | None, baseline: Baseline | None) -> tuple[float | None, str]:
    """The metric's value in the baseline, or why there is none to compare with."""
    if baseline is None:
        return None, "no baseline"
    old = baseline.metrics.get(metric.key) if metric else None
    if old is None or old.value is None or old.lower_bound:
        return None, "the baseline has no value of this metric"
    if not old.exact and not baseline.same_machine:
        return None, "the baseline was measured on another machine or with other versions"
    return old.value, ""


def _limit(
    level: BudgetLevel, bound: Bound, metric: Metric | None, baseline: float | None
) -> BudgetLimit:
    worse_side: Side = "min" if metric and metric.direction == "higher" else "max"
    side = bound.side or worse_side
    return BudgetLimit(
        level=level,
        side=side,
        limit=bound.limit(side, baseline),
        text=bound.text,
        relative=bound.absolute is None,
    )


def _is_exceeded(check: BudgetCheck, limit: BudgetLimit) -> bool:
    if check.value is None or limit.limit is None:
        return False
    # a lower bound above a maximum exceeds it all the more; below a minimum it shows nothing
    if limit.side == "max":
        return check.value > limit.limit
    return check.value < limit.limit and not check.lower_bound


def _is_proven(check: BudgetCheck, limit: BudgetLimit) -> bool:
    """Whether a lower bound shows that `limit` is kept: only that it reaches a minimum."""
    return (
        limit.side == "min"
        and check.value is not None
        and limit.limit is not None
        and check.value >= limit.limit
    )


def _without_value(check: BudgetCheck, required: bool) -> BudgetCheck:
    """The check where nothing shows that the budget is kept: it fails if it is `required`."""
    if not required:
        note = "this metric has no value in the report, or a lower bound only"
        return replace(check, state="not judged", passed=None, level="", note=note)
    level = check.limits[0].level
    return replace(
        check,
        state="no value" if check.value is None else "not proven",
        passed=level == "warn",
        level=level,
        note="",
    )


def _waived(check: BudgetCheck, waivers: tuple[Waiver, ...], today: date) -> BudgetCheck:
    mine = tuple(waiver for waiver in waivers if waiver.budget == check.name)
    waiver = find_waiver(mine, today)
    if waiver is None or not check.level:
        return check
    if not waiver.applies(today):
        return replace(check, note=waiver.describe_expired())
    return replace(check, state="waived", passed=True, waived=waiver.describe())


def _unit_of(name: str) -> str:
    # Of a limit whose metric is missing: only its name is known.
    if name.endswith("_ms"):
        return "ms"
    return "bytes" if "memory" in name or "bytes" in name else ""
