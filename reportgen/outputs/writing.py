"""Which files a report consists of, and who makes each."""

from __future__ import annotations

import json
from pathlib import Path

from reportgen.errors import OutputError
from reportgen.outcome import Done
from reportgen.outputs.atomic_write import Staging, staging
from reportgen.outputs.pdf import make_pdf
from reportgen.outputs.stale_files import stale_files
from reportgen.render import OTHER_FILES, render_index, render_model, render_print, render_summary
from reportgen.report import ModelReport, Report
from reportgen.sections import SECTIONS

FORMATS = frozenset({"html", "pdf", "json", "md"})
"""What a report can be written as; `report.json` is always written."""

LIVE_SCRIPT = "live.js"
"""What an open page reads again and again while its report is watched."""

_RECORD = "report.json"  # what the folder holds: the next build reads it


def write_report(
    report: Report,
    json_text: str,
    work: Path,
    output: Path,
    formats: frozenset[str] = FORMATS,
    *,
    live: str | None = None,
) -> tuple[Path, ...]:
    """Write `report` into the folder `output` and return the files written, `report.json` last.

    Everything is built in a hidden folder beside `output` first; only when all of it is on the
    disk are the files renamed into place. A failure or Ctrl-C before that leaves the previous
    report as it was. What the previous report wrote of its models and this one has not (models
    that are gone, an ONNX file whose export now fails) is removed; nothing else is touched.

    Args:
        report: the report.
        json_text: the text of `report.json`.
        work: the folder that holds `models/<name>/…`, the files that sections wrote.
        output: the folder to write to; made if it is not there.
        formats: some of `FORMATS`.
        live: for pages that reload themselves when they change: differs in every call, and is
            "" in the last one; None for pages that do not.

    Raises:
        OutputError: the folder cannot be written, the disk is full, or two models share a name.
    """
    _check_names(report.models)
    with staging(output) as stage:
        _build(report, work, stage, formats, live)
        stage.write(_RECORD, json_text.encode())
        return stage.publish(stale=stale_files(output, report))


def _build(
    report: Report, work: Path, stage: Staging, formats: frozenset[str], live: str | None
) -> None:
    if "html" in formats:
        others = [
            file for file in OTHER_FILES if file == _RECORD or Path(file).suffix[1:] in formats
        ]
        stage.write("index.html", render_index(report, others).encode())
    for model in report.models:
        if "html" in formats:
            page = render_model(report, model, work, live=live or "")
            stage.write(f"models/{model.name}/index.html", page.encode())
            if live is not None:
                text = f"reportgenLive({json.dumps(live)});\n"
                stage.write(f"models/{model.name}/{LIVE_SCRIPT}", text.encode())
        for file in published_files(model):
            stage.adopt(work / "models" / model.name / file, f"models/{model.name}/{file}")
    if "md" in formats:
        stage.write("summary.md", render_summary(report).encode())
    if "pdf" in formats:
        stage.write("report.pdf", make_pdf(render_print(report, work), work))


def published_files(model: ModelReport) -> tuple[str, ...]:
    """The files that the results of `model` name, relative to its folder."""
    files_of = {section.name: section.files for section in SECTIONS}
    return tuple(
        file
        for section in model.sections
        if isinstance(section.outcome, Done)
        for file in files_of[section.name](section.outcome.result)
    )


def _check_names(models: tuple[ModelReport, ...]) -> None:
    """Two names that a case-insensitive disk takes for one would overwrite each other."""
    seen: dict[str, str] = {}
    for model in models:
        if model.name in {"", ".", ".."} or any(char in model.name for char in "/\\\0"):
            raise OutputError(
                f"model name {model.name!r} cannot be a folder's name",
                hint="choose a name without slashes",
            )
        other = seen.setdefault(model.name.casefold(), model.name)
        if other is not model.name:
            raise OutputError(
                f"models {other!r} and {model.name!r} would share one folder",
                hint="choose names that differ in more than upper and lower case",
            )
