"""Exceptions as one line of text, with the location in the user's code."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
_PACKAGE = str(Path(__file__).parent)
# torch raises a RuntimeError, not a MemoryError, when its CPU allocator fails.
_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch
    "not enough memory",  # torch on Windows
    "bad_alloc",  # C++
    "cannot allocate memory",  # the text of ENOMEM
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` or one of its causes is a failed allocation."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(phrase in text for phrase in _OUT_OF_MEMORY):
        return True
    cause = error.__cause__
    return cause is not None and is_out_of_memory(cause)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first non-empty line of the error message, at most `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def user_frame(error: BaseException) -> str:
    """`file.py:12` of the innermost frame in the user's code; "" if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if location := user_location(frame.filename, frame.lineno):
            return location
    return ""


def user_location(path: str, line: int | None) -> str:
    """`file.py:12`; "" if the file belongs to reportgen or an installed library."""
    # "<": generated code, such as "<string>" of dataclasses
    return "" if path.startswith(("<", _PACKAGE, *_LIBRARIES)) else f"{Path(path).name}:{line}"
