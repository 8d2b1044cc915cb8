"""The content of the first page: verdicts with their reasons, and all models side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from reportgen.findings import Finding, Severity
from reportgen.metrics import COMPARISON, Evidence, Metric
from reportgen.outcome import SectionOutcome
from reportgen.report import BudgetCheck, Failure, Headline, ModelReport, Report, Verdict, failures

_MOST_FIGURES = 4  # of a second table, on the page of a model


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many findings there are of each severity; ignored ones apart."""

    errors: int
    warnings: int
    notes: int
    ignored: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelOverview:
    """One model on the first page."""

    name: str
    anchor: str  # its id in print
    href: str  # its page, relative to the index
    source: str
    verdict: Verdict
    reasons: tuple[str, ...]
    counts: Counts
    sections: tuple[SectionOutcome, ...]
    headlines: tuple[Headline, ...]
    metrics: dict[str, Metric]  # by key
    evidence: dict[str, Evidence]  # by the key of the metric

    @property
    def figures(self) -> tuple[Metric, ...]:
        """The figures at the top of the model's page: the comparison's, and one more table's."""
        comparison, *others = _by_table(self.metrics.values()).values()
        return (*comparison.values(), *list(others[0].values() if others else ())[:_MOST_FIGURES])

    def section_of(self, key: str) -> SectionOutcome | None:
        """The section that the metric `key` belongs to; None if it was not built."""
        name = key.partition(".")[0]
        return next((section for section in self.sections if section.name == name), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricTable:
    """A table of the first page: one column for each metric that a section shows in it."""

    title: str
    columns: tuple[Metric, ...]  # a metric of the first model that has it

    @property
    def setting(self) -> str:
        """The setting of all its columns, if it is a table of one: "fp32, adamw"."""
        if self.title == COMPARISON:
            return ""
        return " / ".join(dict.fromkeys(c.note for c in self.columns))

    @property
    def definitions(self) -> tuple[str, ...]:
        """What is counted, a sentence for each column or one for all."""
        # By definition and in reverse, so that equal ones are one and the first label is kept.
        lines = {c.definition: c.label for c in reversed(self.columns) if c.definition}
        if len(lines) == 1:
            clause = next(iter(lines))
            return (f"{clause[0].upper()}{clause[1:]}.",)
        return tuple(f"{label}: {line}." for line, label in reversed(lines.items()))


@dataclass(frozen=True, kw_only=True, slots=True)
class FailureRow:
    """Sections of one model that failed for one reason."""

    model: str
    href: str
    failure: Failure


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """All models side by side."""

    verdict: Verdict
    sentence: str
    counts: Counts
    failures: tuple[FailureRow, ...]
    exceeded_budgets: int
    models: tuple[ModelOverview, ...]
    sections: dict[str, str]  # name -> title of every section that some model has
    tables: tuple[MetricTable, ...]  # the comparison first

    @property
    def failed_sections(self) -> int:
        """The number of failed sections of all models."""
        return sum(len(row.failure.sections) for row in self.failures)

    @property
    def with_source(self) -> tuple[ModelOverview, ...]:
        """Those that are models, and not training logs alone."""
        return tuple(model for model in self.models if model.source)

    @property
    def comparison(self) -> MetricTable | None:
        """The main table."""
        return next((table for table in self.tables if table.title == COMPARISON), None)

    @property
    def other_tables(self) -> tuple[MetricTable, ...]:
        """All tables but the main one."""
        return tuple(table for table in self.tables if table.title != COMPARISON)


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A finding and the model it was found in."""

    model: str
    href: str
    finding: Finding


def overview(report: Report) -> Overview:
    """Everything the first page compares."""
    models = tuple(model_overview(model, n) for n, model in enumerate(report.models, start=1))
    return Overview(
        verdict=report.verdict,
        sentence=verdict_sentence(report.models),
        counts=count(finding for model in report.models for finding in model.findings),
        failures=tuple(
            FailureRow(model=seen.name, href=seen.href, failure=failure)
            for model, seen in zip(report.models, models, strict=True)
            for failure in failures(model)
        ),
        exceeded_budgets=sum(len(broken_budgets(m.budgets)) for m in report.models),
        models=models,
        sections={c.name: c.title for m in models for c in m.sections},
        tables=_tables(models),
    )


def model_overview(model: ModelReport, number: int = 1) -> ModelOverview:
    """The part of the comparison about `model`, the `number`th of the report."""
    return ModelOverview(
        name=model.name,
        anchor=f"model-{number}",
        href=f"models/{quote(model.name)}/index.html",
        source=model.source,
        verdict=model.verdict,
        reasons=reasons(model),
        counts=count(model.findings),
        sections=model.sections,
        headlines=model.headlines,
        metrics={metric.key: metric for metric in model.metrics},
        evidence={key: made for made in model.evidence for key in made.keys},
    )


def _tables(models: Sequence[ModelOverview]) -> tuple[MetricTable, ...]:
    columns = _by_table(metric for model in models for metric in model.metrics.values())
    return tuple(
        MetricTable(title=title, columns=tuple(metrics.values()))
        for title, metrics in columns.items()
        if metrics
    )


def _by_table(metrics: Iterable[Metric]) -> dict[str, dict[str, Metric]]:
    """The first metric of each key, by the table that shows it; the comparison comes first."""
    tables: dict[str, dict[str, Metric]] = {COMPARISON: {}}
    for metric in metrics:
        if metric.table:
            tables.setdefault(metric.table, {}).setdefault(metric.key, metric)
    return tables


def verdict_sentence(models: Sequence[ModelReport]) -> str:
    """How many models fail, warn and pass, in one sentence."""
    if not models:
        return "The report holds no model."
    parts = []
    for verdict, words in (
        (Verdict.FAIL, ("fails", "fail")),
        (Verdict.WARN, ("has warnings", "have warnings")),
        (Verdict.PASS, ("passes", "pass")),
    ):
        number = sum(model.verdict is verdict for model in models)
        if number == len(models):
            every = "The one model" if number == 1 else f"All {number} models"
            return f"{every} {words[number > 1]}."
        if number:
            parts.append(f"{number} {words[number > 1]}")
    return f"Of {len(models)} models, {', '.join(parts[:-1])} and {parts[-1]}."


def reasons(model: ModelReport) -> tuple[str, ...]:
    """Why a model does not simply pass, each in two or three words."""
    failed = [
        f"{title} failed"
        for failure in failures(model)
        for title in (
            [failure.titles] if failure.everything else [c.title for c in failure.sections]
        )
    ]
    broken = [
        f"budget {budget.name} {_what_is_wrong(budget)}" for budget in broken_budgets(model.budgets)
    ]
    near = [f"budget {check.name} warns" for check in warned_budgets(model.budgets)]
    counts = count(model.findings)
    found = [
        f"{number} {word}{'s' * (number != 1)}"
        for number, word in ((counts.errors, "error"), (counts.warnings, "warning"))
        if number
    ]
    return (*failed, *broken, *near, *found)


def _what_is_wrong(budget: BudgetCheck) -> str:
    words = {"no value": "has no value", "not proven": "not proven by a lower bound"}
    return words.get(budget.state, "exceeded")


def broken_budgets(budgets: Iterable[BudgetCheck]) -> tuple[BudgetCheck, ...]:
    """The budgets that are exceeded, or have no value and must have one."""
    return tuple(budget for budget in budgets if budget.passed is False)


def warned_budgets(budgets: Iterable[BudgetCheck]) -> tuple[BudgetCheck, ...]:
    """The budgets whose warn level is exceeded."""
    return tuple(check for check in budgets if check.passed and check.level and not check.waived)


def count(findings: Iterable[Finding]) -> Counts:
    """How many findings there are of each severity."""
    # The manifest accepts an ignored finding, so its severity does not count.
    kinds = [None if f.ignored is not None else f.severity for f in findings]
    return Counts(
        errors=kinds.count(Severity.ERROR),
        warnings=kinds.count(Severity.WARNING),
        notes=kinds.count(Severity.NOTE),
        ignored=kinds.count(None),
    )


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Worst first; what the manifest ignores is left out."""
    order = list(Severity)
    shown = [finding for finding in findings if finding.ignored is None]
    return tuple(sorted(shown, key=lambda finding: order.index(finding.severity)))


def all_found(report: Report) -> tuple[Found, ...]:
    """Every finding of every model, worst first; what the manifest ignores is left out."""
    order = list(Severity)
    # `sorted` is stable: findings of one severity stay in the order of the models.
    found = [
        Found(model=m.name, href=f"models/{quote(m.name)}/index.html", finding=finding)
        for m in report.models
        for finding in in_order(m.findings)
    ]
    return tuple(sorted(found, key=lambda each: order.index(each.finding.severity)))
