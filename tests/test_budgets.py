"""Budgets whose metric has no value."""

from __future__ import annotations

import pytest

from reportgen.budgets import check_budgets
from reportgen.manifest import Budgets
from reportgen.metrics import Metric

MACS = Metric(key="layers.macs", label="MACs", value=5.0)


def passed(budgets: Budgets, *, complete: bool = True, timings: bool = True) -> bool | None:
    (check,) = check_budgets(budgets, [MACS], complete=complete, timings=timings)
    return check.passed


def test_a_budget_without_a_value_fails() -> None:
    assert passed(Budgets(macs=5)) is True
    assert passed(Budgets(macs=4)) is False
    assert passed(Budgets(parameters=1)) is False


@pytest.mark.parametrize(
    ("budgets", "complete", "timings"),
    [
        (Budgets(parameters=1, unknown="allow"), True, True),
        (Budgets(parameters=1), False, True),  # --section left it out
        (Budgets(latency_ms=1), True, False),  # --no-timings left it out
    ],
)
def test_a_budget_is_not_judged_where_its_metric_was_left_out_on_request(
    budgets: Budgets, complete: bool, timings: bool
) -> None:
    assert passed(budgets, complete=complete, timings=timings) is None


def test_no_timings_excuses_times_only() -> None:
    assert passed(Budgets(parameters=1), timings=False) is False
