"""`reportgen.Report`: the value of a report for people who work in Python."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reportgen.compare.as_json import comparison_to_json
from reportgen.compare.reading import read_report
from reportgen.compare.reports import compare_reports
from reportgen.compare.result import Comparison
from reportgen.errors import NoResultError, OutputError
from reportgen.findings import Finding
from reportgen.metrics import Metric, format_metric, metric_label
from reportgen.outcome import Failed, SectionOutcome
from reportgen.outputs import DEFAULT_FORMATS, FORMATS, PageOptions, making_pages, write_report
from reportgen.outputs.section_files import print_files, published_files
from reportgen.python_api.model_object import as_names
from reportgen.render import Changes, changes_of, render_changes
from reportgen.render.notebook import render_notebook
from reportgen.report import ModelReport, Verdict, report_to_json
from reportgen.report import Report as ReportData
from reportgen.sections.access import SectionResults


class Report(SectionResults):
    """The report on one model, or on several if it was loaded.

    `report["memory"]` is the result of a section, `report.metrics["layers.parameters"]` a figure,
    `report.findings` what was found. A notebook shows it as a page, a terminal as text.

    Attributes:
        data: the report as plain values, as in `report.json`.
        notes: how it was made, one sentence each; not part of `data`.
    """

    def __init__(self, data: ReportData, folder: Path, *, keep: bool = False) -> None:
        """A report with its files in `folder`, which is deleted with it unless `keep`."""
        self.data = data
        self.notes: tuple[str, ...] = ()
        self._folder = folder
        self._owner: Report | None = None  # of the folder, which lives as long as its parts
        if not keep:
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @classmethod
    def load(cls, place: str | Path) -> Report:
        """The report in `place`: a `report.json`, or the folder that contains it.

        Raises:
            BaselineError: there is none, or another version of reportgen wrote it.
        """
        path = Path(place)
        return cls(read_report(path), path if path.is_dir() else path.parent, keep=True)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models."""
        return tuple(model.name for model in self.data.models)

    def model(self, name: str) -> Report:
        """The report of one of several models.

        Raises:
            NoResultError: there is no such model.
        """
        found = tuple(model for model in self.data.models if model.name == name)
        if not found:
            raise NoResultError(
                f"the report has no model {name!r}", hint=f"use one of {', '.join(self.models)}"
            )
        part = Report(replace(self.data, models=found), self._folder, keep=True)
        part._owner = self
        return part

    @property
    def verdict(self) -> Verdict:
        """`pass`, `warn` or `fail`: the worst of all models."""
        return self.data.verdict

    @property
    def metrics(self) -> dict[str, int | float | None]:
        """The figures by key, such as `layers.parameters`; None if one is unknown.

        Counts are numbers, sizes are bytes, durations milliseconds; `data.models[0].metrics` has
        units and definitions.
        """
        return {metric.key: metric.value for metric in self._only.metrics}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What the rules found, also what is accepted."""
        return self._only.findings

    @property
    def sections(self) -> dict[str, str]:
        """What became of each section: `done`, `skipped` or `failed`."""
        return {each.name: each.outcome.status for each in self._only.sections}

    def compare(self, other: Report | str | Path) -> ReportComparison:
        """What changed from `other`, the baseline, to this report.

        Args:
            other: a report, or where one is stored. Models are compared by name.
        """
        old = other if isinstance(other, Report) else Report.load(other)
        return ReportComparison(compare_reports(old.data, self.data))

    def to_json(self) -> str:
        """The content of `report.json`; `reportgen schema report` describes it."""
        return report_to_json(self.data)

    def save(
        self, folder: str | Path, formats: str | Sequence[str] = DEFAULT_FORMATS
    ) -> tuple[Path, ...]:
        """Write the report as `reportgen build` does; returns the files, `report.json` last.

        Args:
            folder: created if missing; files of an earlier report in it are replaced.
            formats: one or several of `html`, `pdf`, `json`, `md`, `sarif`, `junit`.

        Raises:
            OutputError: the folder is not writable, or the report was loaded without its files.
        """
        formats = as_names(formats)
        for each in formats:
            if each not in FORMATS:
                raise OutputError(f"unknown format {each!r}", hint=f"use {', '.join(FORMATS)}")
        self._require_files(formats)
        options = PageOptions(
            work=self._folder, formats=frozenset(formats), models=len(self.data.models)
        )
        with making_pages(options) as pages:
            pages.start_all(self.data)
            return write_report(self.data, self.to_json(), Path(folder), pages)

    def __str__(self) -> str:
        return "\n".join(line for model in self.data.models for line in _lines(model, self.notes))

    __repr__ = __str__  # what the Python prompt shows

    def _repr_html_(self) -> str:
        return "\n".join(
            render_notebook(model, self._folder, self.notes) for model in self.data.models
        )

    @property
    def _only(self) -> ModelReport:
        if len(self.data.models) == 1:
            return self.data.models[0]
        raise NoResultError(
            f"the report has {len(self.data.models)} models",
            hint=f"choose one: report.model({self.models[0]!r})" if self.models else "",
        )

    def _outcomes(self) -> tuple[SectionOutcome, ...]:
        return self._only.sections

    def _require_files(self, formats: tuple[str, ...]) -> None:
        """Raise an `OutputError` unless the files are there that `formats` are made of."""
        for model in self.data.models:
            needed = [*published_files(model), *(print_files(model) if "pdf" in formats else ())]
            for file in needed:
                if not (self._folder / "models" / model.name / file).is_file():
                    raise OutputError(
                        f"{file} of model {model.name!r} is not beside the loaded report",
                        hint="load it from the folder that it was written to; a PDF is made "
                        "only by analyze and build",
                    )


@dataclass(frozen=True, slots=True, repr=False)
class ReportComparison:
    """What changed between two reports; `str` gives it as text, a notebook shows it as Markdown.

    Attributes:
        comparison: as plain values.
    """

    comparison: Comparison

    @property
    def changed(self) -> bool:
        """Whether any model changed."""
        return any(model.status != "unchanged" for model in self.comparison.models)

    def to_json(self) -> str:
        """As `reportgen compare --format json` prints it."""
        return comparison_to_json(self.comparison)

    def __str__(self) -> str:
        return "\n".join(_change_lines(changes_of(self.comparison)))

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return render_changes(changes_of(self.comparison))


def _change_lines(changes: Changes) -> Iterator[str]:
    """What changed, for a terminal: figures, edits, checkpoint and findings of each model."""
    yield f"{changes.sentence} Compared with {changes.baseline}."
    for model in changes.changed:
        yield f"{model.name}: {model.status}"
        for row in (*model.headline, *model.others):
            yield f"  {row.label}: {row.old} → {row.new}, {row.change}, {row.verdict}"
        for edit in model.edits:
            cost = f" ({edit.cost})" if edit.cost else ""
            yield f"  {edit.mark} {edit.place or 'the model'}: {edit.words}{cost}"
        if model.checkpoint:
            yield f"  {model.checkpoint}"
        for word, findings in (("new", model.new), ("fixed", model.fixed)):
            for finding in findings:
                yield f"  {word}: {_finding_line(finding)}"


def _lines(model: ModelReport, notes: tuple[str, ...]) -> Iterator[str]:
    """The report of a model as text: verdict, first figures, findings, failures."""
    yield f"{model.name}: {model.verdict.value}"
    shown = [metric for metric in model.metrics if metric.table]
    width = max((len(_label(metric)) for metric in shown), default=0)
    for metric in shown:
        yield f"  {_label(metric):<{width}}  {format_metric(metric)}"
    for section in model.sections:
        if isinstance(section.outcome, Failed):
            yield f"  {section.name} failed: {section.outcome.error}"
    for check in model.budgets:
        if check.passed is False:
            yield f"  budget exceeded: {check.name} ({check.value} of {check.limit})"
    for finding in model.findings:
        if finding.ignored is None:
            yield f"  {_finding_line(finding)}"
    for note in notes:
        yield f"  note: {note}"


def _finding_line(finding: Finding) -> str:
    place = f" {finding.where}:" if finding.where else ""
    return f"{finding.severity.value} {finding.code}{place} {finding.message}"


def _label(metric: Metric) -> str:
    return f"{metric_label(metric)} ({metric.note})" if metric.note else metric_label(metric)
