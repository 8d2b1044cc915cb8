"""One event file, read from where the last reading ended: records, checksums, damage.

Bytes read plus damaged bytes always equal the size of the file.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.compat.proto.event_pb2 import Event

from reportgen.errors import LogError
from reportgen.training_logs.log_run import Damage, LogFile, Payload
from reportgen.training_logs.tensorboard.frames import (
    FRAME_SIZE,
    HEADER_SIZE,
    FileWindow,
    RecordSearch,
    mask_crc,
    masked_crc,
    payload_length,
)
from reportgen.training_logs.tensorboard.wire import reduce_event

LARGE_RECORD_BYTES = 64 << 10
"""From this size on a record's pictures are passed over unread."""

MAX_WHOLE_RECORD_BYTES = 64 << 20
"""The largest record that is held in memory where nothing in it can be passed over."""

# Chunks double from the first to the last: most files of a folder hold only a few records.
_FIRST_CHUNK_BYTES = 16 << 10
_MAX_CHUNK_BYTES = 4 << 20
_MAX_KNOWN_HEADERS = 4096
_HEAD_BYTES = 64  # hold the wall time of the first record, which differs in every file

# gzip, bzip2, xz, zstd and zip
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd", b"PK\x03\x04")


class EventFile:
    """The records of one file; `read` continues where the last call ended.

    Damage is skipped and recorded: a wrong payload checksum loses that record, a damaged length
    loses everything up to the next intact record. Damage that reaches the end of the file is
    provisional: it is read again once the file has changed, so that a record that is still being
    written is read when it is complete.

    Pictures in records of `LARGE_RECORD_BYTES` and more are not read, so the payload checksum of
    such records is verified only where no intact header follows them: a flipped bit inside such a
    picture goes unnoticed, a missing piece does not.

    Attributes:
        log: name, size, bytes read and records, brought up to date when `read` ends.
        offset: everything before it was read or is settled damage.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.log = LogFile(path=path, name=name, format="tensorboard")
        self.offset = 0
        self._records = 0
        self._skipped: list[Damage] = []
        self._tail: Damage | None = None
        self._search = RecordSearch()
        self._lengths: dict[bytes, int] = {}
        self._chunk = _FIRST_CHUNK_BYTES
        self._stamp: tuple[int, ...] = ()
        self._head = b""
        # Where the pictures of the record last returned are.
        self._payload = b""
        self._payload_offset = 0
        self._pictures: dict[bytes, tuple[int, int]] = {}

    @property
    def damage(self) -> list[Damage]:
        """What could not be read, in order; the last may be provisional."""
        return [*self._skipped, self._tail] if self._tail else list(self._skipped)

    def has_changed(self) -> bool:
        """Whether the file differs, by its stat, from when it was read last."""
        return _stamp(self.log.path) != self._stamp

    @property
    def identity(self) -> tuple[int, ...]:
        """(device, inode) of the file when it was read last, which stay as it is renamed."""
        return self._stamp[:2]

    def was_replaced(self) -> bool:
        """Whether the file shrank or was replaced, so that it must be reread."""
        stamp = _stamp(self.log.path)
        if not stamp or not self._stamp:
            return False
        if stamp[:2] != self._stamp[:2] or stamp[2] < self.log.size_bytes:
            return True
        # A file truncated and written again within one interval of `watch`: it may be longer now.
        head = _head(self.log.path)
        return stamp != self._stamp and head is not None and not head.startswith(self._head)

    def read(self) -> Iterator[Any]:
        """The events of the new complete records, as `tensorboard.Event` messages.

        A file that cannot be opened is damage as a whole, with the reason.
        """
        self._tail = None
        self._stamp = _stamp(self.log.path)
        try:
            file = self.log.path.open("rb", buffering=0)
        except OSError as error:
            self.log.size_bytes = max(self.offset, self._stamp[2] if self._stamp else 0)
            self._set_tail(self.log.size_bytes, f"cannot be opened: {error.strerror}")
            return
        with file:
            # The size of the open file, which may differ from that of `_stamp` above.
            window = FileWindow(file.fileno(), os.fstat(file.fileno()).st_size)
            self._head = window.read(0, _HEAD_BYTES)
            # Also if the caller stops early: `log` must fit what was yielded.
            try:
                yield from self._events(window)
            finally:
                self._settle(max(window.size, self.offset))

    def payload(self, encoded: bytes) -> Payload:
        """Where in the file the picture `encoded` of the event last returned lies."""
        place = self._pictures.get(encoded)
        if place is None:
            # Equal bytes earlier in the record would do as well: only the content counts.
            place = (self._payload_offset + max(0, self._payload.find(encoded)), len(encoded))
        offset, size = place
        return Payload(read=partial(_read_range, self.log.path, offset, size), size_bytes=size)

    def _settle(self, size: int) -> None:
        self.log.size_bytes = size
        self.log.records = self._records
        self.log.read_bytes = self.offset - sum(d.size_bytes for d in self._skipped)

    def _events(self, window: FileWindow) -> Iterator[Any]:
        try:
            while self.offset < window.size and self._tail is None:
                before = self.offset
                yield from self._intact_events(window)
                if self.offset == before:
                    yield from self._next_event(window)
        except OSError as error:  # a disk that fails, or a network folder that went away
            self._set_tail(window.size, f"cannot be read: {error.strerror}")

    def _intact_events(self, window: FileWindow) -> Iterator[Any]:
        """The small, intact records in memory; ends before anything else."""
        data, base = window.data, window.base
        at, end = self.offset - base, len(data)
        # Local names: this loop runs a million times, and each lookup of an attribute counts.
        crc, parse, lengths = google_crc32c.value, Event.FromString, self._lengths
        unpack = struct.Struct("<I").unpack_from
        self._pictures = {}
        while 0 <= at <= end - FRAME_SIZE:
            header = data[at : at + HEADER_SIZE]
            length = lengths.get(header)  # most records of a file have one of a few lengths
            if length is None and (length := self._small_length(header)) is None:
                return
            stop = at + FRAME_SIZE + length
            if stop > end:
                return
            payload = data[at + HEADER_SIZE : stop - 4]
            if mask_crc(crc(payload)) != unpack(data, stop - 4)[0]:
                return
            try:
                event = parse(payload)
            except DecodeError:
                return
            self._payload, self._payload_offset = payload, base + at + HEADER_SIZE
            self.offset = base + stop
            self._records += 1
            yield event
            at = stop

    def _small_length(self, header: bytes) -> int | None:
        """The length of a small record, cached by its header; None for everything else."""
        length = payload_length(header)
        if length is None or length >= LARGE_RECORD_BYTES:
            return None
        # Texts and histograms differ in length each time: the cache must not grow with the file.
        if len(self._lengths) >= _MAX_KNOWN_HEADERS:
            self._lengths.clear()
        self._lengths[header] = length
        return length

    def _next_event(self, window: FileWindow) -> Iterator[Any]:
        if not window.holds(self.offset, HEADER_SIZE):
            self._load(window, HEADER_SIZE)
        header = window.peek(self.offset, HEADER_SIZE)
        length = payload_length(header)
        if length is None or self.offset + FRAME_SIZE + length > window.size:
            self._pass_to_next_record(window, header, length)
        elif length >= LARGE_RECORD_BYTES:
            yield from self._large_event(window, length)
        elif not window.holds(self.offset, FRAME_SIZE + length):
            self._load(window, FRAME_SIZE + length)
        else:
            yield from self._whole_event(window, length)

    def _load(self, window: FileWindow, needed: int) -> None:
        window.load(self.offset, max(self._chunk, needed))
        self._chunk = min(2 * self._chunk, _MAX_CHUNK_BYTES)

    def _large_event(self, window: FileWindow, length: int) -> Iterator[Any]:
        # The bytes after a picture are most likely another large record: read few of them.
        self._chunk = _FIRST_CHUNK_BYTES
        reduced = reduce_event(window, self.offset + HEADER_SIZE, length)
        event = _decoded(reduced.message) if reduced else None
        if reduced is None or event is None:
            yield from self._whole_event(window, length)
        elif not self._is_followed(window, length) and not self._passes(window, length):
            self._pass_wrong_payload(window, length)
        else:
            self._payload, self._pictures = b"", reduced.pictures
            yield self._consumed(event, length)

    def _is_followed(self, window: FileWindow, length: int) -> bool:
        """Whether the record ends where the next one begins."""
        end = self.offset + FRAME_SIZE + length
        if end == window.size:
            # No proof: a file that grows may just end there. Checking gigabytes takes too long.
            return length > MAX_WHOLE_RECORD_BYTES
        return payload_length(window.read(end, HEADER_SIZE)) is not None

    def _passes(self, window: FileWindow, length: int) -> bool:
        start = self.offset + HEADER_SIZE
        stored = int.from_bytes(window.read(start + length, 4), "little")
        return window.masked_crc(start, length) == stored

    def _whole_event(self, window: FileWindow, length: int) -> Iterator[Any]:
        size = FRAME_SIZE + length
        if length > MAX_WHOLE_RECORD_BYTES:
            self._skip(window, size, f"record of {length:,} bytes, too large to decode")
            return
        start = self.offset + HEADER_SIZE
        record = window.read(start, length + 4)
        payload = record[:length]
        if masked_crc(payload) != int.from_bytes(record[length:], "little"):
            self._pass_wrong_payload(window, length)
            return
        event = _decoded(payload)
        # With a correct checksum: written by something other than an event writer.
        if event is None:
            self._skip(window, size, "payload is not an event")
            return
        self._payload, self._payload_offset, self._pictures = payload, start, {}
        yield self._consumed(event, length)

    def _consumed(self, event: Any, length: int) -> Any:
        self.offset += FRAME_SIZE + length
        self._records += 1
        return event

    def _pass_wrong_payload(self, window: FileWindow, length: int) -> None:
        """Skip one record if another one follows it; otherwise part of it may be missing."""
        end = self.offset + FRAME_SIZE + length
        if not self._is_followed(window, length):
            found = self._search.find(window, self.offset)
            end = window.size if found is None else found
        self._skip(window, end - self.offset, "payload checksum is wrong")

    def _pass_to_next_record(self, window: FileWindow, header: bytes, length: int | None) -> None:
        if self.offset == 0 and header.startswith(_COMPRESSED):
            self._set_tail(window.size, "compressed, not an event file")
            return
        found = self._search.find(window, self.offset)
        end = window.size if found is None else found
        self._skip(window, end - self.offset, self._reason(window, header, length, end))

    def _reason(self, window: FileWindow, header: bytes, length: int | None, end: int) -> str:
        # Blocks that a file system reserved before a crash, or the rest of a full disk.
        if not any(block.strip(b"\0") for block in window.blocks(self.offset, end)):
            return "zero bytes"
        is_cut = length is not None or len(header) < HEADER_SIZE
        if is_cut and end == window.size:
            return "incomplete last record"
        return "length checksum is wrong" if length is None else "length beyond the end of the file"

    def _skip(self, window: FileWindow, size: int, reason: str) -> None:
        if self.offset + size >= window.size:
            self._set_tail(window.size, reason)
            return
        # Neighboring damage is one entry: a file of garbage would have one for each false header.
        last = self._skipped[-1] if self._skipped else None
        if last and last.reason == reason and last.offset + last.size_bytes == self.offset:
            self._skipped.pop()
            self._skipped.append(self._damage(last.offset, last.size_bytes + size, reason))
        else:
            self._skipped.append(self._damage(self.offset, size, reason))
        self.offset += size

    def _set_tail(self, size: int, reason: str) -> None:
        if size > self.offset:
            self._tail = self._damage(self.offset, size - self.offset, reason)

    def _damage(self, offset: int, size: int, reason: str) -> Damage:
        return Damage(file=self.log.name, offset=offset, size_bytes=size, reason=reason)


def _decoded(payload: bytes) -> Any | None:
    try:
        return Event.FromString(payload)
    except DecodeError:
        return None


def _stamp(path: Path) -> tuple[int, ...]:
    """(device, inode, size, times of the last changes); empty where the file is not there."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _head(path: Path) -> bytes | None:
    try:
        with path.open("rb", buffering=0) as file:
            return file.read(_HEAD_BYTES)
    except OSError:
        return None


def _read_range(path: Path, offset: int, size: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            content = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}") from error
    if len(content) < size:
        raise LogError(
            f"{path}: the picture at offset {offset:,} is missing: the file was truncated"
        )
    return content
