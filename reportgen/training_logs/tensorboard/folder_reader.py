"""Reads folders of TensorBoard event files as runs, and later what was appended to them.

Folders are found at any depth. A link to a folder is followed after all real folders, unless what
it leads to was visited already or holds the folder that is read: a loop ends there.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import SessionLog

from reportgen.errors import LogError
from reportgen.training_logs.log_run import LogRun, Session
from reportgen.training_logs.tensorboard.event_file import EventFile
from reportgen.training_logs.tensorboard.merge import merge_runs
from reportgen.training_logs.tensorboard.values import ValueDecoder

FORMAT = "tensorboard"

# tfevents.SECONDS.HOST.PROCESS.NUMBER in torch, tfevents.SECONDS.HOST in tensorboardX
_FILE_NAME = re.compile(r"tfevents\.([0-9]+)(?:\..*\.([0-9]+)\.([0-9]+))?")
_PROJECTOR_FILE = "projector_config.pbtxt"
_MAX_PROJECTOR_BYTES = 1 << 20

_OTHER_EVENTS = {
    "graph_def": "graph",
    "meta_graph_def": "graph",
    "tagged_run_metadata": "profile",
    "log_message": "log message",
}


def is_event_file(name: str) -> bool:
    """Whether this is the base name of an event file, which has no fixed extension."""
    return "tfevents" in name


class EventFolderReader:
    """The runs of a folder of event files, or of one event file; see `LogReader`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, _Folder] = {}
        self._runs: list[LogRun] = []

    @property
    def runs(self) -> list[LogRun]:
        """One run per experiment, ordered by name; new objects where folders were merged."""
        return self._runs

    def update(self) -> bool:
        """Read what was appended; see `LogReader.update`.

        Raises:
            LogError: the folder does not exist or holds no event file, and never did.
        """
        found = self._found()
        if not found and not self._folders:
            raise LogError(
                f"{self._root}: no event files found",
                hint="event files have 'tfevents' in their names",
            )
        for path in found:
            if path not in self._folders:
                self._folders[path] = _Folder(path, self._root)
        # Every folder is updated: a generator in any() would end at the first that changed.
        changes = [folder.update(found.get(path)) for path, folder in self._folders.items()]
        if any(changes):
            self._runs = merge_runs(folder.run for folder in self._folders.values())
        return any(changes)

    def _found(self) -> dict[Path, _Listing]:
        if self._root.is_dir():
            return _find_event_files(self._root)
        if self._root.exists():
            return {self._root.parent: _listing([self._root])}
        if self._folders:
            return {}
        raise LogError(f"{self._root}: no such file or folder")


@dataclass(kw_only=True, slots=True)
class _Listing:
    """What a folder holds: event files in the order of writing, and what cannot be read."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _find_event_files(root: Path) -> dict[Path, _Listing]:
    # A link that leads upward would take in the whole disk.
    visited = {_identity(parent) for parent in root.resolve().parents}
    waiting, links = deque([root]), deque[Path]()
    found: dict[Path, _Listing] = {}
    while waiting or links:
        # Real folders first, so that a run is named by its own path and not by a link's.
        folder = waiting.popleft() if waiting else links.popleft()
        if (identity := _identity(folder)) in visited:
            continue
        visited.add(identity)
        paths = []
        for entry in _entries(folder):
            if entry.is_dir(follow_symlinks=False):
                waiting.append(folder / entry.name)
            elif entry.is_symlink() and (folder / entry.name).is_dir():
                links.append(folder / entry.name)
            elif is_event_file(entry.name):
                paths.append(folder / entry.name)
        if paths:
            found[folder] = _listing(paths)
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    # A folder that was deleted meanwhile, or that is not readable, must not cost the others.
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_dev, found.st_ino


def _listing(paths: list[Path]) -> _Listing:
    listing = _Listing()
    own = {_identity(path) for path in paths if not path.is_symlink()}
    for path in sorted(paths, key=lambda path: _written_order(path.name)):
        try:
            is_file = stat.S_ISREG(path.stat().st_mode)
        except OSError as error:
            listing.notes.append(f"{_readable(path.name)} cannot be read: {error.strerror}")
            continue
        if path.is_symlink() and _identity(path) in own:
            listing.notes.append(
                f"{_readable(path.name)} is a link to a file that was read already"
            )
        elif is_file:
            listing.files.append(path)
        else:
            listing.notes.append(f"{_readable(path.name)} is not a regular file")
    return listing


def _written_order(name: str) -> tuple[int, int, int, str]:
    """Seconds, process and number in the name of a file; tensorboardX writes the seconds only."""
    match = _FILE_NAME.search(name)
    seconds, process, number = match.groups() if match else (None, None, None)
    return int(seconds or 0), int(process or 0), int(number or 0), name


def _readable(name: str) -> str:
    # A name on Linux can be any bytes; "replace" would make different names equal.
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


@dataclass(kw_only=True, slots=True)
class _OpenEventFile:
    """One event file of a folder.

    Attributes:
        session: index of its current session in the run.
        is_used: whether that session has written a value.
    """

    file: EventFile
    session: int
    is_used: bool = False


class _Folder:
    """The run of one folder, before folders are merged."""

    def __init__(self, path: Path, root: Path) -> None:
        self._path = path
        self._base = root if root.is_dir() else root.parent
        self._lost: list[str] = []
        self._restart()

    def update(self, listing: _Listing | None) -> bool:
        """Read what is new of the files in `listing`; whether anything was."""
        listing = listing or _Listing()
        must_restart = self._must_restart(listing.files)
        if must_restart:
            # Points of a deleted file are kept only as long as the run need not be reread.
            renamed = self._renamed(listing.files)
            gone = [
                self._name(path)
                for path in self._sources
                if path not in listing.files and path not in renamed
            ]
            self._lost += [f"{name} was deleted, and its points with it" for name in gone]
            self._restart()
        changes = [self._update_file(path) for path in listing.files]
        notes = [*listing.notes, *self._lost, *self._deletions(listing.files)]
        changed = must_restart or any(changes) or notes != self.run.notes
        self.run.notes = notes
        if changed:
            files = [source.file for source in self._sources.values()]
            self.run.files = [file.log for file in files]
            self.run.damage = [damage for file in files for damage in file.damage]
            self._count_embeddings()
        return changed

    def _restart(self) -> None:
        self.run = LogRun(name=self._name(self._path), format=FORMAT)
        self._decoder = ValueDecoder(self.run)
        self._sources: dict[Path, _OpenEventFile] = {}

    def _name(self, path: Path) -> str:
        name = path.relative_to(self._base).as_posix()
        return "" if name == "." else _readable(name)

    def _must_restart(self, paths: list[Path]) -> bool:
        """Whether a known file was replaced or renamed, or a new one is older than a known one."""
        if self._renamed(paths):
            return True
        if any(self._sources[path].file.was_replaced() for path in paths if path in self._sources):
            return True
        # Points are in the order of the files, which an older file that appears late would break.
        last = max((_written_order(path.name) for path in self._sources), default=None)
        new = (_written_order(path.name) for path in paths if path not in self._sources)
        return last is not None and any(order < last for order in new)

    def _renamed(self, paths: list[Path]) -> set[Path]:
        """Known files that are now among `paths` under another name."""
        gone = {s.file.identity: path for path, s in self._sources.items() if path not in paths}
        if not gone:
            return set()
        new = {_identity(path) for path in paths if path not in self._sources}
        return {path for identity, path in gone.items() if identity in new}

    def _deletions(self, paths: list[Path]) -> list[str]:
        deleted = [path for path in self._sources if path not in paths]
        return [f"{self._name(path)} was deleted; what was read is kept" for path in deleted]

    def _update_file(self, path: Path) -> bool:
        source = self._sources.get(path)
        if source is None:
            file = EventFile(path, self._name(path))
            self.run.sessions.append(Session(file=file.log.name))
            source = _OpenEventFile(file=file, session=len(self.run.sessions) - 1)
            self._sources[path] = source
        elif not source.file.has_changed():
            return False
        self._read(source)
        return True

    def _read(self, source: _OpenEventFile) -> None:
        scalars, add = self.run.scalars, self._decoder.add
        for event in source.file.read():
            values = event.summary.value
            if not values:
                self._read_other(event, source)
                continue
            source.is_used = True
            for value in values:
                # Nearly every value of a log takes this path, a million in a few seconds.
                if value.WhichOneof("value") == "simple_value":
                    series = scalars.get(value.tag)
                    if series is None:
                        series = self.run.series(value.tag)
                    series.append(event.step, value.simple_value, event.wall_time, source.session)
                else:
                    add(value, event, source.file, source.session)

    def _read_other(self, event: Any, source: _OpenEventFile) -> None:
        kind = event.WhichOneof("what")
        # A file version in the middle of a file: another writer appended to it.
        if kind == "file_version":
            self._begin_session(source)
        elif kind == "session_log" and event.session_log.status == SessionLog.START:
            self._begin_session(source)
            sessions = self.run.sessions
            sessions[source.session] = replace(sessions[source.session], purge_step=event.step)
        elif kind in _OTHER_EVENTS:
            self.run.not_shown[_OTHER_EVENTS[kind]] += 1

    def _begin_session(self, source: _OpenEventFile) -> None:
        # Unless the current one has written nothing: a file begins with a version record, and with
        # `purge_step` a START follows.
        if source.is_used:
            self.run.sessions.append(Session(file=source.file.log.name))
            source.session, source.is_used = len(self.run.sessions) - 1, False

    def _count_embeddings(self) -> None:
        # Embeddings are files beside the event file, which does not mention them.
        try:
            with (self._path / _PROJECTOR_FILE).open("rb") as file:
                count = file.read(_MAX_PROJECTOR_BYTES).count(b"embeddings {")
        except OSError:
            return
        if count:
            self.run.not_shown["embedding"] = count
