"""The limits of the manifest against the metrics that were found."""

from __future__ import annotations

from collections.abc import Iterable

from reportgen.manifest import Budgets
from reportgen.metrics import Metric
from reportgen.report import BudgetCheck


def check_budgets(
    budgets: Budgets, metrics: Iterable[Metric], *, complete: bool = True, timings: bool = True
) -> tuple[BudgetCheck, ...]:
    """One check for each budget.

    A budget names a metric by its key, `onnx.bytes`, or by the key without its section,
    `parameters`. One whose metric is missing or unknown fails, since nothing shows that it is
    kept; neither does a lower bound that is within the limit. It is not judged with
    `unknown: allow`, and where its metric was left out on request: the report is not `complete`,
    or has no `timings` and it limits one.
    """
    # The short name means the first section that has it; a full key always means its own metric.
    known: dict[str, Metric] = {}
    for metric in metrics:
        known[metric.key] = metric
        known.setdefault(metric.key.partition(".")[2], metric)
    required = complete and budgets.unknown == "fail"
    return tuple(
        _check(name, limit, known.get(name), required and (timings or _unit_of(name) != "ms"))
        for name, limit in budgets.limits().items()
    )


def _check(name: str, limit: float, metric: Metric | None, required: bool) -> BudgetCheck:
    value = metric.value if metric else None
    without_value = False if required else None
    is_bound = metric.lower_bound if metric else False
    # a lower bound above the limit exceeds it all the more, one below it shows nothing
    is_open = value is None or (is_bound and value <= limit)
    return BudgetCheck(
        name=name,
        limit=limit,
        value=value,
        passed=without_value if is_open else value is not None and value <= limit,
        lower_bound=is_bound,
        unit=metric.unit if metric else _unit_of(name),
    )


def _unit_of(name: str) -> str:
    # Of a limit whose metric is missing: only its name is known.
    if name.endswith("_ms"):
        return "ms"
    return "bytes" if "memory" in name or "bytes" in name else ""
