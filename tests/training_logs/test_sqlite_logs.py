"""Databases of trackio and MLflow, and MLflow's folders."""

from __future__ import annotations

import functools
import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_checks import assert_accounted, assert_survives, points

from reportgen.errors import LogError
from reportgen.training_logs.file_format import detect_format
from reportgen.training_logs.mlflow import MlflowFolderReader, MlflowReader
from reportgen.training_logs.trackio import TrackioReader

TRACKIO = """
CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL,
    run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL);
CREATE TABLE configs (id INTEGER PRIMARY KEY AUTOINCREMENT, run_name TEXT NOT NULL,
    config TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE alerts (id INTEGER PRIMARY KEY AUTOINCREMENT, timestamp TEXT NOT NULL,
    run_name TEXT NOT NULL, title TEXT NOT NULL, text TEXT, level TEXT NOT NULL, step INTEGER);
"""
MLFLOW = """
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT, lifecycle_stage TEXT);
CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, experiment_id INTEGER, status TEXT,
    start_time BIGINT, end_time BIGINT, lifecycle_stage TEXT);
CREATE TABLE metrics (key TEXT NOT NULL, value FLOAT NOT NULL, timestamp BIGINT NOT NULL,
    run_uuid TEXT NOT NULL, step BIGINT NOT NULL, is_nan BOOLEAN NOT NULL,
    PRIMARY KEY (key, timestamp, step, run_uuid, value, is_nan));
CREATE TABLE params (key TEXT NOT NULL, value TEXT NOT NULL, run_uuid TEXT NOT NULL,
    PRIMARY KEY (key, run_uuid));
INSERT INTO experiments VALUES (0, 'Default', 'active');
INSERT INTO runs VALUES ('u1', 'lucky-fox', 0, 'FINISHED', 100, 200, 'active'),
    ('u2', 'lucky-fox', 0, 'RUNNING', 300, NULL, 'active'),
    ('u3', 'gone', 0, 'FINISHED', 50, 60, 'deleted');
"""
LARGEST = 1.7976931348623157e308


@pytest.fixture
def trackio(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "project.db")
    connection.executescript(TRACKIO)
    yield connection
    connection.close()


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    connection.executescript(MLFLOW)
    yield connection
    connection.close()


def log(connection: sqlite3.Connection, run: str, step: int, metrics: Any) -> None:
    connection.execute(
        "INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)",
        (f"2023-11-14T22:13:{20 + step}+00:00", run, step, metrics),
    )
    connection.commit()


# trackio


def test_runs_of_trackio(tmp_path: Path, trackio: sqlite3.Connection) -> None:
    log(trackio, "b", 0, json.dumps({"loss": 1.0, "acc": "NaN"}))
    log(trackio, "b", 1, json.dumps({"loss": "Infinity", "acc": 0.5}).encode())
    log(trackio, "a", 0, json.dumps({"loss": "-Infinity", "picture": {"_type": "trackio.image"}}))
    config = json.dumps({"lr": 0.1, "model": {"depth": 2}, "_Username": "me"})
    trackio.execute("INSERT INTO configs VALUES (1, 'b', ?, '')", (config,))
    trackio.execute("INSERT INTO alerts VALUES (1, '', 'b', 'spike', 'loss > 9', 'WARN', 1)")
    trackio.commit()
    reader = TrackioReader(tmp_path / "project.db", "p")
    assert reader.update()
    assert_accounted(reader.runs)
    a, b = reader.runs
    assert (a.name, b.name) == ("p/a", "p/b")
    assert points(a) == {"loss": [(0, -math.inf)]}
    assert points(b) == {"loss": [(0, 1), (1, math.inf)], "acc": [(0, "nan"), (1, 0.5)]}
    assert list(b.scalars["loss"].times) == [1.7e9, 1.7e9 + 1]
    assert b.hyperparameters == {"lr": 0.1, "model.depth": 2}
    assert [(text.step, text.text) for text in b.texts] == [(1, "WARN: spike\nloss > 9")]
    assert a.not_shown == {"trackio.image": 1}
    assert a.files[0].records == 3
    assert not b.files


def test_two_runs_of_one_name_by_id(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "project.db")
    connection.execute("CREATE TABLE metrics (timestamp, run_id, run_name, step, metrics)")
    for identifier, loss in (("x", 1), ("y", 2)):
        row = ("", identifier, "same", 0, json.dumps({"loss": loss}))
        connection.execute("INSERT INTO metrics VALUES (?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()
    reader = TrackioReader(tmp_path / "project.db", "")
    reader.update()
    assert {run.name: points(run)["loss"] for run in reader.runs} == {
        "same": [(0, 1)],
        "same (2)": [(0, 2)],
    }


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_database_that_is_being_written(
    tmp_path: Path, trackio: sqlite3.Connection, journal: str
) -> None:
    trackio.execute(f"PRAGMA journal_mode={journal}")
    log(trackio, "a", 0, '{"loss": 1}')
    reader = TrackioReader(tmp_path / "project.db", "")
    assert reader.update()
    assert not reader.update()
    log(trackio, "a", 1, '{"loss": 2}')
    assert reader.update()
    assert points(reader.runs[0])["loss"] == [(0, 1), (1, 2)]
    assert_accounted(reader.runs)


def test_reading_leaves_nothing_behind(tmp_path: Path, trackio: sqlite3.Connection) -> None:
    trackio.execute("PRAGMA journal_mode=WAL")
    log(trackio, "a", 0, '{"loss": 1}')
    trackio.close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(before) == {"project.db"}
    reader = TrackioReader(tmp_path / "project.db", "")
    reader.update()
    assert points(reader.runs[0])["loss"] == [(0, 1)]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_name_with_signs_of_a_uri(tmp_path: Path, trackio: sqlite3.Connection) -> None:
    log(trackio, "a", 0, '{"loss": 1}')
    trackio.close()
    file = (tmp_path / "project.db").rename(tmp_path / "a?mode=rwc#% b.db")
    reader = TrackioReader(file, "")
    reader.update()
    assert points(reader.runs[0])["loss"] == [(0, 1)]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("metrics", ["", "[]", "null", '{"loss": [1]}', "{", None, 5, b"\xff"])
def test_rows_without_metrics(tmp_path: Path, trackio: sqlite3.Connection, metrics: object) -> None:
    log(trackio, "a", 0, "{}" if metrics is None else metrics)
    reader = TrackioReader(tmp_path / "project.db", "")
    reader.update()
    assert not reader.runs[0].scalars


@pytest.mark.parametrize("content", [b"text", b"SQLite format 3\0" + b"\1" * 5000])
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "project.db").write_bytes(content)
    with pytest.raises(LogError):
        TrackioReader(tmp_path / "project.db", "").update()


def test_rows_before_damage_are_kept(tmp_path: Path, trackio: sqlite3.Connection) -> None:
    for step in range(30):
        log(trackio, "a", step, json.dumps({"loss": step, "note": "x" * 1000}))
    trackio.close()
    file = tmp_path / "project.db"
    content = bytearray(file.read_bytes())
    content[-4096:] = b"\xff" * 4096
    file.write_bytes(content)
    reader = TrackioReader(file, "")
    reader.update()
    assert_accounted(reader.runs)
    (run,) = reader.runs
    assert 0 < len(run.scalars["loss"]) < 30
    assert run.files[0].read_bytes == 0


@functools.cache
def intact_database() -> bytes:
    connection = sqlite3.connect(":memory:")
    connection.executescript(TRACKIO)
    for step in range(20):
        row = ("", "a", step, json.dumps({"loss": step, "pad": "x" * 300}))
        connection.execute(
            "INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", row
        )
    connection.commit()
    return connection.serialize()


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damaged_databases(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.db"
    content = bytearray(intact_database())
    for _ in range(data.draw(st.integers(1, 20))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    file.write_bytes(content)
    assert_survives(TrackioReader(file, ""), bytes(content))


def test_an_error_that_quotes_damaged_bytes(tmp_path: Path) -> None:
    content = intact_database().replace(b"CREATE TABLE alerts", b"CREATE TAB\x80E alerts")
    (tmp_path / "project.db").write_bytes(content)
    with pytest.raises(LogError):
        TrackioReader(tmp_path / "project.db", "").update()
    assert detect_format(tmp_path / "project.db") is None


# MLflow


def test_runs_of_mlflow(tmp_path: Path, mlflow: sqlite3.Connection) -> None:
    rows = [
        ("loss", 1.0, 1_700_000_000_500, "u1", 0, 0),
        ("loss", 0.0, 1_700_000_001_000, "u1", 1, 1),
        ("loss", LARGEST, 1_700_000_002_000, "u1", 2, 0),
        ("loss", -LARGEST, 1_700_000_003_000, "u1", 3, 0),
        ("loss", 5.0, 0, "u2", 0, 0),
        ("loss", 6.0, 0, "u3", 0, 0),
    ]
    mlflow.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
    settings = [
        ("lr", "0.1", "u1"),
        ("layers", "3", "u1"),
        ("amp", "True", "u1"),
        ("opt", "sgd", "u1"),
    ]
    mlflow.executemany("INSERT INTO params VALUES (?, ?, ?)", settings)
    mlflow.commit()
    reader = MlflowReader(tmp_path / "mlflow.db", "")
    assert reader.update()
    assert_accounted(reader.runs)
    first, second = reader.runs
    assert [run.name for run in reader.runs] == ["Default/lucky-fox", "Default/lucky-fox (2)"]
    assert points(first) == {"loss": [(0, 1), (1, "nan"), (2, math.inf), (3, -math.inf)]}
    assert list(first.scalars["loss"].times[:2]) == [1_700_000_000.5, 1_700_000_001.0]
    assert first.hyperparameters == {"lr": 0.1, "layers": 3, "amp": True, "opt": "sgd"}
    assert points(second) == {"loss": [(0, 5)]}
    assert math.isnan(second.scalars["loss"].times[0])


def mlflow_folder(folder: Path) -> Path:
    run = folder / "0123"
    (run / "metrics" / "val").mkdir(parents=True)
    (run / "params").mkdir()
    (run / "meta.yaml").write_text("run_id: 0123\nrun_name: fox\nstart_time: 1\n")
    (run / "metrics" / "loss").write_text("1700000000000 0.5 0\n1700000001000 nan 1\n")
    (run / "metrics" / "val" / "acc").write_text("1700000001500 0.25 1\n")
    (run / "params" / "lr").write_text("0.1")
    return run


def test_a_run_of_the_folder_store(tmp_path: Path) -> None:
    folder = mlflow_folder(tmp_path)
    reader = MlflowFolderReader(folder, "")
    assert reader.update()
    assert not reader.update()
    assert_accounted(reader.runs)
    (run,) = reader.runs
    assert run.name == "fox"
    assert points(run) == {"loss": [(0, 0.5), (1, "nan")], "val/acc": [(1, 0.25)]}
    assert list(run.scalars["loss"].times) == [1.7e9, 1.7e9 + 1]
    assert run.hyperparameters == {"lr": 0.1}
    with (folder / "metrics" / "loss").open("a") as stream:
        stream.write("1700000002000 0.125 2\nbroken\n1700000003000 0.1 ")
    assert reader.update()
    assert points(reader.runs[0])["loss"][2:] == [(2, 0.125), (0, 0.1)]
    assert [damage.size_bytes for damage in reader.runs[0].damage] == [7]
    with (folder / "metrics" / "loss").open("a") as stream:
        stream.write("3\n")
    assert reader.update()
    assert points(reader.runs[0])["loss"][2:] == [(2, 0.125), (3, 0.1)]
    assert_accounted(reader.runs)


def test_a_second_attempt_begins_at_one_place_in_all_metrics(tmp_path: Path) -> None:
    folder = mlflow_folder(tmp_path)
    for tag in ("a", "b"):
        rows = "".join(f"{1_700_000_000_000 + i} 1 {i % 3}\n" for i in range(6))
        (folder / "metrics" / tag).write_text(rows)
    reader = MlflowFolderReader(folder, "")
    reader.update()
    run = reader.runs[0]
    assert run.scalars["a"].starts == run.scalars["b"].starts == [(0, 0), (3, 1)]
