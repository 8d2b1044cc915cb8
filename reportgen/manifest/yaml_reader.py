"""Reads untrusted YAML into plain data with the line of every key.

The parser's events are composed here, because PyYAML's loaders resolve tags to Python objects,
expand aliases (324 bytes become 387 million leaves), keep the last of two equal keys, recurse
without a limit and read `no` as false. Supported are mappings with text keys, lists, and the
scalars of YAML 1.2's core schema.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from reportgen.manifest.errors import KeyPath, Problem, manifest_error, one_line, quote

Scalar = str | int | float | bool | None
Plain = Scalar | list["Plain"] | dict[str, "Plain"]

# Far above any manifest written by hand; they bound the time and memory for untrusted files.
_MAX_BYTES = 2**20
_MAX_VALUES = 20_000
_MAX_DEPTH = 50
# libyaml is about 30 times faster, but not in every build of PyYAML
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Characters that YAML forbids, and the three line ends that editors do not count.
_FORBIDDEN = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_TAB_INDENT = re.compile(r"^ *\t[ \t]*[^\s#]", re.MULTILINE)
_LINE_END = re.compile("\r\n|\r|\n")
_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_INTEGER_LIMIT = 2**63
_TAGGED = (yaml.ScalarEvent, yaml.CollectionStartEvent)


@dataclass(frozen=True, kw_only=True, slots=True)
class YamlDocument:
    """The content of a YAML file.

    Attributes:
        data: the top-level mapping.
        lines: the line of each key and list item by its path; `()` is the top level.
        problems: errors after which reading went on; `data` is null there.
    """

    data: dict[str, Plain]
    lines: dict[KeyPath, int]
    problems: list[Problem]


class _ReadingError(Exception):
    def __init__(self, message: str, *, line: int = 0, path: KeyPath = ()) -> None:
        super().__init__(message)
        self.problem = Problem(message=message, line=line, path=path)


def read_yaml(file: Path) -> YamlDocument:
    """The YAML mapping in `file`.

    Raises:
        ManifestError: the file cannot be read, is not valid YAML, or uses unsupported features.
    """
    try:
        return _Composer(_checked_text(_read_bytes(file))).document()
    except _ReadingError as error:
        raise manifest_error(file, [error.problem]) from None


def _read_bytes(file: Path) -> bytes:
    # a pipe would block, and a file of gigabytes would fill the memory
    try:
        status = file.stat()
        if stat.S_ISDIR(status.st_mode):
            raise _ReadingError("is a folder; name the manifest file in it")
        if not stat.S_ISREG(status.st_mode):
            raise _ReadingError("is not a regular file; save the manifest to disk")
        if status.st_size <= _MAX_BYTES:
            with file.open("rb") as stream:
                # files below /proc have the size 0, and a file may grow
                content = stream.read(_MAX_BYTES + 1)
            if len(content) <= _MAX_BYTES:
                return content
    except FileNotFoundError:
        raise _ReadingError("file not found; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise _ReadingError(f"cannot be read: {reason.lower()}; check the path") from None
    raise _ReadingError(f"is larger than 1 MiB ({status.st_size:,} B); is this a manifest?")


def _checked_text(content: bytes) -> str:
    """The bytes as UTF-8 text without characters that hide text or shift line numbers."""
    save = "; save the file as UTF-8"
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # byte order marks
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
        what = f"contains a NUL byte{save}" if match[0] == "\0" else what
        raise _ReadingError(what, line=_line_at(text[: match.start()]))
    if match := _TAB_INDENT.search(text):
        raise _ReadingError(
            "is indented with a tab; use spaces", line=_line_at(text[: match.start()])
        )
    return text


def _line_at(before: str) -> int:
    return len(_LINE_END.findall(before)) + 1


@dataclass(slots=True)
class _Composer:
    text: str
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    _events: Iterator[yaml.Event] = field(init=False)
    _values: int = 0

    def document(self) -> YamlDocument:
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
            raise _ReadingError("contains a second document; write one per file", line=_line(rest))
        if data is None:
            raise _ReadingError("is empty; begin with 'version: 1'", line=1)
        if not isinstance(data, dict):
            raise _ReadingError(
                f"must be a mapping with keys such as 'version: 1', not {quote(data)}",
                line=self.lines[()],
            )
        return YamlDocument(data=data, lines=self.lines, problems=self.problems)

    def _parse(self) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(self.text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise _ReadingError(_syntax(error), line=self._line_of(mark)) from None
        except yaml.YAMLError as error:
            raise _ReadingError(f"is not valid YAML: {quote(str(error))}") from None

    def _line_of(self, mark: yaml.Mark | None) -> int:
        """The line of `mark`; the end of the file counts as the last non-empty line."""
        return min(mark.line + 1, _line_at(self.text.rstrip())) if mark else 0

    def _value(self, event: yaml.Event, path: KeyPath) -> Plain:
        self._check_event(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path)
        if len(path) >= _MAX_DEPTH:
            raise _ReadingError(f"is nested deeper than {_MAX_DEPTH} levels", line=_line(event))
        if isinstance(event, yaml.SequenceStartEvent):
            return self._list(path)
        return self._mapping(path)

    def _check_event(self, event: yaml.Event, path: KeyPath) -> None:
        """Reject anchors, aliases and tags, and documents with too many values."""
        self._values += 1
        if self._values > _MAX_VALUES:
            raise _ReadingError(f"contains more than {_MAX_VALUES:,} values", line=_line(event))
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            sign = "alias *" if isinstance(event, yaml.AliasEvent) else "anchor &"
            raise _ReadingError(
                f"{sign}{event.anchor[:40]} is not supported; write the value out",
                line=_line(event),
                path=path,
            )
        if isinstance(event, _TAGGED) and event.tag is not None:
            raise _ReadingError(
                f"tag {quote(event.tag)} is not supported; write the plain value",
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
                self._report(f"duplicate key; first on line {self.lines[place]}", place, line)
                # the first value is kept; errors in the second would only add noise
                self._skip()
                continue
            self.lines[place] = line
            mapping[key] = self._value(next(self._events), place)
        return mapping

    def _key(self, event: yaml.Event, path: KeyPath) -> str:
        """The text of a key; a key that is not text is reported, and its source text is used."""
        self._check_event(event, path)
        line = _line(event)
        if not isinstance(event, yaml.ScalarEvent):
            raise _ReadingError("a key must be text, not a collection", line=line, path=path)
        key: str = event.value
        if key == "<<":
            message = "merge key '<<' is not supported; write the keys out"
            raise _ReadingError(message, line=line, path=path)
        # implicit[0] is false for a quoted scalar, which is always text
        if event.implicit[0] and not _is_text(key):
            self._report(f"key {quote(key)} is not text; put it in quotes", (*path, key), line)
        elif _FORBIDDEN.search(key):
            self._report("key contains a control character", (*path, key), line)
        return key

    def _skip(self) -> None:
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
                self._report("text contains a control character", path, _line(event))
                return None
            text: str = event.value
            return text
        try:
            return _resolve(event.value)
        except ValueError as error:
            self._report(str(error), path, _line(event))
            return None

    def _report(self, message: str, path: KeyPath, line: int) -> None:
        self.problems.append(Problem(message=message, path=path, line=line))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0


def _syntax(error: yaml.MarkedYAMLError) -> str:
    found = " ".join(filter(None, (error.problem, error.context)))
    return f"is not valid YAML: {one_line(found)}; check quotes, brackets and spaces"


def _resolve(text: str) -> Scalar:
    """The value of a plain scalar in YAML 1.2's core schema: `no` is text, `010` is 10.

    Raises:
        ValueError: the number is not finite or does not fit in 64 bits.
    """
    if text in _CONSTANTS:
        return _CONSTANTS[text]
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
    if len(text) <= 80:  # int() takes quadratic time in the number of digits
        number = int(text, base)
        if -_INTEGER_LIMIT <= number < _INTEGER_LIMIT:
            return number
    raise ValueError(f"number {quote(text)} does not fit in 64 bits")
