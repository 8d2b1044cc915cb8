"""Formats of training logs: detected by content, found below a folder, opened with their reader."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from reportgen.errors import LogError
from reportgen.training_logs.file_format import detect_format, unsupported_store
from reportgen.training_logs.log_run import LogReader
from reportgen.training_logs.log_search import Found, find_logs

__all__ = [
    "FORMATS",
    "Found",
    "detect_format",
    "find_logs",
    "open_reader",
    "unsupported_store",
]

_READERS = {
    "tensorboard": ("tensorboard", "EventFolderReader"),
    "visdom": ("visdom", "VisdomReader"),
    "visdom client log": ("visdom_client_log", "VisdomClientLogReader"),
    "csv": ("csv_log", "CsvReader"),
    "hf trainer state": ("trainer_state", "TrainerStateReader"),
    "json lines": ("json_lines", "JsonLinesReader"),
    "trackio": ("trackio", "TrackioReader"),
    "mlflow": ("mlflow", "MlflowReader"),
    "mlflow folder": ("mlflow", "MlflowFolderReader"),
}
"""Format -> module and class of its reader, which is imported when a log needs it."""
FORMATS = tuple(_READERS)
"""Names of formats as the manifest writes them."""


def open_reader(path: Path, format_name: str, name: str) -> LogReader:
    """The reader of one log.

    Args:
        path: a file; a folder for "tensorboard" and "mlflow folder".
        format_name: one of `FORMATS`.
        name: of the run, or before the names of several runs; "" for none.

    Raises:
        LogError: there is no such format.
    """
    if format_name not in _READERS:
        raise LogError(
            f"{path}: unknown log format {format_name!r}", hint=f"use one of {', '.join(FORMATS)}"
        )
    module, class_name = _READERS[format_name]
    reader = getattr(import_module(f"reportgen.training_logs.{module}"), class_name)
    # Event files name their runs by their folders.
    opened: LogReader = reader(path) if format_name == "tensorboard" else reader(path, name)
    return opened
