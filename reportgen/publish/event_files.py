"""Event files of one run folder: what is there, what is missing, one new file written whole.

What can follow what is there goes to a file of its own, as any TensorBoard reader expects: steps
of a tag never fall. Where that is impossible (an older build published later, a training run
that was repeated under its name), the files that this package wrote are replaced by one.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary

from reportgen.publish.published import Kind
from reportgen.training_logs.tensorboard.frames import HEADER_SIZE, masked_crc, payload_length

_SUFFIX = ".reportgen"
_SECONDS_IN_NAME = re.compile(r"events\.out\.tfevents\.(\d+)")


class Point(NamedTuple):
    """One value of a tag: a serialized Summary.Value without its tag and its metadata.

    `wall_time` is in seconds since 1970.
    """

    step: int
    wall_time: float
    value: bytes


Growth = Literal["builds", "changes", "training", "sample"]
"""What makes a point new.

builds: no point of the same step and wall time is there: one for each build.
changes: as `builds`, and it differs from the build before.
training: all points of a training run. Where a step is there with another value, the run was
    repeated, and its points replace those that are there.
sample: some points of a training run; new are the steps that are not there.
"""


@dataclass(kw_only=True, slots=True)
class TagSeries:
    """The points of one tag, steps never falling.

    Attributes:
        metadata: a serialized SummaryMetadata, which names TensorBoard's plugin.
    """

    tag: str
    kind: Kind
    growth: Growth
    metadata: bytes
    points: list[Point]


@dataclass(kw_only=True, slots=True)
class Recorded:
    """The points of one tag in the event files of a run."""

    metadata: bytes
    points: list[Point] = field(default_factory=list)


@dataclass(kw_only=True, slots=True)
class RunFolder:
    """A run as its event files have it; `own` are those that this package wrote."""

    folder: Path
    tags: dict[str, Recorded] = field(default_factory=dict)
    own: list[Path] = field(default_factory=list)
    newest_second: int = 0


def read_run(folder: Path) -> RunFolder:
    """The summaries in the event files of `folder` (not below it), in TensorBoard's order.

    A file is read up to its first damaged record, as TensorBoard does.

    Raises:
        OSError: a file cannot be read.
    """
    run = RunFolder(folder=folder)
    for path in sorted(p for p in folder.glob("*tfevents*") if p.is_file()):
        if path.name.endswith(_SUFFIX):
            run.own.append(path)
        if match := _SECONDS_IN_NAME.match(path.name):
            run.newest_second = max(run.newest_second, int(match[1]))
        try:
            for payload in _payloads(path):
                _record(run, Event.FromString(payload))
        except DecodeError:  # records of something else under such a name
            continue
    return run


def _payloads(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    with path.open("rb") as file:
        while (length := payload_length(file.read(HEADER_SIZE))) is not None:
            if length > size:  # a damaged length may be terabytes
                return
            payload, stored = file.read(length), file.read(4)
            if len(stored) < 4 or masked_crc(payload) != struct.unpack("<I", stored)[0]:
                return
            yield payload


def _record(run: RunFolder, event: Any) -> None:
    # A restart drops what was logged from its step on.
    if event.session_log.status == SessionLog.START:
        for recorded in run.tags.values():
            recorded.points = [p for p in recorded.points if p.step < event.step]
    for value in event.summary.value:
        if value.tag not in run.tags:
            run.tags[value.tag] = Recorded(metadata=value.metadata.SerializeToString())
        recorded = run.tags[value.tag]
        # Without them, equal values of two writers have equal bytes.
        value.ClearField("tag")
        value.ClearField("metadata")
        recorded.points.append(Point(event.step, event.wall_time, value.SerializeToString()))


@dataclass(frozen=True, kw_only=True, slots=True)
class TagChange:
    """What `series` adds to a tag.

    Attributes:
        new: the points that are not there.
        all: the points that the tag has afterwards, steps never falling.
        appends: whether `new` can be written after what is there.
    """

    series: TagSeries
    new: Sequence[Point]
    all: Sequence[Point]
    appends: bool


def find_change(recorded: Recorded | None, series: TagSeries) -> TagChange:
    """What of `series` is not recorded yet."""
    there = recorded.points if recorded else []
    if recorded and _was_repeated(recorded, series):
        return TagChange(series=series, new=series.points, all=series.points, appends=False)
    new = _new_points(there, series)
    by_build = series.growth in ("builds", "changes")
    merged = sorted([*there, *new], key=_by_build if by_build else _by_step)
    # Not if a new point belongs before one that is there: steps of a tag must not fall.
    appends = not new or merged[: len(there)] == there
    return TagChange(series=series, new=new, all=merged, appends=appends)


def _new_points(there: Sequence[Point], series: TagSeries) -> list[Point]:
    if series.growth == "training":
        # A log may hold a point several times, so they are counted.
        known = Counter((p.step, p.value) for p in there)
        return list(_not_in(known, series.points))
    if series.growth == "sample":
        steps = {p.step for p in there}
        return [p for p in series.points if p.step not in steps]
    builds = {_by_build(p) for p in there}
    return [
        p
        for p in series.points
        if _by_build(p) not in builds
        and not (series.growth == "changes" and _before(there, p) == p.value)
    ]


def _not_in(known: Counter[tuple[int, bytes]], points: Iterable[Point]) -> Iterator[Point]:
    for point in points:
        if known[point.step, point.value]:
            known[point.step, point.value] -= 1
        else:
            yield point


def _before(there: Sequence[Point], point: Point) -> bytes | None:
    """What the build before `point` published."""
    earlier = [p for p in there if _by_build(p) < _by_build(point)]
    return max(earlier, key=_by_build).value if earlier else None


def _was_repeated(recorded: Recorded, series: TagSeries) -> bool:
    if series.growth != "training" or not recorded.points:
        return False
    steps = {p.step for p in recorded.points}
    known = {(p.step, p.value) for p in recorded.points}
    changed = any(p.step in steps and (p.step, p.value) not in known for p in series.points)
    return changed or recorded.metadata != series.metadata


def _by_build(point: Point) -> tuple[int, float]:
    return point.step, point.wall_time


def _by_step(point: Point) -> int:
    return point.step


def write_changes(run: RunFolder, changes: Sequence[TagChange]) -> None:
    """Write one file with what is new; replace this package's files where it cannot be appended.

    Nothing is written where nothing is new.

    Raises:
        OSError: the folder cannot be made or written to; no part of a file is left.
    """
    if all(change.appends for change in changes):
        added = [(c.series.tag, c.series.metadata, c.new) for c in changes if c.new]
        if added:
            _write_file(run, _payloads_of(added))
        return
    kept: dict[str, tuple[str, bytes, Sequence[Point]]]
    kept = {tag: (tag, r.metadata, r.points) for tag, r in run.tags.items()}
    kept |= {c.series.tag: (c.series.tag, c.series.metadata, c.all) for c in changes}
    _write_file(run, _payloads_of(list(kept.values()), restart=True))
    # Files of other writers stay: their points are in the new file too, and the restart hides them.
    for path in run.own:
        path.unlink()


def _write_file(run: RunFolder, payloads: Iterable[bytes]) -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    # Files are read in the order of their names, so this one's second comes after all others'.
    second = max(int(time.time()), run.newest_second + 1)
    target = run.folder / f"events.out.tfevents.{second}{_SUFFIX}"
    # Readers look for "tfevents" in a name: the unfinished file has none.
    partial = run.folder / f".reportgen-{os.getpid()}.part"
    try:
        with partial.open("wb") as file:
            for payload in payloads:
                length = struct.pack("<Q", len(payload))
                file.write(length + struct.pack("<I", masked_crc(length)))
                file.write(payload + struct.pack("<I", masked_crc(payload)))
            file.flush()
            os.fsync(file.fileno())  # or the old files may be deleted before this one is on disk
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _payloads_of(
    tags: Sequence[tuple[str, bytes, Sequence[Point]]], *, restart: bool = False
) -> Iterator[bytes]:
    """Serialized events: the version, and each tag's points with its metadata on the first."""
    points = [point for _, _, all_of_tag in tags for point in all_of_tag]
    first = min(points, key=lambda p: p.wall_time)
    yield Event(wall_time=first.wall_time, file_version="brain.Event:2").SerializeToString()
    if restart:
        start = SessionLog(status=SessionLog.START)
        lowest = min(point.step for point in points)
        # Twice: TensorBoard drops older points of a run at its second start, not at its first.
        for _ in range(2):
            yield Event(
                wall_time=first.wall_time, step=lowest, session_log=start
            ).SerializeToString()
    for tag, metadata, of_tag in tags:
        for number, point in enumerate(of_tag):
            yield _event(tag, b"" if number else metadata, point)


def _event(tag: str, metadata: bytes, point: Point) -> bytes:
    value = Summary.Value.FromString(point.value)
    value.tag = tag
    if metadata:
        value.metadata.ParseFromString(metadata)
    event = Event(wall_time=point.wall_time, step=point.step, summary=Summary(value=[value]))
    return bytes(event.SerializeToString())
