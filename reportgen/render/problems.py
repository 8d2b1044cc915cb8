"""Everything that a reviewer is to see at a line of a file: findings, failed sections, budgets."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from reportgen import units
from reportgen.findings import Finding, Severity
from reportgen.report import BudgetCheck, ModelReport, Report, failures

SECTION_FAILED = "section-failed"
BUDGET_EXCEEDED = "budget-exceeded"
_EXACT = 10**15  # above it, float cannot tell neighboring integers apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One problem of one model, at a line of a file in the repository.

    Attributes:
        code: of the rule, or `SECTION_FAILED` or `BUDGET_EXCEEDED`.
        severity: of the rule; an error for a failed section; of the level that is exceeded.
        model: the model's name.
        where: the module, tensor, section or budget.
        message: what is wrong, with the values.
        advice: what to do; "" if it is unknown.
        ignored: the reason in the manifest for accepting it, or the waiver.
        file: from the root of the repository, with slashes.
        line: at least 1.
        fingerprint: equal in later reports, whatever the wording and the line; unique in a report.
    """

    code: str
    severity: Severity
    model: str
    where: str
    message: str
    advice: str
    ignored: str | None
    file: str
    line: int
    fingerprint: str


def all_problems(report: Report, root: Path) -> tuple[Problem, ...]:
    """Every problem of every model, in the order of the report.

    Args:
        report: the report.
        root: root of the repository; files that do not exist below it are not named.
    """
    found = [each for model in report.models for each in _of_model(report, model, root)]
    seen: Counter[str] = Counter()
    unique = []
    for problem in found:
        seen[problem.fingerprint] += 1
        number = seen[problem.fingerprint]
        unique.append(replace(problem, fingerprint=f"{problem.fingerprint}:{number}"))
    return tuple(unique)


def repository_root(report: Report) -> Path:
    """The nearest parent of the current folder below which the report's manifest lies."""
    here = Path.cwd()
    known = (folder for folder in (here, *here.parents) if (folder / report.manifest).is_file())
    return next(known, here)


def manifest_file(report: Report) -> str:
    """The manifest as a file of the repository; a report made in Python names a usual one."""
    return report.manifest or "manifest.yaml"


def budget_message(budget: BudgetCheck) -> str:
    """`budget`, its limit and its value in a sentence."""
    if budget.value is None:
        return f"the metric of budget {budget.name} has no value"
    value = _in_full(budget.value, budget.unit)
    if budget.limit is None:
        return f"budget {budget.name} has no limit to compare {value} with"
    limit = _in_full(budget.limit, budget.unit)
    decided = next((each for each in budget.limits if each.limit == budget.limit), None)
    side = "at least" if decided and decided.side == "min" else "at most"
    relative = f" ({decided.text} of the baseline)" if decided and decided.relative else ""
    allowed = f"budget {budget.name} allows {side} {limit}{relative}"
    if budget.state == "not proven":
        return f"{allowed}; {value} is a lower bound and does not prove it"
    return f"{allowed}, but the value is {value}"


def _in_full(value: float, unit: str) -> str:
    # A limit may be exceeded by 1, which a rounded figure would not show.
    whole = value % 1 == 0 and abs(value) < _EXACT
    if whole and unit in ("", "bytes"):
        return f"{units.format_integer(int(value))}{' B' if unit else ''}"
    return units.format_in_unit(value, unit)


def _of_model(report: Report, model: ModelReport, root: Path) -> Iterator[Problem]:
    for failure in failures(model):
        for section in failure.sections:
            hint = failure.failed.hint
            text = f"{section.title} failed: {failure.failed.error}"
            yield _at_entry(report, model, SECTION_FAILED, section.name, text, hint)
    for budget in model.budgets:
        if budget.level:
            severity = Severity.ERROR if budget.level == "fail" else Severity.WARNING
            yield replace(
                _at_entry(
                    report,
                    model,
                    BUDGET_EXCEEDED,
                    budget.name,
                    budget_message(budget),
                    _BUDGET_ADVICE,
                ),
                severity=severity,
                ignored=budget.waived,
            )
    for finding in model.findings:
        file, line = _source(finding, report, root) or (manifest_file(report), model.line)
        yield Problem(
            code=finding.code,
            severity=finding.severity,
            model=model.name,
            where=finding.where,
            message=finding.message,
            advice=finding.advice,
            ignored=finding.ignored,
            file=file,
            line=max(1, line),
            # The finding's own does not depend on the model.
            fingerprint=_fingerprint(model.name, finding.fingerprint)
            if finding.fingerprint
            else _fingerprint(finding.code, model.name, finding.where),
        )


_BUDGET_ADVICE = "Reduce the model, or raise the limit in the manifest and say why in the commit."


def _at_entry(
    report: Report, model: ModelReport, code: str, where: str, message: str, advice: str
) -> Problem:
    return Problem(
        code=code,
        severity=Severity.ERROR,
        model=model.name,
        where=where,
        message=message,
        advice=advice,
        ignored=None,
        file=manifest_file(report),
        line=max(1, model.line),
        fingerprint=_fingerprint(code, model.name, where),
    )


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _source(finding: Finding, report: Report, root: Path) -> tuple[str, int] | None:
    """File and line of the module that `finding` is about; None if it is not in the repository."""
    file, _, line = finding.source.rpartition(":")
    if not file or not line.isdigit():
        return None
    for folder in (PurePosixPath(report.manifest).parent, PurePosixPath()):
        path = (root / folder / file).resolve()
        # Code of installed libraries has lines as well, but a review shows only its own files.
        if path.is_file() and path.is_relative_to(root.resolve()):
            return path.relative_to(root.resolve()).as_posix(), int(line)
    return None
