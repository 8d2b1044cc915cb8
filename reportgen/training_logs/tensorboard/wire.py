"""Reads large records without their pictures, by walking the protobuf wire format.

A record with a picture of 5 MB is read as some hundred bytes: its fields are walked by offset, and
where a picture lies, a short token takes its place. What comes out is an ordinary `Event` message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from reportgen.training_logs.tensorboard.frames import FileWindow

SHOWN_PLUGINS = frozenset(
    {"custom_scalars", "histograms", "images", "pr_curves", "scalars", "text"}
)
"""Plugins whose tensors are decoded; tensors of other plugins are only counted."""

_MAX_FIELDS = 20_000  # each is decoded in Python; a record of more is parsed as a whole
_MAX_COPIED_BYTES = 16 << 20
_KEPT_HEAD_BYTES = 16  # enough to tell a GIF from a PNG
_SHORT_BYTES = 64

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _UnreadableWire(Exception):
    """Not the wire format, or more fields than are worth walking."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReducedEvent:
    """An `Event` message with tokens for its pictures.

    Attributes:
        message: the serialized message.
        pictures: token -> (file offset, size in bytes) of the picture it stands for.
    """

    message: bytes
    pictures: dict[bytes, tuple[int, int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Field:
    """One field: its number, its wire type, and the file offsets of head, content and end."""

    number: int
    wire: int
    head: int
    start: int
    end: int


def reduce_event(window: FileWindow, start: int, size: int) -> ReducedEvent | None:
    """The message at `start` of `size` bytes without pictures, graphs, audio and unshown tensors.

    None where less than half of it could be left out, or where it is not the wire format: such a
    record must be read whole.
    """
    reducer = _Reducer(window)
    try:
        message = reducer.event(start, start + size)
    except _UnreadableWire:
        return None
    if len(message) > size // 2:
        return None
    return ReducedEvent(message=message, pictures=reducer.pictures)


_Rules = dict[int, Callable[[_Field], bytes]]


class _Reducer:
    """Walks one message; numbers of fields are those of TensorBoard's .proto files."""

    def __init__(self, window: FileWindow) -> None:
        self.pictures: dict[bytes, tuple[int, int]] = {}
        self._window = window
        self._fields_left = _MAX_FIELDS
        self._bytes_left = _MAX_COPIED_BYTES

    def event(self, start: int, end: int) -> bytes:
        # Event: 4 graph_def, 5 summary, 8 tagged_run_metadata, 9 meta_graph_def.
        run_metadata = partial(self._message, rules={2: self._nothing})
        summary = partial(self._message, rules={1: self._value})
        rules: _Rules = {4: self._nothing, 5: summary, 8: run_metadata, 9: self._nothing}
        return self._rewritten(self._fields(start, end), rules)

    def _value(self, field: _Field) -> bytes:
        tensors: dict[str, Callable[[_Field], bytes]] = {
            "": self._copy,
            "images": partial(self._message, rules={8: self._picture}),
        }
        fields = list(self._fields(field.start, field.end))
        plugin = self._plugin(fields)
        unknown = self._copy if plugin in SHOWN_PLUGINS else self._nothing
        # Summary.Value: 4 image, 6 audio, 8 tensor; 4 in an image or audio is the encoded content,
        # 8 in a tensor its strings.
        rules: _Rules = {
            4: partial(self._message, rules={4: self._picture}),
            6: partial(self._message, rules={4: self._nothing}),
            8: tensors.get(plugin, unknown),
        }
        return self._rewritten(fields, rules)

    def _plugin(self, fields: Iterable[_Field]) -> str:
        """The plugin named in the metadata of a value, which may follow its tensor."""
        # metadata (9), plugin_data (1), plugin_name (1)
        found = [field for field in fields if field.number == 9 and field.wire == _BYTES]
        for _ in range(2):
            inner = [f for outer in found for f in self._fields(outer.start, outer.end)]
            found = [f for f in inner if f.number == 1 and f.wire == _BYTES]
        return self._copy(found[-1]).decode(errors="replace") if found else ""

    def _message(self, field: _Field, *, rules: _Rules) -> bytes:
        return self._rewritten(self._fields(field.start, field.end), rules)

    def _rewritten(self, fields: Iterable[_Field], rules: _Rules) -> bytes:
        out = bytearray()
        for field in fields:
            rule = rules.get(field.number) if field.wire == _BYTES else None
            if rule is None:
                out += self._take(field.head, field.end)
            else:
                content = rule(field)
                out += _varint(field.number << 3 | _BYTES) + _varint(len(content)) + content
        return bytes(out)

    def _copy(self, field: _Field) -> bytes:
        return self._take(field.start, field.end)

    def _take(self, start: int, end: int) -> bytes:
        self._bytes_left -= end - start
        if self._bytes_left < 0:
            raise _UnreadableWire
        return self._window.read(start, end - start)

    def _nothing(self, field: _Field) -> bytes:
        del field
        return b""  # an empty field is still present, so that WhichOneof returns its name

    def _picture(self, field: _Field) -> bytes:
        size = field.end - field.start
        # A token would save nothing; and width and height of a tensor's images are strings, too.
        if size <= _SHORT_BYTES:
            return self._copy(field)
        head = self._window.read(field.start, _KEPT_HEAD_BYTES)
        token = head + field.start.to_bytes(8, "little") + size.to_bytes(8, "little")
        self.pictures[token] = (field.start, size)
        return token

    def _fields(self, start: int, end: int) -> Iterator[_Field]:
        at = start
        while at < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise _UnreadableWire
            field = self._field(at)
            if field.end > end:
                raise _UnreadableWire
            yield field
            at = field.end

    def _field(self, at: int) -> _Field:
        key, start = self._number(at)
        wire, end = key & 7, 0
        if wire == _VARINT:
            end = self._number(start)[1]
        elif wire == _BYTES:
            length, start = self._number(start)
            end = start + length
        elif wire in (_FIXED64, _FIXED32):
            end = start + (8 if wire == _FIXED64 else 4)
        else:
            raise _UnreadableWire
        return _Field(number=key >> 3, wire=wire, head=at, start=start, end=end)

    def _number(self, at: int) -> tuple[int, int]:
        """A varint and the offset after it."""
        value = 0
        # A varint of 64 bits takes at most 10 bytes.
        for i, byte in enumerate(self._window.peek(at, 10)):
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                return value, at + i + 1
        raise _UnreadableWire


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
