"""`reportgen check` and `init`: validate manifests, or print one for a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reportgen.cli.arguments import read_manifest
from reportgen.cli.printing import print_error, print_text
from reportgen.errors import ManifestError, ReportgenError


def check(
    manifests: Annotated[list[Path], typer.Argument(metavar="MANIFEST...", help="YAML manifests.")],
) -> None:
    """Validate manifests without loading their models."""
    failed: ManifestError | None = None
    for manifest in manifests:
        try:
            models = read_manifest(manifest).models
        except ManifestError as error:
            print_error(error)
            failed = error
        else:
            print_text(f"{manifest}: {len(models)} model{'s' * (len(models) != 1)}, no errors")
    if failed is not None:
        raise typer.Exit(failed.status)


def init(
    source: Annotated[
        str | None, typer.Argument(metavar="[SOURCE]", help="Source of a model, as in a manifest.")
    ] = None,
    logs: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of training logs; SOURCE is then optional."),
    ] = None,
) -> None:
    """Print a manifest for a model, for training logs, or for both."""
    if source is None and logs is None:
        raise ReportgenError("init requires SOURCE, --logs DIR, or both")
    from reportgen.dummy_inputs.manifest_template import log_entries, manifest_for_logs

    if source is None:
        assert logs is not None
        print_text(manifest_for_logs(logs), end="")
        return
    from reportgen.dummy_inputs.manifest_template import manifest_for_source

    entry = log_entries(logs) if logs is not None else ""
    print_text(manifest_for_source(source) + entry, end="")
