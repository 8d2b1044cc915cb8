"""A report as files: built aside, made durable, and put in place whole or not at all."""

from __future__ import annotations

from reportgen.outputs.placing import check_output, home_of_staging
from reportgen.outputs.writing import FORMATS, write_report

__all__ = ["FORMATS", "check_output", "home_of_staging", "write_report"]
