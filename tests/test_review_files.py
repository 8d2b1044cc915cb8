"""SARIF and JUnit: what CI servers refuse, and that they count what the report counts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from report_values import finding, full_report, hostile_report, model, write_in

from reportgen.findings import Finding, Severity
from reportgen.outcome import Failed, Skipped
from reportgen.render.ci_formats.junit import render_junit
from reportgen.render.ci_formats.sarif import render_sarif
from reportgen.render.problems import BUDGET_EXCEEDED, SECTION_FAILED, all_problems, budget_message
from reportgen.report import BudgetCheck, BudgetLimit, Report, Verdict

ROOT = Path(__file__).parents[1]
REPORTS = [full_report(), hostile_report()]
both = pytest.mark.parametrize("report", REPORTS, ids=["full", "hostile"])


def _run(report: Report, root: Path = ROOT) -> dict[str, Any]:
    [run] = json.loads(render_sarif(report, root))["runs"]
    return run


def _with(*findings: Finding, manifest: str = "", line: int = 1) -> Report:
    one = model("net", Verdict.WARN, sections=(), findings=findings)
    return replace(full_report(), models=(replace(one, line=line),), manifest=manifest)


def _place(report: Report, root: Path) -> tuple[str, int]:
    [result] = _run(report, root)["results"]
    place = result["locations"][0]["physicalLocation"]
    return place["artifactLocation"]["uri"], place["region"]["startLine"]


def _values(node: Any) -> Iterator[Any]:
    yield node
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _values(inner)


@both
def test_sarif_has_a_result_for_every_finding_failed_section_and_broken_budget(
    report: Report,
) -> None:
    counts: Counter[str] = Counter()
    for each in report.models:
        counts.update(finding.code for finding in each.findings)
        counts[SECTION_FAILED] += sum(isinstance(s.outcome, Failed) for s in each.sections)
        counts[BUDGET_EXCEEDED] += sum(budget.level != "" for budget in each.budgets)
    results = Counter(result["ruleId"] for result in _run(report)["results"])
    assert results == +counts


@both
def test_github_accepts_the_sarif_file(report: Report) -> None:
    """The three things for which it refuses a file, and what it needs to find an alert again."""
    run = _run(report)
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]
        assert place["region"]["startLine"] >= 1
        uri = place["artifactLocation"]["uri"]
        assert not uri.startswith(("/", ".")), uri
        assert ":" not in uri
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["message"]["text"]
    assert not [value for value in _values(run) if value in ([], {}, None)]
    prints = [result["partialFingerprints"]["reportgen/v1"] for result in run["results"]]
    assert len(prints) == len(set(prints))


def test_a_run_without_problems_has_no_empty_list_of_rules() -> None:
    run = _run(replace(full_report(), models=(model("net", Verdict.PASS, sections=()),)))
    assert run["results"] == []  # required by the schema
    assert "rules" not in run["tool"]["driver"]


def test_a_rule_comes_with_its_documentation() -> None:
    run = _run(_with(finding("LAY001", Severity.NOTE, "fc", "large", "")))
    [rule] = run["tool"]["driver"]["rules"]
    assert (rule["name"], rule["defaultConfiguration"]["level"]) == ("DominantLayer", "note")
    assert rule["fullDescription"]["text"].startswith("One layer holds more than half")
    assert "**Advice:**" in rule["help"]["markdown"]


def test_runs_of_one_manifest_are_one_category() -> None:
    names = [
        _run(_with(manifest=name))["automationDetails"]["id"] for name in ("a/b.yaml", "c.yaml")
    ]
    assert names == ["reportgen/a/b.yaml/", "reportgen/c.yaml/"]


def test_a_finding_is_at_the_line_of_its_module_else_at_its_entry_in_the_manifest(
    tmp_path: Path,
) -> None:
    for file in ("models/m.yaml", "models/net.py", "lib.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path.parent / "outside.py").touch()

    def place(source: str) -> tuple[str, int]:
        located = Finding(code="LAY001", severity=Severity.NOTE, where="fc", message="m",
                           advice="", source=source)  # fmt: skip
        return _place(_with(located, manifest="models/m.yaml", line=7), tmp_path)

    assert place("net.py:12") == ("models/net.py", 12)
    assert place("lib.py:3") == ("lib.py", 3)
    for elsewhere in ("", "torchvision/models/resnet.py:90", "../../outside.py:1", "net.py:x"):
        assert place(elsewhere) == ("models/m.yaml", 7), elsewhere


def test_a_uri_is_escaped() -> None:
    report = _with(finding("LAY001", Severity.NOTE, "fc", "m", ""), manifest="a b/é#.yaml")
    assert _place(report, ROOT)[0] == "a%20b/%C3%A9%23.yaml"


def test_a_fingerprint_survives_other_words_and_lines_and_tells_equal_findings_apart() -> None:
    one = finding("LAY001", Severity.NOTE, "fc", "holds 50 %", "")
    two = replace(one, message="holds 60 %")
    first = all_problems(_with(one, one), ROOT)
    later = all_problems(_with(two, two, line=9), ROOT)
    assert [p.fingerprint for p in first] == [p.fingerprint for p in later]
    assert first[0].fingerprint != first[1].fingerprint


def test_ignored_findings_are_suppressed_with_their_reason() -> None:
    run = _run(_with(finding("LAY001", Severity.NOTE, "fc", "m", "", ignored="kept on purpose")))
    [suppression] = run["results"][0]["suppressions"]
    assert (suppression["kind"], suppression["justification"]) == ("external", "kept on purpose")


def _limit(number: float, side: str = "max", text: str = "", level: str = "fail") -> BudgetLimit:
    return BudgetLimit(level=level, side=side, limit=number, text=text,  # type: ignore[arg-type]
                       relative=text.startswith("+"))  # fmt: skip


def _budget(limit: BudgetLimit, value: float | None, **fields: Any) -> BudgetCheck:
    values = {"passed": False, "state": "exceeded", "level": limit.level, **fields}
    return BudgetCheck(name="macs", limit=limit.limit, value=value, limits=(limit,), **values)


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        (_budget(_limit(30e6), 30_000_001), "at most 30,000,000, but the value is 30,000,001"),
        (_budget(_limit(9, "min"), 5), "at least 9, but the value is 5"),
        (
            _budget(_limit(1024, text="+2%"), 2048, unit="bytes"),
            "at most 1,024 B (+2% of the baseline), but the value is 2,048 B",
        ),
        (_budget(_limit(9), None, state="no value"), "the metric of budget macs has no value"),
        (
            _budget(_limit(9), 5, state="not proven"),
            "at most 9; 5 is a lower bound and does not prove it",
        ),
    ],
)
def test_a_budget_is_said_with_all_digits(budget: BudgetCheck, text: str) -> None:
    assert budget_message(budget).removeprefix("budget macs allows ") == text


def test_a_budget_that_warns_is_a_warning_and_a_waived_one_is_suppressed() -> None:
    warns = _budget(_limit(9, level="warn"), 10, passed=True, state="warning")
    waived = _budget(_limit(9), 10, passed=True, state="waived", waived="agreed until May")
    one = replace(model("net", Verdict.WARN, sections=()), budgets=(warns, waived))
    report = replace(full_report(), models=(one,))
    first, second = _run(report)["results"]
    assert (first["level"], "suppressions" in first) == ("warning", False)
    assert second["suppressions"][0]["justification"] == "agreed until May"
    [suite] = _xml(report)
    assert [case[0].tag for case in suite.findall("testcase[@name='budget macs']")] == [
        "system-out", "skipped",
    ]  # fmt: skip


def _multitool() -> Path | None:
    packages = ROOT / ".venv/npm/node_modules/@microsoft/sarif-multitool-linux"
    named = os.environ.get("SARIF_MULTITOOL") or packages / "Sarif.Multitool"
    return Path(named) if Path(named).is_file() else None


@both
@pytest.mark.slow
def test_sarif_multitool_has_no_error_and_no_warning(report: Report, tmp_path: Path) -> None:
    """Judged by its results: its exit status is 0 either way."""
    tool = _multitool()
    if tool is None:
        pytest.skip("sarif-multitool is not installed; see `make` target .installed-test")
    tool.chmod(0o755)  # npm unpacks without running install scripts
    (tmp_path / "r.sarif").write_text(render_sarif(report, ROOT), encoding="utf-8")
    subprocess.run(
        [tool, "validate", "r.sarif", "--rule-kind", "Sarif;Ghas", "--level", "Error;Warning;Note",
         "--output", "v.sarif", "--log", "ForceOverwrite"],
        cwd=tmp_path, check=False, capture_output=True,
    )  # fmt: skip
    [run] = json.loads((tmp_path / "v.sarif").read_text(encoding="utf-8-sig"))["runs"]
    results = run["results"]
    assert results  # it always has notes: it has run
    assert [r for r in results if r.get("level", "warning") != "note"] == []


def _xml(report: Report) -> ET.Element:
    return ET.fromstring(render_junit(report))


@both
def test_junit_counts_what_the_report_counts(report: Report) -> None:
    for each, suite in zip(report.models, _xml(report), strict=True):
        failing = [b for b in each.budgets if b.passed is False]
        errors = {f.code for f in each.findings
                  if f.severity is Severity.ERROR and f.ignored is None}  # fmt: skip
        failed = [s for s in each.sections if isinstance(s.outcome, Failed)]
        codes = {f.code for f in each.findings}
        assert suite.get("name") == each.name.replace("\u202e", "\\u202e")
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
        assert len(suite) == len(each.sections) + len(each.budgets) + len(codes)
        assert int(suite.get("errors", "")) == len(failed) == len(suite.findall("*/error"))
        assert int(suite.get("failures", "")) == len(failing) + len(errors)
        assert int(suite.get("skipped", "")) == len(suite.findall("*/skipped"))
        skipped = [s for s in each.sections if isinstance(s.outcome, Skipped)]
        assert len(suite.findall("*/skipped")) >= len(skipped)


@both
def test_a_suite_fails_exactly_if_its_model_does(report: Report) -> None:
    for each, suite in zip(report.models, _xml(report), strict=True):
        bad = int(suite.get("errors", "")) + int(suite.get("failures", ""))
        failed = any(isinstance(section.outcome, Failed) for section in each.sections)
        assert (bad > 0) == (each.verdict is Verdict.FAIL or failed)


# The elements written, and their attributes in junit-10.xsd, the schema of Jenkins and pytest.
_ALLOWED = {
    "testsuites": {"name", "time", "tests", "failures", "errors"},
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testcase": {"name", "classname", "time"},
    "skipped": {"message", "type"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "system-out": set(),
}


@both
def test_junit_uses_only_what_its_schema_has(report: Report) -> None:
    for element in _xml(report).iter():
        assert set(element.attrib) <= _ALLOWED[element.tag], element.tag


def test_characters_that_xml_forbids_are_escaped() -> None:
    text = "a\x00b\x0c\ufffe\ud800]]>&<"
    junit = _xml(_with(finding("LAY001", Severity.ERROR, "fc", text, "")))
    [failure] = junit.iter("failure")
    assert failure.get("message") == "error: fc: a\\u0000b\\u000c\\ufffe\\ud800]]>&<"


def test_junitparser_reads_the_same_counts(tmp_path: Path) -> None:
    junitparser = pytest.importorskip("junitparser")
    file = tmp_path / "report.junit.xml"
    file.write_bytes(render_junit(full_report()))
    read = junitparser.JUnitXml.fromfile(str(file))
    xml = _xml(full_report())
    assert (read.tests, read.failures, read.errors) == tuple(
        int(xml.get(name, "")) for name in ("tests", "failures", "errors")
    )
    assert [suite.name for suite in read] == [each.name for each in full_report().models]


def test_both_files_are_written_on_request_only(tmp_path: Path) -> None:
    from reportgen.outputs import DEFAULT_FORMATS

    assert not {"sarif", "junit"} & set(DEFAULT_FORMATS)
    report = replace(full_report(), models=())
    out = tmp_path / "out"
    write_in(out, report, tmp_path / "work", {"sarif", "junit"})
    names = sorted(path.name for path in out.iterdir())
    assert names == ["report.json", "report.junit.xml", "report.sarif"]
    shutil.rmtree(tmp_path / "work", ignore_errors=True)
    write_in(out, report, tmp_path / "work", {"json"})
    assert [path.name for path in out.iterdir()] == ["report.json"]
