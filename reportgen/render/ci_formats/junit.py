"""JUnit XML, as CI servers read it: a suite per model, a case per section, budget and rule.

What makes the verdict fail is an error or a failure here. A warning passes and is printed with its
case, since JUnit has no state between the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree as ET

from reportgen.findings import Finding, Severity
from reportgen.outcome import Failed, Skipped
from reportgen.render.problems import budget_message
from reportgen.report import ModelReport, Report
from reportgen.visible_text import visible

# Not characters of XML 1.0, and not hidden ones that `visible` escapes.
_NOT_XML = re.compile("[\ufffe\uffff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Case:
    """One test case; `message` is the reason of its state, `output` what it prints."""

    name: str
    state: Literal["passed", "skipped", "failure", "error"] = "passed"
    message: str = ""
    output: str = ""
    seconds: float | None = None


def render_junit(report: Report) -> bytes:
    """The report as a JUnit file, UTF-8."""
    suites = [
        _suite(model, tuple(_cases(report, model)), _seconds(report, model))
        for model in report.models
    ]
    root = ET.Element("testsuites", name=_xml(f"reportgen: {report.title}"))
    # Not `skipped`: the schema does not allow it here.
    for count in ("tests", "failures", "errors"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.extend(suites)
    ET.indent(root, " ")
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'.encode()


def _seconds(report: Report, model: ModelReport) -> dict[str, float]:
    return report.timings.section_seconds.get(model.name, {}) if report.timings else {}


def _cases(report: Report, model: ModelReport) -> Iterator[_Case]:
    seconds = _seconds(report, model)
    for section in model.sections:
        name, outcome = f"section {section.name}", section.outcome
        time = seconds.get(section.name)
        if isinstance(outcome, Failed):
            text = " ".join(filter(None, (outcome.error, outcome.hint)))
            yield _Case(name=name, state="error", message=text, seconds=time)
        elif isinstance(outcome, Skipped):
            yield _Case(name=name, state="skipped", message=outcome.reason, seconds=time)
        else:
            yield _Case(name=name, seconds=time)
    for budget in model.budgets:
        name = f"budget {budget.name}"
        if budget.passed is None:
            yield _Case(name=name, state="skipped", message=budget.note or "not judged")
        elif budget.waived is not None:
            yield _Case(name=name, state="skipped", message=f"waived: {budget.waived}")
        elif budget.passed:
            yield _Case(name=name, output=budget_message(budget) if budget.level else "")
        else:
            yield _Case(name=name, state="failure", message=budget_message(budget))
    by_rule: dict[str, list[Finding]] = {}
    for finding in model.findings:
        by_rule.setdefault(finding.code, []).append(finding)
    for code, findings in by_rule.items():
        yield _rule_case(code, findings)


def _rule_case(code: str, findings: list[Finding]) -> _Case:
    open_ones = [finding for finding in findings if finding.ignored is None]
    lines = "\n".join(_line(finding) for finding in findings)
    if not open_ones:
        return _Case(name=f"rule {code}", state="skipped", message=lines)
    if any(finding.severity is Severity.ERROR for finding in open_ones):
        return _Case(name=f"rule {code}", state="failure", message=lines)
    return _Case(name=f"rule {code}", output=lines)


def _line(finding: Finding) -> str:
    ignored = f" (ignored: {finding.ignored})" if finding.ignored is not None else ""
    return f"{finding.severity.value}: {finding.where}: {finding.message}{ignored}"


def _suite(model: ModelReport, cases: tuple[_Case, ...], seconds: dict[str, float]) -> ET.Element:
    states = [case.state for case in cases]
    suite = ET.Element(
        "testsuite",
        name=_xml(model.name),
        tests=str(len(cases)),
        failures=str(states.count("failure")),
        errors=str(states.count("error")),
        skipped=str(states.count("skipped")),
    )
    if seconds:
        suite.set("time", f"{sum(seconds.values()):.3f}")
    for case in cases:
        suite.append(_element(model, case))
    return suite


def _element(model: ModelReport, case: _Case) -> ET.Element:
    element = ET.Element("testcase", name=_xml(case.name), classname=_xml(model.name))
    if case.seconds is not None:
        element.set("time", f"{case.seconds:.3f}")
    if case.state != "passed":
        first, _, _ = case.message.partition("\n")
        reason = ET.SubElement(element, case.state, message=_xml(first))
        if case.state != "skipped":
            reason.set("type", case.name.partition(" ")[0])
        reason.text = _xml(case.message)
    if case.output:
        ET.SubElement(element, "system-out").text = _xml(case.output)
    return element


def _xml(text: str) -> str:
    return _NOT_XML.sub(lambda found: f"\\u{ord(found[0]):04x}", visible(text))
