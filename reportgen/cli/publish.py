"""`reportgen publish`: send a report to visdom or TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reportgen.cli.printing import print_stderr
from reportgen.errors import ReportgenError


def publish(
    report_dir: Annotated[Path, typer.Argument(metavar="REPORT_DIR", help="Folder of a report.")],
    visdom: Annotated[
        str | None, typer.Option(metavar="URL", help="URL of a running visdom server.")
    ] = None,
    env: Annotated[
        str | None, typer.Option(metavar="NAME", help="visdom environment [title of the report].")
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="TensorBoard log directory.")
    ] = None,
) -> None:
    """Send the content of a report to visdom or TensorBoard."""
    if (visdom is None) == (tensorboard is None):
        raise ReportgenError("publish requires either --visdom URL or --tensorboard DIR")
    if env is not None and visdom is None:
        raise ReportgenError("--env requires --visdom URL")
    from reportgen.publish import publish_to_tensorboard, publish_to_visdom

    if visdom is not None:
        published = publish_to_visdom(report_dir, visdom, env)
    else:
        assert tensorboard is not None
        published = publish_to_tensorboard(report_dir, tensorboard)
    for line in published.lines():
        print_stderr(line)
