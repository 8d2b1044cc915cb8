"""Arguments that several commands share, and what they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
ReportFolder = Annotated[Path, typer.Argument(metavar="REPORT_DIR", help="Folder of a report.")]


def read_manifest(path: Path) -> Manifest:
    """The manifest in `path`; `ignore` and `waivers` may name the rules of all sections."""
    from reportgen.manifest import load_manifest

    return load_manifest(path, rule_codes=_rule_codes)


def _rule_codes() -> frozenset[str]:
    from reportgen.sections import SECTIONS

    return frozenset(rule.code for section in SECTIONS for rule in section.rules)
