"""The SQLite database of a trackio project: one run per name, metrics as JSON objects."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from reportgen.training_logs.growing_file import FileAccount
from reportgen.training_logs.log_run import LoggedText, LogRun
from reportgen.training_logs.points import PointLog, finite_number, flat_settings, number, wall_time
from reportgen.training_logs.sqlite_file import SqliteReader, columns_of

METRIC_COLUMNS = frozenset({"timestamp", "run_name", "step", "metrics"})


class TrackioReader(SqliteReader):
    """One project."""

    format = "trackio"

    def _add_runs(
        self, connection: sqlite3.Connection, runs: dict[object, LogRun], account: FileAccount
    ) -> None:
        points: dict[object, PointLog] = {}
        logged = _rows(connection, "metrics", ("timestamp", "step", "metrics"))
        for key, name, (time, step, metrics) in logged:
            account.file.records += 1
            if key not in runs:
                runs[key] = self._run_named(name, runs)
                points[key] = PointLog(runs[key], self.path.name)
            _add_metrics(points[key], metrics, step, time)
        for key, _, (config,) in _rows(connection, "configs", ("config",)):
            if key in runs:
                runs[key].hyperparameters |= _settings(config)
        alerts = _rows(connection, "alerts", ("timestamp", "step", "level", "title", "text"))
        for key, _, values in alerts:
            if key in runs:
                _add_alert(runs[key], *values)


def _rows(
    connection: sqlite3.Connection, table: str, fields: tuple[str, ...]
) -> Iterator[tuple[object, str, tuple[Any, ...]]]:
    """(key of the run, its name, fields) of each row, in order; fields that are missing are None.

    Newer databases have a `run_id`, so that two runs may have one name.
    """
    known = columns_of(connection, table)
    if "run_name" not in known:
        return
    keys = [name for name in ("project_name", "run_id", "run_name") if name in known]
    chosen = ", ".join([*keys, *(field if field in known else "NULL" for field in fields)])
    # By rowid, the order of logging: SQLite may otherwise return rows in the order of an index.
    query = f"SELECT {chosen} FROM {table} ORDER BY rowid"  # noqa: S608 - names of our own
    name = len(keys) - 1
    # One by one: the rows before a damaged page are kept.
    for row in connection.execute(query):
        yield row[: len(keys)], str(row[name]), row[len(keys) :]


def _add_metrics(points: PointLog, metrics: object, step: object, time: object) -> None:
    row = _object(metrics)
    values = []
    for tag, value in row.items():
        read = number(value)
        if read is not None:
            values.append((tag, read))
        else:
            # trackio stores media as objects with their `_type`, such as `trackio.image`.
            kind = value.get("_type") if isinstance(value, dict) else type(value).__name__
            points.run.not_shown[str(kind)] += 1
    if values:
        points.add_row(finite_number(step) or 0.0, wall_time(time), values)


def _object(text: object) -> dict[str, Any]:
    """The JSON object in a cell, which some versions store as bytes; empty where it is none."""
    try:
        value = json.loads(text) if isinstance(text, str | bytes) else None
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {}


def _settings(config: object) -> dict[str, Any]:
    """The settings of a run without trackio's own, which begin with an underscore."""
    own = {key: value for key, value in _object(config).items() if not key.startswith("_")}
    return flat_settings(own)


def _add_alert(
    run: LogRun, time: object, step: object, level: object, title: object, text: object
) -> None:
    head = ": ".join(str(part) for part in (level, title) if part)
    lines = [line for line in (head, str(text) if text else "") if line]
    run.texts.append(
        LoggedText(
            tag="alerts",
            step=finite_number(step) or 0.0,
            time=wall_time(time),
            text="\n".join(lines),
        )
    )
