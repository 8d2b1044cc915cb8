"""The report as a value, complete before any page of it exists, and its JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic_core import to_jsonable_python

from reportgen.findings import Finding, Severity
from reportgen.metrics import Evidence, Metric
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.provenance import Commit, InputFile, Machine
from reportgen.sections.section import AnySection, outcome_adapter


class Verdict(StrEnum):
    """The judgment of a model, and of the whole report: its worst model's."""

    PASS = "pass"  # noqa: S105 - not a password
    WARN = "warn"
    FAIL = "fail"


BudgetLevel = Literal["warn", "fail"]
BudgetState = Literal[
    "within", "warning", "exceeded", "waived", "no value", "not proven", "not judged"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetLimit:
    """One level of a budget; `limit` is None if it depends on a baseline without a value."""

    level: BudgetLevel
    side: Literal["max", "min"]
    limit: int | float | None
    text: str  # as in the manifest: "+2% and 1M"
    relative: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetCheck:
    """One budget of the manifest and the metric that it limits.

    Attributes:
        name: its key in the manifest.
        limit: the limit that decided, in the metric's unit; None if it is unknown.
        value: the metric; None if it is unknown.
        passed: False if it fails the model, None if it was not judged; True for a warning or a
            waiver.
        state: `no value`: the metric is unknown; `not proven`: only a lower bound is known.
        unit: of both, as in `Metric`.
        lower_bound: `value` is, as in `Metric`.
        level: the level that is exceeded; "" for none. A waiver does not change it.
        limits: every level, the worst first.
        baseline: the metric in the baseline, for a limit relative to it; None if it is unknown.
        waived: reason, owner and last day of the waiver that applies.
        note: why it was not judged, or that a waiver has expired.
    """

    name: str
    limit: int | float | None
    value: int | float | None
    passed: bool | None
    state: BudgetState
    unit: str = ""
    lower_bound: bool = False
    level: BudgetLevel | Literal[""] = ""
    limits: tuple[BudgetLimit, ...] = ()
    baseline: int | float | None = None
    waived: str | None = None
    note: str = ""


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
class LeftOut:
    """A file that is too large to be sent by the worker that wrote it."""

    name: str  # relative to the model's folder
    bytes: int


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
    evidence: tuple[Evidence, ...] = ()  # how the metrics were made
    headlines: tuple[Headline, ...] = ()
    line: int = 1  # of the manifest, on which the model's entry begins
    library: str = ""  # that defines the model: "torchvision 0.29.2"; "" for the user's own code
    files: tuple[InputFile, ...] = ()  # that the model was made from
    left_out: tuple[LeftOut, ...] = ()  # of the files that its sections wrote


@dataclass(frozen=True, kw_only=True, slots=True)
class Timings:
    """Measured times: of the analysis of all models, and of each section of each model.

    `built` is when, in UTC: `2026-11-27T03:15:00+00:00`. `analyzed` has such a time for every
    section: its seconds and its measured figures are of then, of an earlier build if it is from
    the cache.
    """

    built: str
    total_seconds: float
    section_seconds: dict[str, dict[str, float]]  # model -> section -> seconds
    measured: Literal[True] = True
    machine: Machine | None = None  # None in reports of older versions
    analyzed: dict[str, dict[str, str]] = field(default_factory=dict)  # model -> section -> when

    @property
    def sum_of_seconds(self) -> float:
        """The seconds of all sections of all models, some of which ran in parallel."""
        return sum(sum(seconds.values()) for seconds in self.section_seconds.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """One build of one manifest.

    `manifest` is its path from the root of the repository, or from the current folder outside one.
    `files` has its hash; those of a model's files stand in its report.
    """

    title: str
    environment: dict[str, str]
    timings: Timings | None
    models: tuple[ModelReport, ...]
    manifest: str = ""
    files: tuple[InputFile, ...] = ()
    commit: Commit | None = None

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of any model."""
        return worst(model.verdict for model in self.models)


def report_of_model(title: str, model: ModelReport, timings: Timings | None) -> Report:
    """A report of `model` alone, with no more than its page shows."""
    if timings is not None:
        seconds, analyzed = timings.section_seconds, timings.analyzed
        timings = replace(
            timings,
            section_seconds={model.name: seconds.get(model.name, {})},
            analyzed={model.name: analyzed.get(model.name, {})},
        )
    return Report(title=title, environment={}, timings=timings, models=(model,))


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
    # What the manifest accepts has no influence, and neither has a budget that was not judged.
    severities = {finding.severity for finding in findings if finding.ignored is None}
    checks = tuple(budgets)
    broken = any(check.passed is False for check in checks)
    near = any(check.passed and check.level and check.waived is None for check in checks)
    failed = any(isinstance(section.outcome, Failed) for section in sections)
    if failed or broken or Severity.ERROR in severities:
        return Verdict.FAIL
    return Verdict.WARN if near or Severity.WARNING in severities else Verdict.PASS


FORMAT = 1
"""Version of report.json. 1: the first."""


_SHORT_LINE = 100  # characters of a value that stands on one line


def report_to_data(report: Report) -> dict[str, Any]:
    """The report as JSON-ready data; numbers are finite or null."""
    return {
        "format": FORMAT,
        "title": report.title,
        "manifest": report.manifest,
        "verdict": report.verdict.value,
        "environment": report.environment,
        "timings": to_jsonable_python(report.timings) if report.timings else {},
        "files": to_jsonable_python(report.files),
        "commit": to_jsonable_python(report.commit),
        "models": [_model_to_data(model) for model in report.models],
    }


def report_to_json(report: Report) -> str:
    """`report_to_data` as text, indented, ending in a newline.

    Raises:
        ValueError: a result contains NaN or an infinity, which is a bug of its section.
    """
    return _indented(report_to_data(report), "\n") + "\n"


def _indented(value: Any, line: str) -> str:
    """JSON on few lines: short values and lists of plain values on one, which halves the file."""
    inner = f"{line} "
    if isinstance(value, dict) and value:
        entries = [f"{_plain(str(key))}: {_indented(each, inner)}" for key, each in value.items()]
        return _joined("{}", entries, line)
    if isinstance(value, list) and any(isinstance(each, list | dict) for each in value):
        return _joined("[]", [_indented(each, inner) for each in value], line)
    return _plain(value)


def _joined(brackets: str, entries: list[str], line: str) -> str:
    short = sum(map(len, entries)) + 2 * len(entries) <= _SHORT_LINE
    if short and not any("\n" in entry for entry in entries):
        return f"{brackets[0]}{', '.join(entries)}{brackets[1]}"
    return f"{brackets[0]}{line} {f',{line} '.join(entries)}{line}{brackets[1]}"


# one for all values: `json.dumps` makes an encoder at each call
_plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def report_from_json(text: str | bytes, sections: Iterable[AnySection]) -> Report:
    """The report that `report_to_json` wrote.

    Raises:
        ValueError: not JSON, another format, or not valid against the schema.
    """
    data = json.loads(text)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"not a report of format {FORMAT}")
    readers = {
        section.name: _SectionReader(title=section.title, adapter=outcome_adapter(section))
        for section in sections
    }
    fields = {
        name: TypeAdapter(kind)
        for name, kind in get_type_hints(ModelReport).items()
        if name != "sections"
    }
    try:
        return Report(
            title=data["title"],
            manifest=data.get("manifest", ""),
            environment=data["environment"],
            timings=TypeAdapter(Timings).validate_python(data["timings"])
            if data["timings"]
            else None,
            models=tuple(_model_from_data(model, fields, readers) for model in data["models"]),
            # absent in reports of older versions
            files=TypeAdapter(tuple[InputFile, ...]).validate_python(data.get("files", ())),
            commit=TypeAdapter(Commit | None).validate_python(data.get("commit")),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a complete report: {error}") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class _SectionReader:
    """Reads the outcomes of one section from JSON."""

    title: str
    adapter: TypeAdapter[Any]  # its schema takes longer to build than an outcome to read

    def read(self, name: str, data: Any) -> SectionOutcome:
        try:
            outcome = self.adapter.validate_python(data)
        except ValidationError:  # its result has another form; the rest of the report is valid
            outcome = Failed(
                error="written by another version of reportgen, whose result has other fields",
                hint="build the report again with this version",
            )
        return SectionOutcome(name=name, title=self.title, outcome=outcome)


def _model_from_data(
    data: dict[str, Any],
    fields: dict[str, TypeAdapter[Any]],
    readers: dict[str, _SectionReader],
) -> ModelReport:
    # fields that an older version did not write have their defaults
    values: dict[str, Any] = {
        name: adapter.validate_python(data[name])
        for name, adapter in fields.items()
        if name in data
    }
    return ModelReport(
        **values,
        sections=tuple(
            readers[name].read(name, outcome)
            for name, outcome in data["sections"].items()
            if name in readers  # a section that this version does not have
        ),
    )


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
        files=(tuple[InputFile, ...], ...),
        commit=(Commit | None, ...),
    )
    schema: dict[str, Any] = document.model_json_schema(mode="serialization")
    del schema["$defs"]["Sections"]["required"]  # `build --section` writes some of them
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
