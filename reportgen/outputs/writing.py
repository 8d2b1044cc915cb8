"""The files of a report, and how each is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from reportgen.compare.as_json import comparison_to_json
from reportgen.compare.result import Comparison
from reportgen.errors import OutputError
from reportgen.outcome import Done
from reportgen.outputs.atomic_write import Staging, staging
from reportgen.outputs.pdf import make_pdf
from reportgen.outputs.stale_files import is_folder_name, stale_files
from reportgen.render import (
    OTHER_FILES,
    Changes,
    changes_of,
    render_index,
    render_model,
    render_print,
    render_summary,
)
from reportgen.render.junit import render_junit
from reportgen.render.problems import repository_root
from reportgen.render.sarif import render_sarif
from reportgen.report import ModelReport, Report, report_to_data
from reportgen.sections import SECTIONS
from reportgen.shards import SHARD_FILE, ShardNote

Reuse = Callable[[list[Any], Callable[[], bytes]], bytes]
"""Returns what the function makes, or what it made of an equal list in an earlier build."""


def make_again(_: list[Any], make: Callable[[], bytes]) -> bytes:
    """The `Reuse` that reuses nothing."""
    return make()


FORMATS = ("html", "pdf", "json", "md", "sarif", "junit")
"""Output formats; `report.json` is always written."""

DEFAULT_FORMATS = ("html", "pdf", "json", "md")
"""Those that a build writes without `--format`."""

LIVE_SCRIPT = "live.js"
"""An open page polls this script to detect updates during `reportgen watch`."""

IN_PAGES = (".svg", ".pdf", ".csv", ".txt", ".png", ".jpg", ".gif", ".webp")
"""Suffixes of files that pages and the PDF may contain."""

_COMPARISON_JSON = "comparison.json"
_REPORT_JSON = "report.json"  # the next build reads it to find stale files


def write_report(
    report: Report,
    json_text: str,
    work: Path,
    output: Path,
    formats: Collection[str] = DEFAULT_FORMATS,
    *,
    comparison: Comparison | None = None,
    live: str | None = None,
    brief_pdf: bool = False,
    reuse: Reuse = make_again,
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
        work: the folder with the files that sections wrote, in `models/<name>/`.
        output: the folder of the report; created if missing.
        formats: any of `FORMATS`.
        comparison: with the baseline; None without one.
        live: a value that changes with each call, for pages that reload themselves when it
            changes; "" in the last call; None for pages that do not reload.
        brief_pdf: whether `report.pdf` has two pages for each model instead of every section.
        reuse: where pages and the PDF come from if nothing changed that they are made of.
        shard: of a shard, whose folder also has what the PDF of the merged report is made of.

    Raises:
        OutputError: the folder is not writable, the disk is full, or two model names collide.
    """
    _check_names(report.models)
    with staging(output) as stage:
        # report.json comes last: it lists files that are in place when it is.
        _write_files(report, work, stage, formats, comparison, live, brief_pdf, reuse)
        if shard:
            stage.write(SHARD_FILE, shard.model_dump_json(indent=1).encode())
            for model in report.models:
                for file in print_files(model):
                    stage.add(work / "models" / model.name / file, f"models/{model.name}/{file}")
        stage.write(_REPORT_JSON, json_text.encode())
        return stage.publish(stale=stale_files(output, keep_pdf=live is not None))


def _write_files(
    report: Report,
    work: Path,
    stage: Staging,
    formats: Collection[str],
    comparison: Comparison | None,
    live: str | None,
    brief_pdf: bool,
    reuse: Reuse,
) -> None:
    changes = changes_of(comparison) if comparison else None
    if comparison:
        stage.write(_COMPARISON_JSON, comparison_to_json(comparison).encode())
    for model in report.models:
        for file in published_files(model):
            stage.add(work / "models" / model.name / file, f"models/{model.name}/{file}")
    made_of = [] if reuse is make_again else _made_of(report, work, comparison)
    if "html" in formats:
        others = _others(formats, comparison)
        stage.write(
            "index.html",
            reuse(
                [*made_of, "index.html", others],
                lambda: render_index(report, others, changes).encode(),
            ),
        )
        for model in report.models:
            _write_model_page(report, model, work, stage, live, made_of, reuse)
    for name, (file, render) in _SINGLE_FILES.items():
        if name in formats:
            stage.write(file, render(report, changes))
    if "pdf" in formats:
        stage.write(
            "report.pdf",
            reuse(
                [*made_of, "report.pdf", brief_pdf],
                lambda: _make_pdf(report, work, comparison, brief_pdf),
            ),
        )


def _make_pdf(report: Report, work: Path, comparison: Comparison | None, brief: bool) -> bytes:
    on_paper = changes_of(comparison, on_paper=True) if comparison else None
    return make_pdf(render_print(report, work, on_paper, brief=brief), work)


def _made_of(report: Report, work: Path, comparison: Comparison | None) -> list[Any]:
    """What pages are made of: the digest of the report, the comparison and the files of sections.

    A digest, because the key of each page contains it. No page shows when the report was built
    and how long that took; they are never the same twice.
    """
    data = report_to_data(report)
    data["timings"].pop("built", None)
    data["timings"].pop("total_seconds", None)
    compared = comparison_to_json(comparison) if comparison else ""
    text = json.dumps([data, compared, _digests(report, work)])
    return [hashlib.sha256(text.encode()).hexdigest()]


def _digests(report: Report, work: Path) -> list[str]:
    """The digest of each file that a page may contain, in order."""
    # Only what sections name: others may lie there after an analysis, and not after a look-up.
    paths = [
        work / "models" / model.name / file
        for model in report.models
        for file in (*published_files(model), *print_files(model))
        if Path(file).suffix in IN_PAGES
    ]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


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


def _write_model_page(
    report: Report,
    model: ModelReport,
    work: Path,
    stage: Staging,
    live: str | None,
    made_of: list[Any],
    reuse: Reuse,
) -> None:
    folder = f"models/{model.name}"
    page = reuse(
        [*made_of, folder, live],
        lambda: render_model(report, model, work, live=live or "").encode(),
    )
    stage.write(f"{folder}/index.html", page)
    if live is not None:
        # A script and not JSON: a page opened from disk may load no other file.
        stage.write(f"{folder}/{LIVE_SCRIPT}", f"reportgenLive({json.dumps(live)});\n".encode())


def published_files(model: ModelReport) -> tuple[str, ...]:
    """Files that the sections of `model` wrote, relative to the folder of the model."""
    return _files_of(model, {section.name: section.files for section in SECTIONS})


def print_files(model: ModelReport) -> tuple[str, ...]:
    """Further files that only the PDF is made of."""
    return _files_of(model, {section.name: section.print_files for section in SECTIONS})


def _files_of(
    model: ModelReport, files: Mapping[str, Callable[[Any], Iterable[str]]]
) -> tuple[str, ...]:
    left_out = {each.name for each in model.left_out}
    return tuple(
        file
        for section in model.sections
        if isinstance(section.outcome, Done)
        for file in files[section.name](section.outcome.result)
        if file not in left_out
    )


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
