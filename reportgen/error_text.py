"""Exceptions as one line of text, with the location in the user's code."""

from __future__ import annotations

import re
import sys
import sysconfig
import traceback
from pathlib import Path

from reportgen.visible_text import visible

_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")
# an absolute path or its URL, but no part of an address such as http://pytorch.org/docs
_FOLDERS = re.compile(r"(?<![\w/.])(?:file://)?(?:/[^\s/:'\"]+)+/([^\s/:'\"]+)")
_PACKAGE = str(Path(__file__).parent)
# torch raises a RuntimeError, not a MemoryError, when its CPU allocator fails.
_OUT_OF_MEMORY = (
    "can't allocate memory",  # torch
    "not enough memory",  # torch on Windows
    "bad_alloc",  # C++
    "cannot allocate memory",  # the text of ENOMEM
)


LIMIT_EVENT = "reportgen.limit"
"""The audit event of a limit on time or memory that was reached; its argument says which."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` or one of its causes is a failed allocation."""
    if isinstance(error, MemoryError) or says_out_of_memory(str(error)):
        sys.audit(LIMIT_EVENT, "memory")  # the result depends on the machine: it is not cached
        return True
    cause = error.__cause__
    return cause is not None and is_out_of_memory(cause)


def says_out_of_memory(text: str) -> bool:
    """Whether `text` quotes a failed allocation."""
    lower = text.lower()
    return any(phrase in lower for phrase in _OUT_OF_MEMORY)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first non-empty line of the error message, at most `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown_text(lines[0] if lines else "no message", limit)


def shown_text(text: str, limit: int = 2000) -> str:
    """One line of an error, without folders and addresses of this machine, cut between words."""
    text = _ADDRESS.sub("", _COLOR.sub("", text))
    text = visible(without_folders(text))
    if len(text) <= limit:
        return text
    cut = text[: limit - 2]
    return f"{cut.rpartition(' ')[0] or cut} …"


def without_folders(text: str) -> str:
    """`text` with the name alone of each absolute path."""
    return _FOLDERS.sub(r"\1", text)


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
