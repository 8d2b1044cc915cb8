"""Problems of a manifest, one line each: `file:line: key: message`, and how values are quoted."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from reportgen.errors import ManifestError

KeyPath = tuple[str | int, ...]
"""The keys and indices that lead to a value: `("models", 2, "inputs", 0, "dtype")`."""

_MAX_PROBLEMS = 100  # a file of 1 MiB may have thousands
_MAX_QUOTE = 60
_MAX_GUESS = 80  # difflib takes quadratic time, and names this long are not typing errors
_PLAIN_KEY = re.compile(r"[\w@.+-]{1,60}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One error in a manifest and its location; `line` counts from 1, 0 means the whole file."""

    message: str
    path: KeyPath = ()
    line: int = 0
    unknown_key: str | None = None
    missing_key: str | None = None

    def render(self, file: str) -> str:
        """`file:line: key: message`; line and key are omitted if they are not set."""
        place = f"{file}:{self.line}" if self.line else file
        key = f"{format_path(self.path)}: " if self.path else ""
        return f"{place}: {key}{self.message}"


def format_path(path: KeyPath) -> str:
    """A key path as text: `models[2].inputs[0].dtype`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            key = part if _PLAIN_KEY.fullmatch(part) else quote(part)
            text += f".{key}" if text else key
    return text


def manifest_error(file: Path, problems: Iterable[Problem]) -> ManifestError:
    """All `problems` as one error, sorted by line; at most 100 are listed."""
    ordered = sorted(problems, key=lambda problem: problem.line)
    name = one_line(str(file))
    lines = [problem.render(name) for problem in islice(ordered, _MAX_PROBLEMS)]
    if len(ordered) > _MAX_PROBLEMS:
        lines.append(f"{name}: and {len(ordered) - _MAX_PROBLEMS} more")
    return ManifestError("\n".join(lines))


def line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """The line of the deepest part of `path` that is in the file."""
    return lines[existing_prefix(path, lines)]


def existing_prefix(path: KeyPath, lines: Mapping[KeyPath, int]) -> KeyPath:
    """The longest prefix of `path` that is in the file."""
    while path not in lines:
        path = path[:-1]
    return path


def quote(value: object) -> str:
    """`value` for an error message: one line, truncated, control characters escaped.

    Scalars are written as in YAML (`true`, `null`, `8`), text in quotes, collections by kind.
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    text = str(value) if isinstance(value, int | float) else f"'{one_line(str(value))}'"
    return text if len(text) <= _MAX_QUOTE else f"{text[: _MAX_QUOTE - 2]}…'"


def one_line(text: str) -> str:
    """`text` with everything unprintable escaped, so that it can neither break a line nor hide."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'inputs'?` if one of `known` is similar to `name`, else ""."""
    guess = nearest(name, known)
    return f"; did you mean {quote(guess)}?" if guess else ""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The most similar of `known`, ignoring case; None if none is similar."""
    if len(name) > _MAX_GUESS:
        return None
    by_casefold = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_casefold, n=1)
    return by_casefold[close[0]] if close else None
