"""The report as a value, complete before any page of it exists, and its JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, get_type_hints

from pydantic import ConfigDict, TypeAdapter, create_model
from pydantic_core import to_jsonable_python

from reportgen.findings import Finding, Severity
from reportgen.metrics import Metric
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.sections.section import AnySection, outcome_adapter


class Verdict(StrEnum):
    """The judgment of a model, and of the whole report: its worst model's."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetCheck:
    """One budget of the manifest and the metric that it limits; `value` is None if unknown."""

    name: str
    limit: float
    value: float | None
    passed: bool | None
    unit: str = ""  # of both, as in `Metric`
    lower_bound: bool = False  # `value` is, as in `Metric`


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """One way of counting a figure, and its result."""

    by: str
    value: int
    lower_bound: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossCheck:
    """Counts of one figure made in ways that share no code.

    Attributes:
        figure: `parameters` or `macs`.
        counts: the first is the figure that the report states.
        agree: whether they are equal, or differ by exactly what `note` accounts for; None if the
            lower count has operators without a formula, and so is a lower bound.
        note: what accounts for a difference, or the module that it is in.
    """

    figure: str
    counts: tuple[Count, ...]
    agree: bool | None
    note: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """One section's result in a sentence, for the first page."""

    section: str
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelReport:
    """All results for one model."""

    name: str
    source: str
    comment: str
    seed: int
    weights: str  # file name, or "" for the architecture's own initialization
    verdict: Verdict
    budgets: tuple[BudgetCheck, ...]
    findings: tuple[Finding, ...]
    sections: tuple[SectionOutcome, ...]
    cross_checks: tuple[CrossCheck, ...] = ()
    metrics: tuple[Metric, ...] = ()
    headlines: tuple[Headline, ...] = ()
    line: int = 1  # of the manifest, on which the model's entry begins


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Measured times: of the analysis of all models, and of each section of each model.

    `built` is when, in UTC: `2026-11-27T03:15:00+00:00`.
    """

    built: str
    total_seconds: float
    section_seconds: dict[str, dict[str, float]]  # model -> section -> seconds
    measured: Literal[True] = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One build of one manifest.

    `manifest` is its path from the root of the repository, or from the current folder outside one.
    """

    title: str
    environment: dict[str, str]
    timings: Timings | None
    models: tuple[ModelReport, ...]
    manifest: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of any model."""
        return worst(model.verdict for model in self.models)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Sections that failed for one reason: a model that cannot be loaded fails them all."""

    sections: tuple[SectionOutcome, ...]
    failed: Failed
    everything: bool  # no section of the model is left

    @property
    def titles(self) -> str:
        """The titles of the sections, in reading order."""
        return "every section" if self.everything else ", ".join(c.title for c in self.sections)


def failures(model: ModelReport) -> tuple[Failure, ...]:
    """Why sections of `model` failed, each reason once, in reading order."""
    by_reason: dict[Failed, list[SectionOutcome]] = {}
    for section in model.sections:
        if isinstance(section.outcome, Failed):
            by_reason.setdefault(section.outcome, []).append(section)
    any_done = any(isinstance(section.outcome, Done) for section in model.sections)
    return tuple(
        Failure(
            sections=tuple(sections),
            failed=failed,
            everything=len(sections) > 1 and len(by_reason) == 1 and not any_done,
        )
        for failed, sections in by_reason.items()
    )


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of `verdicts`; `PASS` for none."""
    order = list(Verdict)  # from best to worst
    return max(verdicts, key=order.index, default=Verdict.PASS)


def judge(
    sections: Iterable[SectionOutcome], findings: Iterable[Finding], budgets: Iterable[BudgetCheck]
) -> Verdict:
    """Fail for a failed section, an error or a broken budget; warn for a warning; else pass."""
    # What the manifest ignores has no influence, and neither has a budget whose metric is unknown.
    severities = {finding.severity for finding in findings if finding.ignored is None}
    broken = any(budget.passed is False for budget in budgets)
    failed = any(isinstance(section.outcome, Failed) for section in sections)
    if failed or broken or Severity.ERROR in severities:
        return Verdict.FAIL
    return Verdict.WARN if Severity.WARNING in severities else Verdict.PASS


FORMAT = 1
"""Version of report.json. 1: the first."""


def report_to_data(report: Report) -> dict[str, Any]:
    """The report as JSON-ready data; numbers are finite or null."""
    return {
        "format": FORMAT,
        "title": report.title,
        "manifest": report.manifest,
        "verdict": report.verdict.value,
        "environment": report.environment,
        "timings": to_jsonable_python(report.timings) if report.timings else {},
        "models": [_model_to_data(model) for model in report.models],
    }


def report_to_json(report: Report) -> str:
    """`report_to_data` as text, indented, ending in a newline.

    Raises:
        ValueError: a result contains NaN or an infinity, which is a bug of its section.
    """
    return json.dumps(report_to_data(report), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def report_from_json(text: str | bytes, sections: Iterable[AnySection]) -> Report:
    """The report that `report_to_json` wrote.

    Raises:
        ValueError: not JSON, another format, or not valid against the schema.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"not a report of format {FORMAT}")
    known = {section.name: section for section in sections}
    try:
        return Report(
            title=data["title"],
            manifest=data.get("manifest", ""),
            environment=data["environment"],
            timings=TypeAdapter(Timings).validate_python(data["timings"])
            if data["timings"]
            else None,
            models=tuple(_model_from_data(model, known) for model in data["models"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a complete report: {error}") from error


def _model_from_data(data: dict[str, Any], known: dict[str, AnySection]) -> ModelReport:
    fields: dict[str, Any] = {
        name: TypeAdapter(kind).validate_python(data[name])
        for name, kind in get_type_hints(ModelReport).items()
        if name != "sections"
    }
    sections = tuple(
        SectionOutcome(
            name=name,
            title=known[name].title,
            outcome=outcome_adapter(known[name]).validate_python(outcome),
        )
        for name, outcome in data["sections"].items()
    )
    return ModelReport(**fields, sections=sections)


def _model_to_data(model: ModelReport) -> dict[str, Any]:
    data: dict[str, Any] = to_jsonable_python(model)
    # An object by name: readers look a section up, and its title is not data.
    sections = data.pop("sections")
    return data | {"sections": {section["name"]: section["outcome"] for section in sections}}


def report_schema(sections: Iterable[AnySection]) -> dict[str, Any]:
    """JSON Schema (2020-12) of report.json, generated from the types of the values."""
    outcomes: dict[str, Any] = {
        section.name: (Done[section.result] | Skipped | Failed, ...)  # type: ignore[name-defined]
        for section in sections
    }
    fields: dict[str, Any] = {
        field.name: (get_type_hints(ModelReport)[field.name], ...)
        for field in dataclasses.fields(ModelReport)
        if field.name != "sections"
    }
    strict = ConfigDict(extra="forbid")
    by_name: Any = create_model("Sections", __config__=strict, **outcomes)
    model: Any = create_model("Model", __config__=strict, **fields, sections=(by_name, ...))
    # Without timings there is an empty object, see `report_to_data`.
    nothing: Any = create_model("NoTimings", __config__=strict)
    document = create_model(
        "Report",
        __config__=strict,
        format=(Literal[1], ...),
        title=(str, ...),
        manifest=(str, ...),
        verdict=(Verdict, ...),
        environment=(dict[str, str], ...),
        timings=(Timings | nothing, ...),
        models=(tuple[model, ...], ...),
    )
    schema: dict[str, Any] = document.model_json_schema(mode="serialization")
    del schema["$defs"]["Sections"]["required"]  # `build --section` writes some of them
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
