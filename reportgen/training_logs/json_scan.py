"""Reads a large JSON document entry by entry, and continues after damage.

The standard parser takes a document as a whole or not at all, and holds all of it. Logs are cut
short by a full disk or a killed process, and may hold hundreds of megabytes of pictures.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

_SPACE = re.compile(r"[ \t\r\n]*")
_BETWEEN = re.compile(r"[ \t\r\n,]*")
_CANDIDATE = re.compile(r'\{\s*"')
_DECODER = json.JSONDecoder()
_BYTE_ORDER_MARK = "\xef\xbb\xbf"

# What a search for the next entry may cost: without a bound, nested braces in a damaged file
# would be parsed from each brace to the end of the file.
_SEARCH_FACTOR = 8
_DEEP_NESTING_COST = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonMember:
    """A member of the document itself; bytes `start` to `end` hold its value."""

    key: str
    value: object
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An entry of the container that is read piece by piece.

    Attributes:
        key: its name in an object; None in a list, and where damage took it.
    """

    key: str | None
    value: object
    start: int
    end: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Bytes `start` to `end` could not be read."""

    start: int
    end: int
    reason: str


Part = JsonMember | Entry | Gap


class JsonScan:
    """A document and its container `inside`, whose entries come one by one.

    Args:
        text: the document, one character per byte of its UTF-8, with or without byte order mark;
            NaN and Infinity are allowed. Places in it are offsets in the file.
        inside: the name of the member whose entries are returned.
        opening: the bracket that this member must have, `{` or `[`.
        is_entry: what an entry must look like to be recognized behind a damaged stretch.
    """

    def __init__(
        self, text: str, inside: str, opening: str, is_entry: Callable[[object], bool]
    ) -> None:
        self.text = text
        self._ascii = text.isascii()
        self.found_container = False
        self._inside = inside
        self._opening = opening
        self._closing = {"{": "}", "[": "]"}[opening]
        self._is_entry = is_entry
        self._budget = _SEARCH_FACTOR * len(text) + (1 << 20)

    def parts(self) -> Iterator[Part]:
        """Members, entries and gaps in the order of the file."""
        position = _end(_SPACE, self.text, self._start())
        if self.text[position : position + 1] != "{":
            yield from self._recover(position, "not a JSON object")
            return
        position += 1
        while True:
            position = self._skip(position)
            if position >= len(self.text):
                yield Gap(start=position, end=position, reason="the closing bracket is missing")
                return
            if self.text[position] == "}":
                yield from self._trailing(position + 1)
                return
            # Whatever goes wrong in a member: what follows it may be intact.
            try:
                key, start = self._key(position)
                if key == self._inside and self.text[start : start + 1] == self._opening:
                    self.found_container = True
                    position = yield from self._entries(start + 1)
                    continue
                value, end = self._decode(start)
            except (ValueError, RecursionError) as error:
                position = yield from self._recover(position, json_error(error))
                continue
            yield JsonMember(key=key, value=value, start=start, end=end)
            position = end

    def _entries(self, position: int) -> Generator[Part, None, int]:
        """The entries from `position` on; returns the position behind the container."""
        while (position := self._skip(position)) < len(self.text):
            if self.text[position] == self._closing:
                return position + 1
            try:
                key, start = self._key(position) if self._opening == "{" else (None, position)
                value, end = self._decode(start)
            except (ValueError, RecursionError) as error:
                position = yield from self._next_entry(position, json_error(error))
                continue
            yield Entry(key=key, value=value, start=start, end=end)
            position = end
        return position

    def _recover(self, position: int, reason: str) -> Generator[Part, None, int]:
        """Go on at the container if it comes later, else at the next thing like an entry."""
        if not self.found_container:
            pattern = rf'"{re.escape(self._inside)}"\s*:\s*{re.escape(self._opening)}'
            if container := re.compile(pattern).search(self.text, position):
                yield Gap(start=position, end=container.start(), reason=reason)
                self.found_container = True
                return (yield from self._entries(container.end()))
        position = yield from self._next_entry(position, reason)
        return (yield from self._entries(position))

    def _next_entry(self, position: int, reason: str) -> Generator[Part, None, int]:
        """Pass over what is damaged; returns the position behind the entry found, or the end."""
        # Braces inside strings do no harm: quotes are escaped there, so that no object parses.
        for candidate in _CANDIDATE.finditer(self.text, position + 1):
            if self._budget <= 0:
                break
            start = candidate.start()
            try:
                value, end = self._decode(start)
            except (ValueError, RecursionError) as error:
                # What a failed attempt costs is the text that it went through.
                stop = error.pos if isinstance(error, json.JSONDecodeError) else None
                self._budget -= _DEEP_NESTING_COST if stop is None else max(1, stop - start)
                continue
            self._budget -= end - start
            if self._is_entry(value):
                yield Gap(start=position, end=start, reason=reason)
                yield Entry(key=None, value=value, start=start, end=end)
                self.found_container = True
                return end
        yield Gap(start=position, end=len(self.text), reason=reason)
        return len(self.text)

    def _trailing(self, position: int) -> Iterator[Gap]:
        position = self._skip(position)
        if position < len(self.text):
            yield Gap(start=position, end=len(self.text), reason="text after the end of the JSON")

    def _start(self) -> int:
        return len(_BYTE_ORDER_MARK) if self.text.startswith(_BYTE_ORDER_MARK) else 0

    def _skip(self, position: int) -> int:
        return _end(_BETWEEN, self.text, position)

    def _key(self, position: int) -> tuple[str, int]:
        """The key at `position` and where its value starts."""
        key, end = self._decode(position)
        end = _end(_SPACE, self.text, end)
        if not isinstance(key, str) or self.text[end : end + 1] != ":":
            raise ValueError("no name of a member")
        return key, _end(_SPACE, self.text, end + 1)

    def _decode(self, start: int) -> tuple[object, int]:
        value, end = _DECODER.raw_decode(self.text, start)
        if not self._ascii and not (source := self.text[start:end]).isascii():
            value = json.loads(source.encode("latin-1"))
        return value, end


def _end(blanks: re.Pattern[str], text: str, position: int) -> int:
    match = blanks.match(text, position)
    assert match is not None  # both patterns match an empty string
    return match.end()


def json_error(error: Exception) -> str:
    """Why a text is not JSON, in a few words."""
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    return f"not JSON: {error}"
