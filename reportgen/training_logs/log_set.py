"""Finds, opens and reads the logs of one model in a manifest."""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from reportgen.errors import LogError
from reportgen.training_logs.log_run import LogReader, LogRun, join_names, unique_name

_SHARE_OF_SEARCH = 9  # seconds without a search for each second that the last one took


class LogPlace(Protocol):
    """A place in a manifest: `matches` lists the files and folders that it names now."""

    @property
    def text(self) -> str:
        """The place as written."""

    @property
    def format(self) -> str | None:
        """The format as written; None to detect it."""

    def matches(self) -> list[Path]:
        """Existing files and folders."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundRun:
    """A run with a unique name, and the path in the manifest that it was found under."""

    name: str
    source: str
    run: LogRun


@dataclass(kw_only=True, slots=True)
class _Opened:
    reader: LogReader
    path: Path  # under which it was opened; links may lead to it under other names
    place: LogPlace
    prefix: str  # what its runs are called after
    failed: str = ""


@dataclass(kw_only=True, slots=True)
class LogSet:
    """All logs of one model; `update` reads them, and later what was appended.

    Attributes:
        notes: a sentence for everything that could not be read; complete after `update`.
    """

    places: Sequence[LogPlace]
    notes: list[str] = field(default_factory=list)
    _opened: dict[tuple[str, str], _Opened] = field(default_factory=dict)
    _search_notes: list[str] = field(default_factory=list)
    _next_search: float = 0.0

    def update(self) -> bool:
        """Read what is new; whether anything was."""
        self._search()
        self.notes = list(self._search_notes)
        changed = False
        for opened in self._opened.values():
            try:
                changed = opened.reader.update() or changed
                opened.failed = ""
            except LogError as error:
                # One log that cannot be read must not cost the others.
                opened.failed = error.message + (f" ({error.hint})" if error.hint else "")
        self.notes += [opened.failed for opened in self._opened.values() if opened.failed]
        return changed

    def runs(self) -> list[FoundRun]:
        """Every run that holds anything, under a name of its own."""
        named: dict[str, FoundRun] = {}
        for opened in self._opened.values():
            for run in opened.reader.runs:
                if _is_empty(run):
                    continue
                name = join_names(opened.prefix, run.name) or Path(opened.place.text).name
                if name in named:
                    name = join_names(opened.place.text.strip("/"), run.name)
                unique = unique_name(name, named)
                named[unique] = FoundRun(name=unique, source=opened.place.text, run=run)
        return list(named.values())

    def _search(self) -> None:
        """Open logs that have appeared; takes at most a tenth of the time, however many there are.

        A watch updates twice a second, and examining thousands of files may take longer than that.
        """
        start = time.monotonic()
        if start < self._next_search:
            return
        self._search_notes = []
        for place in self.places:
            self._open(place)
        end = time.monotonic()
        self._next_search = end + _SHARE_OF_SEARCH * (end - start)

    def _open(self, place: LogPlace) -> None:
        # Imported late: a manifest without logs needs none of the readers.
        from reportgen.training_logs.detect import open_reader

        matches = place.matches()
        if not matches:
            self._search_notes.append(f"nothing matches {place.text!r}")
        several = len(matches) > 1 or len(self.places) > 1
        # Links last: a run is named by its own path, and `latest` beside it is not a second run.
        for path in sorted(matches, key=Path.is_symlink):
            for file, format_name in self._found_at(path, place):
                key = (os.path.realpath(file), format_name)
                if key not in self._opened:
                    # Event files name their runs by their folders themselves.
                    inner = _relative(file, path) if format_name != "tensorboard" else ""
                    prefix = join_names(path.name if several else "", inner)
                    self._opened[key] = _Opened(
                        reader=open_reader(file, format_name, ""),
                        path=file,
                        place=place,
                        prefix=prefix,
                    )
                elif self._opened[key].path != file:
                    self._search_notes.append(
                        f"{_shown(path, place)!r} is a link to a log that was read already"
                    )

    def _found_at(self, path: Path, place: LogPlace) -> list[tuple[Path, str]]:
        try:
            return list(self._logs_at(path, place))
        except LogError as error:
            self._search_notes.append(error.message)
            return []

    def _logs_at(self, path: Path, place: LogPlace) -> Iterator[tuple[Path, str]]:
        from reportgen.training_logs.detect import find_logs
        from reportgen.training_logs.file_format import detect_format, unsupported_store

        shown = _shown(path, place)
        if place.format is not None:
            yield path, place.format
        elif path.is_dir():
            found = find_logs(path)
            self._search_notes += [f"{_below(file, path)}: {why}" for file, why in found.problems]
            if not found.logs:
                self._search_notes.append(f"no training logs were found in {place.text!r}")
            yield from found.logs
        elif path.is_symlink() and not path.exists():
            self._search_notes.append(f"{shown!r} is a link to nothing, or to itself")
        elif not os.access(path, os.R_OK):
            self._search_notes.append(f"{shown!r} cannot be read: permission denied")
        elif store := unsupported_store(path):
            self._search_notes.append(f"{shown!r}: {store}")
        elif (format_name := detect_format(path)) is not None:
            yield path, format_name
        elif path.is_file() and not path.stat().st_size:
            self._search_notes.append(f"{shown!r} is empty")
        else:
            self._search_notes.append(f"{shown!r} is not a training log in a known format")


def _shown(path: Path, place: LogPlace) -> str:
    """The place as written; for a glob as much of the path that it matched."""
    pattern = Path(place.text)
    if pattern.name == path.name or not glob.has_magic(place.text):
        return place.text
    return Path(*path.parts[-len(pattern.parts) :]).as_posix()


def _below(file: Path, folder: Path) -> str:
    """`file` as its folder names it."""
    return file.relative_to(folder).as_posix() if file != folder else folder.name


def _is_empty(run: LogRun) -> bool:
    return not (
        run.scalars or run.images or run.histograms or run.texts or run.pr_curves or run.tables
        or run.charts or run.hyperparameters or run.damage or run.not_shown or run.layouts
    )  # fmt: skip


def _relative(file: Path, folder: Path) -> str:
    """`file` below `folder` without the ending; "" for the folder itself."""
    if file == folder:
        return ""
    try:
        inner = file.relative_to(folder)
    except ValueError:
        inner = Path(file.name)
    return inner.with_suffix("").as_posix()
