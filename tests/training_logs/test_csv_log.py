"""Tables of metrics in the dialects of several loggers."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_checks import FILES, Point, assert_accounted, assert_survives, mutated, points, read

from reportgen.errors import LogError
from reportgen.training_logs.csv_log import CsvReader
from reportgen.training_logs.log_run import LogRun
from reportgen.training_logs.points import wall_time

LIGHTNING = FILES / "lightning" / "metrics.csv"

ULTRALYTICS = """\
                  epoch,         train/box_loss,          metrics/mAP50(B),           val/cls_loss
                      1,                 1.5000,                    0.1000,                    inf
                      2,                 1.2500,                    0.2000,                 2.1000
                      3,                 1.0000,                       nan,                 2.0000
                      1,                 1.4000,                    0.1500,                 3.0000
                      2,                 1.1000,                    0.2500,                 2.5000
"""
KERAS = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.0,0.4,1.1\n1,0.6,0.9,0.5,1.0\n"
TIMM = "epoch,train_loss,eval_loss,eval_top1,lr\n0,6.9,6.8,0.5,1e-06\n1,6.5,6.4,1.5,1e-03\n"
SB3_PROGRESS = (
    "time/iterations,rollout/ep_rew_mean,time/total_timesteps,train/loss,time/fps\n"
    "1,20.5,2048,,1000\n"
    "2,25.0,4096,3.5,900\n"
)
SB3_MONITOR = (
    '#{"t_start": 1600000000.0, "env_id": "CartPole-v1"}\nr,l,t\n9.0,9,0.5\n12.0,12,1.25\n'
)


def table(folder: Path, text: str | bytes, name: str = "log.csv") -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


def read_table(folder: Path, text: str | bytes) -> LogRun:
    return read(CsvReader(table(folder, text), ""))


# Dialects


def test_a_real_lightning_log() -> None:
    run = read(CsvReader(LIGHTNING, ""))
    expected: dict[str, list[Point]] = {}
    with LIGHTNING.open(newline="") as stream:
        for row in csv.DictReader(stream):
            for name, cell in row.items():
                if name != "step" and cell:
                    expected.setdefault(name, []).append((float(row["step"]), float(cell)))
    assert points(run) == expected
    assert run.hyperparameters == {
        "batch_size": 256,
        "n_meta_layers": 3,
        "num_workers": 16,
        "persistent_workers": True,
        "pin_memory": True,
    }
    assert run.files[0].records == 23
    assert not run.notes


def test_ultralytics_with_appended_runs(tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text(
        "lr0: 0.01\nmodel: yolo11n.pt\ntime: null\nnested: {a: 1}\n"
    )
    run = read_table(tmp_path, ULTRALYTICS)
    assert points(run) == {
        "train/box_loss": [(1, 1.5), (2, 1.25), (3, 1.0), (1, 1.4), (2, 1.1)],
        "metrics/mAP50(B)": [(1, 0.1), (2, 0.2), (3, "nan"), (1, 0.15), (2, 0.25)],
        "val/cls_loss": [(1, math.inf), (2, 2.1), (3, 2.0), (1, 3.0), (2, 2.5)],
    }
    assert run.scalars["train/box_loss"].starts == [(0, 0), (3, 1)]
    assert len(run.sessions) == 2
    assert run.hyperparameters == {
        "lr0": 0.01,
        "model": "yolo11n.pt",
        "time": "None",
        "nested.a": 1,
    }


@pytest.mark.parametrize(
    ("text", "step", "tags"),
    [
        (KERAS, [0, 1], ["accuracy", "loss", "val_accuracy", "val_loss"]),
        (TIMM, [0, 1], ["train_loss", "eval_loss", "eval_top1", "lr"]),
        (
            SB3_PROGRESS,
            [2048, 4096],
            ["time/iterations", "rollout/ep_rew_mean", "train/loss", "time/fps"],
        ),
        ("Wall time,Step,Value\n1.6e9,5,0.5\n1.6e9,6,0.4\n", [5, 6], ["Value"]),
        ("epoch,iter,step,loss\n1,10,100,1\n1,20,200,2\n", [100, 200], ["epoch", "iter", "loss"]),
        ("loss,n\n0.5,3\n0.6,4\n", [3, 4], ["loss"]),
        ("loss,acc\n0.5,0.1\n0.6,0.2\n", [0, 1], ["loss", "acc"]),
        (",loss\n0,0.5\n1,0.6\n", [0, 1], ["loss"]),
    ],
    ids=[
        "keras", "timm", "sb3 progress", "tensorboard export", "priority", "rising", "numbered",
        "pandas index",
    ],
)  # fmt: skip
def test_step_column(tmp_path: Path, text: str, step: list[float], tags: list[str]) -> None:
    run = read_table(tmp_path, text)
    assert set(run.scalars) == set(tags)
    assert list(run.scalars[tags[0]].steps) == step


def test_stable_baselines_monitor(tmp_path: Path) -> None:
    run = read_table(tmp_path, SB3_MONITOR)
    assert points(run) == {"r": [(0, 9), (1, 12)], "l": [(0, 9), (1, 12)]}
    assert list(run.scalars["r"].times) == [1600000000.5, 1600000001.25]
    assert run.hyperparameters == {"env_id": "CartPole-v1"}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: text.replace(",", ";").encode(),
        lambda text: text.replace(",", ";").replace(".", ",").encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.replace(",loss", ',"loss"').replace("1.0", '"1.0"').encode(),
        lambda text: text.removesuffix("\n").encode(),
        lambda text: text.replace("\n", "\n\n").encode(),
        lambda text: text.replace("\n", ",\n").encode(),
    ],
    ids=[
        "bom", "crlf", "semicolons", "decimal commas", "tabs", "quotes", "no last line feed",
        "blank lines", "last comma",
    ],
)  # fmt: skip
def test_ways_to_write_one_table(tmp_path: Path, change: object) -> None:
    text = "epoch,loss,val_loss\n0,1.0,2.5\n1,0.75,2.25\n"
    run = read_table(tmp_path, change(text))  # type: ignore[operator]
    expected = {"loss": [(0, 1), (1, 0.75)], "val_loss": [(0, 2.5), (1, 2.25)]}
    assert points(run) == expected
    assert not run.damage


# Cells


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("nan", "nan"), ("NaN", "nan"), ("inf", math.inf), ("-inf", -math.inf), (" 1e-3 ", 1e-3),
        ("", None), ("None", None), ("N/A", None), ("text", None), ("1_000", None), ("True", None),
    ],
)  # fmt: skip
def test_cells(tmp_path: Path, cell: str, value: float | str | None) -> None:
    run = read_table(tmp_path, f"step,a,b\n1,{cell},1\n2,2,2\n")
    assert points(run)["a"] == [*([] if value is None else [(1, value)]), (2, 2)]


def test_columns_without_numbers_and_doubtful_cells_are_named(tmp_path: Path) -> None:
    run = read_table(tmp_path, "step,note,loss\n1,a,0.5\n2,b,oops\n")
    assert len(run.notes) == 2
    assert "note" in run.notes[0]
    assert "loss" in run.notes[1]


def test_rows_without_step_are_at_the_row_before(tmp_path: Path) -> None:
    run = read_table(tmp_path, "step,loss\n5,1\n,2\nnan,3\n6,4\n")
    assert points(run)["loss"] == [(5, 1), (5, 2), (5, 3), (6, 4)]
    assert len(run.notes) == 1


def test_wall_times(tmp_path: Path) -> None:
    text = (
        "step,timestamp,loss\n1,1700000000.5,1\n2,1700000001500,2\n3,2023-11-14T22:13:20Z,3\n4,,4\n"
    )
    run = read_table(tmp_path, text)
    assert set(run.scalars) == {"loss"}
    times = list(run.scalars["loss"].times)
    assert times == pytest.approx([1700000000.5, 1700000001.5, 1.7e9, math.nan], nan_ok=True)


def test_elapsed_seconds_are_no_wall_time(tmp_path: Path) -> None:
    run = read_table(tmp_path, "epoch,time,loss\n1,12.5,1\n2,25,2\n")
    assert points(run)["time"] == [(1, 12.5), (2, 25)]
    assert all(math.isnan(time) for time in run.scalars["loss"].times)


@pytest.mark.parametrize("value", [0.5, 1e8, 6e9, "text", "", None, True, float("nan"), "12:30"])
def test_what_is_no_wall_time(value: object) -> None:
    assert math.isnan(wall_time(value))


def test_equal_column_names_stay_apart(tmp_path: Path) -> None:
    assert set(read_table(tmp_path, "step,a,a\n1,2,3\n").scalars) == {"a", "a (2)"}


# Sessions


@pytest.mark.parametrize(
    ("steps", "starts"),
    [
        ([1, 2, 3], [(0, 0)]),
        ([1, 2, 1, 2], [(0, 0), (2, 1)]),
        ([5, 6, 4, 5], [(0, 0), (2, 1)]),
        ([1, 2, 3, 2, 3], [(0, 0)]),
        ([0, 0, 0], [(0, 0)]),
        ([1, 2, 1, 1, 2, 1], [(0, 0), (2, 1), (5, 2)]),
    ],
    ids=["one", "again", "below", "resumed", "constant", "twice"],
)
def test_sessions(tmp_path: Path, steps: list[int], starts: list[tuple[int, int]]) -> None:
    rows = "".join(f"{step},1\n" for step in steps)
    run = read_table(tmp_path, f"step,loss\n{rows}")
    assert run.scalars["loss"].starts == starts


def test_a_repeated_header_begins_a_session(tmp_path: Path) -> None:
    run = read_table(tmp_path, "step,loss\n1,1\n2,2\nstep,loss\n3,3\n")
    assert run.scalars["loss"].starts == [(0, 0), (2, 1)]
    assert not run.damage


# Damage


@pytest.mark.parametrize(
    "line", [b"1,2", b"1,2,3,4", b"1,\xff,3", b"1,\0,3", b'1,"' + b"a" * 200_000 + b'",3']
)
def test_a_damaged_row_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    before, after = b"step,a,b\n0,1,2\n", b"2,3,4\n"
    run = read_table(tmp_path, before + line + b"\n" + after)
    assert points(run)["a"] == [(0, 1), (2, 3)]
    (damage,) = run.damage
    assert (damage.offset, damage.size_bytes) == (len(before), len(line) + 1)


def test_neighboring_damage_is_one_stretch(tmp_path: Path) -> None:
    run = read_table(tmp_path, "step,a\n1,1\n" + "x\n" * 1000 + "2,2\n")
    (damage,) = run.damage
    assert damage.size_bytes == 2000


@pytest.mark.parametrize("content", [b"1,2,3\n4,5,6\n", b"\xff\xfe\n1,2\n", b"a\0b\n1\n"])
def test_what_has_no_header_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(LogError):
        CsvReader(table(tmp_path, content), "").update()


@pytest.mark.parametrize("content", [b"", b"\n\n", b"step,loss", b"step,loss\n"])
def test_a_table_that_has_just_begun_is_empty(tmp_path: Path, content: bytes) -> None:
    assert not read_table(tmp_path, content).scalars


@pytest.mark.parametrize("text", ["a: [", "!!python/object:x.Y {}", "- 1\n", "x" * (1 << 21)])
def test_settings_that_cannot_be_read_do_no_harm(tmp_path: Path, text: str) -> None:
    (tmp_path / "hparams.yaml").write_text(text)
    run = read_table(tmp_path, KERAS)
    assert not run.hyperparameters
    assert set(run.scalars) == {"accuracy", "loss", "val_accuracy", "val_loss"}


def test_aliases_in_settings_do_not_multiply(tmp_path: Path) -> None:
    for kind in ("[{0}, {0}, {0}, {0}]", "{{a: {0}, b: {0}, c: {0}, d: {0}}}"):
        levels = [f"l{n}: &l{n} " + kind.format(f"*l{n - 1}") for n in range(1, 30)]
        text = "\n".join(["l0: &l0 [1, 2]", *levels])
        (tmp_path / "hparams.yaml").write_text(text)
        run = read_table(tmp_path, KERAS)
        assert 0 < len(run.hyperparameters) <= 5000
        assert max(len(str(value)) for value in run.hyperparameters.values()) < 10_000


# Growing files

GROWING = [
    KERAS.encode(),
    ULTRALYTICS.encode(),
    SB3_MONITOR.encode(),
    ("loss,n\n" + "".join(f"{1 / (n + 1)},{n}\n" for n in range(150))).encode(),
    b"step,loss,note\n1,0.5,a\nbad\n2,12.5,b\n,3,c\n1,4,\n2,oops,d\n",
]


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=st.sampled_from(GROWING), data=st.data())
def test_any_growth_gives_what_the_whole_file_gives(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("growing")
    cuts = data.draw(st.lists(st.integers(0, len(content)), max_size=8))
    ends = [*sorted(cuts), len(content)]
    reader = CsvReader(table(folder, content[: ends[0]]), "")
    for end in ends:
        table(folder, content[:end])
        reader.update()
        assert_accounted(reader.runs)
    whole = read(CsvReader(table(folder, content, "whole.csv"), ""))
    (run,) = reader.runs
    assert points(run) == points(whole)
    assert list(run.scalars) == list(whole.scalars)
    starts = [[s.starts for s in one.scalars.values()] for one in (run, whole)]
    assert starts[0] == starts[1]
    assert len(run.sessions) == len(whole.sessions)
    assert run.notes == whole.notes
    assert [(d.offset, d.size_bytes) for d in run.damage] == [
        (d.offset, d.size_bytes) for d in whole.damage
    ]
    assert run.files[0].records == whole.files[0].records


def test_an_incomplete_last_line_is_read_and_read_again(tmp_path: Path) -> None:
    reader = CsvReader(table(tmp_path, "step,loss\n1,0.5\n2,0.2"), "")
    assert points(read(reader))["loss"] == [(1, 0.5), (2, 0.2)]
    table(tmp_path, "step,loss\n1,0.5\n2,0.25\n")
    assert reader.update()
    assert points(reader.runs[0])["loss"] == [(1, 0.5), (2, 0.25)]
    assert not reader.update()


@pytest.mark.parametrize(
    "rewritten",
    ["step,loss,acc\n1,0.5,\n2,0.4,0.9\n", "step,loss\n7,0.1\n", "step,loss\n"],
    ids=["new column", "shorter", "emptied"],
)
def test_a_rewritten_file_is_read_anew(tmp_path: Path, rewritten: str) -> None:
    reader = CsvReader(table(tmp_path, "step,loss\n1,0.5\n2,0.4\n"), "")
    reader.update()
    table(tmp_path, rewritten)
    assert reader.update()
    assert points(reader.runs[0]) == points(
        read(CsvReader(table(tmp_path, rewritten, "other.csv"), ""))
    )


def test_a_deleted_file_is_kept_with_a_note(tmp_path: Path) -> None:
    file = table(tmp_path, KERAS)
    reader = CsvReader(file, "")
    reader.update()
    file.unlink()
    assert reader.update()
    assert not reader.update()
    assert len(reader.runs[0].notes) == 1
    assert len(reader.runs[0].scalars) == 4
    table(tmp_path, KERAS + "2,1,1,1,1\n")
    assert reader.update()
    assert not reader.runs[0].notes
    assert len(reader.runs[0].scalars["loss"]) == 3


# Properties

CELLS = st.floats().map(repr) | st.just("") | st.integers(-(10**9), 10**9).map(str)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=st.lists(st.tuples(st.integers(0, 10**6), CELLS, CELLS), min_size=1, max_size=20))
def test_numbers_as_python_reads_them(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, str]]
) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([("step", "a", "b"), *rows])
    run = read_table(tmp_path_factory.getbasetemp(), stream.getvalue())
    for place, tag in ((1, "a"), (2, "b")):
        expected = [(float(row[0]), float(row[place])) for row in rows if row[place]]
        found = points(run).get(tag, [])
        assert found == [(s, "nan" if math.isnan(v) else v) for s, v in expected]


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, suppress_health_check=list(HealthCheck))
@given(content=mutated([*GROWING, LIGHTNING.read_bytes(), SB3_PROGRESS.encode()]))
def test_mutated_tables(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = table(tmp_path_factory.getbasetemp(), content, "mutated.csv")
    assert_survives(CsvReader(file, ""), content)
