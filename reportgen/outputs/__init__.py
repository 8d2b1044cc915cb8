"""Writing a report to disk: all files are replaced together, or none."""

from __future__ import annotations

from reportgen.outputs.atomic_write import link_or_copy, temporary_folder
from reportgen.outputs.model_pages import PageOptions, make_again, making_pages
from reportgen.outputs.section_files import IN_PAGES
from reportgen.outputs.writing import DEFAULT_FORMATS, FORMATS, write_report

__all__ = [
    "DEFAULT_FORMATS",
    "FORMATS",
    "IN_PAGES",
    "PageOptions",
    "link_or_copy",
    "make_again",
    "making_pages",
    "temporary_folder",
    "write_report",
]
