"""`reportgen merge`: one report from the shards that several machines built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reportgen.cli.arguments import (
    AsJson,
    Baseline,
    FailOn,
    Formats,
    OutputFolder,
    PdfContent,
    Quiet,
    parse_formats,
)
from reportgen.cli.build import exit_status, print_summary
from reportgen.cli.printing import print_text


def merge(
    shards: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of build --shard, all of them.")
    ],
    output: OutputFolder = None,
    formats: Formats = "html,pdf,json,md",
    baseline: Baseline = None,
    fail_on: FailOn = "error",
    pdf: PdfContent = "full",
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write one report from the shards that several machines built."""
    from reportgen import merging
    from reportgen.compare.reading import read_report
    from reportgen.report import report_to_json

    built = merging.merge(
        shards,
        output=output,
        formats=parse_formats(formats),
        baseline=read_report(baseline) if baseline else None,
        brief_pdf=pdf == "brief",
    )
    if as_json:
        print_text(report_to_json(built.report), end="")
    if not quiet:
        print_summary(built)
    raise typer.Exit(exit_status(built, fail_on))
