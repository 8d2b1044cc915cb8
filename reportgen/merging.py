"""One report from the shards that several machines built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from reportgen.compare.reading import read_report
from reportgen.compare.reports import compare_reports
from reportgen.errors import ReportgenError
from reportgen.outputs import (
    DEFAULT_FORMATS,
    PageOptions,
    link_or_copy,
    making_pages,
    temporary_folder,
    write_report,
)
from reportgen.outputs.section_files import print_files, published_files
from reportgen.pipeline import (
    DEFAULT_PARENT,
    Built,
    only_models,
    report_digest,
    require_a_model,
)
from reportgen.report import ModelReport, Report, Timings, report_to_json
from reportgen.shards import ShardNote, read_note

_BUILD_AGAIN = "build all shards from the same commit, with the same options"


def merge(
    folders: Sequence[Path],
    *,
    output: Path | None = None,
    formats: tuple[str, ...] = DEFAULT_FORMATS,
    baseline: Report | None = None,
    brief_pdf: bool = False,
) -> Built:
    """Write the report that one build of all models would have written.

    Args:
        folders: one of each shard, in any order.
        output: folder of the report; None for `reports/<manifest name>` in the current folder.
        formats: any of `outputs.FORMATS`.
        baseline: the report that the shards were compared with.
        brief_pdf: whether the PDF has two pages for each model instead of every section.

    Raises:
        ReportgenError: a shard is missing or there twice, or the shards do not belong together.
        ModelError: no shard could load a model.
    """
    notes = {folder: read_note(folder) for folder in folders}
    _require_one_build(notes)
    _require_all_shards(notes)
    first = next(iter(notes.values()))
    if first.baseline != (report_digest(baseline) if baseline else ""):
        raise ReportgenError(
            "the shards were built with another --baseline"
            if first.baseline
            else "the shards were built without --baseline",
            hint="merge with the same --baseline",
        )
    reports = {folder: read_report(folder) for folder in folders}
    _require_one_commit(reports)
    not_loaded = {name: why for note in notes.values() for name, why in note.not_loaded.items()}
    require_a_model(
        len(first.models), {name: not_loaded[name] for name in first.models if name in not_loaded}
    )
    report = _joined(list(reports.values()), first.models)
    output = output or DEFAULT_PARENT / PurePosixPath(report.manifest).stem
    comparison = None
    if baseline:
        old = only_models(baseline, set(first.models)) if first.chosen else baseline
        comparison = compare_reports(old, report, draw=True)
    with temporary_folder(output) as work:
        for folder, each in reports.items():
            for model in each.models:
                _link_files(model, folder, work)
        options = PageOptions(
            work=work, formats=frozenset(formats), models=len(report.models), brief_pdf=brief_pdf
        )
        with making_pages(options) as pages:
            pages.start_all(report)
            files = write_report(
                report, report_to_json(report), output, pages, comparison=comparison
            )
    return Built(report=report, output=output, files=files, comparison=comparison)


def _require_one_build(notes: Mapping[Path, ShardNote]) -> None:
    """Raise a `ReportgenError` that says how two shards differ."""
    (folder, first), *others = notes.items()
    for other, note in others:
        difference = _difference(first, note)
        if difference:
            raise ReportgenError(f"{folder} and {other}: {difference}", hint=_BUILD_AGAIN)


def _difference(one: ShardNote, other: ShardNote) -> str:
    """Why two shards do not belong together; "" if they do."""
    if one.count != other.count:
        return f"shard {one.shard} and shard {other.shard}"
    if one.manifest != other.manifest:
        return "different manifests"
    for name in sorted({*one.software, *other.software}):
        pair = [note.software.get(name, "none") for note in (one, other)]
        if pair[0] != pair[1]:
            return f"{name} {pair[0]:.12} and {pair[1]:.12}"
    for what, same in (
        ("other --model", one.models == other.models and one.chosen == other.chosen),
        ("other --section", one.sections == other.sections),
        ("one with --no-timings", one.timings == other.timings),
        ("other --baseline", one.baseline == other.baseline),
    ):
        if not same:
            return f"{what}"
    return ""


def _require_all_shards(notes: Mapping[Path, ShardNote]) -> None:
    found: dict[int, Path] = {}
    for folder, note in notes.items():
        if note.index in found:
            raise ReportgenError(
                f"shard {note.shard} is in {found[note.index]} and in {folder}",
                hint="name the folder of each shard once",
            )
        found[note.index] = folder
    count = next(iter(notes.values())).count
    missing = [str(index) for index in range(1, count + 1) if index not in found]
    if missing:
        some = len(missing) > 1
        raise ReportgenError(
            f"shard{'s' * some} {', '.join(missing)} of {count} {'are' if some else 'is'} missing",
            hint="name the folders of all shards",
        )


def _require_one_commit(reports: Mapping[Path, Report]) -> None:
    (folder, first), *others = reports.items()
    for other, report in others:
        if report.commit != first.commit:
            raise ReportgenError(f"{folder} and {other}: different commits", hint=_BUILD_AGAIN)


def _joined(reports: Sequence[Report], order: Sequence[str]) -> Report:
    models = {model.name: model for report in reports for model in report.models}
    timings = [report.timings for report in reports if report.timings]
    return replace(
        reports[0],
        models=tuple(models[name] for name in order),
        timings=_joined_timings(timings, order) if timings else None,
    )


def _joined_timings(timings: Sequence[Timings], order: Sequence[str]) -> Timings:
    """The times of shards that were built at once, perhaps on several machines."""
    seconds = {name: s for each in timings for name, s in each.section_seconds.items()}
    analyzed = {name: when for each in timings for name, when in each.analyzed.items()}
    machines = {each.machine for each in timings}
    return Timings(
        built=max(each.built for each in timings),
        total_seconds=max(each.total_seconds for each in timings),
        section_seconds={name: seconds[name] for name in order},
        machine=machines.pop() if len(machines) == 1 else None,
        analyzed={name: analyzed[name] for name in order},
    )


def _link_files(model: ModelReport, folder: Path, work: Path) -> None:
    for file in (*published_files(model), *print_files(model)):
        source, target = (root / "models" / model.name / file for root in (folder, work))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            link_or_copy(source, target)
        except FileNotFoundError as error:
            raise ReportgenError(
                f"{source} is missing", hint="copy the whole folder of the shard"
            ) from error
