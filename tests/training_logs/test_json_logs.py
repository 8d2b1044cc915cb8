"""Hugging Face's trainer state, and logs with one JSON object per line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_checks import FILES, Point, assert_accounted, assert_survives, mutated, points, read

from reportgen.errors import LogError
from reportgen.training_logs.json_lines import JsonLinesReader
from reportgen.training_logs.json_scan import Entry, Gap, JsonMember, JsonScan
from reportgen.training_logs.log_run import LogRun
from reportgen.training_logs.trainer_state import TrainerStateReader

STATE = FILES / "trainer_state.json"


# Trainer state


def expected_points(rows: list[dict[str, float]]) -> dict[str, list[Point]]:
    expected: dict[str, list[Point]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "step":
                expected.setdefault(key, []).append((row["step"], value))
    return expected


def test_a_real_trainer_state() -> None:
    stored = json.loads(STATE.read_text())
    run = read(TrainerStateReader(STATE, "run"))
    assert points(run) == expected_points(stored["log_history"])
    assert run.planned_steps == stored["max_steps"] == 12030
    assert run.hyperparameters["train_batch_size"] == 4
    assert run.files[0].records == len(stored["log_history"]) == 16
    assert len(run.sessions) == 1
    assert not run.damage
    assert not run.notes


def state(folder: Path, rows: object, **others: object) -> Path:
    file = folder / "trainer_state.json"
    file.write_text(json.dumps({"epoch": 1.0, "log_history": rows, **others}, indent=2))
    return file


def test_non_finite_values_and_rows_without_step(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": math.nan},
        {"step": 2, "loss": math.inf, "note": [1], "eval": "NaN"},
        {"train_runtime": 5.0},
    ]
    run = read(TrainerStateReader(state(tmp_path, rows, trial_params={"lr": 0.1}), ""))
    assert points(run) == {
        "loss": [(1, "nan"), (2, math.inf)],
        "eval": [(2, "nan")],
        "train_runtime": [(2, 5)],
    }
    assert run.hyperparameters == {"lr": 0.1}
    assert len(run.notes) == 1


def test_every_truncation_keeps_the_rows_before_it(tmp_path: Path) -> None:
    content = STATE.read_bytes()
    rows = json.loads(content)["log_history"]
    first = content.index(b"[", content.index(b'"log_history"')) + 1
    file = tmp_path / "trainer_state.json"
    for size in range(first, len(content) - 2, 41):
        file.write_bytes(content[:size])
        run = read(TrainerStateReader(file, ""))
        complete = content[first:size].count(b"}") if size < content.rindex(b"]") else len(rows)
        assert run.files[0].records == min(complete, len(rows))
        assert points(run) == expected_points(rows[: run.files[0].records])
        assert run.damage[-1].offset + run.damage[-1].size_bytes == size


def test_a_damaged_row_costs_only_itself(tmp_path: Path) -> None:
    rows = [{"step": n, "loss": 1.0 / (n + 1)} for n in range(5)]
    file = state(tmp_path, rows)
    content = file.read_bytes()
    place = content.index(b'"step": 2')
    file.write_bytes(content[:place] + b"\xff" + content[place + 1 :])
    run = read(TrainerStateReader(file, ""))
    assert points(run) == expected_points(rows[:2] + rows[3:])
    assert len(run.damage) == 1


@pytest.mark.parametrize("rows", [None, {}, 5, "x"])
def test_what_is_no_trainer_state_is_refused(tmp_path: Path, rows: object) -> None:
    with pytest.raises(LogError):
        TrainerStateReader(state(tmp_path, rows), "").update()


def test_a_saved_state_is_read_anew(tmp_path: Path) -> None:
    reader = TrainerStateReader(state(tmp_path, [{"step": 1, "loss": 1.0}]), "")
    assert reader.update()
    assert not reader.update()
    state(tmp_path, [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}])
    assert reader.update()
    assert points(reader.runs[0])["loss"] == [(1, 1), (2, 0.5)]


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated([STATE.read_bytes()]))
def test_mutated_trainer_states(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "mutated_state.json"
    file.write_bytes(content)
    assert_survives(TrainerStateReader(file, ""), content)


# The scan of a document

VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    members=st.dictionaries(st.text(), VALUES, max_size=4),
    entries=st.dictionaries(st.text(), VALUES, max_size=4),
    escape=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_an_intact_document_is_what_json_reads(
    members: dict[str, Any], entries: dict[str, Any], escape: bool, indent: int | None
) -> None:
    members = {**members, "inside": entries}
    text = json.dumps(members, ensure_ascii=escape, indent=indent)
    # Lone surrogates cannot be in a file.
    content = text.encode("utf-8", "replace")
    members = json.loads(content)
    scan = JsonScan(content.decode("latin-1"), "inside", "{", lambda _: False)
    parts = list(scan.parts())
    assert {p.key: p.value for p in parts if isinstance(p, Entry)} == members.pop("inside")
    assert {p.key: p.value for p in parts if isinstance(p, JsonMember)} == members
    assert not [part for part in parts if isinstance(part, Gap)]


# JSON lines

DETECTRON = [
    {"data_time": 0.1, "iteration": 19, "loss_cls": 1.5, "time": 0.4, "lr": 1e-4},
    {"data_time": 0.1, "iteration": 39, "loss_cls": math.nan, "time": 0.4, "lr": 2e-4},
    {"bbox/AP": 12.5, "iteration": 39},
]
MMENGINE = [
    {"lr": 0.02, "loss": 2.5, "epoch": 1, "iter": 50, "memory": 4000, "step": 50},
    {"lr": 0.02, "loss": 2.0, "epoch": 1, "iter": 100, "memory": 4000, "step": 100},
    {"coco/bbox_mAP": 0.25, "step": 1},
    {"lr": 0.02, "loss": 1.5, "epoch": 2, "iter": 150, "memory": 4000, "step": 150},
]
MMCV = [
    {"env_info": "text", "seed": 0},
    {"mode": "train", "epoch": 1, "iter": 10, "loss": 2.0},
    {"mode": "val", "epoch": 1, "iter": 5, "loss": 2.5},
]


def lines(folder: Path, rows: list[Any], name: str = "metrics.json") -> Path:
    file = folder / name
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def read_lines(folder: Path, rows: list[Any]) -> LogRun:
    return read(JsonLinesReader(lines(folder, rows), ""))


def test_detectron2(tmp_path: Path) -> None:
    run = read_lines(tmp_path, DETECTRON)
    assert points(run) == {
        "data_time": [(19, 0.1), (39, 0.1)],
        "loss_cls": [(19, 1.5), (39, "nan")],
        "time": [(19, 0.4), (39, 0.4)],
        "lr": [(19, 1e-4), (39, 2e-4)],
        "bbox/AP": [(39, 12.5)],
    }


def test_mmengine(tmp_path: Path) -> None:
    run = read_lines(tmp_path, MMENGINE)
    assert points(run)["loss"] == [(50, 2.5), (100, 2.0), (150, 1.5)]
    assert points(run)["epoch"] == [(50, 1), (100, 1), (150, 2)]
    assert points(run)["coco/bbox_mAP"] == [(1, 0.25)]
    assert len(run.sessions) == 1


def test_modes_of_mmcv(tmp_path: Path) -> None:
    run = read_lines(tmp_path, MMCV)
    assert points(run)["train/loss"] == [(10, 2.0)]
    assert points(run)["val/loss"] == [(5, 2.5)]
    assert len(run.notes) == 1
    assert "env_info" in run.notes[0]


def test_rows_without_steps_are_numbered(tmp_path: Path) -> None:
    run = read_lines(tmp_path, [{"loss": 3.0}, {"loss": 2.0}])
    assert points(run)["loss"] == [(0, 3), (1, 2)]
    assert len(run.notes) == 1


def test_a_row_without_step_is_at_the_row_before(tmp_path: Path) -> None:
    run = read_lines(tmp_path, [{"step": 5, "a": 1}, {"a": 2}, {"step": None, "a": 3}])
    assert points(run)["a"] == [(5, 1), (5, 2), (5, 3)]


def test_wall_times_of_lines(tmp_path: Path) -> None:
    rows = [{"step": 1, "_timestamp": 1.7e9, "a": 1}, {"step": 2, "time": 0.5, "a": 2}]
    run = read_lines(tmp_path, rows)
    assert list(run.scalars["a"].times) == pytest.approx([1.7e9, math.nan], nan_ok=True)
    assert points(run)["time"] == [(2, 0.5)]


@pytest.mark.parametrize(
    ("value", "point"),
    [
        (1, 1), (1.5, 1.5), (10**400, math.inf), (-(10**400), -math.inf), ("NaN", "nan"),
        ("Infinity", math.inf), (True, None), (None, None), ([1], None), ({"a": 1}, None),
        ("text", None),
    ],
)  # fmt: skip
def test_values_of_lines(tmp_path: Path, value: object, point: float | str | None) -> None:
    run = read_lines(tmp_path, [{"step": 1, "a": value, "b": 1}])
    assert points(run).get("a") == (None if point is None else [(1, point)])
    assert bool(run.notes) == (point is None)


@pytest.mark.parametrize("line", [b"{", b"[1]", b"5", b"\xff\xfe{}", b"{]", b"[" * 100_000])
def test_a_damaged_line_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "metrics.json"
    row = b'{"step": 1, "a": 1}\n'
    file.write_bytes(row + line + b"\n" + row.replace(b"1", b"2"))
    run = read(JsonLinesReader(file, ""))
    assert points(run)["a"] == [(1, 1), (2, 2)]
    (damage,) = run.damage
    assert (damage.offset, damage.size_bytes) == (len(row), len(line) + 1)


def test_a_line_of_any_length_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "metrics.json"
    with file.open("wb") as stream:
        stream.write(b'{"step": 1, "a": 1}\n')
        stream.seek(100 << 20, 1)
        stream.write(b'\n{"step": 2, "a": 2}\n')
    run = read(JsonLinesReader(file, ""))
    assert points(run)["a"] == [(1, 1), (2, 2)]
    assert [damage.size_bytes for damage in run.damage] == [(100 << 20) + 1]


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.sampled_from([DETECTRON, MMENGINE, MMCV]), data=st.data())
def test_any_growth_gives_what_the_whole_file_gives(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("growing")
    content = lines(folder, rows, "whole.json").read_bytes()
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=6))
    file = folder / "growing.json"
    file.write_bytes(b"")
    reader = JsonLinesReader(file, "")
    for end in [*sorted(cuts), len(content)]:
        file.write_bytes(content[:end])
        reader.update()
        assert_accounted(reader.runs)
    whole = read(JsonLinesReader(folder / "whole.json", ""))
    (run,) = reader.runs
    assert points(run) == points(whole)
    assert run.notes == whole.notes
    assert not run.damage
    assert run.files[0].records == whole.files[0].records == len(rows)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=mutated(
        ["".join(json.dumps(r) + "\n" for r in rows).encode() for rows in (DETECTRON, MMENGINE)]
    )
)
def test_mutated_lines(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "mutated_lines.json"
    file.write_bytes(content)
    assert_survives(JsonLinesReader(file, ""), content)
