"""The frame of a record in an event file, and the search for the next intact record.

A record is: length (8 bytes, little endian), masked CRC32C of the length (4), payload,
masked CRC32C of the payload (4).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import chain

import google_crc32c
import numpy as np
from numpy.typing import NDArray

HEADER_SIZE = 12
FRAME_SIZE = HEADER_SIZE + 4

_BLOCK_SIZE = 1 << 20
_FIRST_BLOCK_SIZE = 2 << 10
_CHEAP_PAYLOAD_SIZE = 4 << 10  # checking fewer bytes costs no more than reading them
_MASK_DELTA = 0xA282EAD8  # of TFRecord, as in LevelDB: a CRC of data with CRCs in it is weak


def mask_crc(crc: int) -> int:
    """`crc` as event files store it: rotated by 15 bits plus a constant, modulo 2**32."""
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    """The CRC32C of `data` as event files store it."""
    return mask_crc(google_crc32c.value(data))


def payload_length(header: bytes) -> int | None:
    """The length in bytes that the 12-byte `header` announces; None if its checksum is wrong."""
    if len(header) < HEADER_SIZE:
        return None
    length, stored = struct.unpack("<QI", header)
    return int(length) if masked_crc(header[:8]) == stored else None


class FileWindow:
    """Bytes of an open file by offset, with one stretch of them in memory.

    Attributes:
        size: bytes of the file that may be read; smaller once a read came back short, because
            the file was truncated meanwhile.
        base: the file offset of `data`.
        data: the stretch in memory.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.size = size
        self.base = 0
        self.data = b""
        self._descriptor = descriptor

    def load(self, offset: int, size: int) -> None:
        """Make `data` the `size` bytes from `offset`, or what the file has of them."""
        self.data = self.read(offset, size)
        self.base = offset

    def holds(self, offset: int, size: int) -> bool:
        """Whether all of these bytes are in memory."""
        return self.base <= offset and offset + size <= self.base + len(self.data)

    def peek(self, offset: int, size: int, *, ahead: int = 4096) -> bytes:
        """A few bytes; loads `ahead` bytes from `offset` where they are not in memory."""
        if not self.holds(offset, size):
            self.load(offset, max(size, ahead))
        at = offset - self.base
        return self.data[at : at + size]

    def read(self, offset: int, size: int) -> bytes:
        """Bytes read from the file; `data` does not change."""
        wanted = max(0, min(size, self.size - offset))
        parts = []
        while wanted:
            part = os.pread(self._descriptor, wanted, offset)
            # Truncated while it is read: without the new size, the search would not end.
            if not part:
                self.size = offset
                break
            parts.append(part)
            offset, wanted = offset + len(part), wanted - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def blocks(self, offset: int, end: int) -> Iterator[bytes]:
        """The bytes from `offset` to `end` in blocks of 1 MiB."""
        while offset < end:
            block = self.read(offset, min(_BLOCK_SIZE, end - offset))
            if not block:
                return
            yield block
            offset += len(block)

    def masked_crc(self, offset: int, size: int) -> int:
        """The masked CRC32C of a stretch that need not fit in memory."""
        crc = 0
        for block in self.blocks(offset, offset + size):
            crc = google_crc32c.extend(crc, block)
        return mask_crc(crc)


class RecordSearch:
    """Finds the next record whose length and payload both pass their checksums.

    Called again for the same origin after the file grew, it looks at the new bytes only, and at
    the headers found earlier whose record did not fit then.
    """

    def __init__(self) -> None:
        self._origin = -1
        self._scanned = 0
        self._too_long: list[int] = []
        self._checked_bytes = 0

    def find(self, window: FileWindow, origin: int) -> int | None:
        """The offset of the first intact record after `origin`, None if there is none."""
        if origin != self._origin:
            self._origin, self._scanned, self._too_long = origin, origin + 1, []
        waiting, self._too_long = self._too_long, []
        candidates = chain(waiting, self._candidates(window))
        return next((offset for offset in candidates if self._passes(window, offset)), None)

    def _candidates(self, window: FileWindow) -> Iterator[int]:
        size = _FIRST_BLOCK_SIZE  # most gaps are short, and a file can have very many
        while window.size - self._scanned >= FRAME_SIZE:
            block = window.read(self._scanned, size)
            size = min(2 * size, _BLOCK_SIZE)
            if len(block) < HEADER_SIZE:
                return
            start = self._scanned
            # Blocks overlap by a header less one byte, so that none is missed between them.
            self._scanned += len(block) - HEADER_SIZE + 1
            for at in find_headers(block):
                yield start + at

    def _passes(self, window: FileWindow, offset: int) -> bool:
        length = payload_length(window.read(offset, HEADER_SIZE))
        if length is None:
            return False
        if offset + FRAME_SIZE + length > window.size:
            self._too_long.append(offset)
            return False
        # Forged headers, each with a long payload, would make this quadratic.
        self._checked_bytes += length if length > _CHEAP_PAYLOAD_SIZE else 0
        if length > _CHEAP_PAYLOAD_SIZE and self._checked_bytes > 4 * window.size + (1 << 30):
            return False
        start = offset + HEADER_SIZE
        stored = int.from_bytes(window.read(start + length, 4), "little")
        return window.masked_crc(start, length) == stored


def _crc_tables() -> NDArray[np.uint32]:
    """[8, 256]: what each value of each byte of a length changes in the CRC of eight zeros.

    CRC32C is linear over GF(2) apart from a constant, so these changes are simply XORed.
    """
    tables = np.empty((8, 256), dtype=np.uint32)
    for place in range(8):
        for byte in range(256):
            text = bytes(place) + bytes([byte]) + bytes(7 - place)
            tables[place, byte] = google_crc32c.value(text) ^ _CRC_OF_ZEROS
    return tables


_CRC_OF_ZEROS = google_crc32c.value(bytes(8))
_CRC_TABLES = _crc_tables()


def find_headers(block: bytes) -> list[int]:
    """Where in `block` the header of a record could start: a length that passes its checksum.

    Lengths of zero and of 1 TiB and more are passed over: no writer makes such records, and
    leaving them out first makes long stretches of zeros and of random bytes fast.
    """
    data = np.frombuffer(block, dtype=np.uint8)
    count = len(data) - HEADER_SIZE + 1
    if count <= 0:
        return []
    high_bytes = data[5 : count + 5] | data[6 : count + 6] | data[7 : count + 7]
    offsets = np.flatnonzero(high_bytes == 0)
    offsets = offsets[sum(data[offsets + i].astype(np.uint16) for i in range(5)) != 0]
    crc = np.full(len(offsets), _CRC_OF_ZEROS, dtype=np.uint32)
    stored = np.zeros(len(offsets), dtype=np.uint32)
    for place in range(8):
        crc ^= _CRC_TABLES[place][data[offsets + place]]
    for place in range(4):
        stored |= data[offsets + 8 + place].astype(np.uint32) << np.uint32(8 * place)
    masked = ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(_MASK_DELTA)
    return [int(offset) for offset in offsets[masked == stored]]
