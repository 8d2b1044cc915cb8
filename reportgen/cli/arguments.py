"""Arguments that several commands share, and what they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from reportgen.errors import ReportgenError

if TYPE_CHECKING:
    from reportgen.manifest import Manifest

ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help="A YAML manifest.")]
OutputFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the report [reports/<manifest name>]."),
]
HistoryFolder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the history [the folder above the report's]."),
]
Formats = Annotated[
    str,
    typer.Option(
        "--format", metavar="LIST", help="Comma-separated: html, pdf, json, md, sarif, junit."
    ),
]
Baseline = Annotated[
    Path | None,
    typer.Option(metavar="REPORT", help="Compare with an earlier report: file or folder."),
]
FailOn = Annotated[
    Literal["error", "warning", "never"],
    typer.Option(help="Exit with 1 if a finding has this severity or a higher one."),
]
PdfContent = Annotated[
    Literal["brief", "full"],
    typer.Option(help="Every section, or two pages for each model to attach to a review."),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No output on stderr.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print report.json on stdout.")]
ReportFolder = Annotated[Path, typer.Argument(metavar="REPORT_DIR", help="Folder of a report.")]


def read_manifest(path: Path) -> Manifest:
    """The manifest in `path`, which may name all rules and sections."""
    from reportgen.manifest import load_manifest

    return load_manifest(path, rule_codes=_rule_codes, section_names=section_names)


def section_names() -> tuple[str, ...]:
    """The names of all sections, in the order of the report."""
    from reportgen.sections import SECTIONS

    return tuple(section.name for section in SECTIONS)


def _rule_codes() -> frozenset[str]:
    from reportgen.sections import SECTIONS

    return frozenset(rule.code for section in SECTIONS for rule in section.rules)


def parse_formats(text: str) -> tuple[str, ...]:
    """The formats that `--format` names."""
    from reportgen.outputs import FORMATS

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    hint = f"use one or more of {', '.join(FORMATS)}"
    for name in names:
        if name not in FORMATS:
            raise ReportgenError(f"unknown format {name!r}", hint=hint)
    if not names:
        raise ReportgenError("--format is empty", hint=hint)
    return names
