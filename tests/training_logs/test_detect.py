"""Formats by content, and the logs below a folder."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_checks import FILES
from test_csv_log import KERAS, SB3_MONITOR, SB3_PROGRESS, TIMM, ULTRALYTICS
from test_json_logs import DETECTRON, MMENGINE
from test_sqlite_logs import MLFLOW, TRACKIO, mlflow_folder

from reportgen.errors import LogError
from reportgen.training_logs.detect import (
    FORMATS,
    MAX_DEPTH,
    find_logs,
    open_reader,
)
from reportgen.training_logs.file_format import detect_format, unsupported_store
from reportgen.training_logs.tensorboard.frames import masked_crc

EVENT = (
    (24).to_bytes(8, "little")
    + masked_crc((24).to_bytes(8, "little")).to_bytes(4, "little")
    + b"\x09\x80\x37\xd7\x44\x13\xd9\x7c\x41\x1a\x0dbrain.Event:2"
    + b"\0\0\0\0"
)


def json_lines(rows: list[object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def database(schema: str, folder: Path) -> bytes:
    file = folder / "made.db"
    connection = sqlite3.connect(file)
    connection.executescript(schema)
    connection.close()
    content = file.read_bytes()
    file.unlink()
    return content


CONTENTS: dict[str, tuple[bytes, str | None]] = {
    "event": (EVENT, "tensorboard"),
    "visdom": ((FILES / "visdom_environment.json").read_bytes(), "visdom"),
    "visdom, empty": (b'{"jsons": {}, "reload": {}}', "visdom"),
    "visdom, later": (
        json.dumps({"tags": ["x" * 70_000], "jsons": {}}).encode(), "visdom"
    ),
    "visdom, cut": ((FILES / "visdom_environment.json").read_bytes()[:900], "visdom"),
    "client log": ((FILES / "visdom_client_log.jsonl").read_bytes(), "visdom client log"),
    "trainer state": ((FILES / "trainer_state.json").read_bytes(), "hf trainer state"),
    "detectron2": (json_lines([*DETECTRON]), "json lines"),
    "mmengine": (json_lines([*MMENGINE]), "json lines"),
    "one line": (json_lines([{"step": 1, "loss": 2}]), "json lines"),
    "lightning": ((FILES / "lightning" / "metrics.csv").read_bytes(), "csv"),
    "keras": (KERAS.encode(), "csv"),
    "timm": (TIMM.encode(), "csv"),
    "sb3 progress": (SB3_PROGRESS.encode(), "csv"),
    "sb3 monitor": (SB3_MONITOR.encode(), "csv"),
    "ultralytics": (ULTRALYTICS.encode(), "csv"),
    "csv with bom": (KERAS.encode("utf-8-sig"), "csv"),
    "tabs": (KERAS.replace(",", "\t").encode(), "csv"),
    "long csv": (("step,loss\n" + "1,2.5\n" * 50_000).encode(), "csv"),
    "configuration": (b'{"learning_rate": 0.1, "layers": 3}', None),
    "indented json": (b'{\n "step": 1,\n "loss": 2\n}\n', None),
    "list": (b"[1, 2, 3]\n[4, 5, 6]\n", None),
    "text": (b"the loss, in the end, was 1.5\nand so on\n", None),
    "numbers": (b"1,2,3\n4,5,6\n", None),
    "yaml": (b"lr: 0.1\nbatch: 3\n", None),
    "python": (b"import os, sys\nx, y = 1, 2\n", None),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 100, None),
    "empty": (b"", None),
    "zeros": (b"\0" * 1000, None),
    "gzip": (gzip.compress(b"text"), None),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTENTS)
def test_formats_by_content(tmp_path: Path, case: str) -> None:
    content, expected = CONTENTS[case]
    file = tmp_path / "any.name"
    file.write_bytes(content)
    assert detect_format(file) == expected
    assert unsupported_store(file) is None


@pytest.mark.parametrize(
    ("schema", "expected"),
    [(TRACKIO, "trackio"), (MLFLOW, "mlflow"), ("CREATE TABLE metrics (a, b)", None)],
)
def test_formats_of_databases(tmp_path: Path, schema: str, expected: str | None) -> None:
    (tmp_path / "file").write_bytes(database(schema, tmp_path))
    assert detect_format(tmp_path / "file") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("name", ["events.out.tfevents.1.h", "events.out.tfevents.2.h.v2"])
def test_event_files_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    assert detect_format(tmp_path / name) == "tensorboard"


@pytest.mark.slow
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_content(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "content"
    file.write_bytes(content)
    assert detect_format(file) in (None, *FORMATS)


def test_a_file_that_changes_is_examined_again(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    assert detect_format(file) is None
    file.write_text(KERAS)
    assert detect_format(file) == "csv"


def test_a_database_is_examined_again_although_only_its_log_grew(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "project.db")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE other (a)")
    assert detect_format(tmp_path / "project.db") is None
    connection.executescript(TRACKIO)
    assert detect_format(tmp_path / "project.db") == "trackio"
    connection.close()


# Stores that cannot be read


def test_stores_that_are_only_named(tmp_path: Path) -> None:
    (tmp_path / "run.wandb").write_bytes(b":W&B\0\0\0")
    (tmp_path / "renamed").write_bytes(b":W&B\xe1\xbe\0")
    (tmp_path / "wandb" / "offline-run-1").mkdir(parents=True)
    (tmp_path / ".aim").mkdir()
    (tmp_path / "events.out.tfevents.1.h.gz").write_bytes(gzip.compress(EVENT))
    (tmp_path / "unnamed.gz").write_bytes(gzip.compress(EVENT))
    for name in ("run.wandb", "renamed", "wandb"):
        assert "wandb sync" in (unsupported_store(tmp_path / name) or "")
    assert "aim.Repo" in (unsupported_store(tmp_path / ".aim") or "")
    for name in ("events.out.tfevents.1.h.gz", "unnamed.gz"):
        assert "gunzip" in (unsupported_store(tmp_path / name) or "")
        assert detect_format(tmp_path / name) is None
    found = find_logs(tmp_path)
    assert found.logs == []
    assert {path.name for path, _ in found.problems} == {
        "run.wandb", "renamed", "wandb", ".aim", "events.out.tfevents.1.h.gz", "unnamed.gz",
    }  # fmt: skip


def test_a_package_called_wandb_is_not_a_store(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "log.csv").write_text(KERAS)
    assert find_logs(tmp_path).logs == [(tmp_path / "wandb" / "log.csv", "csv")]


# Folders


def test_logs_below_a_folder(tmp_path: Path) -> None:
    files = {
        "a/events.out.tfevents.1.h": b"",
        "b/c/events.out.tfevents.2.h": b"",
        "lightning/metrics.csv": (FILES / "lightning" / "metrics.csv").read_bytes(),
        "lightning/hparams.yaml": b"lr: 0.1\n",
        "visdom/main.json": b'{"jsons": {}, "reload": {}}',
        "config.json": b'{"lr": 0.1}',
        "labels.csv": b"id,label\n1,2\n3,4\n",
        ".hidden/metrics.csv": KERAS.encode(),
        "z/.metrics.csv": KERAS.encode(),
        "trackio/project.db": database(TRACKIO, tmp_path),
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    found = find_logs(tmp_path)
    assert found.logs == [
        (tmp_path, "tensorboard"),
        (tmp_path / "lightning/metrics.csv", "csv"),
        (tmp_path / "trackio/project.db", "trackio"),
        (tmp_path / "visdom/main.json", "visdom"),
    ]
    assert found.problems == []
    assert detect_format(tmp_path / "labels.csv") == "csv"


def test_an_event_file_without_the_usual_name_is_a_log_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "renamed").write_bytes(EVENT)
    assert find_logs(tmp_path).logs == [(tmp_path / "renamed", "tensorboard")]


def test_one_file_as_the_place(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(KERAS)
    assert find_logs(tmp_path / "log.csv").logs == [(tmp_path / "log.csv", "csv")]


def test_mlflow_folders(tmp_path: Path) -> None:
    run = mlflow_folder(tmp_path / "mlruns" / "0")
    (run / "artifacts").mkdir()
    (run / "artifacts" / "log.csv").write_text(KERAS)
    assert detect_format(run) == "mlflow folder"
    assert find_logs(tmp_path).logs == [
        (run, "mlflow folder"),
        (run / "artifacts" / "log.csv", "csv"),
    ]


def test_only_the_newest_checkpoint_of_a_training(tmp_path: Path) -> None:
    content = (FILES / "trainer_state.json").read_bytes()
    for name in ("a/checkpoint-500", "a/checkpoint-1000", "b/checkpoint-9", "b", "c/checkpoint-9"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "trainer_state.json").write_bytes(content)
    kept = [path.parent.relative_to(tmp_path).as_posix() for path, _ in find_logs(tmp_path).logs]
    assert kept == ["a/checkpoint-1000", "b", "c/checkpoint-9"]


def test_links_that_loop_or_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "log.csv").write_text(KERAS)
    (tmp_path / "real" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    found = find_logs(tmp_path)
    assert found.logs == [(tmp_path / "real" / "log.csv", "csv")]
    assert [path.name for path, _ in found.problems] == ["nowhere", "up", "self"]


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert find_logs(tmp_path).logs == []
    assert detect_format(tmp_path / "pipe.csv") is None


def test_depth_is_bounded(tmp_path: Path) -> None:
    folder = tmp_path
    for _ in range(MAX_DEPTH + 2):
        folder = folder / "d"
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text(KERAS)
    found = find_logs(tmp_path)
    assert found.logs == []
    assert len(found.problems) == 1


@pytest.mark.parametrize("name", ["missing", "folder/missing"])
def test_a_missing_place_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(LogError, match="missing"):
        detect_format(tmp_path / name)
    assert len(find_logs(tmp_path / name).problems) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_and_folders_are_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "log.csv").write_text(KERAS)
    (tmp_path / "closed").chmod(0)
    (tmp_path / "log.csv").chmod(0)
    assert [path.name for path, _ in find_logs(tmp_path).problems] == ["closed", "log.csv"]
    (tmp_path / "closed").chmod(0o700)


# Readers


@pytest.mark.parametrize("format_name", FORMATS)
def test_every_format_has_a_reader(tmp_path: Path, format_name: str) -> None:
    reader = open_reader(tmp_path / "log", format_name, "run")
    assert all(run.format == format_name for run in reader.runs)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="wandb"):
        open_reader(tmp_path, "wandb", "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"epoch,loss\n1,2\n" + bytes(500) + b"\n2,3\n", "csv"),
        (b'{"step": 1, "loss": 2}\n' + bytes(500), "json lines"),
        (b"epoch,loss\n", "csv"),
        (b"name,place\n", None),
        (bytes(500) + b"epoch,loss\n1,2\n", None),
    ],
)
def test_zeros_of_a_full_disk_and_a_header_alone(
    tmp_path: Path, content: bytes, expected: str | None
) -> None:
    (tmp_path / "log").write_bytes(content)
    assert detect_format(tmp_path / "log") == expected


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    content = database(MLFLOW, tmp_path)
    (tmp_path / "half.db").write_bytes(content[: len(content) // 2])
    assert "SQLite" in (unsupported_store(tmp_path / "half.db") or "")
