"""Opens SQLite databases of other programs read-only, without creating files beside them."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

from reportgen.errors import LogError
from reportgen.training_logs.growing_file import (
    FileAccount,
    FileChanges,
    deletion_note,
    unreadable,
)
from reportgen.training_logs.log_run import LogRun

MAGIC = b"SQLite format 3\x00"
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged database raises; the second where SQLite's own message quotes damaged bytes."""

_BUSY_SECONDS = 2.0
_WRITE_AHEAD = 2  # at offset 18 of the header


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot change the database; text that is not UTF-8 is repaired.

    Raises:
        sqlite3.DatabaseError: it is no database, damaged or locked.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(20)
    log = path.with_name(path.name + "-wal")
    # A reader of a database with a write-ahead log creates that log where it is missing, and
    # leaves it behind. Without the log nobody is writing, so that no lock is needed either.
    still = head[18:19] == bytes([_WRITE_AHEAD]) and not log.exists()
    mode = "mode=ro&immutable=1" if still else "mode=ro"
    uri = f"file:{quote(str(path.absolute()))}?{mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)
    # The default raises at the first wrong byte, in a name as in a metric.
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    try:
        yield connection
    finally:
        connection.close()


def columns_of(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    """The names of the columns of `table`; empty where there is no such table."""
    rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return frozenset(str(row[0]) for row in rows)


class SqliteReader(ABC):
    """Base of the readers of SQLite databases, reread whenever they change."""

    format: ClassVar[str]

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._changes = FileChanges(path, path.with_name(path.name + "-wal"))
        self._runs: list[LogRun] = []
        self._gone = False

    @property
    def runs(self) -> list[LogRun]:
        """As in `LogReader`."""
        return self._runs

    def update(self) -> bool:
        """As in `LogReader`."""
        change = self._changes.poll()
        if change == "same":
            return False
        if change == "gone":
            return self._note_deletion()
        self._gone = False
        account = FileAccount(self.path, self.path.name, self.format)
        runs = self._read(account)
        if not runs:
            runs = [LogRun(name=self.name, format=self.format)]
        runs.sort(key=lambda run: run.name)
        # One file for all runs: only the first counts it.
        runs[0].files.append(account.file)
        runs[0].damage = account.damage
        self._runs = runs
        return True

    def _read(self, account: FileAccount) -> list[LogRun]:
        runs: dict[object, LogRun] = {}
        failure = ""
        try:
            size = self.path.stat().st_size
            with open_database(self.path) as connection:
                self._add_runs(connection, runs, account)
        except DATABASE_ERRORS as error:
            failure = str(error)
        except OSError as error:
            raise unreadable(self.path, error) from error
        if failure and not runs:
            raise LogError(f"{self.path}: cannot be read as a {self.format} database: {failure}")
        if failure:
            # SQLite does not say which bytes are damaged: none are counted as read.
            rows = account.file.records
            account.lose(0, size, f"{failure}; {rows:,} rows were read before it")
        account.close(size)
        return list(runs.values())

    @abstractmethod
    def _add_runs(
        self, connection: sqlite3.Connection, runs: dict[object, LogRun], account: FileAccount
    ) -> None:
        """Fill `runs`, by any key; what is in it when an error occurs is kept."""

    def _note_deletion(self) -> bool:
        if self._gone:
            return False
        self._gone = True
        for run in self._runs[:1]:
            run.notes.append(deletion_note(self.path))
        return True

    def _run_named(self, name: str, taken: dict[object, LogRun]) -> LogRun:
        """A new run with a name that no other has."""
        full = "/".join(part for part in (self.name, name) if part)
        names = {run.name for run in taken.values()}
        unique, count = full, 2
        while unique in names:
            unique, count = f"{full} ({count})", count + 1
        return LogRun(name=unique, format=self.format)
