"""The limits of the manifest against the metrics that were found."""

from __future__ import annotations

from collections.abc import Iterable

from reportgen.manifest import Budgets
from reportgen.metrics import Metric
from reportgen.report import BudgetCheck


def check_budgets(budgets: Budgets, metrics: Iterable[Metric]) -> tuple[BudgetCheck, ...]:
    """One check for each budget; a metric that is missing or unknown neither passes nor fails.

    A budget names a metric by its key, `onnx.bytes`, or by the key without its section,
    `parameters`.
    """
    # The short name means the first section that has it; a full key always means its own metric.
    known: dict[str, Metric] = {}
    for metric in metrics:
        known[metric.key] = metric
        known.setdefault(metric.key.partition(".")[2], metric)
    return tuple(_check(name, limit, known.get(name)) for name, limit in budgets.limits().items())


def _check(name: str, limit: float, metric: Metric | None) -> BudgetCheck:
    value = metric.value if metric else None
    return BudgetCheck(
        name=name,
        limit=limit,
        value=value,
        passed=None if value is None else value <= limit,
        unit=metric.unit if metric else _unit_of(name),
    )


def _unit_of(name: str) -> str:
    # Of a limit whose metric is missing: only its name is known.
    if name.endswith("_ms"):
        return "ms"
    return "bytes" if "memory" in name or "bytes" in name else ""
