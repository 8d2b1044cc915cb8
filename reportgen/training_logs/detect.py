"""Formats of training logs: detected by content, found below a folder, opened with their reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from reportgen.errors import LogError
from reportgen.training_logs.file_format import analyze
from reportgen.training_logs.growing_file import unreadable
from reportgen.training_logs.log_run import LogReader

# A manifest may name a home folder by mistake: the search must end.
MAX_DEPTH = 20
MAX_ENTRIES = 100_000

# The folders of the Hugging Face Trainer; each has a trainer_state.json.
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(kw_only=True, slots=True)
class FoundLogs:
    """The logs below a folder.

    Attributes:
        logs: (path, format); all event files together are one entry: the folder searched.
        problems: (path, sentence) of stores that cannot be read and of unreadable files.
    """

    logs: list[tuple[Path, str]] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def find_logs(root: Path) -> FoundLogs:
    """Every log at or below `root`, in the order of paths.

    Hidden files and folders are skipped, links are followed, each folder is read once. Of the
    `trainer_state.json` files of one training run only the newest is returned: it contains the
    others.
    """
    search = _LogSearch(root)
    search.run()
    return search.found


class _LogSearch:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.found = FoundLogs()
        self._seen: set[tuple[int, int]] = set()
        self._entries = 0
        self._has_events = False

    def run(self) -> None:
        self._visit(self.root, 0)
        if self._has_events:
            self.found.logs.insert(0, (self.root, "tensorboard"))
        self.found.logs = list(_newest_checkpoints(self.found.logs))
        if self._entries > MAX_ENTRIES:
            self._report(self.root, f"has more than {MAX_ENTRIES:,} entries; the rest was not read")

    def _report(self, path: Path, problem: str) -> None:
        self.found.problems.append((path, problem))

    def _visit(self, path: Path, depth: int) -> None:
        try:
            found = analyze(path)
            is_folder = path.is_dir()
        except LogError as error:
            self._report(path, _reason(error))
            return
        if found.problem:
            self._report(path, found.problem)
        elif found.name == "tensorboard" and "tfevents" in path.name:
            # One reader for all of them: runs are merged across sub-folders.
            self._has_events = True
        elif found.name and found.sure:
            self.found.logs.append((path, found.name))
        if is_folder and not found.problem:
            # The rest of an MLflow run belongs to its entry; artifacts may hold event files.
            self._search_folder(path / "artifacts" if found.name else path, depth)

    def _search_folder(self, folder: Path, depth: int) -> None:
        if depth > MAX_DEPTH:
            self._report(folder, f"lies more than {MAX_DEPTH} folders deep; it was not read")
            return
        for entry in self._listed(folder):
            self._entries += 1
            if self._entries > MAX_ENTRIES:
                return
            # `.git` and `.cache` hold thousands of files, `.ipynb_checkpoints` old copies.
            if not entry.name.startswith(".") or entry.name == ".aim":
                self._visit(entry, depth + 1)

    def _listed(self, folder: Path) -> list[Path]:
        # By device and inode: links may lead to a folder under any number of names.
        try:
            status = folder.stat()
            key = (status.st_dev, status.st_ino)
            if key in self._seen:
                self._report(folder, "is a link to a folder that was read already")
                return []
            self._seen.add(key)
            return sorted(folder.iterdir())
        except FileNotFoundError:  # an MLflow run without artifacts, or deleted meanwhile
            return []
        except OSError as error:
            self._report(folder, _reason(unreadable(folder, error)))
            return []


def _reason(error: LogError) -> str:
    """The message without the path, which stands beside it."""
    return error.message.partition(": ")[2]


def _newest_checkpoints(logs: list[tuple[Path, str]]) -> Iterator[tuple[Path, str]]:
    """`logs` without trainer states whose rows a later checkpoint, or the output folder, has."""
    newest: dict[Path, tuple[float, Path]] = {}
    for path, format_name in logs:
        if format_name == "hf trainer state":
            training, step = _training_of(path)
            newest[training] = max(newest.get(training, (-1.0, path)), (step, path))
    kept = {path for _, path in newest.values()}
    for path, format_name in logs:
        if format_name != "hf trainer state" or path in kept:
            yield path, format_name


def _training_of(path: Path) -> tuple[Path, float]:
    """The output folder of a trainer state, and its step; infinite for the one at the end."""
    checkpoint = _CHECKPOINT.fullmatch(path.parent.name)
    if checkpoint is None:
        return path.parent, float("inf")
    return path.parent.parent, float(checkpoint[1])


_READERS = {
    "tensorboard": ("tensorboard.folder_reader", "EventFolderReader"),
    "visdom": ("visdom.environment", "VisdomReader"),
    "visdom client log": ("visdom.client_log", "VisdomClientLogReader"),
    "csv": ("csv_log", "CsvReader"),
    "hf trainer state": ("trainer_state", "TrainerStateReader"),
    "json lines": ("json_lines", "JsonLinesReader"),
    "trackio": ("trackio", "TrackioReader"),
    "mlflow": ("mlflow", "MlflowReader"),
    "mlflow folder": ("mlflow", "MlflowFolderReader"),
}
"""Format -> module and class of its reader, which is imported when a log needs it."""
FORMATS = tuple(_READERS)
"""Names of formats as the manifest writes them."""


def open_reader(path: Path, format_name: str, name: str) -> LogReader:
    """The reader of one log.

    Args:
        path: a file; a folder for "tensorboard" and "mlflow folder".
        format_name: one of `FORMATS`.
        name: of the run, or before the names of several runs; "" for none.

    Raises:
        LogError: there is no such format.
    """
    if format_name not in _READERS:
        raise LogError(
            f"{path}: unknown log format {format_name!r}", hint=f"use one of {', '.join(FORMATS)}"
        )
    module, class_name = _READERS[format_name]
    reader = getattr(import_module(f"reportgen.training_logs.{module}"), class_name)
    # Event files name their runs by their folders.
    opened: LogReader = reader(path) if format_name == "tensorboard" else reader(path, name)
    return opened
