"""Files of the previous report that the new report does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reportgen.report import Report

_PAGE = "index.html"
# Fixed names: report.json may be damaged, and its paths must not delete files of the user.
_MODEL_FILES = (_PAGE, "layers.csv", "summary.txt", "model.onnx", "model.onnx.data", "live.js")


def stale_files(output: Path, report: Report) -> tuple[str, ...]:
    """Files to delete in `output`, relative to it, unless `report` writes them again.

    For each model in the previous `report.json`: all files if the model was removed, otherwise all
    except its page, which is kept if the html format is not requested. A `model.onnx` must not
    stay beside a report whose export failed. Only file names that reportgen writes are listed.
    """
    names = {model.name for model in report.models}
    return tuple(
        file
        for name in _models_of(output / "report.json")
        for file in _files_of(output, name)
        if name not in names or Path(file).name != _PAGE
    )


def _models_of(path: Path) -> list[str]:
    """Model names in a `report.json`; empty if the file is missing or invalid."""
    try:
        data: Any = json.loads(path.read_bytes())
        names = [model["name"] for model in data["models"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str) and is_folder_name(name)]


def is_folder_name(name: str) -> bool:
    """Whether `name` is the name of a single folder, without slashes and not `.` or `..`."""
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\\0")


def _files_of(output: Path, name: str) -> list[str]:
    home = output / "models" / name
    if home.is_symlink() or not home.is_dir():  # a symlink may lead to files of the user
        return []
    files = [home / file for file in _MODEL_FILES if (home / file).is_file()]
    drawings = sorted((home / "graphs").glob("*.svg"))
    training = [path for path in sorted((home / "training").rglob("*")) if path.is_file()]
    return [path.relative_to(output).as_posix() for path in (*files, *drawings, *training)]
