"""Two whole reports: sections of one side, models of one side, JSON, Markdown and HTML."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_values import full_report, small_report

from reportgen.compare.as_json import comparison_to_data
from reportgen.compare.reading import read_report
from reportgen.compare.reports import compare_reports
from reportgen.errors import BaselineError
from reportgen.findings import Finding, Severity
from reportgen.outcome import Failed, SectionOutcome
from reportgen.render import changes_of, render_changes, render_comparison, render_summary
from reportgen.report import ModelReport, Report, report_from_json, report_to_json
from reportgen.sections import SECTIONS


def with_metric(model: ModelReport, key: str, value: float) -> ModelReport:
    metrics = tuple(
        replace(metric, value=value) if metric.key == key else metric for metric in model.metrics
    )
    assert metrics != model.metrics
    return replace(model, metrics=metrics)


def first_changed(report: Report, key: str, value: float) -> Report:
    return replace(report, models=(with_metric(report.models[0], key, value), *report.models[1:]))


def failing(model: ModelReport, name: str) -> ModelReport:
    return replace(
        model,
        sections=tuple(
            replace(each, outcome=Failed(error="lost")) if each.name == name else each
            for each in model.sections
        ),
    )


def test_a_report_compared_with_itself_is_unchanged() -> None:
    report = full_report()
    comparison = compare_reports(report, report)
    assert {model.status for model in comparison.models} == {"unchanged"}
    assert comparison.environment == ()
    assert changes_of(comparison).sentence == "Nothing changed."


def test_a_changed_metric_is_named_and_nothing_else() -> None:
    old = full_report()
    metric = next(m for m in old.models[0].metrics if m.key == "layers.parameters")
    assert metric.value is not None
    new = first_changed(old, "layers.parameters", metric.value * 1.5)
    first, *others = compare_reports(old, new).models
    assert [(c.key, c.percent, c.verdict) for c in first.metrics] == [
        ("layers.parameters", 50, "worse")
    ]
    assert {model.status for model in others} == {"unchanged"}


def test_models_of_one_side_are_added_or_removed() -> None:
    old = full_report()
    new = replace(old, models=(replace(old.models[0], name="other"), *old.models[1:]))
    statuses = {model.name: model.status for model in compare_reports(old, new).models}
    assert statuses["other"] == "added"
    assert statuses[old.models[0].name] == "removed"


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_section_that_failed_on_one_side_is_not_compared(side: str) -> None:
    whole = small_report()
    part = replace(whole, models=(failing(whole.models[0], "layers"), *whole.models[1:]))
    old, new = (part, whole) if side == "old" else (whole, part)
    model, *_ = compare_reports(old, new).models
    where = {"old": "the baseline", "new": "this report"}[side]
    assert [(each.section, each.reason) for each in model.not_compared] == [
        ("Layers", f"failed in {where}")
    ]
    assert [change for change in model.metrics if change.key.startswith("layers.")] == []


def test_versions_that_differ_are_named() -> None:
    old = small_report()
    new = replace(old, environment={**old.environment, "torch": "9.9"})
    new = first_changed(new, "onnx.bytes", 1)
    comparison = compare_reports(old, new)
    assert [(e.field, e.new) for e in comparison.environment] == [("torch", "9.9")]


def test_the_json_has_the_documented_keys() -> None:
    old = full_report()
    data = comparison_to_data(compare_reports(old, first_changed(old, "layers.macs", 7)))
    assert data["format"] == 1
    assert {"verdict", "models"} <= data.keys()
    model = data["models"][0]
    keys = {"name", "status", "metrics", "modules", "state_dict", "onnx", "findings", "fits"}
    assert keys <= model.keys()
    assert {"key", "old", "new", "difference", "percent", "verdict"} <= model["metrics"][0].keys()
    assert model["findings"].keys() == {"new", "fixed"}
    assert json.loads(json.dumps(data)) == data


def rows_of(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith("| :--")
    ]


def test_the_headline_counts_the_models_of_the_table_below_it() -> None:
    old = full_report()
    new = replace(
        old, models=tuple(with_metric(m, "layers.parameters", 1) for m in old.models[:3])
        + old.models[3:],
    )  # fmt: skip
    text = render_changes(changes_of(compare_reports(old, new)))
    said = re.search(r"(\d+) of (\d+) models changed", text)
    assert said is not None
    named = [row[0] for row in rows_of(text)[1:] if row[0]]
    assert int(said[1]) == len(named) == 3
    assert int(said[2]) == len(old.models)


def test_new_findings_come_first_on_every_page() -> None:
    old = small_report()
    finding = Finding(
        code="LAY001", severity=Severity.ERROR, where="fc", message="is <b>large</b>", advice="x"
    )
    new = replace(old, models=(replace(old.models[0], findings=(finding,)),))
    comparison = compare_reports(old, new)
    assert comparison.models[0].findings.new == (finding,)
    page = render_comparison(comparison, changes_of(comparison))
    assert "is &lt;b&gt;large&lt;/b&gt;" in page
    summary = render_summary(new, changes_of(comparison))
    assert summary.index("What changed") < summary.index("| Model | Verdict")


def test_a_baseline_that_cannot_be_read_is_an_error_with_a_hint(tmp_path: Path) -> None:
    broken = tmp_path / "report.json"
    broken.write_text('{"format": 99}')
    for place in (tmp_path / "missing.json", broken, tmp_path):
        with pytest.raises(BaselineError) as caught:
            read_report(place)
        assert caught.value.hint


def test_a_section_that_another_version_wrote_is_not_compared() -> None:
    report = small_report()
    data: dict[str, Any] = json.loads(report_to_json(report))
    data["models"][0]["sections"]["layers"] = {"status": "done", "result": {"other": 1}}
    old = report_from_json(json.dumps(data), SECTIONS)
    outcome = next(s for s in old.models[0].sections if s.name == "layers").outcome
    assert isinstance(outcome, Failed)
    model, *_ = compare_reports(old, report).models
    assert "Layers" in {each.section for each in model.not_compared}


def test_sections_unknown_to_this_version_are_left_out() -> None:
    report = small_report()
    data: dict[str, Any] = json.loads(report_to_json(report))
    data["models"][0]["sections"]["horoscope"] = {"status": "skipped", "reason": "cloudy"}
    read = report_from_json(json.dumps(data), SECTIONS)
    assert [s.name for s in read.models[0].sections] == [s.name for s in report.models[0].sections]
    assert all(isinstance(section, SectionOutcome) for section in read.models[0].sections)
