"""`reportgen watch`: the sections made from logs, kept up to date while a training runs.

The rest of the report stays as the last build wrote it. If there is no report yet, or one of
other models, a report with these sections alone is written.
"""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from reportgen.context import Context
from reportgen.environment import describe_environment
from reportgen.errors import ManifestError, SectionError, WatchEnded
from reportgen.findings import Severity
from reportgen.manifest import Manifest, ModelSpec
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped, as_failed
from reportgen.outputs import (
    PageOptions,
    link_or_copy,
    making_pages,
    temporary_folder,
    write_report,
)
from reportgen.outputs.section_files import published_files
from reportgen.pipeline import choose_models, judge_model, path_in_repository
from reportgen.report import ModelReport, Report, report_from_json, report_to_json
from reportgen.sections import SECTIONS
from reportgen.sections.section import AnySection
from reportgen.training_logs.log_set import LogSet
from reportgen.workers import ModelOutcomes

POLL_SECONDS = 0.5
_FORMATS = frozenset({"html", "json", "md"})  # the layout of a PDF takes too long
_INTERRUPTED = 130
_LONGEST_SILENCE = 3600.0  # seconds without a point before a run counts as stalled
_SILENCE_IN_GAPS = 20  # or so many times the usual distance of two points, if that is longer
_SECTIONS = tuple(section for section in SECTIONS if section.analyze_logs)
_NAMES = frozenset(section.name for section in _SECTIONS)
_CODES = frozenset(rule.code for section in _SECTIONS for rule in section.rules)

Outcome = Done[Any] | Skipped | Failed
PrintLine = Callable[[str], None]


def watch(
    manifest: Manifest,
    *,
    output: Path | None = None,
    models: tuple[str, ...] = (),
    print_line: PrintLine,
) -> None:
    """Keep the sections made from logs up to date until Ctrl-C.

    Args:
        manifest: at least one of its models names logs.
        output: folder of the report; `reports/<manifest name>` below the current one otherwise.
        models: names of the models to watch; all of them otherwise.
        print_line: called with a line for every update and every new finding.

    Raises:
        ReportgenError: no model names logs, or the report cannot be written.
        WatchEnded: on Ctrl-C, with the exit status of an interrupt.
    """
    specs = [spec for spec in choose_models(manifest, models) if spec.logs]
    if not specs:
        raise ManifestError(
            f"{manifest.path.name}: no model has logs to watch",
            hint="add logs: [path] to a model",
        )
    output = output or Path("reports") / manifest.path.stem
    with temporary_folder(output) as work:
        watched = _Watched(
            manifest=manifest, specs=specs, output=output, work=work, print_line=print_line
        )
        try:
            watched.start()
            while True:
                watched.poll()
                time.sleep(POLL_SECONDS)
        except (KeyboardInterrupt, SystemExit) as end:  # Ctrl-C, or SIGTERM
            if not watched.stamp:  # no page was written that must no longer reload itself
                raise
            watched.finish()
            status = end.code if isinstance(end, SystemExit) else _INTERRUPTED
            raise WatchEnded(status) from None


@dataclass(kw_only=True, slots=True)
class _Watched:
    """The report under watch.

    Attributes:
        stamp: changes with every update; the open page compares it with its own.
    """

    manifest: Manifest
    specs: list[ModelSpec]
    output: Path
    work: Path
    print_line: PrintLine
    stamp: int = 0
    _contexts: dict[str, Context] = field(default_factory=dict)
    _models: dict[str, ModelReport] = field(default_factory=dict)
    _environment: dict[str, str] = field(default_factory=dict)
    _known: set[tuple[str, str, str]] = field(default_factory=set)
    _stalled: set[tuple[str, str]] = field(default_factory=set)

    def start(self) -> None:
        """Load the last build's report, then read the logs and write the first page."""
        report = self._last_report()
        self._environment = report.environment if report else describe_environment()
        self._models = {model.name: model for model in report.models} if report else {}
        for model in self._models.values():
            self._link_files(model)
        for spec in self.specs:
            folder = self.work / "models" / spec.name
            self._contexts[spec.name] = Context(
                spec=spec, targets=self.manifest.targets, folder=folder
            )
            self._analyze(spec)
        self._write(live=True)
        runs = sum(len(context.logs().runs()) for context in self._contexts.values())
        self.print_line(f"watching {runs} run{'s' * (runs != 1)}; "
                 f"open {self.output / 'index.html'}; press Ctrl-C to stop")  # fmt: skip

    def poll(self) -> None:
        """Read what was appended; rewrite the pages if anything was."""
        changed = [spec for spec in self.specs if self._contexts[spec.name].logs().update()]
        for spec in changed:
            self._analyze(spec)
        if changed:
            self._write(live=True)
        for spec in self.specs:
            self._report_stalls(spec)

    def finish(self) -> None:
        """Write the pages a last time, without the part that reloads them."""
        self._write(live=False)
        self.print_line(f"stopped; wrote {self.output}")
        if (self.output / "report.pdf").exists():
            self.print_line("report.pdf is from the last build; `reportgen build` updates it")

    def _last_report(self) -> Report | None:
        """The report in `output`, if it is one of this manifest's models."""
        try:
            report = report_from_json((self.output / "report.json").read_bytes(), SECTIONS)
        except (OSError, ValueError):
            return None
        names = {spec.name for spec in self.manifest.models}
        return report if {model.name for model in report.models} <= names else None

    def _link_files(self, model: ModelReport) -> None:
        """Link the files of the other sections into the work folder, for the new report."""
        for file in published_files(model):
            source = self.output / "models" / model.name / file
            target = self.work / "models" / model.name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_file():
                link_or_copy(source, target)

    def _analyze(self, spec: ModelSpec) -> None:
        before = self._models.get(spec.name)
        others = [c for c in before.sections if c.name not in _NAMES] if before else []
        fresh = [self._section(section, self._contexts[spec.name]) for section in _SECTIONS]
        outcomes = ModelOutcomes(name=spec.name, sections=(*others, *fresh), seconds={})
        self._models[spec.name] = judge_model(
            spec,
            outcomes,
            manifest=self.manifest.path.name,
            line=self.manifest.lines.get(spec.name, 1),
            complete=False,
        )
        self._report_findings(self._models[spec.name])

    def _section(self, section: AnySection, context: Context) -> SectionOutcome:
        # Files of plots that no longer exist must not be published.
        shutil.rmtree(context.folder / section.name, ignore_errors=True)
        context.folder.mkdir(parents=True, exist_ok=True)
        outcome = _outcome(section, context)
        return SectionOutcome(name=section.name, title=section.title, outcome=outcome)

    def _report_findings(self, model: ModelReport) -> None:
        for headline in model.headlines:
            self.print_line(f"{time.strftime('%H:%M:%S')} {model.name}: {headline.sentence}")
        for finding in model.findings:
            key = (model.name, finding.code, finding.where)
            if finding.code in _CODES and finding.ignored is None and key not in self._known:
                self._known.add(key)
                if finding.severity is not Severity.NOTE:
                    self.print_line(f"  {finding.severity.value} {finding.code} {finding.where}: "
                             f"{finding.message}")  # fmt: skip

    def _report_stalls(self, spec: ModelSpec) -> None:
        for run, silence in _silences(self._contexts[spec.name].logs(), time.time()):
            if (spec.name, run) not in self._stalled:
                self._stalled.add((spec.name, run))
                self.print_line(
                    f"  warning {spec.name}, {run}: no new point for {_format_silence(silence)}"
                )

    def _write(self, *, live: bool) -> None:
        self.stamp += 1
        ordered = [spec.name for spec in self.manifest.models if spec.name in self._models]
        report = Report(
            title=self.manifest.title,
            manifest=path_in_repository(self.manifest.path),
            environment=self._environment,
            timings=None,  # those of the last build are not about this report
            models=tuple(self._models[name] for name in ordered),
        )
        options = PageOptions(
            work=self.work,
            formats=_FORMATS,
            models=len(report.models),
            live=f"{os.getpid()}-{self.stamp}" if live else "",
        )
        with making_pages(options) as pages:
            pages.start_all(report)
            write_report(report, report_to_json(report), self.output, pages)


def _outcome(section: AnySection, context: Context) -> Outcome:
    assert section.analyze_logs is not None  # see _SECTIONS
    try:
        result = section.analyze_logs(context)
    except SectionError as error:  # logs may appear later
        return as_failed(error)
    return result if isinstance(result, Skipped) else Done(result=result)


def _silences(logs: LogSet, now: float) -> Iterator[tuple[str, float]]:
    """Runs without a new point for much longer than usual, and for how many seconds."""
    for found in logs.runs():
        times = max((s.times for s in found.run.scalars.values()), key=len, default=None)
        if times is None or len(times) < 3 or math.isnan(times[-1]):
            continue
        recent = times[-200:]  # a run may log faster or slower than it did at its start
        # The median, as pauses for a validation or a checkpoint are no usual gaps.
        gaps = [b - a for a, b in pairwise(recent)]
        silence = now - max(recent)
        if silence > max(_LONGEST_SILENCE, _SILENCE_IN_GAPS * median(gaps)):
            yield found.name, silence


def _format_silence(seconds: float) -> str:
    """A duration of an hour and more: `1.5 h`, `12 days`."""
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:,.0f} days"
