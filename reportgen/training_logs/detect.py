"""Formats of training logs: detected by content, found below a folder, opened with their reader."""

from __future__ import annotations

from collections.abc import Callable
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

FORMATS = (
    "tensorboard",
    "visdom",
    "visdom client log",
    "csv",
    "hf trainer state",
    "json lines",
    "trackio",
    "mlflow",
    "mlflow folder",
)
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
    opener = _READERS.get(format_name)
    if opener is None:
        raise LogError(
            f"{path}: unknown log format {format_name!r}", hint=f"use one of {', '.join(FORMATS)}"
        )
    return opener(path, name)


def _open_tensorboard(path: Path, _name: str) -> LogReader:
    from reportgen.training_logs.tensorboard import EventFolderReader

    return EventFolderReader(path)


def _open_visdom(path: Path, name: str) -> LogReader:
    from reportgen.training_logs.visdom import VisdomReader

    return VisdomReader(path, name)


def _open_client_log(path: Path, name: str) -> LogReader:
    from reportgen.training_logs.visdom_client_log import VisdomClientLogReader

    return VisdomClientLogReader(path, name)


def _open_csv(path: Path, name: str) -> LogReader:
    from reportgen.training_logs.csv_log import CsvReader

    return CsvReader(path, name)


def _open_trainer_state(path: Path, name: str) -> LogReader:
    from reportgen.training_logs.trainer_state import TrainerStateReader

    return TrainerStateReader(path, name)


def _open_json_lines(path: Path, name: str) -> LogReader:
    from reportgen.training_logs.json_lines import JsonLinesReader

    return JsonLinesReader(path, name)


def _open_trackio(path: Path, name: str) -> LogReader:
    from reportgen.training_logs.trackio import TrackioReader

    return TrackioReader(path, name)


def _open_mlflow(path: Path, name: str) -> LogReader:
    from reportgen.training_logs.mlflow import MlflowReader

    return MlflowReader(path, name)


def _open_mlflow_folder(path: Path, name: str) -> LogReader:
    from reportgen.training_logs.mlflow import MlflowFolderReader

    return MlflowFolderReader(path, name)


_READERS: dict[str, Callable[[Path, str], LogReader]] = dict(
    zip(
        FORMATS,
        (
            _open_tensorboard,
            _open_visdom,
            _open_client_log,
            _open_csv,
            _open_trainer_state,
            _open_json_lines,
            _open_trackio,
            _open_mlflow,
            _open_mlflow_folder,
        ),
        strict=True,
    )
)
