"""`reportgen build`: analyze the models of a manifest and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reportgen.cli.arguments import HistoryFolder, ManifestPath, OutputFolder, read_manifest
from reportgen.cli.history import history_add
from reportgen.cli.printing import print_error, print_stderr, print_text
from reportgen.errors import ReportgenError

if TYPE_CHECKING:
    from reportgen.pipeline import Built

FailOn = Literal["error", "warning", "never"]


def build(
    manifest: ManifestPath,
    output: OutputFolder = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Analyze only this model; repeatable.")
    ] = None,
    section: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Build only this section; repeatable.")
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format", metavar="LIST", help="Comma-separated: html, pdf, json, md, sarif, junit."
        ),
    ] = "html,pdf,json,md",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Models analyzed in parallel [as many as CPUs and memory allow]."),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(metavar="REPORT", help="Compare with an earlier report: file or folder."),
    ] = None,
    fail_on: Annotated[
        FailOn, typer.Option(help="Exit with 1 if a finding has this severity or a higher one.")
    ] = "error",
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Analyze everything again; store no results.")
    ] = False,
    no_timings: Annotated[
        bool, typer.Option("--no-timings", help="Omit all measured times.")
    ] = False,
    pdf: Annotated[
        Literal["brief", "full"],
        typer.Option(help="Every section, or two pages for each model to attach to a review."),
    ] = "full",
    history: Annotated[
        bool, typer.Option("--history", help="Add the report to the history, as history add does.")
    ] = False,
    history_dir: HistoryFolder = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No output on stderr.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json on stdout.")] = False,
) -> None:
    """Analyze the models in MANIFEST and write the report."""
    from reportgen import pipeline
    from reportgen.cache import cache_folder, open_cache
    from reportgen.compare.reading import read_report
    from reportgen.progress import show_progress
    from reportgen.report import report_to_json
    from reportgen.sections import SECTIONS

    loaded = read_manifest(manifest)
    folder = output or pipeline.default_output(loaded)
    if history:
        _check_history(folder, history_dir)
    old = read_report(baseline) if baseline else None
    names = [spec.name for spec in pipeline.choose_models(loaded, tuple(model or ()))]
    output = output or pipeline.default_output(loaded)
    with show_progress(names, [s.name for s in SECTIONS], quiet=quiet) as progress:
        built = pipeline.build(
            loaded,
            output=output,
            models=tuple(model or ()),
            sections=_sections(section),
            formats=_formats(formats),
            jobs=jobs,
            timings=not no_timings,
            baseline=old,
            brief_pdf=pdf == "brief",
            progress=progress,
            cache=None if no_cache else open_cache(cache_folder(output)),
        )
    if as_json:
        print_text(report_to_json(built.report), end="")
    if not quiet:
        print_summary(built)
    status = _exit_status(built, fail_on)
    if history and not _record_history(folder, history_dir):
        status = 1
    raise typer.Exit(status)


def _formats(text: str) -> tuple[str, ...]:
    from reportgen.outputs import FORMATS

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    hint = f"use one or more of {', '.join(FORMATS)}"
    for name in names:
        if name not in FORMATS:
            raise ReportgenError(f"unknown format {name!r}", hint=hint)
    if not names:
        raise ReportgenError("--format is empty", hint=hint)
    return names


def _sections(names: list[str] | None) -> tuple[str, ...]:
    from reportgen.sections import SECTIONS

    known = [section.name for section in SECTIONS]
    for name in names or ():
        if name not in known:
            raise ReportgenError(f"unknown section {name!r}", hint=f"use one of {', '.join(known)}")
    return tuple(names or ())


def print_summary(built: Built) -> None:
    """Print verdicts, failures and notes on stderr."""
    from reportgen.report import failures

    for model in built.report.models:
        count = len(model.findings)
        print_stderr(f"{model.verdict.value:<5} {model.name}: {count} finding{'s' * (count != 1)}")
        for failure in failures(model):
            hint = f" ({failure.failed.hint})" if failure.failed.hint else ""
            print_stderr(f"      {failure.titles} failed: {failure.failed.error}{hint}")
    for note in built.notes:
        print_stderr(f"note: {note}")
    print_stderr(f"wrote {built.output}")


def _check_history(report: Path, history_dir: Path | None) -> None:
    """Check where the history will be written, before minutes of work are spent."""
    from reportgen.history import folder_above, require_own_root

    require_own_root(history_dir or folder_above(report))


def _record_history(report: Path, history_dir: Path | None) -> bool:
    """Add the report to the history; False if that failed, since the report is there anyway."""
    try:
        history_add(report, history_dir)
    except ReportgenError as error:
        print_error(error)
        return False
    return True


def _exit_status(built: Built, fail_on: FailOn) -> int:
    from reportgen.findings import Severity
    from reportgen.outcome import Failed

    failing = {
        "error": {Severity.ERROR},
        "warning": {Severity.ERROR, Severity.WARNING},
        "never": set(),
    }[fail_on]
    for model in built.report.models:
        if any(isinstance(section.outcome, Failed) for section in model.sections):
            return 1
        if any(budget.passed is False for budget in model.budgets):
            return 1
        if any(f.severity in failing and f.ignored is None for f in model.findings):
            return 1
    return 0
