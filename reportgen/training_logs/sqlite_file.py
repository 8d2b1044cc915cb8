"""Opens SQLite databases of other programs read-only, without creating files beside them."""

from __future__ import annotations

import sqlite3
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from reportgen.errors import LogError
from reportgen.training_logs.growing_file import (
    Change,
    FileAccount,
    FileChanges,
    FileReader,
    unreadable,
)
from reportgen.training_logs.log_run import LogRun, join_names, unique_name

MAGIC = b"SQLite format 3\x00"
DATABASE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged database raises; the second where SQLite's own message quotes damaged bytes."""

_BUSY_SECONDS = 2.0
_WRITE_AHEAD = 2  # at offset 18 of the header


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot change the database; text that is not UTF-8 is repaired.

    Raises:
        sqlite3.DatabaseError: it is not a database, damaged or locked.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        head = stream.read(20)
    log = path.with_name(path.name + "-wal")
    # A reader of a database with a write-ahead log creates that log where it is missing, and
    # leaves it behind. Without the log no process is writing, so that no lock is needed either.
    is_idle = head[18:19] == bytes([_WRITE_AHEAD]) and not log.exists()
    mode = "mode=ro&immutable=1" if is_idle else "mode=ro"
    # A name may contain `?`, `#` or `%`, which have a meaning in a URI.
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


class SqliteReader(FileReader):
    """Base of the readers of SQLite databases, reread whenever they change."""

    def __init__(self, path: Path, name: str) -> None:
        # New rows go to the write-ahead log; the database file changes only at a checkpoint.
        super().__init__(path, name, FileChanges(path, path.with_name(path.name + "-wal")))
        self._runs: list[LogRun] = []

    @property
    def runs(self) -> list[LogRun]:
        """As in `LogReader`."""
        return self._runs

    def _read_changes(self, change: Change) -> None:
        del change  # rows may be changed anywhere: everything is read again
        account = FileAccount(self.path, self.path.name, self.format)
        # Without rows one empty run holds the file, so that it is listed as read.
        runs = self._read(account) or [LogRun(name=self.name, format=self.format)]
        runs.sort(key=lambda run: run.name)
        # One file for all runs: only the first counts it.
        runs[0].files.append(account.file)
        runs[0].damage = account.damage
        self._runs = runs

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
            account.add_damage(0, size, f"{failure}; {rows:,} rows were read before it")
        account.close(size)
        return list(runs.values())

    @abstractmethod
    def _add_runs(
        self, connection: sqlite3.Connection, runs: dict[object, LogRun], account: FileAccount
    ) -> None:
        """Fill `runs`, by any key; what is in it when an error occurs is kept."""

    def _run_named(self, name: str, taken: dict[object, LogRun]) -> LogRun:
        """A new run with a name that no other has."""
        names = {run.name for run in taken.values()}
        unique = unique_name(join_names(self.name, name), names)
        return LogRun(name=unique, format=self.format)
