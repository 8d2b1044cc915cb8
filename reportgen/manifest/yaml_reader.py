"""YAML from strangers: bytes -> plain data with the line of every key, or one clear complaint.

The parser's events are put together here instead of by a yaml loader, because a loader resolves
tags to Python objects, expands aliases (324 bytes become 387 million leaves), lets the last of
two equal keys win, recurses without bounds and reads `no` as false. What is left is YAML's core:
mappings with text keys, lists, and the scalars of YAML 1.2's core schema.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from reportgen.manifest.errors import Complaint, KeyPath, manifest_error
from reportgen.manifest.formatting import one_line, quote

Scalar = str | int | float | bool | None
Plain = Scalar | list["Plain"] | dict[str, "Plain"]

_MOST_BYTES = 2**20
_MOST_VALUES = 20_000
_DEEPEST = 50
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML does not allow, and the three line ends that editors do not count as such.
_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_TABBED = re.compile(r"^ *\t[ \t]*[^\s#]", re.MULTILINE)
_LINE_END = re.compile("\r\n|\r|\n")
_SPELLINGS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BITS = 2**63
_TAGGED = (yaml.ScalarEvent, yaml.CollectionStartEvent)


@dataclass(frozen=True, kw_only=True, slots=True)
class YamlDocument:
    """What a file holds.

    Attributes:
        data: the top-level mapping.
        lines: the line of each key and list item, by its path; the top's path is `()`.
        complaints: what was wrong and could be stepped over; `data` has null there.
    """

    data: dict[str, Plain]
    lines: dict[KeyPath, int]
    complaints: list[Complaint]


class _ReadingError(Exception):
    """Reading cannot go on; holds the one complaint."""

    def __init__(self, message: str, *, line: int = 0, path: KeyPath = ()) -> None:
        super().__init__(message)
        self.complaint = Complaint(message=message, line=line, path=path)


def read_yaml(file: Path) -> YamlDocument:
    """The YAML mapping in `file`.

    Raises:
        ManifestError: the file cannot be read, is no YAML, or uses more of YAML than is safe.
    """
    try:
        return _Composer(_checked_text(_read_bytes(file))).document()
    except _ReadingError as refused:
        raise manifest_error(file, [refused.complaint]) from None


# Bytes to text ------------------------------------------------------------------------------


def _read_bytes(file: Path) -> bytes:
    """The file, unless it is none or too large; its size is asked before anything is read."""
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _ReadingError("is a folder; name the manifest file in it")
        if not stat.S_ISREG(status.st_mode):
            raise _ReadingError("is not a regular file; save the manifest to disk")
        if status.st_size <= _MOST_BYTES:
            with file.open("rb") as stream:
                content = stream.read(_MOST_BYTES + 1)
            if len(content) <= _MOST_BYTES:
                return content
    except FileNotFoundError:
        raise _ReadingError("file not found; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _ReadingError(f"cannot be read: {reason.lower()}; check the path") from None
    raise _ReadingError(f"is larger than 1 MiB ({status.st_size:,} B); is this a manifest?")


def _checked_text(content: bytes) -> str:
    """The bytes as text, when they are UTF-8 and hold nothing that hides or moves lines."""
    save = "; save the file as UTF-8"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _ReadingError(f"is UTF-16 or UTF-32{save}", line=1)
    if content.startswith(b"\xef\xbb\xbf"):
        raise _ReadingError(f"begins with a byte order mark{save} without BOM", line=1)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = _line_at(content[: error.start].decode("utf-8", "replace"))
        raise _ReadingError(
            f"byte 0x{content[error.start]:02x} is not UTF-8{save}", line=line
        ) from None
    if match := _FORBIDDEN.search(text):
        what = f"character U+{ord(match[0]):04X} is not allowed; remove it"
        what = f"holds a NUL byte{save}" if match[0] == "\0" else what
        raise _ReadingError(what, line=_line_at(text[: match.start()]))
    if match := _TABBED.search(text):
        raise _ReadingError(
            "is indented with a tab; use spaces", line=_line_at(text[: match.start()])
        )
    return text


def _line_at(before: str) -> int:
    return len(_LINE_END.findall(before)) + 1


# Text to values -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Composer:
    """Puts the parser's events together, and remembers lines and complaints."""

    text: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)
    _events: Iterator[yaml.Event] = field(init=False)
    _values: int = 0

    def document(self) -> YamlDocument:
        """The one mapping of the text."""
        self._events = self._parse()
        next(self._events)  # the stream's start
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise _ReadingError("is empty; begin with 'version: 1'", line=1)
        root = next(self._events)
        self.lines[()] = _line(root)
        data = self._value(root, ())
        next(self._events)  # the document's end
        rest = next(self._events)
        if not isinstance(rest, yaml.StreamEndEvent):
            raise _ReadingError("holds a second document; keep one per file", line=_line(rest))
        if data is None:
            raise _ReadingError("is empty; begin with 'version: 1'", line=1)
        if not isinstance(data, dict):
            raise _ReadingError(
                f"must hold keys such as 'version: 1', not {quote(data)}", line=self.lines[()]
            )
        return YamlDocument(data=data, lines=self.lines, complaints=self.complaints)

    def _parse(self) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(self.text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise _ReadingError(_syntax(error), line=self._line_of(mark)) from None
        except yaml.YAMLError as error:
            raise _ReadingError(f"is not YAML: {quote(str(error))}") from None

    def _line_of(self, mark: yaml.Mark | None) -> int:
        """The line of `mark`; the end of the file counts to the last line that says something."""
        return min(mark.line + 1, _line_at(self.text.rstrip())) if mark else 0

    def _value(self, event: yaml.Event, path: KeyPath) -> Plain:
        self._refuse_extras(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if len(path) >= _DEEPEST:
            raise _ReadingError(f"is nested deeper than {_DEEPEST} levels", line=_line(event))
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        return self._mapping(path)

    def _refuse_extras(self, event: yaml.Event, path: KeyPath) -> None:
        """Refuse what makes YAML dangerous, and documents too long to be written by hand."""
        self._values += 1
        if self._values > _MOST_VALUES:
            raise _ReadingError(f"holds more than {_MOST_VALUES:,} values", line=_line(event))
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            sign = "alias *" if isinstance(event, yaml.AliasEvent) else "anchor &"
            raise _ReadingError(
                f"{sign}{event.anchor[:40]} is not accepted; write the value out",
                line=_line(event),
                path=path,
            )
        if isinstance(event, _TAGGED) and event.tag is not None:
            raise _ReadingError(
                f"tag {quote(event.tag)} is not accepted; write the plain value",
                line=_line(event),
                path=path,
            )

    def _list(self, path: KeyPath) -> list[Plain]:
        items: list[Plain] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            place = (*path, len(items))
            self.lines[place] = _line(event)
            items.append(self._value(event, place))
        return items

    def _mapping(self, path: KeyPath) -> dict[str, Plain]:
        mapping: dict[str, Plain] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key, line = self._key(event, path), _line(event)
            place = (*path, key)
            if key in mapping:
                self._complain(f"duplicate key, first in line {self.lines[place]}", place, line)
                self._skip()
                continue
            self.lines[place] = line
            mapping[key] = self._value(next(self._events), place)
        return mapping

    def _key(self, event: yaml.Event, path: KeyPath) -> str:
        """The text of a key; one that is no text is complained of and its text taken instead."""
        self._refuse_extras(event, path)
        line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise _ReadingError("a key must be text, not a collection", line=line, path=path)
        key: str = event.value
        if key == "<<":
            message = "merge key '<<' is not accepted; write the keys out"
            raise _ReadingError(message, line=line, path=path)
        if event.implicit[0] and not _is_text(key):
            self._complain(f"key {quote(key)} is no text; put it in quotes", (*path, key), line)
        elif _FORBIDDEN.search(key):
            self._complain("key holds a control character", (*path, key), line)
        return key

    def _skip(self) -> None:
        """Pass over one value, however deep; what it holds is not judged."""
        depth = 0
        while True:
            event = next(self._events)
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth == 0:
                return

    def _scalar(self, event: yaml.ScalarEvent, path: KeyPath) -> Scalar:
        if not event.implicit[0]:
            if _FORBIDDEN.search(event.value):
                self._complain("text holds a control character", path, _line(event))
                return None
            text: str = event.value
            return text
        try:
            return _resolve(event.value)
        except ValueError as error:
            self._complain(str(error), path, _line(event))
            return None

    def _complain(self, message: str, path: KeyPath, line: int) -> None:
        self.complaints.append(Complaint(message=message, path=path, line=line))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _syntax(error: yaml.MarkedYAMLError) -> str:
    """The parser's complaint in one line: what it found, and what it was reading."""
    found = " ".join(filter(None, (error.problem, error.context)))
    return f"is not YAML: {one_line(found)}; check quotes, brackets and spaces"


def _resolve(text: str) -> Scalar:
    """A plain scalar by YAML 1.2's core schema: `no` and `12:30:45` are text, `010` is ten.

    Raises:
        ValueError: a number that is not finite or beyond 64 bits.
    """
    if text in _SPELLINGS:
        return _SPELLINGS[text]
    if _INTEGER.fullmatch(text) or _OCTAL_OR_HEX.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isfinite(number):
            return number
        raise ValueError(f"number {quote(text)} is too large")
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"must be a finite number, not {quote(text)}")
    return text


def _is_text(plain: str) -> bool:
    try:
        return isinstance(_resolve(plain), str)
    except ValueError:
        return False


def _integer(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    if len(text) <= 80:  # far beyond 64 bits, and short enough for int()
        number = int(text, base)
        if -_BITS <= number < _BITS:
            return number
    raise ValueError(f"number {quote(text)} is beyond 64 bits")
