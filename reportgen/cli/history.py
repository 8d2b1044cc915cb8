"""`reportgen history`: the store of nights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reportgen.cli.arguments import HistoryFolder, ReportFolder
from reportgen.cli.printing import escape_control_characters, print_stderr, print_text
from reportgen.errors import ReportgenError

HistoryRoot = Annotated[
    Path | None,
    typer.Option(
        "--history-dir", metavar="DIR", help="Folder of the history [reports or current folder]."
    ),
]

history_app = typer.Typer(
    help="The store of nights: DIR/history, and the page DIR/index.html over all of them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@history_app.command("add")
def history_add(report_dir: ReportFolder, history_dir: HistoryFolder = None) -> None:
    """Add a report to the history.

    Appends its metrics to DIR/history/nights, keeps a dated copy of the report in
    DIR/history/reports (hard links; files above 16 MiB are left out), deletes old copies as `prune`
    does, and writes DIR/index.html. Adding a report twice has no effect.
    """
    from datetime import UTC, datetime

    from reportgen.history import folder_above, record_night

    root = history_dir or folder_above(report_dir)
    night = record_night(report_dir, root, datetime.now(UTC))
    print_stderr(f"added the night {night.time:%Y-%m-%d %H:%M UTC} of {night.report}")
    print_stderr(f"wrote {root / 'index.html'}")


@history_app.command("show")
def history_show(
    key: Annotated[
        str | None, typer.Argument(metavar="[KEY]", help="Part of report/model/metric.")
    ] = None,
    history_dir: HistoryRoot = None,
) -> None:
    """Print the changes of the last 30 days, or the drift and all changes of what KEY names.

    The exit status is 1 if no night arrived for 36 hours, or if a confirmed change for the worse of
    the last 30 days (marked with !) is neither acknowledged nor over.
    """
    from datetime import UTC, datetime

    from reportgen.history import Places, load_history
    from reportgen.history.describe import history_lines

    found, now = load_history(Places(_history_root(history_dir))), datetime.now(UTC)
    for line in history_lines(found, key or "", now):
        print_text(escape_control_characters(line))
    raise typer.Exit(1 if found.needs_attention(now) else 0)


@history_app.command("prune")
def history_prune(history_dir: HistoryRoot = None) -> None:
    """Delete old copies of reports, and the oldest nights of a store above 64 MiB.

    Of the copies of each report, all of the last 30 days are kept, the last one of each week for a
    year, and the last one of each month before that.
    """
    from datetime import UTC, datetime

    from reportgen.history import prune, write_index

    root = _history_root(history_dir)
    pruned = prune(root)
    write_index(root, datetime.now(UTC))
    for name in (*pruned.copies, *pruned.nights):
        print_stderr(f"deleted {name}")


@history_app.command("acknowledge")
def history_acknowledge(
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="Part of report/model/metric, or with @DATE.")
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why it is accepted.")],
    owner: Annotated[str, typer.Option(metavar="NAME", help="Who accepts it.")],
    history_dir: HistoryRoot = None,
) -> None:
    """Accept the changes until now that KEY names, as `show` prints it.

    With the name of a report as KEY, also that no further night of it will arrive.
    """
    from datetime import UTC, datetime

    from reportgen.history import acknowledge, write_index

    root, now = _history_root(history_dir), datetime.now(UTC)
    acknowledge(root, key, reason=reason, owner=owner, now=now)
    write_index(root, now)


def _history_root(given: Path | None) -> Path:
    """The folder with a history: `given`, `reports`, or the current one for `--output NAME`."""
    for root in (given,) if given else (Path("reports"), Path()):
        if (root / "history" / "nights").is_dir():
            return root
    raise ReportgenError(
        f"no history in {given or 'reports'}",
        hint="run `reportgen build MANIFEST --history` first, or name its folder by --history-dir",
    )
