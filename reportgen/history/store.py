"""Append-only store: a folder of immutable JSON files, each written whole or not at all.

Why files and not SQLite in WAL mode: the history of CI jobs is moved around. WAL does not work on
network file systems, a copy without the `-wal` file lacks the last nights, and two databases
cannot be merged. Files need no lock between writers, are merged by copying them into one folder,
and damage to one costs one night.

The name of a file contains the hash of its content: adding the same content twice has no effect,
and a damaged file is recognized and left out.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from reportgen.errors import HistoryError
from reportgen.history.night import stamp

T = TypeVar("T")

_DIGEST = 16  # hex digits in the name
_ABANDONED_SECONDS = 3600.0  # no writer needs longer for one file


@dataclass(frozen=True, kw_only=True, slots=True)
class Records(Generic[T]):
    """The content of a folder, the oldest first, and the names of files that cannot be read."""

    items: tuple[T, ...]
    damaged: tuple[str, ...] = ()


def append_record(folder: Path, moment: datetime, data: dict[str, Any]) -> Path:
    """Write `data` to a new file in `folder`; it survives a crash once this has returned.

    Raises:
        HistoryError: the folder is not writable, or the disk is full.
    """
    content = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    target = folder / f"{stamp(moment)}-{_digest(content)}.json"
    unfinished = folder / f".{os.getpid()}-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync_folder(folder)
    except OSError as error:
        raise HistoryError(
            f"cannot write the history to {folder}: {(error.strerror or str(error)).lower()}",
            hint="free disk space, or choose a writable folder with --history-dir",
        ) from error
    return target


def read_records(folder: Path, parse: Callable[[Any], T]) -> Records[T]:
    """All files of `folder`, by time; a missing folder is empty."""
    items: list[T] = []
    damaged: list[str] = []
    for path in record_files(folder):
        try:
            content = path.read_bytes()
            if _digest(content) != path.stem.rpartition("-")[2]:
                raise ValueError("the content does not match its hash")
            items.append(parse(json.loads(content)))
        except FileNotFoundError:
            continue  # pruned after the folder was listed
        except (OSError, ValueError, KeyError, TypeError):
            damaged.append(path.name)
    return Records(items=tuple(items), damaged=tuple(damaged))


def record_files(folder: Path) -> list[Path]:
    """The files of `folder` in order of time."""
    return sorted(folder.glob("[0-9]*-*.json"))


def delete_unfinished(folder: Path) -> None:
    """Delete files and folders that writers left behind when they were killed."""
    # By age, since the process may run on another machine that shares the folder.
    for path in folder.glob(".[0-9]*-*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGEST]


def _sync_folder(folder: Path) -> None:
    # fsync of a file does not make its name durable; some file systems cannot sync folders.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
