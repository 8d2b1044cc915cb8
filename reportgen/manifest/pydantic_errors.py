"""Errors of pydantic as problems of a manifest.

pydantic's messages refer to inputs and instances of its models, which mean nothing to the author of
a manifest; each kind of error is translated here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reportgen.manifest.errors import (
    KeyPath,
    Problem,
    existing_prefix,
    format_path,
    nearest,
    one_line,
    quote,
)
from reportgen.manifest.values import METRICS, PEAK_MEMORY, Document

_LITERAL = re.compile(r"'([^']*)'")


def problems_of(error: ValidationError, lines: Mapping[KeyPath, int]) -> list[Problem]:
    """The problems that `error` reports, each with its line.

    A misspelled key is unknown to pydantic and the right one missing; only the first is reported.
    """
    errors = error.errors(include_url=False)
    found = [_translate(details, lines) for details in errors if not _is_consequence(details)]
    guessed = {(c.path[:-1], c.missing_key) for c in found if c.missing_key} & {
        (c.path[:-1], c.unknown_key) for c in found if c.unknown_key
    }
    return [c for c in found if not c.missing_key or (c.path[:-1], c.missing_key) not in guessed]


def model_problem(error: ValidationError) -> str:
    """The first error in the fields of one model, as `key: message`."""
    first = error.errors(include_url=False)[0]
    place: KeyPath = ("models", 0, *first["loc"])
    lines = {place[:end]: 0 for end in range(len(place) + 1)}
    found = _translate({**first, "loc": place}, lines)
    return f"{format_path(found.path[2:])}: {found.message}"


def _is_consequence(details: ErrorDetails) -> bool:
    # pydantic drops invalid items before it checks the length
    return details["type"] == "too_short" and bool(details["input"])


def _translate(details: ErrorDetails, lines: Mapping[KeyPath, int]) -> Problem:
    path = _without_lone_index(_manifest_path(details["loc"]), lines)
    # a missing key has no line; its mapping has one
    place = existing_prefix(path, lines)
    line = lines[place]
    if details["type"] == "missing":
        return Problem(message="is required", path=path, line=line, missing_key=str(path[-1]))
    if details["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        guess = nearest(str(path[-1]), known)
        ending = f"did you mean {quote(guess)}?" if guess else f"known keys: {', '.join(known)}"
        return Problem(message=f"unknown key; {ending}", path=path, line=line, unknown_key=guess)
    return Problem(message=_message(details), path=place, line=line)


def _manifest_path(loc: KeyPath) -> KeyPath:
    path: KeyPath = ()
    for part in loc:
        if path and path[-1] == PEAK_MEMORY and isinstance(part, int):
            path = (*path[:-1], f"{PEAK_MEMORY}{part}")
        elif path and path[-1] == METRICS:
            path = (*path[:-1], part)
        # pydantic's marker for an error in the key of a dict, not in its value
        elif part != "[key]":
            path = (*path, part)
    return path


def _without_lone_index(path: KeyPath, lines: Mapping[KeyPath, int]) -> KeyPath:
    """`path` without the index 0 of a list that the file abbreviates to its only item."""
    for end, part in enumerate(path):
        if part == 0 and path[:end] in lines and path[: end + 1] not in lines:
            return path[:end] + path[end + 1 :]
    return path


def _message(details: ErrorDetails) -> str:
    context: dict[str, Any] = details.get("ctx", {})
    value = details["input"]
    if details["type"] == "value_error":  # raised by a validator of ours, in our words
        return str(context["error"])
    if details["type"] == "literal_error":
        return _choice(value, _LITERAL.findall(context["expected"]))
    expected = _EXPECTED.get(details["type"])
    if expected is None:
        return f"{one_line(details['msg']).lower()}, not {quote(value)}"
    return f"must be {expected(context)}, not {quote(value)}"


def _choice(value: object, allowed: list[str]) -> str:
    guess = nearest(value, allowed) if isinstance(value, str) else None
    ending = f"; did you mean {quote(guess)}?" if guess else ""
    return f"must be one of {', '.join(allowed)}, not {quote(value)}{ending}"


# models that may also be written as a scalar
_LONG_FORMS = {
    "Target": "a GPU's name or a mapping",
    "InputSpec": "a shape such as 'batch,3,224,224' or a mapping",
    "OnnxOptions": "true, false or a mapping",
    "LogSource": "a path or a mapping with path and format",
}
_EXPECTED: dict[str, Callable[[dict[str, Any]], str]] = {
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
    model: type[BaseModel] = Document
    for part in path:
        if isinstance(part, str):
            # a key of a plain dict, such as the name of a field, has no model of its own
            model = _model_below(model, part) or model
    return [_spelling(model, name) for name in model.model_fields]


def _spelling(model: type[BaseModel], name: str) -> str:
    alias = model.model_fields[name].validation_alias
    return f"{alias}<batch>" if alias == PEAK_MEMORY else str(alias or name)


def _model_below(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    for name, field in model.model_fields.items():
        if _spelling(model, name) == key:
            return _first_model(field.annotation)
    return None


def _first_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_first_model(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model is not None), None)
