"""Writing a report to disk: all files are replaced together, or none."""

from __future__ import annotations

from reportgen.outputs.atomic_write import link_or_copy, temporary_folder
from reportgen.outputs.writing import DEFAULT_FORMATS, FORMATS, IN_PAGES, make_again, write_report

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "IN_PAGES",
    "link_or_copy",
    "make_again",
    "temporary_folder",
    "write_report",
]
