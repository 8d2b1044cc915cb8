"""The hallway: manifest -> studies -> sections -> report -> files, and the only page that knows it.

Manifest ─> analyze_all ─> judge ─> Report ─> write_report
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reportgen.budgets import check_budgets
from reportgen.cross_checks import cross_check
from reportgen.environment import describe_environment
from reportgen.errors import ManifestError, OutputError
from reportgen.findings import Finding
from reportgen.manifest import Manifest, ModelSpec
from reportgen.metrics import FigureCount, Metric
from reportgen.outcome import Done
from reportgen.outputs import check_output, home_of_staging, unused_folder, write_report
from reportgen.report import Headline, ModelReport, Report, Timings, judge, report_to_json
from reportgen.sections import SECTIONS
from reportgen.sections.section import AnySection
from reportgen.workers import Job, ModelOutcomes, Progress, Step, analyze_all
from reportgen.workers.limits import memory_of_machine

FORMATS = ("html", "pdf", "json", "md")
_BYTES_PER_JOB = 6 * 2**30  # VGG-16, with half a gigabyte of weights, peaks at 2.5 GiB
_SHARE_OF_MACHINE = 0.85  # of its memory that all children together may use


@dataclass(frozen=True, kw_only=True, slots=True)
class Built:
    """A finished build: the report, where it lies, and every file of it."""

    report: Report
    output: Path
    files: tuple[Path, ...]


def build(
    manifest: Manifest,
    *,
    output: Path | None = None,
    models: tuple[str, ...] = (),
    sections: tuple[str, ...] = (),
    formats: tuple[str, ...] = FORMATS,
    jobs: int | None = None,
    timings: bool = True,
    progress: Progress | None = None,
) -> Built:
    """Build the report of a manifest, as `load_manifest` gives it.

    Args:
        manifest: what is asked.
        output: folder of the report; `reports/<manifest name>` below the current one otherwise.
        models: names of the models to analyze; all of them otherwise.
        sections: names of the sections to build; all of them otherwise.
        formats: which of `FORMATS` to write.
        jobs: how many models to analyze at once; otherwise one for every processor, if each then
            has memory enough.
        timings: whether to report what a clock measured.
        progress: told of every section that begins or ends.

    Raises:
        ReportgenError: nothing was written, an earlier report is untouched.
    """
    start = time.monotonic()
    chosen = choose(manifest, models)
    parallel = min(jobs or jobs_for_machine(), len(chosen))
    output = output or Path("reports") / manifest.path.stem
    with workshop(output) as work:
        examined = analyze_all(
            [make_job(manifest, spec, work, parallel, timings, sections) for spec in chosen],
            parallel=parallel,
            progress=progress or _silent,
        )
        report = Report(
            title=manifest.title,
            environment=describe_environment(),
            timings=measured(examined, time.monotonic() - start) if timings else None,
            models=tuple(map(judge_model, chosen, examined)),
        )
        files = write_report(report, report_to_json(report), work, output, frozenset(formats))
    return Built(report=report, output=output, files=files)


def jobs_for_machine() -> int:
    """One model for each processor, as far as each can have `_BYTES_PER_JOB` of memory."""
    return max(1, min(os.cpu_count() or 1, memory_of_machine() // _BYTES_PER_JOB))


def choose(manifest: Manifest, names: tuple[str, ...]) -> tuple[ModelSpec, ...]:
    """The models called `names`, in the manifest's order; all of them for none."""
    known = {spec.name: spec for spec in manifest.models}
    for name in names:
        if name not in known:
            raise ManifestError(
                f"{manifest.path.name}: there is no model {name!r}",
                hint=f"it has {', '.join(known)}",
            )
    return tuple(spec for spec in manifest.models if not names or spec.name in names)


def make_job(
    manifest: Manifest,
    spec: ModelSpec,
    work: Path,
    parallel: int,
    timings: bool,
    sections: tuple[str, ...] = (),
) -> Job:
    """What a child needs to analyze `spec` while `parallel` of them share the machine."""
    fair_share = int(memory_of_machine() * _SHARE_OF_MACHINE / parallel)
    return Job(
        spec=spec,
        targets=manifest.targets,
        sections=tuple(name for name in sections_of(spec) if not sections or name in sections),
        folder=work / "models" / spec.name,
        seconds=spec.limits.seconds,
        memory_bytes=spec.limits.memory_bytes or fair_share,
        threads=max(1, (os.cpu_count() or 1) // parallel),
        timings=timings,
    )


def sections_of(spec: ModelSpec) -> tuple[str, ...]:
    """The names of the sections that apply to `spec`; without a model, those that read logs."""
    return tuple(s.name for s in SECTIONS if spec.source.kind != "none" or s.analyze_logs)


def judge_model(spec: ModelSpec, examined: ModelOutcomes) -> ModelReport:
    """Everything said of one model: its sections, what the rules find in them, its budgets."""
    findings = tuple(
        finding
        if finding.code not in spec.ignore
        else replace(finding, ignored=spec.ignore[finding.code])
        for finding in _findings(examined)
    )
    metrics = tuple(_metrics(examined))
    budgets = check_budgets(spec.budgets, metrics)
    return ModelReport(
        name=spec.name,
        source=spec.source.text,
        comment=spec.comment or "",
        seed=spec.seed,
        weights=weights_of(spec),
        verdict=judge(examined.sections, findings, budgets),
        budgets=budgets,
        findings=findings,
        sections=examined.sections,
        cross_checks=cross_check(_counts(examined)),
        metrics=metrics,
        headlines=tuple(_headlines(examined)),
    )


def weights_of(spec: ModelSpec) -> str:
    """The name of the file that the weights come from; "" for random ones, or no model."""
    if spec.source.kind in ("pt2", "onnx"):
        return Path(spec.source.target).name
    return spec.weights.name if spec.weights else ""


def _findings(examined: ModelOutcomes) -> Iterator[Finding]:
    for section, result in _done(examined):
        for rule in section.rules:
            yield from rule.findings(result)


def _done(examined: ModelOutcomes) -> Iterator[tuple[AnySection, Any]]:
    sections = {section.name: section for section in SECTIONS}
    for section in examined.sections:
        if isinstance(section.outcome, Done):
            yield sections[section.name], section.outcome.result


def _metrics(examined: ModelOutcomes) -> Iterator[Metric]:
    for section, result in _done(examined):
        yield from section.metrics(result)


def _counts(examined: ModelOutcomes) -> Iterator[FigureCount]:
    for section, result in _done(examined):
        yield from section.counts(result)


def _headlines(examined: ModelOutcomes) -> Iterator[Headline]:
    for section, result in _done(examined):
        if sentence := section.headline(result):
            yield Headline(section=section.title, sentence=sentence)


def measured(examined: tuple[ModelOutcomes, ...], total_seconds: float) -> Timings:
    """The clock's figures, to the millisecond."""
    return Timings(
        built=datetime.now(UTC).isoformat(timespec="seconds"),
        total_seconds=round(total_seconds, 3),
        section_seconds={
            model.name: {name: round(seconds, 3) for name, seconds in model.seconds.items()}
            for model in examined
        },
    )


@contextmanager
def workshop(output: Path) -> Iterator[Path]:
    """A folder near `output` to work in, gone afterwards, whatever happens.

    It lies on the same file system, so that finished files can be renamed into place.
    A build that was killed could not tidy up; the next one does it.
    """
    check_output(output)
    home = output.absolute().parent
    try:
        home.mkdir(parents=True, exist_ok=True)
        home = home_of_staging(output)
        for left in home.glob(".reportgen-*"):
            if not _alive(left.name.split("-")[1]):
                shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise _cannot_write(home, error) from error
    work = unused_folder(home)
    try:
        try:
            work.mkdir(mode=0o700)
        except OSError as error:
            raise _cannot_write(home, error) from error
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(
        f"cannot write to {str(folder)!r}: {(error.strerror or str(error)).lower()}",
        hint="choose another folder with --output",
    )


def _alive(process: str) -> bool:
    with contextlib.suppress(PermissionError):
        try:
            os.kill(int(process), 0)
        except (ProcessLookupError, ValueError, OverflowError):
            return False
    return True


def _silent(model: str, section: str, step: Step, seconds: float) -> None:
    """Tell nobody."""
