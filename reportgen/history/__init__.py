"""The history of reports: one entry a night, change points, drift, and a page over all nights.

Everything lies in the folder that contains the report folders:

    index.html                      the page
    history/nights/*.json           the figures of each night
    history/reports/<time>-<name>-<hash>/   dated copies of the reports
    history/changes/*.json          changes that were found, so that they stay listed
    history/acknowledgments/*.json  who accepted what, and why
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from reportgen.errors import HistoryError
from reportgen.history.acknowledgments import (
    Acknowledgment,
    acknowledgment_to_data,
    matches,
)
from reportgen.history.archive import copy_report, delete_old_copies
from reportgen.history.changes import Change, change_to_data
from reportgen.history.night import Night, night_of_report, night_to_data
from reportgen.history.overview import (
    History,
    Places,
    load_history,
    read_recorded_changes,
)
from reportgen.history.store import append_record, delete_unfinished, record_files

__all__ = [
    "Places",
    "Pruned",
    "acknowledge",
    "add_night",
    "folder_above",
    "load_history",
    "prune",
    "record_night",
    "require_own_root",
    "write_index",
]

LARGEST_HISTORY_BYTES = 64 * 2**20
"""Beyond this the oldest nights are deleted: about six years of 50 models."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pruned:
    """What `prune` deleted: names of copies and of nights."""

    copies: tuple[str, ...]
    nights: tuple[str, ...]


def record_night(report: Path, root: Path, now: datetime) -> Night:
    """Add the report in the folder `report`, prune, and write the page over all nights.

    Raises:
        HistoryError: see `add_night`.
    """
    night = add_night(report, root)
    prune(root)
    write_index(root, now)
    return night


def add_night(report: Path, root: Path) -> Night:
    """Add the report in the folder `report` to the history in `root`, with a dated copy.

    The night is on disk when this returns; a second call for the same report has no effect. Any
    number of processes may add at once.

    Raises:
        HistoryError: there is no report, or the history cannot be written.
    """
    night = night_of_report(report)
    places = Places(root)
    require_own_root(root)
    # The copy comes first, so that the night never names a copy that was not made.
    copy_report(report, places.reports / night.copy)
    append_record(places.nights, night.time, night_to_data(night))
    return night


def prune(root: Path, *, largest_bytes: int = LARGEST_HISTORY_BYTES) -> Pruned:
    """Delete old copies by the retention rule, and the oldest nights beyond the largest size."""
    places = Places(root)
    for folder in (places.nights, places.changes, places.acknowledgments, places.reports):
        delete_unfinished(folder)
    return Pruned(
        copies=tuple(delete_old_copies(places.reports)),
        nights=tuple(_delete_old_nights(places, largest_bytes)),
    )


def acknowledge(root: Path, key: str, *, reason: str, owner: str, now: datetime) -> Acknowledgment:
    """Accept the changes that `key` names, or that the history of the report `key` has ended.

    Raises:
        HistoryError: `key` names neither, or the history cannot be written.
    """
    places = Places(root)
    history = load_history(places)
    names = {report.timeline.report for report in history.reports}
    changes = [noted.change for report in history.reports for noted in report.changes]
    if key not in names and not any(matches(key, change) for change in changes):
        known = ", ".join(change.key for change in changes[-3:]) or ", ".join(sorted(names))
        raise HistoryError(
            f"no change of the history matches {key!r}",
            hint=f"`reportgen history show` lists them, such as {known}" if known else "",
        )
    made = Acknowledgment(key=key, reason=reason, owner=owner, time=now.astimezone(UTC))
    append_record(places.acknowledgments, now, acknowledgment_to_data(made))
    return made


def write_index(root: Path, now: datetime) -> Path:
    """Write the page over all nights, and record the changes that it lists.

    If nights arrive meanwhile, it is written again: of several processes that add nights at once
    the last one writes a page that has them all.
    """
    from reportgen.history.page import render_history  # templates are slow to load

    places = Places(root)
    require_own_root(root)
    while True:
        before = record_files(places.nights)
        history = load_history(places)
        _record_changes(places, history, now, measured_only=True)
        _replace(places.index, render_history(history, places, now))
        if record_files(places.nights) == before:
            return places.index


def _record_changes(
    places: Places, history: History, now: datetime, *, measured_only: bool
) -> None:
    """Append the confirmed changes that are not recorded yet.

    Those of counts are found again as long as their nights are there.
    """
    known = {_identity(change) for change in read_recorded_changes(places)}
    new = [
        change_to_data(noted.change)
        for report in history.reports
        for noted in report.changes
        if noted.change.confirmed
        and not (measured_only and noted.change.figure.exact)
        and _identity(noted.change) not in known
    ]
    if new:
        append_record(places.changes, now, {"changes": new})


def _identity(change: Change) -> tuple[object, ...]:
    return change.report, change.model, change.figure.key, change.environment, change.night


def _delete_old_nights(places: Places, largest_bytes: int) -> list[str]:
    files = record_files(places.nights)
    excess = sum(file.stat().st_size for file in files) - largest_bytes
    if excess <= 0:
        return []
    _record_changes(places, load_history(places), datetime.now(UTC), measured_only=False)
    deleted = []
    for file in files[:-1]:  # one night is kept, however large it is
        if excess <= 0:
            break
        excess -= file.stat().st_size
        file.unlink(missing_ok=True)
        deleted.append(file.name)
    return deleted


def folder_above(report: Path) -> Path:
    """The folder that contains the report's: that of its history unless another one is given."""
    return report.parent if report.name not in ("", "..") else report.resolve().parent


def require_own_root(root: Path) -> None:
    """Check that the `index.html` of `root` is ours to replace.

    Raises:
        HistoryError: it is that of a report or of another program.
    """
    places = Places(root)
    hint = "choose the folder of the history with --history-dir"
    if (places.root / "report.json").is_file():
        raise HistoryError(f"{places.root} contains a report, whose index.html would be lost",
                           hint=hint)  # fmt: skip
    if places.index.is_file() and b'content="reportgen' not in places.index.read_bytes():
        raise HistoryError(f"{places.index} exists and is not from reportgen", hint=hint)


def _replace(path: Path, text: str) -> None:
    unfinished = path.parent / f".{os.getpid()}-{secrets.token_hex(4)}"
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise HistoryError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}",
            hint="free disk space, or choose a writable folder with --history-dir",
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
