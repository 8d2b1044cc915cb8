"""Reads a report that an earlier build wrote."""

from __future__ import annotations

from pathlib import Path

from reportgen.errors import BaselineError
from reportgen.report import Report, report_from_json
from reportgen.sections import SECTIONS

REPORT_FILE = "report.json"


def read_report(place: Path) -> Report:
    """The report in `place`: a `report.json`, or the folder that contains it.

    Raises:
        BaselineError: there is none, or it was not written by reportgen.
    """
    file = place / REPORT_FILE if place.is_dir() else place
    try:
        text = file.read_bytes()
    except OSError as error:
        raise BaselineError(
            f"{place}: no report: {error.strerror or error}",
            hint=f"name a {REPORT_FILE}, or the folder that contains it",
        ) from error
    try:
        return report_from_json(text, SECTIONS)
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise BaselineError(
            f"{file}: not a report of this version of reportgen: {first}",
            hint="build it again with this version",
        ) from error
