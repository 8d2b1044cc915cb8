"""`summary.md`: a comment on a pull request, or the summary of a job.

It is made of parts. A part that is too long loses its last rows and says how many, while the others
stay whole; the headline counts the rows of all parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from reportgen.findings import Severity
from reportgen.render.changes import VERDICT_WORDS, Changes, MetricRow, ModelChanges
from reportgen.render.environment import markdown_environment
from reportgen.render.filters import plural
from reportgen.render.overview import Found, Overview, all_found, overview, warned_budgets
from reportgen.render.problems import budget_message
from reportgen.report import BudgetCheck, Report

SUMMARY_LIMIT = 65_536
"""The most characters that a comment on GitHub may have."""

_FOOTER = 536  # kept free, for a link to the whole report
_MOST_ROWS = 500  # of one part; a row has at least 100 characters where there are so many
_LINES_OF_A_MODEL = 20  # structural changes, findings and safe batches, each
_MARKS = {"better": "🟢", "worse": "🔴", "changed": "⚪", "noise": "⚪"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A list or a table.

    Attributes:
        template: its name in `templates/summary/`, without the suffix. It gets the first `rows`,
            the number of those left out as `hidden`, and `context`.
        rows: all rows, the most important first; a part without rows is left out.
        counted: what the headline calls them, in the singular; "" to leave them out there.
        number: how many the headline counts; None for one a row.
        context: other values for the template.
    """

    template: str
    rows: Sequence[Any]
    counted: str = ""
    number: int | None = None
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> str:
        """Its words in the headline: "3 warnings"."""
        return plural(len(self.rows) if self.number is None else self.number, self.counted)

    def render(self, most: int) -> str:
        """The part with its first `most` rows."""
        template = markdown_environment().get_template(f"summary/{self.template}.md.j2")
        shown = self.rows[:most]
        hidden = len(self.rows) - len(shown)
        return template.render(rows=shown, hidden=hidden, **self.context).strip("\n")

    def render_within(self, most_characters: int) -> str:
        """The part with as many rows as that length allows."""
        fewest, most = 0, min(len(self.rows), _MOST_ROWS)
        if len(text := self.render(most)) <= most_characters:
            return text
        while fewest < most - 1:
            middle = (fewest + most) // 2
            if len(self.render(middle)) <= most_characters:
                fewest = middle
            else:
                most = middle
        return self.render(fewest)


@dataclass(frozen=True, kw_only=True, slots=True)
class _BudgetRow:
    model: str
    message: str
    waived: str | None


def marker(manifest: str) -> str:
    """The first line of a summary, by which the comment about `manifest` is found again."""
    return f"<!-- reportgen manifest={quote(manifest)} -->"


def render_summary(report: Report, changes: Changes | None = None) -> str:
    """Markdown for a pull request, shorter than `SUMMARY_LIMIT`; what changed comes first."""
    seen = overview(report)
    of_changes = _change_parts(changes) if changes else ()
    parts = [part for part in (*of_changes, *_parts(report, seen)) if part.rows]
    head = (
        markdown_environment()
        .get_template("summary.md.j2")
        .render(
            report=report,
            overview=seen,
            changes=changes,
            counts=[part.count for part in parts if part.counted],
            marker=marker(report.manifest),
        )
        .strip("\n")
    )
    texts = _fitted(parts, SUMMARY_LIMIT - _FOOTER - len(head))
    return "\n\n".join((head, *texts)) + "\n"


def render_changes(changes: Changes) -> str:
    """What changed alone, as Markdown shorter than `SUMMARY_LIMIT`."""
    head = markdown_environment().get_template("changes.md.j2").render(changes=changes).strip()
    parts = [part for part in _change_parts(changes) if part.rows]
    return "\n\n".join((head, *_fitted(parts, SUMMARY_LIMIT - _FOOTER - len(head)))) + "\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class _ChangeRow:
    """A metric of a model that changed, or the sentence about a model without one."""

    model: str  # "" where the row above names it
    row: MetricRow | None = None
    sentence: str = ""


def _change_parts(changes: Changes) -> tuple[Part, ...]:
    details = [m for m in changes.changed if m.edits or m.new or m.fixed or m.fits or m.files]
    return (
        Part(
            template="changes",
            rows=[row for model in changes.changed for row in _change_rows(model)],
            context={"marks": _MARKS, "words": VERDICT_WORDS},
        ),
        Part(template="change_details", rows=details, context={"lines": _LINES_OF_A_MODEL}),
    )


def _change_rows(model: ModelChanges) -> Iterator[_ChangeRow]:
    if not model.headline:
        yield _ChangeRow(model=model.name, sentence=model.sentence)
    for number, row in enumerate(model.headline):
        yield _ChangeRow(model="" if number else model.name, row=row)


def _fitted(parts: Sequence[Part], characters: int) -> list[str]:
    """The texts of `parts`; each may have an equal share, and what short ones leave to the rest."""
    texts = [part.render(_MOST_ROWS) for part in parts]
    left = characters
    by_length = sorted(range(len(parts)), key=lambda number: len(texts[number]))
    for rank, number in enumerate(by_length):
        share = left // (len(parts) - rank) - len("\n\n")
        if len(texts[number]) > share:
            texts[number] = parts[number].render_within(share)
        left -= len(texts[number]) + len("\n\n")
    return texts


def _parts(report: Report, seen: Overview) -> tuple[Part, ...]:
    found = all_found(report)
    ignored = [
        Found(model=model.name, href="", finding=finding)
        for model in report.models
        for finding in model.findings
        if finding.ignored is not None
    ]
    headlines = [(model, line) for model in seen.models for line in model.headlines]
    return (
        Part(
            template="failures",
            rows=seen.failures,
            counted="failed section",
            number=seen.failed_sections,
        ),
        _budgets(report, "exceeded budget", lambda check: check.passed is False),
        _budgets(report, "budget warning", lambda check: bool(warned_budgets([check]))),
        _findings(found, Severity.ERROR),
        Part(template="models", rows=seen.with_source, context={"tables": seen.tables[:2]}),
        _budgets(report, "waived budget", lambda check: check.waived is not None),
        _findings(found, Severity.WARNING),
        _findings(found, Severity.NOTE),
        Part(template="ignored", rows=ignored, counted="ignored finding"),
        Part(template="training", rows=headlines),
    )


def _budgets(report: Report, kind: str, has: Callable[[BudgetCheck], bool]) -> Part:
    rows = [
        _BudgetRow(model=model.name, message=budget_message(check), waived=check.waived)
        for model in report.models
        for check in model.budgets
        if has(check)
    ]
    return Part(template="budgets", rows=rows, counted=kind, context={"kind": kind})


def _findings(found: Sequence[Found], severity: Severity) -> Part:
    rows = [each for each in found if each.finding.severity is severity]
    # What makes the verdict fail is open; the rest is there for who asks.
    return Part(
        template="findings",
        rows=rows,
        counted=severity.value,
        context={"title": plural(len(rows), severity.value), "open": severity is Severity.ERROR},
    )
