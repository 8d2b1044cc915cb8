"""Logs that a manifest names: found, named apart, read, and what is wrong said in a line."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from reportgen.manifest import LogSource
from reportgen.training_logs.log_set import LogSet


def write_csv(path: Path, value: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("step,val/loss\n" + "".join(f"{s},{value / (1 + s)}\n" for s in range(5)))


def read(*places: Path | str, **options: str) -> LogSet:
    logs = LogSet(
        places=[
            LogSource.model_validate({"path": str(p), "text": Path(p).name, **options})
            for p in places
        ]
    )
    logs.update()
    return logs


def names(logs: LogSet) -> list[str]:
    return [found.name for found in logs.runs()]


def test_runs_of_a_folder_are_named_by_their_path_below_it(tmp_path: Path) -> None:
    write_csv(tmp_path / "logs" / "a" / "metrics.csv")
    write_csv(tmp_path / "logs" / "b" / "metrics.csv")
    assert names(read(tmp_path / "logs")) == ["a/metrics", "b/metrics"]


def test_runs_of_several_places_are_named_by_their_place(tmp_path: Path) -> None:
    for place in ("x", "y"):
        write_csv(tmp_path / place / "metrics.csv")
    assert names(read(tmp_path / "x", tmp_path / "y")) == ["x/metrics", "y/metrics"]
    assert names(read(tmp_path / "*/")) == ["x/metrics", "y/metrics"]


def test_equal_names_are_told_apart(tmp_path: Path) -> None:
    for place in ("one/run", "two/run"):
        write_csv(tmp_path / place / "metrics.csv")
    found = names(read(tmp_path / "one" / "run", tmp_path / "two" / "run"))
    assert len(set(found)) == 2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p.mkdir(), "no training logs were found in 'log'"),
        (lambda p: p.write_text("hello\n"), "not a training log in a known format"),
        (lambda p: p.symlink_to(p), "'log' is a link to nothing, or to itself"),
    ],
)
def test_what_is_no_log_is_one_note(tmp_path: Path, make, words: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "log")
    logs = read(tmp_path / "log")
    assert logs.runs() == []
    (note,) = logs.notes
    assert words in note


def test_a_loop_of_links_is_read_once_and_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "logs" / "metrics.csv")
    (tmp_path / "logs" / "again").symlink_to(tmp_path / "logs")
    logs = read(tmp_path / "logs")
    assert names(logs) == ["metrics"]
    assert [note for note in logs.notes if "link" in note]


def test_a_store_that_cannot_be_read_is_named_with_the_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "wandb" / "offline-run-1"
    folder.mkdir(parents=True)
    (folder / "run-1.wandb").write_bytes(b":W&B\xd4\x1e\x00")
    (note,) = read(tmp_path / "logs").notes[:1]
    assert "wandb" in note.lower()


def test_a_log_that_appears_later_is_found_by_the_next_update(tmp_path: Path) -> None:
    write_csv(tmp_path / "logs" / "a.csv")
    logs = read(tmp_path / "logs")
    write_csv(tmp_path / "logs" / "b.csv")
    for _ in range(500):  # a search waits nine times as long as it takes
        if logs.update():
            break
        time.sleep(0.02)
    assert names(logs) == ["a", "b"]


def test_a_format_in_the_manifest_overrides_detection(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("epoch\tacc\n1\t0.5\n2\t0.6\n")
    (found,) = read(tmp_path / "log.txt", format="csv").runs()
    assert list(found.run.scalars["acc"].values) == [0.5, 0.6]
