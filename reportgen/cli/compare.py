"""`reportgen compare`: what changed between two reports."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from reportgen.cli.printing import print_text


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A report.json or its folder.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The report to judge.")],
    form: Annotated[
        Literal["md", "json", "html"], typer.Option("--format", help="What to print.")
    ] = "md",
) -> None:
    """Print what changed between two reports."""
    from reportgen.compare.as_json import comparison_to_json
    from reportgen.compare.reading import read_report
    from reportgen.compare.reports import compare_reports
    from reportgen.render import changes_of, render_changes, render_comparison

    comparison = compare_reports(read_report(old), read_report(new), draw=form == "html")
    if form == "json":
        print_text(comparison_to_json(comparison), end="")
    elif form == "html":
        print_text(render_comparison(comparison, changes_of(comparison)), end="")
    else:
        print_text(render_changes(changes_of(comparison)), end="")
