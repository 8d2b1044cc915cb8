"""MLflow: the SQLite database of a tracking server, and runs in the older store of folders."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from heapq import merge
from itertools import accumulate
from pathlib import Path
from typing import Any

from reportgen.errors import LogError
from reportgen.training_logs.growing_file import FileAccount, GrowingFile, TextLine, unreadable
from reportgen.training_logs.log_run import UNKNOWN_TIME, Hyperparameter, LogRun, join_names
from reportgen.training_logs.points import (
    PointLog,
    finite_number,
    number,
    parse_setting,
    read_settings,
)
from reportgen.training_logs.sqlite_file import SqliteReader, columns_of

METRIC_COLUMNS = frozenset({"key", "value", "timestamp", "run_uuid", "step", "is_nan"})

# A database cannot hold infinities: MLflow writes the largest double instead.
_LARGEST = 1.7976931348623157e308
_LONGEST_SETTING = 10_000


class MlflowReader(SqliteReader):
    """One database; a run is named by its experiment and its own name. Deleted runs are left out.

    MLflow writes NaN as 0 with a mark, and infinities as the largest double.
    """

    format = "mlflow"

    def _add_runs(
        self, connection: sqlite3.Connection, runs: dict[object, LogRun], account: FileAccount
    ) -> None:
        points: dict[object, PointLog] = {}
        for key, name in _names(connection):
            runs[key] = self._run_named(name, runs)
            points[key] = PointLog(runs[key], self.path.name)
        self._add_metrics(connection, points, account)
        for key, setting, value in connection.execute("SELECT run_uuid, key, value FROM params"):
            if key in runs:
                runs[key].hyperparameters[str(setting)] = parse_setting(str(value))

    def _add_metrics(
        self, connection: sqlite3.Connection, points: dict[object, PointLog], account: FileAccount
    ) -> None:
        # By rowid, the order of logging: the table's primary key sorts by metric.
        query = "SELECT run_uuid, key, value, timestamp, step, is_nan FROM metrics ORDER BY rowid"
        for key, tag, value, milliseconds, step, is_nan in connection.execute(query):
            account.file.records += 1
            if key in points:
                read = math.nan if is_nan else _finite_or_infinite(number(value))
                points[key].add_row(
                    finite_number(step) or 0.0, _seconds(milliseconds), [(str(tag), read)]
                )


def _names(connection: sqlite3.Connection) -> list[tuple[object, str]]:
    """(run_uuid, name) of each run that was not deleted, in the order of their start."""
    columns = columns_of(connection, "runs")
    name = "runs.name" if "name" in columns else "NULL"
    kept = "WHERE runs.lifecycle_stage = 'active'" if "lifecycle_stage" in columns else ""
    query = (
        f"SELECT run_uuid, {name}, experiments.name FROM runs "  # noqa: S608 - names of our own
        f"LEFT JOIN experiments USING (experiment_id) {kept} ORDER BY start_time, runs.rowid"
    )
    return [
        (key, join_names(str(experiment or ""), str(name or str(key)[:8])))
        for key, name, experiment in connection.execute(query)
    ]


def _finite_or_infinite(value: float | None) -> float:
    if value is None:
        return math.nan
    return math.copysign(math.inf, value) if abs(value) == _LARGEST else value


def _seconds(milliseconds: Any) -> float:
    value = number(milliseconds)
    return UNKNOWN_TIME if value is None or value <= 0 else value / 1000


class MlflowFolderReader:
    """One run of the folder store: `meta.yaml`, `metrics/`, `params/`, a file per key.

    A line of a metric is `milliseconds value step`; the oldest versions wrote no step.
    """

    format = "mlflow folder"

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self._metrics: dict[Path, _MetricFile] = {}
        self._run = LogRun(name=name, format=self.format)

    @property
    def runs(self) -> list[LogRun]:
        """As in `LogReader`: one run."""
        return [self._run]

    def update(self) -> bool:
        """As in `LogReader`."""
        try:
            return self._update()
        except OSError as error:
            raise unreadable(self.path, error) from error

    def _update(self) -> bool:
        if not self.path.is_dir():
            raise LogError(f"{self.path}: not a folder of an MLflow run")
        changed = False
        for file in _files(self.path / "metrics"):
            if file not in self._metrics:
                self._metrics[file] = _MetricFile(file, self.path)
            changed = self._metrics[file].update() or changed
        # Parameters may be logged after the first metric: looked for until there are any.
        if changed or not self._run.hyperparameters:
            before = self._run.hyperparameters
            self._run = self._assemble()
            changed = changed or self._run.hyperparameters != before
        return changed

    def _assemble(self) -> LogRun:
        run = LogRun(name=self._full_name(), format=self.format)
        points = PointLog(run, "metrics")
        for metric in self._metrics.values():
            run.files.append(metric.account.file)
            run.damage += metric.account.damage
        # In the order of time, so that a second attempt begins at the same place in every metric.
        for _, tag, (time, value, step) in merge(*self._timed_rows(), key=lambda row: row[0]):
            points.add_row(step, time, [(tag, value)])
        run.hyperparameters = _settings(self.path / "params")
        return run

    def _timed_rows(self) -> Iterator[list[tuple[float, str, tuple[float, float, float]]]]:
        """Per metric (latest time so far, tag, row): rising times in the order of the file."""
        for metric in self._metrics.values():
            # A clock may go back; `merge` needs each of its inputs in order.
            latest = accumulate((_known(row[0]) for row in metric.rows), max)
            yield [(t, metric.tag, row) for t, row in zip(latest, metric.rows, strict=True)]

    def _full_name(self) -> str:
        # The folder of a run is a hash; users know it by its name.
        try:
            own = read_settings(self.path / "meta.yaml").get("run_name", "")
        except (OSError, ValueError):
            own = ""
        return join_names(self.name, str(own))


def _known(time: float) -> float:
    return 0.0 if math.isnan(time) else time  # max() with NaN depends on the order


class _MetricFile:
    def __init__(self, path: Path, run: Path) -> None:
        self.tag = path.relative_to(run / "metrics").as_posix()
        self._file = GrowingFile(path)
        self._name = path.relative_to(run).as_posix()
        self._begin()

    def _begin(self) -> None:
        self.account = FileAccount(self._file.path, self._name, MlflowFolderReader.format)
        self.rows: list[tuple[float, float, float]] = []
        self._tail = False

    def update(self) -> bool:
        change = self._file.poll()
        if change in ("same", "gone"):
            return False
        if change == "new":
            self._begin()
        self.account.drop_damage_from(self._file.offset)
        # The last row came from a line without a line feed: its step may be cut off.
        if self._tail:
            self.rows.pop()
        self._tail = False
        for line in self._file.lines():
            self._read(line)
        self.account.close(self._file.size_bytes)
        self.account.file.records = len(self.rows)
        return True

    def _read(self, line: TextLine) -> None:
        cells = (line.content or b"").decode("utf-8", "replace").split()
        row = _metric_row(cells)
        if row is not None:
            self.rows.append(row)
            self._tail = not line.complete
        elif cells or line.content is None:
            self.account.add_damage(line.offset, line.size_bytes, "not `time value step`")


def _metric_row(cells: list[str]) -> tuple[float, float, float] | None:
    """(time in s, value, step) of a line; None where it is not one of a metric."""
    if len(cells) not in (2, 3):
        return None
    value, step = number(cells[1]), finite_number(cells[2]) if len(cells) == 3 else 0.0
    if number(cells[0]) is None or value is None or step is None:
        return None
    return _seconds(cells[0]), value, step


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _settings(folder: Path) -> dict[str, Hyperparameter]:
    settings = {}
    for file in _files(folder):
        with file.open(encoding="utf-8", errors="replace") as stream:
            text = stream.read(_LONGEST_SETTING).strip()
        settings[file.relative_to(folder).as_posix()] = parse_setting(text)
    return settings
