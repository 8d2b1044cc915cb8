"""An exception in plain words: what went wrong, where in the user's own code, what to do."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

_LIBRARIES = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib", "platlib"))
_OWN = str(Path(__file__).parent)
_NO_MEMORY = ("can't allocate memory", "not enough memory", "bad_alloc", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error`, or what caused it, says that an allocation failed."""
    text = str(error).lower()
    if isinstance(error, MemoryError) or any(phrase in text for phrase in _NO_MEMORY):
        return True
    cause = error.__cause__
    return cause is not None and is_out_of_memory(cause)


def one_line(error: BaseException, limit: int = 300) -> str:
    """The first telling line of the error's text, cut at `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else "no message"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def user_frame(error: BaseException) -> str:
    """`file.py:12` of the innermost frame that is neither ours nor a library's; "" for none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if place := user_location(frame.filename, frame.lineno):
            return place
    return ""


def user_location(path: str, line: int | None) -> str:
    """`file.py:12`; "" where the file is ours or a library's."""
    return "" if path.startswith(("<", _OWN, *_LIBRARIES)) else f"{Path(path).name}:{line}"
