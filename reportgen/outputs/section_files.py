"""The files that sections wrote, and the digest of everything that pages are made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from reportgen.outcome import Done
from reportgen.report import ModelReport, Report, report_to_data
from reportgen.sections import SECTIONS

IN_PAGES = (".svg", ".pdf", ".csv", ".txt", ".png", ".jpg", ".gif", ".webp")
"""Suffixes of files that pages and the PDF may contain."""


def digest_of_report(report: Report, work: Path, *others: str) -> str:
    """The digest of `report`, of the files of its sections in `work`, and of `others`.

    No page shows when the report was built and how long that took; they are never the same twice.
    """
    data = report_to_data(report)
    data["timings"].pop("built", None)
    data["timings"].pop("total_seconds", None)
    text = json.dumps([data, others, _digests(report, work)])
    return hashlib.sha256(text.encode()).hexdigest()


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
