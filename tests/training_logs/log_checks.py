"""What tests of several readers share."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from reportgen.errors import LogError
from reportgen.training_logs.log_run import LogReader, LogRun

FILES = Path(__file__).parent / "files"

Point = tuple[float, float | str]


def points(run: LogRun) -> dict[str, list[Point]]:
    """(step, value) of every point by tag; NaN as "nan", so that equal runs compare equal."""
    return {
        tag: [
            (step, "nan" if math.isnan(value) else value)
            for step, value in zip(series.steps, series.values, strict=True)
        ]
        for tag, series in run.scalars.items()
    }


def read(reader: LogReader) -> LogRun:
    """The only run of a reader that was not updated before."""
    assert reader.update()
    (run,) = reader.runs
    assert_accounted(reader.runs)
    return run


def assert_accounted(runs: Sequence[LogRun]) -> None:
    """Bytes read and bytes lost are the size of each file, and no stretch is lost twice."""
    for run in runs:
        for file in run.files:
            lost = [stretch for stretch in run.damage if stretch.file == file.name]
            assert file.read_bytes + sum(stretch.size_bytes for stretch in lost) == file.size_bytes
            assert file.read_bytes >= 0
            end = 0
            for stretch in lost:
                assert stretch.offset >= end
                end = stretch.offset + stretch.size_bytes
            assert end <= file.size_bytes
        for series in run.scalars.values():
            assert len(series.steps) == len(series.values) == len(series.times)
            assert all(session < len(run.sessions) for _, session in series.starts)
            assert [start for start, _ in series.starts] == sorted(
                {start for start, _ in series.starts}
            )


def assert_survives(reader: LogReader, content: bytes) -> None:
    """A damaged file is read with every byte accounted for, or refused in one line."""
    with contextlib.suppress(LogError):
        reader.update()
        assert_complete(reader, content)


def assert_complete(reader: LogReader, content: bytes) -> None:
    """Every byte of the file that the reader has read is accounted for."""
    assert_accounted(reader.runs)
    files = [file for run in reader.runs for file in run.files]
    assert sum(file.size_bytes for file in files) == len(content)


@st.composite
def mutated(draw: st.DrawFn, contents: Sequence[bytes]) -> bytes:
    """One of `contents` after a few cuts, flips, insertions and repetitions."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.integers(0, 200)))
        change = draw(st.sampled_from(["cut", "truncate", "flip", "insert", "repeat", "token"]))
        if change == "cut":
            del content[start:end]
        elif change == "truncate":
            del content[start:]
        elif change == "flip" and start < len(content):
            content[start] ^= 1 << draw(st.integers(0, 7))
        elif change == "insert":
            content[start:start] = draw(st.binary(max_size=20))
        elif change == "repeat":
            content[start:start] = content[start:end]
        else:
            content[start:end] = draw(
                st.sampled_from([b"null", b"[]", b"{}", b'"', b"NaN", b"-", b"1e999", b"\n", b","])
            )
    return bytes(content)
