"""Event files for tests, framed with TensorBoard's own checksum in Python."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from reportgen.training_logs.tensorboard.event_file import EventFile

START = 1_700_000_000.0
FILE = "events.out.tfevents.1700000000.host"


def framed(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + crc(length) + payload + crc(payload)


def crc(data: bytes) -> bytes:
    return struct.pack("<I", masked_crc32c(data))


def header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + crc(packed)


def record(event: Any) -> bytes:
    return framed(event.SerializeToString())


def version(step: int = 0) -> bytes:
    return record(Event(wall_time=START, step=step, file_version="brain.Event:2"))


def event_of(step: int, *values: dict[str, Any]) -> Any:
    """An event whose summary values have these fields."""
    event = Event(wall_time=START + step, step=step)
    for value in values:
        event.summary.value.add(**value)
    return event


def scalar(tag: str, step: int, value: float) -> bytes:
    return record(event_of(step, {"tag": tag, "simple_value": value}))


def picture(tag: str, step: int, content: bytes) -> bytes:
    image = {"width": 4, "height": 3, "encoded_image_string": content}
    return record(event_of(step, {"tag": tag, "image": image}))


def write(folder: Path, *records: bytes, name: str = FILE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"".join(records))
    return path


def skipped_bytes(file: EventFile) -> int:
    return sum(damage.size_bytes for damage in file.damage)


def assert_accounted(files: Iterable[EventFile]) -> None:
    """Bytes read plus bytes skipped are the size, and no two stretches of damage overlap."""
    for file in files:
        assert file.log.size_bytes == file.log.path.stat().st_size
        assert file.log.read_bytes + skipped_bytes(file) == file.log.size_bytes
        ends = [0, *(damage.offset + damage.size_bytes for damage in file.damage)]
        assert all(end <= damage.offset for end, damage in zip(ends, file.damage, strict=False))
