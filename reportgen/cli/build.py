"""`reportgen build`: analyze the models of a manifest and write the report."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reportgen.cli.arguments import (
    AsJson,
    Baseline,
    FailOn,
    Formats,
    HistoryFolder,
    ManifestPath,
    OutputFolder,
    PdfContent,
    Quiet,
    parse_formats,
    read_manifest,
    section_names,
)
from reportgen.cli.history import history_add
from reportgen.cli.printing import print_error, print_stderr, print_text
from reportgen.errors import ReportgenError

if TYPE_CHECKING:
    from reportgen.pipeline import Built


def build(
    manifest: ManifestPath,
    output: OutputFolder = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Analyze only this model; repeatable.")
    ] = None,
    section: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Build only this section; repeatable.")
    ] = None,
    formats: Formats = "html,pdf,json,md",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Models analyzed in parallel [as many as CPUs and memory allow]."),
    ] = None,
    executor: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="dask, dask://SCHEDULER_FILE or dask://HOST:PORT."),
    ] = None,
    shared_folder: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder all workers see, for files above 64 MiB."),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Build the I-th of N parts, for reportgen merge."),
    ] = None,
    baseline: Baseline = None,
    fail_on: FailOn = "error",
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Analyze everything again; store no results.")
    ] = False,
    no_timings: Annotated[
        bool, typer.Option("--no-timings", help="Omit all measured times.")
    ] = False,
    pdf: PdfContent = "full",
    history: Annotated[
        bool, typer.Option("--history", help="Add the report to the history, as history add does.")
    ] = False,
    history_dir: HistoryFolder = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Analyze the models in MANIFEST and write the report."""
    from reportgen import pipeline
    from reportgen.cache import cache_folder, open_cache
    from reportgen.compare.reading import read_report
    from reportgen.progress import show_progress
    from reportgen.report import report_to_json
    from reportgen.sections import SECTIONS
    from reportgen.shards import parse_shard

    loaded = read_manifest(manifest)
    part = parse_shard(shard) if shard else None
    output = output or pipeline.default_output(loaded, part)
    if shared_folder and not executor:
        raise ReportgenError("--shared-folder requires --executor")
    if history and shard:
        raise ReportgenError(
            "--history cannot be combined with --shard",
            hint="add the merged report: reportgen history add DIR",
        )
    if history:
        _check_history(output, history_dir)
    old = read_report(baseline) if baseline else None
    chosen = pipeline.choose_models(loaded, tuple(model or ()))
    names = [spec.name for spec in chosen if part is None or part.holds(spec.name)]
    with (
        _open_executor(executor, jobs, max(1, len(names))) as opened,
        show_progress(names, [s.name for s in SECTIONS], quiet=quiet) as progress,
    ):
        built = pipeline.build(
            loaded,
            output=output,
            models=tuple(model or ()),
            sections=_sections(section),
            formats=parse_formats(formats),
            jobs=jobs,
            timings=not no_timings,
            baseline=old,
            brief_pdf=pdf == "brief",
            progress=progress,
            cache=None if no_cache else open_cache(cache_folder(output)),
            executor=opened,
            shared=shared_folder,
            shard=part,
        )
    if as_json:
        print_text(report_to_json(built.report), end="")
    if not quiet:
        print_summary(built)
    status = exit_status(built, fail_on)
    if history and not _record_history(output, history_dir):
        status = 1
    raise typer.Exit(status)


@contextmanager
def _open_executor(spec: str | None, jobs: int | None, models: int) -> Iterator[Executor | None]:
    if spec is None:
        yield None
        return
    from reportgen.executors.dask_cluster import open_dask
    from reportgen.pipeline import default_jobs, share_of

    parallel = min(jobs or default_jobs(), models)
    with open_dask(spec, share_of(parallel), parallel) as executor:
        yield executor


def _sections(names: list[str] | None) -> tuple[str, ...]:
    known = section_names()
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


def exit_status(built: Built, fail_on: str) -> int:
    """The exit status of a written report: 1 for what `--fail-on` and budgets reject, else 0."""
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
