"""The user's own Python files that loading a model imported."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
_LIBRARIES = tuple(
    Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "purelib", "platlib")
)


def imported_code() -> tuple[Path, ...]:
    """Files of all imported modules but those of reportgen and of installed libraries, sorted."""
    files = {
        Path(file).resolve()
        for module in list(sys.modules.values())
        if isinstance(file := getattr(module, "__file__", None), str) and file.endswith(".py")
    }
    libraries = (_PACKAGE.resolve(), *_LIBRARIES)
    return tuple(sorted(file for file in files if not any(map(file.is_relative_to, libraries))))
