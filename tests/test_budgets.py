"""Budgets: absolute and relative limits, levels, waivers, and metrics without a value."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.budgets import Baseline, check_budgets
from reportgen.findings import Finding, Severity
from reportgen.manifest import Budgets, ModelSpec, Waiver, load_manifest
from reportgen.metrics import Metric
from reportgen.pipeline import accept_finding, baseline_of
from reportgen.provenance import describe_machine
from reportgen.report import BudgetCheck, ModelReport, Report, Timings, Verdict, judge
from reportgen.workers.limits import machine_memory

TODAY = date(2026, 11, 27)
MACS = Metric(key="layers.macs", label="MACs", value=5.0)
BEST = Metric(key="training.val/acc.best", label="Accuracy", value=0.9, direction="higher")
LATENCY = Metric(key="onnx.latency_ms", label="Latency", value=10.0, unit="ms", exact=False)


def passed(budgets: Budgets, *, complete: bool = True, timings: bool = True) -> bool | None:
    (check,) = check_budgets(budgets, [MACS], complete=complete, timings=timings, today=TODAY)
    return check.passed


def check_one(
    limit: object,
    metric: Metric,
    *,
    before: float | None = None,
    same_machine: bool = True,
    waivers: tuple[Waiver, ...] = (),
) -> BudgetCheck:
    """The check of `limit` on `metric`, whose value was `before` in the baseline."""
    old = {metric.key: replace(metric, value=before)}
    (check,) = check_budgets(
        Budgets.model_validate({"metrics": {metric.key: limit}}),
        [metric],
        baseline=None if before is None else Baseline(metrics=old, same_machine=same_machine),
        waivers=waivers,
        today=TODAY,
    )
    return check


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


@pytest.mark.parametrize(
    ("limit", "before", "threshold"),
    [
        ("+2%", 100.0, 102.0),
        ("-1%", 100.0, 99.0),
        ("+0", 100.0, 100.0),
        ("+3", 100.0, 103.0),
        ("+1k", 100.0, 1100.0),
        ("+1 KiB", 100.0, 1124.0),
        ("+2% and 1M", 1e6, 2e6),  # 2 % is less than the least change
        ("+2% and 1M", 1e9, 1.02e9),
        ("+50%", -10.0, -5.0),  # of the magnitude: an increase
    ],
)
def test_relative_limits_of_a_metric_that_should_be_low(
    limit: str, before: float, threshold: float
) -> None:
    within = check_one(limit, replace(MACS, value=threshold), before=before)
    assert (within.state, within.passed, within.limit) == ("within", True, threshold)
    assert within.baseline == before
    beyond = check_one(limit, replace(MACS, value=threshold + 1), before=before)
    assert (beyond.state, beyond.passed, beyond.level) == ("exceeded", False, "fail")


def test_a_plain_limit_is_a_minimum_where_higher_is_better() -> None:
    assert check_one(0.89, BEST).passed is True
    assert check_one(0.91, BEST).passed is False
    assert check_one({"max": 0.89}, BEST).passed is False
    assert check_one({"min": 6}, MACS).passed is False
    assert check_one("-1%", BEST, before=0.905).passed is True
    assert check_one("-1%", BEST, before=0.92).passed is False


def test_warn_and_fail_levels() -> None:
    levels = {"warn": 4, "fail": 6}
    states = {value: check_one(levels, replace(MACS, value=value)) for value in (4, 5, 7)}
    assert [(c.state, c.level, c.passed) for c in states.values()] == [
        ("within", "", True),
        ("warning", "warn", True),
        ("exceeded", "fail", False),
    ]
    assert states[5].limit == 4
    verdicts = [judge((), (), (check,)) for check in states.values()]
    assert verdicts == [Verdict.PASS, Verdict.WARN, Verdict.FAIL]


def test_an_absolute_level_is_judged_without_the_baseline_of_the_other() -> None:
    check = check_one({"warn": "+1%", "fail": 4}, MACS)
    assert (check.state, check.limit) == ("exceeded", 4)
    check = check_one({"warn": "+1%", "fail": 6}, MACS)
    assert (check.state, check.note) == ("within", "no baseline")


def test_a_relative_limit_is_not_judged_without_a_baseline() -> None:
    check = check_one("+2%", MACS)
    assert (check.passed, check.state, check.limit) == (None, "not judged", None)
    assert check.note == "no baseline"
    assert judge((), (), (check,)) is Verdict.PASS
    absent = Budgets(parameters="+2%")
    assert passed(absent) is None


def test_a_relative_limit_needs_a_value_if_there_is_a_baseline() -> None:
    check = check_one("+2%", replace(MACS, value=None), before=5)
    assert (check.passed, check.state) == (False, "no value")


def test_a_measured_metric_is_not_compared_with_another_machine() -> None:
    check = check_one("+2%", LATENCY, before=5, same_machine=False)
    assert (check.passed, check.state) == (None, "not judged")
    assert check_one("+2%", LATENCY, before=5).passed is False
    assert check_one("+2%", MACS, before=4, same_machine=False).passed is False


def test_a_lower_bound_proves_no_maximum_and_breaks_no_minimum() -> None:
    bound = replace(MACS, lower_bound=True)
    assert check_one(6, bound).state == "not proven"
    assert check_one(4, bound).state == "exceeded"
    assert check_one({"min": 4}, bound).state == "within"
    assert check_one({"min": 6}, bound).state == "not proven"


def waiver(**changes: object) -> Waiver:
    """A waiver of the budget `layers.macs` until today."""
    values = {"budget": "layers.macs", "reason": "new head", "owner": "Kim", "expires": TODAY}
    return Waiver.model_validate(values | changes)


def test_a_waived_budget_does_not_fail() -> None:
    check = check_one(4, MACS, waivers=(waiver(),))
    assert (check.state, check.passed, check.level) == ("waived", True, "fail")
    assert check.waived == "new head (accepted by Kim until 2026-11-27)"
    assert judge((), (), (check,)) is Verdict.PASS
    assert check_one(6, MACS, waivers=(waiver(),)).state == "within"


def test_an_expired_waiver_does_not_apply_and_says_so() -> None:
    check = check_one(4, MACS, waivers=(waiver(expires=date(2026, 11, 26)),))
    assert (check.state, check.passed, check.waived) == ("exceeded", False, None)
    assert check.note == "the waiver by Kim expired on 2026-11-26: new head"
    renewed = (waiver(expires=date(2026, 11, 26)), waiver(owner="Lee"))
    assert check_one(4, MACS, waivers=renewed).passed is True


def test_a_waiver_of_a_rule_accepts_its_findings_at_the_place() -> None:
    found = Finding(
        code="LAY001", severity=Severity.ERROR, where="head.fc", message="m", advice="a"
    )
    values = {"rule": "LAY001", "budget": None}
    spec = ModelSpec(name="m", waivers=(waiver(**values, where="head.*"),))
    accepted = accept_finding(found, spec, TODAY)
    assert accepted.ignored == "new head (accepted by Kim until 2026-11-27)"
    assert accept_finding(replace(found, where="body"), spec, TODAY).ignored is None
    later = accept_finding(found, spec, date(2026, 11, 28))
    assert (later.ignored, later.note[:20]) == (None, "the waiver by Kim ex")
    everywhere = ModelSpec(name="m", waivers=(waiver(**values),))
    assert accept_finding(found, everywhere, TODAY).ignored is not None


def test_waivers_at_the_top_are_added_to_those_of_a_model(tmp_path: Path) -> None:
    text = """
version: 1
title: t
budgets: {macs: "+2% and 1M", onnx.bytes: {warn: 28M, fail: 30M}}
waivers: [{budget: macs, reason: r, owner: o, expires: 2026-12-31}]
models:
- name: a
  source: torchvision:a
  waivers: [{rule: LAY001, where: head, reason: r, owner: o, expires: 2026-12-31}]
"""
    (tmp_path / "m.yaml").write_text(text)
    (model,) = load_manifest(tmp_path / "m.yaml", rule_codes=lambda: {"LAY001"}).models
    assert [(each.budget, each.rule) for each in model.waivers] == [
        ("macs", None),
        (None, "LAY001"),
    ]
    assert ModelSpec.model_validate_json(model.model_dump_json()) == model


amounts = st.floats(min_value=1, max_value=1e12)


@given(amounts, amounts, st.integers(0, 100), st.integers(0, 10**9))
def test_a_least_change_only_loosens_a_limit(
    before: float, value: float, percent: int, least: int
) -> None:
    metric = replace(MACS, value=value)
    both = check_one(f"+{percent}% and {least}", metric, before=before)
    alone = check_one(f"+{percent}%", metric, before=before)
    floor = check_one(f"+{least}", metric, before=before)
    assert both.passed == (alone.passed or floor.passed)


def test_the_examples_of_the_documentation_are_valid(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "budgets.md").read_text()
    blocks = "".join(part.partition("```")[0] for part in page.split("```yaml\n")[1:])
    head = "version: 1\ntitle: t\ntargets: [T4]\nmodels: [{name: a, source: 'torchvision:a'}]\n"
    (tmp_path / "m.yaml").write_text(head + blocks)
    (model,) = load_manifest(tmp_path / "m.yaml").models
    assert len(model.budgets.limits()) == 7
    assert [each.owner for each in model.waivers] == ["Kim", "Kim"]


def report_of(metric: Metric, *, cores: int = 0) -> Report:
    """A report of one model, made on this machine or on one with other `cores`."""
    machine = describe_machine(machine_memory())
    timings = Timings(
        built="2026-11-27T03:15:00+00:00",
        total_seconds=1.0,
        section_seconds={},
        machine=replace(machine, cores=cores) if cores else machine,
    )
    model = ModelReport(
        name="m", source="", comment="", seed=0, weights="", verdict=Verdict.PASS, budgets=(),
        findings=(), sections=(), metrics=(metric,),
    )  # fmt: skip
    return Report(title="t", environment={"torch": "2"}, timings=timings, models=(model,))


def test_the_baseline_of_a_model_is_in_the_old_report_by_name() -> None:
    found = baseline_of("m", report_of(MACS), {"torch": "2"})
    assert found is not None
    assert (found.metrics, found.same_machine) == ({"layers.macs": MACS}, True)
    assert baseline_of("other", report_of(MACS), {"torch": "2"}) is None
    assert baseline_of("m", None, {}) is None


def test_other_versions_or_another_machine_make_a_baseline_incomparable() -> None:
    other = baseline_of("m", report_of(LATENCY), {"torch": "3"})
    assert other is not None
    assert not other.same_machine
    elsewhere = baseline_of("m", report_of(LATENCY, cores=999), {"torch": "2"})
    assert elsewhere is not None
    assert not elsewhere.same_machine
