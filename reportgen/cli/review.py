"""`reportgen annotate` and `comment`: a report in a pull request."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from reportgen.cli.arguments import ReportFolder
from reportgen.cli.printing import print_stderr, print_text
from reportgen.errors import ReportgenError


def annotate(report_dir: ReportFolder) -> None:
    """Print a report's problems as GitHub annotations; append it to the job summary."""
    from reportgen.review.steps import annotate_folder

    for line in annotate_folder(report_dir, os.environ):
        print_text(line)


def comment(
    report_dir: ReportFolder,
    repository: Annotated[
        str, typer.Option(metavar="OWNER/NAME", help="Repository [GITHUB_REPOSITORY].")
    ] = "",
    pull_request: Annotated[
        int | None, typer.Option(metavar="N", help="Pull request [that of the run].")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(metavar="REPORT", help="Compare with this report.")
    ] = None,
    link: Annotated[str, typer.Option(metavar="URL", help="Where the whole report is.")] = "",
    author: Annotated[
        str, typer.Option(metavar="LOGIN", help="Whose comments are edited: the token's user.")
    ] = "github-actions[bot]",
) -> None:
    """Post the report as one comment on a pull request, or edit it; needs GITHUB_TOKEN."""
    from reportgen.review.event import connect, read_event
    from reportgen.review.steps import comment_on

    number = pull_request or read_event(os.environ).pull_request
    if number is None:
        raise ReportgenError("comment requires --pull-request N outside a pull request's run")
    github = connect(os.environ, repository)
    print_stderr(comment_on(github, number, report_dir, baseline, link, author))
