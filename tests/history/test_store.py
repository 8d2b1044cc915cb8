"""The store of nights: nothing acknowledged is lost, whatever happens to its writers."""

from __future__ import annotations

import os
import random
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nights import make_night

from reportgen.errors import HistoryError
from reportgen.history.night import night_from_data, night_to_data
from reportgen.history.store import append_record, delete_unfinished, read_records, record_files

NOW = datetime(2026, 11, 27, 3, 15, tzinfo=UTC)
KILLS = int(os.environ.get("REPORTGEN_HISTORY_KILLS", "40"))


def same(data: Any) -> Any:
    return data


def test_records_come_back_in_order_of_time(tmp_path: Path) -> None:
    append_record(tmp_path / "new", NOW, {"a": 2})
    append_record(tmp_path / "new", NOW.replace(day=26), {"a": 1})
    found = read_records(tmp_path / "new", same)
    assert found.items == ({"a": 1}, {"a": 2})
    assert found.damaged == ()


def test_the_same_content_is_one_record(tmp_path: Path) -> None:
    assert append_record(tmp_path, NOW, {"a": 1}) == append_record(tmp_path, NOW, {"a": 1})
    assert len(record_files(tmp_path)) == 1


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert read_records(tmp_path / "none", same).items == ()


@pytest.mark.parametrize("content", [b"", b'{"a": 2}', b"\xff\x00", b'{"a":'])
def test_damage_to_one_file_costs_that_one(tmp_path: Path, content: bytes) -> None:
    append_record(tmp_path, NOW, {"a": 1})
    bad = append_record(tmp_path, NOW, {"a": 3})
    bad.write_bytes(content)
    found = read_records(tmp_path, same)
    assert (found.items, found.damaged) == (({"a": 1},), (bad.name,))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryError, match="file"):
        append_record(tmp_path / "file" / "nights", NOW, {})


def test_a_night_comes_back_as_it_was(tmp_path: Path) -> None:
    night = make_night(3, 5, None, hashes={"code": "x", "weights": "y"}, copy="c")
    append_record(tmp_path, night.time, night_to_data(night))
    assert read_records(tmp_path, night_from_data).items == (night,)


def test_a_night_of_another_format_is_not_read(tmp_path: Path) -> None:
    append_record(tmp_path, NOW, {**night_to_data(make_night(1)), "format": 2})
    assert len(read_records(tmp_path, night_from_data).damaged) == 1


def test_only_old_leftovers_are_deleted(tmp_path: Path) -> None:
    old, new = tmp_path / ".1-aa", tmp_path / ".2-bb"
    for path in (old, new):
        path.write_text("")
    os.utime(old, (time.time() - 7200,) * 2)
    delete_unfinished(tmp_path)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.slow
def test_a_kill_at_any_moment_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Three processes write at once, and each is killed by SIGKILL after 0 to 20 ms.

    With REPORTGEN_HISTORY_KILLS=10000 this takes some minutes.
    """
    rng = random.Random(11)
    acknowledged: set[str] = set()
    for first in range(0, KILLS, 3):
        writers = [_start_writer(tmp_path, f"{first}-{number}") for number in range(3)]
        for process, _ in writers:
            time.sleep(rng.uniform(0, 0.02))
            os.kill(process, signal.SIGKILL)
        for process, pipe in writers:
            assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL
            with os.fdopen(pipe) as stream:
                # without the last line, if it was cut off in the middle
                acknowledged |= set(stream.read().split("\n")[:-1])
    found = read_records(tmp_path, same)
    assert len(acknowledged) > KILLS / 2
    assert found.damaged == ()
    assert acknowledged <= {record["name"] for record in found.items}


def _start_writer(folder: Path, name: str) -> tuple[int, int]:
    """A process that appends records until it is killed, and names each that is on disk."""
    reading, writing = os.pipe()
    process = os.fork()
    if process:
        os.close(writing)
        return process, reading
    number = 0
    while True:
        record = f"{name}-{number}"
        append_record(folder, NOW, {"name": record, "padding": "x" * 20_000})
        os.write(writing, f"{record}\n".encode())
        number += 1
