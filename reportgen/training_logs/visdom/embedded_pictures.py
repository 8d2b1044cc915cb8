"""Pictures that a text log contains as base64, loaded from the file on demand."""

from __future__ import annotations

import binascii
import json
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reportgen.errors import LogError
from reportgen.training_logs.log_run import Payload

Load = Callable[[], str]
"""Returns a string of a log, from memory or from its file."""

Keep = Callable[[str], Load]
"""Makes a `Load` for a string that was just read."""

# Parameters such as `;charset=utf-8` may stand before `;base64`.
_DATA_URI = re.compile(r"data:image/([a-zA-Z0-9.+-]+)(?:;[a-zA-Z0-9=-]+)*;base64,")
_PNG_HEAD_BASE64 = 32  # characters for the 24 bytes up to width and height


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedPicture:
    """A picture of a pane; `width` and `height` in pixels, 0 where unknown."""

    payload: Payload
    width: int
    height: int


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredText:
    """A JSON string in a file, at `offset` with its quotes; `checksum` is its CRC-32."""

    path: Path
    offset: int
    size_bytes: int
    checksum: int

    def load(self) -> str:
        """The string.

        Raises:
            LogError: the file was deleted or rewritten since the string was located.
        """
        try:
            with self.path.open("rb") as stream:
                stream.seek(self.offset)
                content = stream.read(self.size_bytes)
        except OSError as error:
            reason = (error.strerror or type(error).__name__).lower()
            raise LogError(f"{self.path}: cannot be read: {reason}") from error
        # A server rewrites its file at each save: the offset may now lie in another picture.
        if zlib.crc32(content) != self.checksum:
            raise LogError(
                f"{self.path}: changed while its pictures were read",
                hint="build the report again",
            )
        return str(json.loads(content))


class TextStore:
    """Locates strings of a JSON text in the file that it came from.

    Args:
        text: one character per byte of the file.
        base: offset in the file of the first character.
    """

    def __init__(self, path: Path, text: str, base: int = 0) -> None:
        self._path = path
        self._text = text
        self._base = base
        self._cursor = 0

    def keep(self, value: str) -> Load:
        """A `Load` that reads `value` from the file, or holds it where it is written unusually."""
        written = json.dumps(value)  # as visdom's server and client write it
        # Pictures come in the order of the file: a search from its start would be quadratic.
        place = self._text.find(written, self._cursor)
        if place < 0:
            place = self._text.find(written)
        if place < 0:
            return lambda: value
        self._cursor = place + len(written)
        return StoredText(
            path=self._path,
            offset=self._base + place,
            size_bytes=len(written),
            checksum=zlib.crc32(written.encode("ascii")),
        ).load


def hold(value: str) -> Load:
    """A `Keep` that holds the string in memory."""
    return lambda: value


def read_picture(uri: str, keep: Keep) -> EmbeddedPicture | None:
    """The picture of a `data:` URI; None for any other URI.

    Raises:
        ValueError: its base64 is not valid.
    """
    head = _DATA_URI.match(uri)
    if head is None:
        return None
    start = head.end()
    # Decoded once to know that it is valid, and its size; then dropped.
    try:
        size = len(_decode(uri, start))
    except ValueError as error:
        raise ValueError(f"a picture is not valid base64: {error}") from error
    load = keep(uri)
    # Not with Pillow: a log may hold hundreds of pictures, and 24 bytes have the size.
    width, height = _png_size(uri[start : start + _PNG_HEAD_BASE64])
    payload = Payload(read=lambda: _decode(load(), start), size_bytes=size)
    return EmbeddedPicture(payload=payload, width=width, height=height)


def _decode(uri: str, start: int) -> bytes:
    # Without strict mode, characters that are not base64 are skipped, and a picture is garbage.
    return binascii.a2b_base64(uri[start:], strict_mode=True)


def _png_size(head: str) -> tuple[int, int]:
    if len(head) < _PNG_HEAD_BASE64:
        return 0, 0
    content = binascii.a2b_base64(head)
    if len(content) < 24 or content[:4] != b"\x89PNG" or content[12:16] != b"IHDR":
        return 0, 0
    width, height = struct.unpack(">II", content[16:24])
    return int(width), int(height)


def read_svg(html: str, keep: Keep) -> EmbeddedPicture | None:
    """The SVG element inside `html` as a UTF-8 document; None where there is none."""
    span = _svg_span(html)
    if span is None:
        return None
    load = keep(html)
    start, end = span
    size = len(html[start:end].encode("utf-8", "replace"))
    payload = Payload(read=lambda: load()[start:end].encode("utf-8", "replace"), size_bytes=size)
    return EmbeddedPicture(payload=payload, width=0, height=0)


def _svg_span(html: str) -> tuple[int, int] | None:
    start = html.find("<svg")
    end = html.rfind("</svg>")  # the last one: an SVG may contain others
    return (start, end + len("</svg>")) if 0 <= start < end else None


def without_svg(html: str) -> str:
    """`html` without the SVG element that `read_svg` takes."""
    span = _svg_span(html)
    return html if span is None else html[: span[0]] + html[span[1] :]
