"""A report as files: built aside, made durable, and put in place whole or not at all."""

from __future__ import annotations

from reportgen.outputs.atomic_write import (
    check_output,
    home_of_staging,
    link_or_copy,
    unused_folder,
)
from reportgen.outputs.writing import FORMATS, write_report

__all__ = [
    "FORMATS",
    "check_output",
    "home_of_staging",
    "link_or_copy",
    "unused_folder",
    "write_report",
]
