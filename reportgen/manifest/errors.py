"""Complaints about a manifest: one line each, with file, line, key and what is allowed.

pydantic finds most of what is wrong; its own wording speaks of inputs and instances, so every
kind of its errors is translated here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reportgen.errors import ManifestError
from reportgen.manifest.formatting import nearest, one_line, quote
from reportgen.manifest.values import PEAK_MEMORY, Document

KeyPath = tuple[str | int, ...]
"""The way to a value: `("models", 2, "inputs", 0, "dtype")`."""

_MOST = 100
_PLAIN_KEY = re.compile(r"[\w@.+-]{1,60}")
_LITERAL = re.compile(r"'([^']*)'")


@dataclass(frozen=True, kw_only=True, slots=True)
class Complaint:
    """One thing that is wrong, and where; `line` counts from 1, 0 means the file as a whole."""

    message: str
    path: KeyPath = ()
    line: int = 0
    unknown_key: str | None = None
    missing_key: str | None = None

    def render(self, file: str) -> str:
        """`file:line: key: message`, without what is not known."""
        place = f"{file}:{self.line}" if self.line else file
        key = f"{format_path(self.path)}: " if self.path else ""
        return f"{place}: {key}{self.message}"


def format_path(path: KeyPath) -> str:
    """A key path as people write it: `models[2].inputs[0].dtype`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _PLAIN_KEY.fullmatch(part) else quote(part)
            text += f".{key}" if text else key
    return text


def manifest_error(file: Path, complaints: Iterable[Complaint]) -> ManifestError:
    """All `complaints` as one error, in the order of their lines; a hundred at most are listed."""
    ordered = sorted(complaints, key=lambda complaint: complaint.line)
    name = one_line(str(file))
    lines = [complaint.render(name) for complaint in islice(ordered, _MOST)]
    if len(ordered) > _MOST:
        lines.append(f"{name}: and {len(ordered) - _MOST} more")
    return ManifestError("\n".join(lines))


def complaints_of(error: ValidationError, lines: Mapping[KeyPath, int]) -> list[Complaint]:
    """The errors of pydantic in plain words, with the line of each key.

    A key that is missing because it was misspelled is one mistake, and gets one complaint.
    """
    errors = error.errors(include_url=False)
    found = [_translate(details, lines) for details in errors if not _follows(details)]
    guessed = {(c.path[:-1], c.missing_key) for c in found if c.missing_key} & {
        (c.path[:-1], c.unknown_key) for c in found if c.unknown_key
    }
    return [c for c in found if not c.missing_key or (c.path[:-1], c.missing_key) not in guessed]


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """The line of the deepest part of `path` that stands in the file."""
    return lines[existing(path, lines)]


def existing(path: KeyPath, lines: Mapping[KeyPath, int]) -> KeyPath:
    """`path` without the parts that are ours and not the file's."""
    while path not in lines:
        path = path[:-1]
    return path


def _follows(details: ErrorDetails) -> bool:
    """Whether a list is only called too short because its items are wrong."""
    return details["type"] == "too_short" and bool(details["input"])


def _translate(details: ErrorDetails, lines: Mapping[KeyPath, int]) -> Complaint:
    path = _without_lone_index(_written(details["loc"]), lines)
    place = existing(path, lines)
    line = lines[place]
    if details["type"] == "missing":
        return Complaint(message="is required", path=path, line=line, missing_key=str(path[-1]))
    if details["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        guess = nearest(str(path[-1]), known)
        ending = f"did you mean {quote(guess)}?" if guess else f"known are {', '.join(known)}"
        return Complaint(message=f"unknown key; {ending}", path=path, line=line, unknown_key=guess)
    return Complaint(message=_message(details), path=place, line=line)


def _written(loc: KeyPath) -> KeyPath:
    """A location of pydantic's in the file's own words."""
    path: KeyPath = ()
    for part in loc:
        if path and path[-1] == PEAK_MEMORY and isinstance(part, int):
            path = (*path[:-1], f"{PEAK_MEMORY}{part}")
        elif part != "[key]":
            path = (*path, part)
    return path


def _without_lone_index(path: KeyPath, lines: Mapping[KeyPath, int]) -> KeyPath:
    """`path` without the index 0 of a list that the file writes as its one item."""
    for end, part in enumerate(path):
        if part == 0 and path[:end] in lines and path[: end + 1] not in lines:
            return path[:end] + path[end + 1 :]
    return path


def _message(details: ErrorDetails) -> str:
    context: dict[str, Any] = details.get("ctx", {})
    value = details["input"]
    if details["type"] == "value_error":
        return str(context["error"])
    if details["type"] == "literal_error":
        return _choice(value, _LITERAL.findall(context["expected"]))
    words = _WORDS.get(details["type"])
    if words is None:
        return f"{one_line(details['msg']).lower()}, not {quote(value)}"
    return f"must be {words(context)}, not {quote(value)}"


def _choice(value: object, allowed: list[str]) -> str:
    guess = nearest(value, allowed) if isinstance(value, str) else None
    ending = f"; did you mean {quote(guess)}?" if guess else ""
    return f"must be one of {', '.join(allowed)}, not {quote(value)}{ending}"


_LONG_FORMS = {
    "Target": "a GPU's name or a mapping",
    "InputSpec": "a shape such as 'batch,3,224,224' or a mapping",
    "OnnxOptions": "true, false or a mapping",
    "LogSource": "a path or a mapping with path and format",
}
_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "bool_type": lambda _: "true or false",
    "dict_type": lambda _: "a mapping",
    "float_type": lambda _: "a number",
    "greater_than": lambda context: f"greater than {context['gt']:g}",
    "greater_than_equal": lambda context: f"at least {context['ge']:g}",
    "int_type": lambda _: "a whole number",
    "less_than_equal": lambda context: f"at most {context['le']}",
    "model_type": lambda context: _LONG_FORMS.get(context["class_name"], "a mapping"),
    "path_type": lambda _: "a path",
    "string_pattern_mismatch": lambda _: "a code such as LAY001",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "string_type": lambda _: "text",
    "too_short": lambda _: "a list with at least one item",
    "tuple_type": lambda _: "a list",
}


def _known_keys(path: KeyPath) -> list[str]:
    """The keys allowed at `path`, found by walking the models' own fields."""
    model: type[BaseModel] = Document
    for part in path:
        if isinstance(part, str):
            model = _model_below(model, part) or model
    return [_spelling(model, name) for name in model.model_fields]


def _spelling(model: type[BaseModel], name: str) -> str:
    alias = model.model_fields[name].validation_alias
    return f"{alias}<batch>" if alias == PEAK_MEMORY else str(alias or name)


def _model_below(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model that the value of `key` holds, alone, in a list or in a dict."""
    for name, field in model.model_fields.items():
        if _spelling(model, name) == key:
            return _first_model(field.annotation)
    return None


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_first_model(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model is not None), None)
