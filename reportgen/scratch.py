"""Temporary folders that are deleted even if the process that made them was killed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = "reportgen-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder in the system's folder for temporary files, deleted at the end.

    Those of processes that were killed are deleted first.
    """
    root = Path(tempfile.gettempdir())
    for leftover in root.glob(f"{_PREFIX}[0-9]*-*"):
        if not process_exists(leftover.name.split("-")[1]):
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True
    ) as folder:
        yield Path(folder)


def process_exists(process_id: str) -> bool:
    """Whether a process with this id runs on this machine; False for what is not an id."""
    with suppress(PermissionError):  # it exists and belongs to another user
        try:
            os.kill(int(process_id), 0)  # signal 0 only checks
        except (ProcessLookupError, ValueError, OverflowError):
            return False
    return True
