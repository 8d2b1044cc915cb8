"""SARIF 2.1.0, as GitHub code scanning reads it.

GitHub refuses a whole file for one result without a physical location, for a line below 1 and for
an empty array; a relative URI is a path from the root of the repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from reportgen.findings import Severity
from reportgen.render.problems import (
    BUDGET_EXCEEDED,
    SECTION_FAILED,
    Problem,
    all_problems,
    manifest_file,
)
from reportgen.report import Report
from reportgen.sections import SECTIONS
from reportgen.visible_text import visible

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_HOME = "urn:reportgen"  # the project has no address of its own yet, and the key is required
_ROOT = "SRCROOT"
_LEVELS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "note"}
_OWN_RULES: dict[str, tuple[str, str]] = {
    SECTION_FAILED: (
        "A section of the report applies to the model but could not be analyzed.",
        "Read the message: it names the cause and, where it is known, the line of the model.",
    ),
    BUDGET_EXCEEDED: (
        "A metric of the model exceeds a budget of the manifest, or has no value to prove it.",
        "Reduce the model, or raise the limit in the manifest and say why in the commit.",
    ),
}
_UNKNOWN = "A rule that this version of reportgen does not have."


def render_sarif(report: Report, root: Path) -> str:
    """The problems of `report` as a SARIF file.

    Args:
        report: the report.
        root: root of the repository, see `all_problems`.
    """
    problems = all_problems(report, root)
    codes = sorted({problem.code for problem in problems})
    run: dict[str, Any] = {
        "tool": {"driver": _driver(codes, report.environment.get("reportgen", "0"))},
        # Its last part would be the number of the run; all runs of a manifest are one category.
        "automationDetails": {"id": f"reportgen/{quote(manifest_file(report))}/"},
        "originalUriBaseIds": {_ROOT: {"description": {"text": "Root of the repository."}}},
        "columnKind": "utf16CodeUnits",
        "results": [_result(problem, codes.index(problem.code)) for problem in problems],
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, ensure_ascii=False, indent=1) + "\n"


def _driver(codes: Sequence[str], version: str) -> dict[str, Any]:
    driver: dict[str, Any] = {
        "name": "reportgen",
        "fullName": f"reportgen {version}",
        "version": version,
        "semanticVersion": version,
        "informationUri": _HOME,
    }
    if codes:
        driver["rules"] = [_descriptor(code) for code in codes]
    return driver


def _descriptor(code: str) -> dict[str, Any]:
    rules = {rule.code: rule for section in SECTIONS for rule in section.rules}
    if code in rules:
        rule = rules[code]
        name, level = rule.name, _LEVELS[rule.severity]
        documentation, advice = rule.documentation, rule.advice
    else:
        # A report that another version wrote may name a rule that this one does not have.
        name, level = code if code in _OWN_RULES else f"rule-{code}", "error"
        documentation, advice = _OWN_RULES.get(code, (_UNKNOWN, "See the report."))
    first = _sentence(documentation.split("\n\n")[0])
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in name.split("-")),
        "shortDescription": {"text": first},
        "fullDescription": {"text": _sentence(documentation)},
        "defaultConfiguration": {"level": level},
        "help": {
            "text": f"{documentation}\n\nAdvice: {advice}",
            "markdown": f"{documentation}\n\n**Advice:** {advice}",
        },
        "properties": {"tags": ["pytorch", "model"], "precision": "high"},
    }


def _result(problem: Problem, index: int) -> dict[str, Any]:
    message = _sentence(f"{problem.model}, {problem.where}: {problem.message}")
    advice = f" {_sentence(problem.advice)}" if problem.advice else ""
    place = {
        "artifactLocation": {"uri": quote(problem.file), "uriBaseId": _ROOT},
        "region": {"startLine": problem.line},
    }
    module = {
        "name": visible(problem.where),
        "fullyQualifiedName": visible(f"{problem.model}/{problem.where}"),
        "kind": "module",
    }
    result: dict[str, Any] = {
        "ruleId": problem.code,
        "ruleIndex": index,
        "level": _LEVELS[problem.severity],
        "message": {"text": f"{message}{advice}"},
        "locations": [{"physicalLocation": place, "logicalLocations": [module]}],
        "partialFingerprints": {"reportgen/v1": problem.fingerprint},
    }
    if problem.ignored is not None:
        reason = {"kind": "external", "status": "accepted", "justification": problem.ignored}
        result["suppressions"] = [reason]
    return result


def _sentence(text: str) -> str:
    """`text` in one line that ends with a period."""
    line = re.sub(r"\s+", " ", visible(text)).strip()
    return line if line.endswith((".", "!", "?")) else f"{line}."
