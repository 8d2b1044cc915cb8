"""Records of event files: TensorBoard's loader is the oracle, and no byte is lost in silence."""

from __future__ import annotations

import gzip
import os
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.util.tensor_util import make_tensor_proto
from torch.utils.tensorboard import SummaryWriter
from training_logs_events import (
    FILE,
    assert_accounted,
    event_of,
    framed,
    header,
    picture,
    record,
    scalar,
    skipped_bytes,
    version,
    write,
)

from reportgen.errors import LogError
from reportgen.training_logs.log_run import Damage
from reportgen.training_logs.tensorboard.event_file import LARGE_RECORD_BYTES, EventFile
from reportgen.training_logs.tensorboard.frames import find_headers, masked_crc

PNG = b"\x89PNG\r\n\x1a\n"
LARGE_PICTURE = PNG + np.random.default_rng(0).bytes(LARGE_RECORD_BYTES + 1000)
RECORDS = [version(), *(scalar(f"tag{i % 3}", i, i / 7) for i in range(12))]
RECORDS[6:6] = [picture("small", 3, PNG + b"small"), picture("large", 3, LARGE_PICTURE)]
STARTS = [sum(map(len, RECORDS[:i])) for i in range(len(RECORDS) + 1)]
WHOLE = b"".join(RECORDS)


def read_all(path: Path) -> tuple[EventFile, list[Any]]:
    file = EventFile(path, path.name)
    return file, list(file.read())


def read_bytes(path: Path, content: bytes) -> tuple[EventFile, list[Any]]:
    path.write_bytes(content)
    return read_all(path)


def reasons(file: EventFile) -> list[tuple[int, int, str]]:
    return [(d.offset, d.size_bytes, d.reason) for d in file.damage]


def keys(events: list[Any]) -> list[tuple[int, str, float]]:
    """What tells the events of this file apart, and does not depend on pictures."""
    return [
        (event.step, value.tag, value.simple_value)
        for event in events
        for value in event.summary.value
    ]


KEYS = [keys([Event.FromString(r[12:-4])]) for r in RECORDS]


@given(st.binary(max_size=300))
def test_the_checksum_is_that_of_tensorboard(data: bytes) -> None:
    assert masked_crc(data) == masked_crc32c(data)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=60) | st.integers(0, 2**41).map(header), max_size=6))
def test_the_search_finds_what_a_slow_search_finds(parts: list[bytes]) -> None:
    block = b"".join(parts)
    slow = []
    for at in range(len(block) - 11):
        length, stored = struct.unpack_from("<QI", block, at)
        if stored == masked_crc32c(block[at : at + 8]) and 0 < length < 1 << 40:
            slow.append(at)
    assert find_headers(block) == slow


def test_every_event_is_that_of_tensorboards_loader(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(40):
            writer.add_scalar("loss", 1 / (step + 1), step)
        writer.add_text("note", "a text", 1)
        writer.add_image("noise", np.random.default_rng(0).random((3, 8, 8)), 2)
        writer.add_histogram("weights", np.arange(100.0), 3)
    (path,) = tmp_path.iterdir()
    file, events = read_all(path)
    oracle = [Event.FromString(payload) for payload in RawEventFileLoader(str(path)).Load()]
    assert events == oracle
    assert file.log.records == len(oracle)
    assert file.damage == []
    assert_accounted([file])


def test_a_small_picture_is_found_in_the_file(tmp_path: Path) -> None:
    file = EventFile(write(tmp_path, *RECORDS), FILE)
    found = [
        file.payload(value.image.encoded_image_string)
        for event in file.read()
        for value in event.summary.value
        if value.WhichOneof("value") == "image"
    ]
    assert [payload.read() for payload in found] == [PNG + b"small", LARGE_PICTURE]
    assert [payload.size_bytes for payload in found] == [len(PNG) + 5, len(LARGE_PICTURE)]


def test_pictures_of_large_records_are_not_in_the_event(tmp_path: Path) -> None:
    _, events = read_all(write(tmp_path, *RECORDS))
    (large,) = (e for e in events if e.summary.value and e.summary.value[0].tag == "large")
    image = large.summary.value[0].image
    assert (image.width, image.height) == (4, 3)
    assert image.encoded_image_string.startswith(PNG)
    assert len(image.encoded_image_string) < 100


@pytest.mark.parametrize(
    ("plugin", "is_shown"), [("images", True), ("mesh", False), ("audio", False)]
)
def test_large_tensors_are_read_only_if_they_are_shown(
    tmp_path: Path, plugin: str, is_shown: bool
) -> None:
    tensor = make_tensor_proto([b"4", b"3", LARGE_PICTURE, LARGE_PICTURE[::-1]])
    metadata = {"plugin_data": {"plugin_name": plugin}}
    event = event_of(5, {"tag": "t", "tensor": tensor, "metadata": metadata})
    file = EventFile(write(tmp_path, record(event)), FILE)
    (found,) = file.read()
    value = found.summary.value[0]
    assert value.metadata.plugin_data.plugin_name == plugin
    assert value.WhichOneof("value") == "tensor"
    strings = [file.payload(string).read() for string in value.tensor.string_val[2:]]
    assert strings == ([LARGE_PICTURE, LARGE_PICTURE[::-1]] if is_shown else [])


def test_a_large_text_is_read_whole_and_checked(tmp_path: Path) -> None:
    tensor = make_tensor_proto([b"x" * LARGE_RECORD_BYTES])
    metadata = {"plugin_data": {"plugin_name": "text"}}
    whole = record(event_of(5, {"tag": "t", "tensor": tensor, "metadata": metadata}))
    _, events = read_bytes(tmp_path / "whole", whole)
    assert events[0].summary.value[0].tensor == tensor
    broken = whole[:1000] + b"y" + whole[1001:]
    file, events = read_bytes(tmp_path / "broken", broken + scalar("a", 1, 1.0))
    assert [event.step for event in events] == [1]
    assert reasons(file) == [(0, len(whole), "payload checksum is wrong")]


def opening(size: int) -> bytes:
    """A record with a picture of `size` bytes up to the first of them."""
    image = b"\x08\x03\x10\x04\x22" + varint(size)
    value = b"\x0a\x03big\x22" + varint(len(image) + size) + image
    summary = b"\x0a" + varint(len(value) + size) + value
    event = Event(wall_time=1.0, step=7).SerializeToString()
    payload = event + b"\x2a" + varint(len(summary) + size) + summary
    return header(len(payload) + size) + payload


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def test_seven_gigabytes_of_pictures_are_passed_over(tmp_path: Path) -> None:
    size, path = 1 << 30, tmp_path / FILE
    with path.open("wb") as file:
        for step in range(7):
            file.write(scalar("loss", step, 0.5) + opening(size) + PNG)
            file.seek(size - len(PNG), os.SEEK_CUR)  # a hole: it takes no room on the disk
            file.write(b"none")
    tracemalloc.start()
    read, events = read_all(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.log.size_bytes > 7 << 30
    assert [event.summary.value[0].tag for event in events] == ["loss", "big"] * 7
    assert peak < 1 << 20
    assert_accounted([read])


LAST = len(RECORDS) - 1
DAMAGES: dict[str, tuple[bytes, list[int], list[tuple[int, int, str]]]] = {
    "payload": (
        WHOLE[: STARTS[4] + 20] + b"\xff" + WHOLE[STARTS[4] + 21 :],
        [4],
        [(STARTS[4], len(RECORDS[4]), "payload checksum is wrong")],
    ),
    "length": (
        WHOLE[: STARTS[4]] + b"\xff" + WHOLE[STARTS[4] + 1 :],
        [4],
        [(STARTS[4], len(RECORDS[4]), "length checksum is wrong")],
    ),
    "two neighbors": (
        WHOLE[: STARTS[4] + 20] + bytes(len(RECORDS[4])) + WHOLE[STARTS[5] + 20 :],
        [4, 5],
        [(STARTS[4], len(RECORDS[4]) + len(RECORDS[5]), "payload checksum is wrong")],
    ),
    "cut inside": (
        WHOLE[: STARTS[5] - 9] + WHOLE[STARTS[5] :],
        [4],
        [(STARTS[4], len(RECORDS[4]) - 9, "payload checksum is wrong")],
    ),
    "cut inside a large picture": (
        WHOLE[: STARTS[7] + 5000] + WHOLE[STARTS[7] + 5100 :],
        [7],
        [(STARTS[7], len(RECORDS[7]) - 100, "payload checksum is wrong")],
    ),
    "text between": (
        WHOLE[: STARTS[5]] + b"INFO: step 5\n" + WHOLE[STARTS[5] :],
        [],
        [(STARTS[5], 13, "length checksum is wrong")],
    ),
    "zeros between": (
        WHOLE[: STARTS[5]] + bytes(5000) + WHOLE[STARTS[5] :],
        [],
        [(STARTS[5], 5000, "zero bytes")],
    ),
    "10 GB length": (
        WHOLE[: STARTS[5]] + header(10 << 30) + WHOLE[STARTS[5] :],
        [],
        [(STARTS[5], 12, "length beyond the end of the file")],
    ),
    "not an event": (
        WHOLE[: STARTS[5]] + framed(b"\xff\xff") + WHOLE[STARTS[5] :],
        [],
        [(STARTS[5], 18, "payload is not an event")],
    ),
    "cut tail": (
        WHOLE[:-5],
        [LAST],
        [(STARTS[LAST], len(RECORDS[LAST]) - 5, "incomplete last record")],
    ),
    "cut header": (
        WHOLE[: STARTS[LAST] + 7],
        [LAST],
        [(STARTS[LAST], 7, "incomplete last record")],
    ),
    "zero tail": (WHOLE + bytes(64), [], [(len(WHOLE), 64, "zero bytes")]),
    "last payload": (
        WHOLE[:-9] + b"\xff" + WHOLE[-8:],
        [LAST],
        [(STARTS[LAST], len(RECORDS[LAST]), "payload checksum is wrong")],
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_only_damaged_records_are_lost(tmp_path: Path, name: str) -> None:
    content, lost, expected = DAMAGES[name]
    file, events = read_bytes(tmp_path / FILE, content)
    kept = [key for i, key in enumerate(KEYS) if i not in lost]
    assert keys(events) == [key for group in kept for key in group]
    assert reasons(file) == expected
    assert_accounted([file])


def test_tensorboard_stops_where_this_reader_goes_on(tmp_path: Path) -> None:
    content, lost, _ = DAMAGES["payload"]
    path = write(tmp_path, content)
    assert len(list(RawEventFileLoader(str(path)).Load())) == 4
    assert len(read_all(path)[1]) == len(RECORDS) - len(lost)


@pytest.mark.parametrize("content", [gzip.compress(WHOLE), b"PK\x03\x04" + WHOLE])
def test_a_compressed_file_is_named(tmp_path: Path, content: bytes) -> None:
    file, events = read_bytes(tmp_path / FILE, content)
    assert events == []
    assert reasons(file) == [(0, len(content), "compressed, not an event file")]


@pytest.mark.parametrize("content", [b"", b"x", b"some text\n" * 500])
def test_what_is_not_an_event_file_is_damage_as_a_whole(tmp_path: Path, content: bytes) -> None:
    file, events = read_bytes(tmp_path / FILE, content)
    assert events == []
    assert_accounted([file])


def test_a_file_that_cannot_be_opened_is_damage_with_the_reason(tmp_path: Path) -> None:
    folder = tmp_path / FILE
    folder.mkdir()
    file, events = read_all(folder)
    assert events == []
    (damage,) = file.damage
    assert damage == Damage(
        file=FILE,
        offset=0,
        size_bytes=folder.stat().st_size,
        reason="cannot be opened: Is a directory",
    )


Edit = tuple[str, int, int]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "delete", "zeros", "random", "duplicate", "header"]),
        st.integers(0, 2**20) | st.sampled_from(STARTS),
        st.integers(1, 200) | st.integers(1, 80_000),
    ),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edit: Edit) -> tuple[bytes, int]:
    """`content` after one edit, and the first offset that it touched."""
    kind, at, size = edit
    at %= len(content) + 1
    head, tail = content[:at], content[at:]
    changed = {
        "flip": bytes([(tail[0] if tail else 0) ^ (size % 255 + 1)]) + tail[1:],
        "cut": b"",
        "delete": tail[size:],
        "zeros": bytes(size) + tail,
        "random": np.random.default_rng(size).bytes(size) + tail,
        "duplicate": tail[:size] + tail,
        "header": header(size) + tail,
    }
    return head + changed[kind], at


@pytest.mark.slow
@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(edits=EDITS)
def test_of_a_mutated_file_every_byte_is_accounted_for(tmp_path: Path, edits: list[Edit]) -> None:
    content, first = WHOLE, len(WHOLE)
    for edit in edits:
        content, at = edited(content, edit)
        first = min(first, at)
    file, events = read_bytes(tmp_path / FILE, content)
    assert_accounted([file])
    whole_before = sum(end <= first for end in STARTS[1:])
    expected = [key for group in KEYS[:whole_before] for key in group]
    assert keys(events)[: len(expected)] == expected


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(at=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7))
def test_one_flipped_bit_costs_at_most_its_record(tmp_path: Path, at: int, bit: int) -> None:
    content = bytearray(WHOLE)
    content[at] ^= 1 << bit
    _, events = read_bytes(tmp_path / FILE, bytes(content))
    hit = sum(start <= at for start in STARTS) - 1
    others = [key for i, group in enumerate(KEYS) for key in group if i != hit]
    found = keys(events)
    assert [key for key in found if key in others] == others


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cuts=st.lists(st.integers(0, len(WHOLE)) | st.sampled_from(STARTS), max_size=6))
def test_a_file_read_while_it_grows_gives_what_it_gives_at_once(
    tmp_path: Path, cuts: list[int]
) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"")
    file = EventFile(path, FILE)
    events: list[Any] = []
    for end in [*sorted(cuts), len(WHOLE)]:
        path.write_bytes(WHOLE[:end])
        events += file.read()
        assert_accounted([file])
        assert file.offset == max(start for start in STARTS if start <= end)
    assert keys(events) == [key for group in KEYS for key in group]
    assert file.damage == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(sorted(DAMAGES)),
    cuts=st.lists(st.integers(0, len(WHOLE)) | st.sampled_from(STARTS), max_size=4),
)
def test_damage_is_the_same_however_the_file_grew(
    tmp_path: Path, name: str, cuts: list[int]
) -> None:
    content = DAMAGES[name][0]
    path = tmp_path / FILE
    path.write_bytes(b"")
    file = EventFile(path, FILE)
    events: list[Any] = []
    for end in [*sorted(cuts), len(content)]:
        path.write_bytes(content[:end])
        events += file.read()
        assert_accounted([file])
    at_once, all_events = read_all(path)
    assert keys(events) == keys(all_events)
    assert skipped_bytes(file) == skipped_bytes(at_once)


def test_a_picture_with_missing_bytes_is_damage_though_the_file_just_ends_there(
    tmp_path: Path,
) -> None:
    content = DAMAGES["cut inside a large picture"][0]
    path = tmp_path / FILE
    file = EventFile(path, FILE)
    path.write_bytes(content[: STARTS[8]])  # as long as the record says, by bytes of the next ones
    events = list(file.read())
    path.write_bytes(content)
    events += file.read()
    assert keys(events) == [key for i, group in enumerate(KEYS) if i != 7 for key in group]
    assert skipped_bytes(file) == len(RECORDS[7]) - 100


def test_a_file_that_shrank_or_was_written_anew_was_replaced(tmp_path: Path) -> None:
    path = write(tmp_path, *RECORDS[:5])
    file, _ = read_all(path)
    assert not file.has_changed()
    with path.open("ab") as appended:
        appended.write(RECORDS[5])
    assert file.has_changed()
    assert not file.was_replaced()
    list(file.read())
    path.write_bytes(b"".join(RECORDS[:5]))
    assert file.was_replaced()

    file, _ = read_all(path)
    path.write_bytes(scalar("other", 1, 1.0) + WHOLE)  # same inode, longer, another beginning
    assert file.was_replaced()

    file, _ = read_all(path)
    other = write(tmp_path, path.read_bytes(), name="other")
    other.replace(path)
    assert file.was_replaced()


def test_a_picture_whose_file_shrank_is_an_error_that_names_it(tmp_path: Path) -> None:
    path = write(tmp_path, picture("p", 1, PNG + b"content"))
    file = EventFile(path, FILE)
    (event,) = file.read()
    payload = file.payload(event.summary.value[0].image.encoded_image_string)
    path.write_bytes(b"")
    with pytest.raises(LogError, match=FILE):
        payload.read()
    path.unlink()
    with pytest.raises(LogError, match=FILE):
        payload.read()


def test_a_large_record_that_is_no_wire_format_is_checked_and_skipped(tmp_path: Path) -> None:
    payload = b"\x2a" + varint(LARGE_RECORD_BYTES * 2) + bytes(LARGE_RECORD_BYTES)
    content = framed(payload) + scalar("a", 1, 1.0)
    file, events = read_bytes(tmp_path / FILE, content)
    assert [event.step for event in events] == [1]
    assert reasons(file) == [(0, len(payload) + 16, "payload is not an event")]


def test_forged_headers_do_not_hide_the_records_after_them(tmp_path: Path) -> None:
    content = RECORDS[0] + header(5000) * 2000 + b"".join(RECORDS[1:])
    file, events = read_bytes(tmp_path / FILE, content)
    assert keys(events) == [key for group in KEYS for key in group]
    assert skipped_bytes(file) == 12 * 2000
