"""Metrics of two reports: differences and verdicts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.compare.metrics import diff_metrics
from reportgen.metrics import COMPARISON, Metric


def metric(value: float | None, **other: Any) -> Metric:
    return Metric(**{"key": "s.m", "label": "M", "value": value, "direction": "lower", **other})


@pytest.mark.parametrize(
    ("old", "new", "verdict", "difference", "percent"),
    [
        (metric(100), metric(150), "worse", 50, 50),
        (metric(100), metric(75), "better", -25, -25),
        (metric(4, direction="higher"), metric(5, direction="higher"), "better", 1, 25),
        (metric(4, direction="none"), metric(5, direction="none"), "changed", 1, 25),
        (metric(0), metric(5), "worse", 5, None),
        (metric(None), metric(5), "changed", None, None),
        (metric(5), metric(None), "changed", None, None),
        (metric(100), metric(150, lower_bound=True), "changed", 50, 50),
        (metric(2.0, unit="ms", exact=False), metric(9.0, unit="ms", exact=False), "noise", 7, 350),
        (metric(0.5, exact=False), metric(0.25, exact=False), "noise", -0.25, -50),
        (metric(-2.0), metric(-1.0), "worse", 1, 50),
    ],
)
def test_a_difference_is_judged_by_the_direction(
    old: Metric, new: Metric, verdict: str, difference: float | None, percent: float | None
) -> None:
    [change] = diff_metrics([old], [new])
    assert (change.verdict, change.difference, change.percent) == (verdict, difference, percent)


def test_parity_is_judged_by_its_quality() -> None:
    holds = metric(1, text="holds", quality="good", direction="higher", exact=False)
    vacuous = metric(None, text="vacuous", quality="doubt", direction="higher", exact=False)
    broken = metric(0, text="broken", quality="bad", direction="higher", exact=False)
    verdicts = {
        (a.text, b.text): diff_metrics([a], [b])[0].verdict
        for a in (holds, vacuous, broken)
        for b in (holds, vacuous, broken)
        if a is not b
    }
    assert verdicts == {
        ("holds", "vacuous"): "worse",
        ("holds", "broken"): "worse",
        ("vacuous", "broken"): "worse",
        ("vacuous", "holds"): "better",
        ("broken", "holds"): "better",
        ("broken", "vacuous"): "better",
    }


def test_an_exact_metric_that_differs_with_the_tool_alone_is_not_judged() -> None:
    [change] = diff_metrics(
        [metric(100)], [metric(150)], tools="torch 2.14 → 2.15", only_tools=True
    )
    assert change.verdict == "changed"
    assert change.note == "the model is the same; torch 2.14 → 2.15"


def test_metrics_of_one_side_come_with_the_side() -> None:
    old, new = metric(1, key="s.old"), metric(2, key="s.new")
    changes = diff_metrics([old], [new])
    assert [(c.key, c.old, c.new, c.note) for c in changes] == [
        ("s.new", None, 2, "not in the baseline"),
        ("s.old", 1, None, "only in the baseline"),
    ]


def test_digits_are_shown_where_rounding_hides_the_difference() -> None:
    [change] = diff_metrics([metric(25_557_032)], [metric(25_557_033, table=COMPARISON)])
    assert (change.old_text, change.new_text) == ("25,557,032", "25,557,033")
    assert change.headline


values = st.one_of(st.none(), st.integers(-10, 10).map(float))
metrics = st.lists(
    st.builds(
        metric,
        values,
        key=st.sampled_from(["s.a", "s.b", "s.c"]),
        direction=st.sampled_from(["lower", "higher", "none"]),
        exact=st.booleans(),
    ),
    unique_by=lambda m: m.key,
)


@given(metrics)
def test_equal_metrics_have_no_difference(same: list[Metric]) -> None:
    assert diff_metrics(same, same) == ()


_MIRROR = {"better": "worse", "worse": "better", "changed": "changed", "noise": "noise"}


@given(metrics, metrics)
def test_the_reverse_comparison_mirrors_it(old: list[Metric], new: list[Metric]) -> None:
    kinds = {m.key: (m.direction, m.exact) for m in old}
    new = [m for m in new if kinds.get(m.key, (m.direction, m.exact)) == (m.direction, m.exact)]
    there = {c.key: c for c in diff_metrics(old, new)}
    back = {c.key: c for c in diff_metrics(new, old)}
    assert there.keys() == back.keys()
    for key, change in there.items():
        assert (change.old, change.new) == (back[key].new, back[key].old)
        assert _MIRROR[change.verdict] == back[key].verdict
