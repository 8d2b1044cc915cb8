"""`reportgen watch`: update the training section while a model trains."""

from __future__ import annotations

from typing import Annotated

import typer

from reportgen.cli.arguments import ManifestPath, OutputFolder, read_manifest
from reportgen.cli.printing import print_stderr


def watch(
    manifest: ManifestPath,
    output: OutputFolder = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Watch only this model; repeatable.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No output on stderr.")] = False,
) -> None:
    """Update the training section of the report until Ctrl-C."""
    from reportgen.watching import watch as watch_logs

    watch_logs(
        read_manifest(manifest),
        output=output,
        models=tuple(model or ()),
        print_line=(lambda _: None) if quiet else print_stderr,
    )
