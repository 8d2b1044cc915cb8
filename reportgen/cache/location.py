"""Where the cache is, and how large it may grow."""

from __future__ import annotations

import os
from pathlib import Path

from reportgen.errors import ReportgenError
from reportgen.units import parse_bytes

FOLDER = ".reportgen-cache"
SIZE_VARIABLE = "REPORTGEN_CACHE_SIZE"
_DEFAULT_SIZE = "5 GiB"


def cache_folder(output: Path) -> Path:
    """The cache for reports in `output`: `$XDG_CACHE_HOME/reportgen`, else beside `output`."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    # The specification says that a relative path is to be ignored.
    return Path(home) / "reportgen" if Path(home).is_absolute() else output.parent / FOLDER


def size_limit() -> int:
    """The largest size of the cache in bytes: `$REPORTGEN_CACHE_SIZE`, 5 GiB by default.

    Raises:
        ReportgenError: the variable is not a size.
    """
    text = os.environ.get(SIZE_VARIABLE) or _DEFAULT_SIZE
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise ReportgenError(
            f"{SIZE_VARIABLE}: expected a size such as {_DEFAULT_SIZE}, got {text!r}",
            hint="correct the variable, or unset it",
        ) from error
