"""The files of a report, and how each is made."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

from reportgen.compare.as_json import comparison_to_json
from reportgen.compare.result import Comparison
from reportgen.errors import OutputError
from reportgen.outputs.atomic_write import Staging, staging
from reportgen.outputs.model_pages import ModelPages, make_again
from reportgen.outputs.section_files import digest_of_report, print_files, published_files
from reportgen.outputs.stale_files import is_folder_name, stale_files
from reportgen.render import (
    OTHER_FILES,
    Changes,
    changes_of,
    render_index,
    render_print,
    render_summary,
)
from reportgen.render.ci_formats.junit import render_junit
from reportgen.render.ci_formats.sarif import render_sarif
from reportgen.render.problems import repository_root
from reportgen.report import ModelReport, Report
from reportgen.shards import SHARD_FILE, ShardNote

FORMATS = ("html", "pdf", "json", "md", "sarif", "junit")
"""Output formats; `report.json` is always written."""

DEFAULT_FORMATS = ("html", "pdf", "json", "md")
"""Those that a build writes without `--format`."""

LIVE_SCRIPT = "live.js"
"""An open page polls this script to detect updates during `reportgen watch`."""

_COMPARISON_JSON = "comparison.json"
_REPORT_JSON = "report.json"  # the next build reads it to find stale files


def write_report(
    report: Report,
    json_text: str,
    output: Path,
    pages: ModelPages,
    *,
    comparison: Comparison | None = None,
    shard: ShardNote | None = None,
) -> tuple[Path, ...]:
    """Write `report` into the folder `output` and return the files written, `report.json` last.

    All files are first written to a hidden temporary folder, then renamed into place. If anything
    fails, or on Ctrl-C, the previous report is not modified. Files that the previous report wrote
    and this one does not have (removed models, formats that are not requested, `model.onnx` of an
    export that now fails) are deleted; other files in the folder are kept.

    Args:
        report: the report.
        json_text: the content of `report.json`.
        output: the folder of the report; created if missing.
        pages: those of all models of `report`, started; its options say which files to write.
        comparison: with the baseline; None without one.
        shard: of a shard, whose folder also has what the PDF of the merged report is made of.

    Raises:
        OutputError: the folder is not writable, the disk is full, or two model names collide.
    """
    _check_names(report.models)
    keep_pdf = pages.options.live is not None
    with staging(output) as stage:
        # report.json comes last: it lists files that are in place when it is.
        _write_files(report, stage, pages, comparison)
        if shard:
            stage.write(SHARD_FILE, shard.model_dump_json(indent=1).encode())
            for model in report.models:
                for file in print_files(model):
                    folder = f"models/{model.name}"
                    stage.add(pages.options.work / folder / file, f"{folder}/{file}")
        stage.write(_REPORT_JSON, json_text.encode())
        return stage.publish(stale=stale_files(output, keep_pdf=keep_pdf))


def _write_files(
    report: Report, stage: Staging, pages: ModelPages, comparison: Comparison | None
) -> None:
    options = pages.options
    changes = changes_of(comparison) if comparison else None
    if comparison:
        stage.write(_COMPARISON_JSON, comparison_to_json(comparison).encode())
    _add_section_files(report.models, stage, options.work)
    digest = ""
    if options.reuse is not make_again:
        compared = comparison_to_json(comparison) if comparison else ""
        digest = digest_of_report(report, options.work, compared)
    if "html" in options.formats:
        others = _others(options.formats, comparison)
        make_index = partial(_make_index, report, pages, others, changes)
        stage.write("index.html", options.reuse([digest, "index.html", others], make_index))
    for name, (file, render) in _SINGLE_FILES.items():
        if name in options.formats:
            stage.write(file, render(report, changes))
    if "pdf" in options.formats:
        stage.write(
            "report.pdf",
            options.reuse(
                [digest, "report.pdf", options.brief_pdf],
                lambda: _make_pdf(report, pages, comparison),
            ),
        )
    if "html" in options.formats:  # last: they are made while the PDF is
        for model in report.models:
            _write_model_page(model, stage, pages)


def _add_section_files(models: tuple[ModelReport, ...], stage: Staging, work: Path) -> None:
    for model in models:
        folder = f"models/{model.name}"
        for file in published_files(model):
            stage.add(work / folder / file, f"{folder}/{file}")


def _make_index(
    report: Report, pages: ModelPages, others: list[str], changes: Changes | None
) -> bytes:
    with pages.rendering:
        return render_index(report, others, changes).encode()


def _make_pdf(report: Report, pages: ModelPages, comparison: Comparison | None) -> bytes:
    pages.pdfs.prepare()  # the layout of the last chapter may take a second yet
    on_paper = changes_of(comparison, on_paper=True) if comparison else None
    sheets = [pages.sheets(model) for model in report.models]
    with pages.rendering:
        frame = render_print(report, sheets, on_paper, brief=pages.options.brief_pdf)
    return pages.pdfs.make(
        frame, pages.options.work, chapters=lambda: pages.chapters(report.models)
    )


def _others(formats: Collection[str], comparison: Comparison | None) -> list[str]:
    """The files that the first page links to."""
    files = [
        file for file in OTHER_FILES if file == _REPORT_JSON or Path(file).suffix[1:] in formats
    ]
    return [*files, _COMPARISON_JSON] if comparison else files


# format -> the file, and its content
_SINGLE_FILES: dict[str, tuple[str, Callable[[Report, Changes | None], bytes]]] = {
    "md": ("summary.md", lambda report, changes: render_summary(report, changes).encode()),
    "sarif": (
        "report.sarif",
        lambda report, _: render_sarif(report, repository_root(report)).encode(),
    ),
    "junit": ("report.junit.xml", lambda report, _: render_junit(report)),
}


def _write_model_page(model: ModelReport, stage: Staging, pages: ModelPages) -> None:
    folder, live = f"models/{model.name}", pages.options.live
    stage.write(f"{folder}/index.html", pages.html(model))
    if live is not None:
        # A script and not JSON: a page opened from disk may load no other file.
        stage.write(f"{folder}/{LIVE_SCRIPT}", f"reportgenLive({json.dumps(live)});\n".encode())


def _check_names(models: tuple[ModelReport, ...]) -> None:
    # Names that differ only in case are one folder on case-insensitive file systems.
    seen: dict[str, str] = {}
    for model in models:
        if not is_folder_name(model.name):
            raise OutputError(
                f"model name {model.name!r} is not a valid folder name",
                hint="choose a name without slashes",
            )
        other = seen.setdefault(model.name.casefold(), model.name)
        if other is not model.name:
            raise OutputError(
                f"models {other!r} and {model.name!r} would be written to the same folder",
                hint="choose names that differ in more than case",
            )
