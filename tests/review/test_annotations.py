"""Workflow commands: at file and line, escaped, and no more than GitHub shows."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from report_values import finding, full_report, hostile_report, model
from typer.testing import CliRunner

from reportgen import cli
from reportgen.findings import Finding, Severity
from reportgen.report import Report, Verdict, report_to_json
from reportgen.review.annotations import workflow_commands
from reportgen.review.steps import annotate_folder

COMMAND = re.compile(r"::(error|warning|notice) file=[^,:]+,line=\d+,title=[^,:]*::.*")


def _report(*findings: Finding) -> Report:
    one = replace(model("net", Verdict.WARN, sections=(), findings=findings), line=7)
    return replace(full_report(), models=(one,), manifest="m.yaml")


def test_an_annotation_has_place_title_and_advice(tmp_path: Path) -> None:
    report = _report(finding("LAY001", Severity.WARNING, "fc", "is large", "make it small"))
    [line] = workflow_commands(report, tmp_path)
    place = "file=m.yaml,line=7,title=LAY001 net fc"
    assert line == f"::warning {place}::is large%0Amake it small"


def test_a_text_cannot_end_a_command_or_start_another(tmp_path: Path) -> None:
    evil = finding("LAY001", Severity.NOTE, "a,b:c::", "50 %\r\n::error::x\n::set-env", "")
    [line] = workflow_commands(_report(evil), tmp_path)
    assert line == (
        "::notice file=m.yaml,line=7,title=LAY001 net a%2Cb%3Ac%3A%3A"
        "::50 %25\\u000d%0A::error::x%0A::set-env"
    )
    for command in workflow_commands(hostile_report(), tmp_path):
        assert COMMAND.fullmatch(command), command


def test_the_worst_come_first_and_accepted_ones_not_at_all(tmp_path: Path) -> None:
    report = _report(
        finding("LAY001", Severity.NOTE, "a", "m", ""),
        finding("LAY002", Severity.ERROR, "b", "m", ""),
        finding("LAY003", Severity.ERROR, "c", "m", "", ignored="reason"),
        finding("LAY004", Severity.WARNING, "d", "m", ""),
    )
    kinds = [line.split()[0] for line in workflow_commands(report, tmp_path)]
    assert kinds == ["::error", "::warning", "::notice"]


def test_more_than_github_shows_are_one_line(tmp_path: Path) -> None:
    many = [finding("LAY001", Severity.ERROR, str(n), "m", "") for n in range(25)]
    lines = workflow_commands(_report(*many), tmp_path)
    assert len(lines) == 10
    assert lines[-1].endswith("::16 more of this severity: see the summary of the job")
    assert len(workflow_commands(_report(*many[:10]), tmp_path)) == 10
    assert "more" not in workflow_commands(_report(*many[:10]), tmp_path)[-1]


def test_the_command_prints_them_and_appends_to_the_summary_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = _report(finding("LAY001", Severity.WARNING, "fc", "is large", ""))
    (tmp_path / "report.json").write_text(report_to_json(report), encoding="utf-8")
    (tmp_path / "summary.md").write_text("## 모델\n", encoding="utf-8")
    job = tmp_path / "job.md"
    job.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(job))
    result = CliRunner().invoke(cli.app, ["annotate", str(tmp_path)])
    assert result.stdout == "::warning file=m.yaml,line=7,title=LAY001 net fc::is large\n"
    assert job.read_text(encoding="utf-8") == "before\n## 모델\n\n"
    assert annotate_folder(tmp_path, {}) == tuple(result.stdout.splitlines())  # outside a job
