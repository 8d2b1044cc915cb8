"""Dated copies of reports, made of hard links, and the rule by which old ones are deleted."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from reportgen.errors import HistoryError
from reportgen.outputs import link_or_copy

LARGEST_BYTES = 16 * 2**20
"""Larger files are not copied: an ONNX file with weights would be kept for every night."""

_PAGES = ("index.html", "report.pdf", "summary.md", "report.json")
_COPY = re.compile(r"^(\d{8}T\d{6}Z)-")
_ALL_DAYS, _WEEKLY_DAYS = 30, 365


def copy_report(report: Path, target: Path) -> None:
    """Link the files of the report in `report` into the new folder `target`.

    Builds replace files and do not modify them, so that links keep what was there. A folder that
    exists already is the same report and stays as it is.
    """
    if target.exists():
        return
    # Renamed when it is complete: a copy is whole or not there.
    unfinished = target.parent / f".{os.getpid()}-{secrets.token_hex(4)}"
    try:
        for file in _report_files(report):
            place = unfinished / file.relative_to(report)
            place.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(file, place)
        unfinished.rename(target)
    except OSError as error:
        if target.exists():  # another process has just made the same copy
            return
        raise HistoryError(
            f"cannot copy the report to {target}: {(error.strerror or str(error)).lower()}",
            hint="free disk space, or choose a writable folder with --history-dir",
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _report_files(report: Path) -> Iterator[Path]:
    for path in (*(report / name for name in _PAGES), *sorted((report / "models").rglob("*"))):
        if path.is_file() and path.stat().st_size <= LARGEST_BYTES:
            yield path


def first_page(copy: Path) -> str:
    """The file of a copy to link to; "" if the copy was deleted."""
    return next((name for name in _PAGES if (copy / name).is_file()), "")


def delete_old_copies(folder: Path) -> list[str]:
    """Delete the copies in `folder` that the retention rule does not keep; return their names.

    Of the last 30 days all are kept, of the last year the last one of each week, of the time before
    the last one of each month; of each report, counted from its newest copy.
    """
    deleted = []
    for names in _copies_by_report(folder).values():
        times = {name: copy_time(name) for name in names}
        kept = kept_times(times.values())
        for name in (name for name, time in times.items() if time not in kept):
            # Renamed first, so that no link leads to a half-deleted report.
            doomed = folder / f".{os.getpid()}-{secrets.token_hex(4)}"
            with suppress(FileNotFoundError):  # another process deletes it
                (folder / name).rename(doomed)
                deleted.append(name)
            shutil.rmtree(doomed, ignore_errors=True)
    return sorted(deleted)


def kept_times(times: Iterable[datetime]) -> set[datetime]:
    """The times that the retention rule keeps, see `delete_old_copies`."""
    ordered = sorted(times)
    last_of: dict[tuple[object, ...], datetime] = {}
    for time in ordered:
        age = ordered[-1] - time
        if age <= timedelta(days=_ALL_DAYS):
            period: tuple[object, ...] = ("night", time)
        elif age <= timedelta(days=_WEEKLY_DAYS):
            period = ("week", *time.isocalendar()[:2])
        else:
            period = ("month", time.year, time.month)
        last_of[period] = time
    return set(last_of.values())


def copy_time(name: str) -> datetime:
    """When the report was built whose copy has this folder name."""
    match = _COPY.match(name)
    assert match is not None
    return datetime.strptime(match[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _copies_by_report(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in sorted(folder.glob("[0-9]*-*")):
        if path.is_dir() and _COPY.match(path.name):
            # time-report-hash; a report's name may contain hyphens
            found.setdefault(path.name.partition("-")[2].rpartition("-")[0], []).append(path.name)
    return found
