"""Files of the previous report that the new report does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_PAGE = "index.html"
_REPORT_FILES = (
    _PAGE,
    "report.pdf",
    "summary.md",
    "comparison.json",
    "report.sarif",
    "report.junit.xml",
    "shard.json",
)
# Fixed names: report.json may be damaged, and its paths must not delete files of the user.
_MODEL_FILES = (_PAGE, "layers.csv", "summary.txt", "model.onnx", "model.onnx.data", "live.js")

_DRAWINGS = (".svg", ".pdf")


def stale_files(output: Path, *, keep_pdf: bool) -> tuple[str, ...]:
    """Files to delete in `output`, relative to it, unless the new report writes them again.

    That is every file that the previous report wrote: pages in a format that is not requested this
    time would show other figures than the new `report.json`, and a `model.onnx` must not stay
    beside a report whose export failed. Only file names that reportgen writes are listed.
    """
    names = models_of(output / "report.json")
    if names is None:
        return ()
    files = [file for file in _REPORT_FILES if (output / file).is_file()]
    if keep_pdf:
        files = [file for file in files if file != "report.pdf"]
    return (*files, *(file for name in names for file in _files_of(output, name)))


def foreign_file(output: Path) -> Path | None:
    """A file in `output` that a report would replace, and that reportgen did not write."""
    if models_of(output / "report.json") is not None:
        return None
    for name in ("report.json", *_REPORT_FILES):
        path = output / name
        # A build that was killed while it wrote its files leaves some without report.json.
        if path.is_file() and b"reportgen" not in path.read_bytes():
            return path
    return None


def models_of(path: Path) -> list[str] | None:
    """Model names in a `report.json`; None if the file is missing or invalid."""
    try:
        data: Any = json.loads(path.read_bytes())
        names = [model["name"] for model in data["models"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return [name for name in names if isinstance(name, str) and is_folder_name(name)]


def is_folder_name(name: str) -> bool:
    """Whether `name` is the name of a single folder, without slashes and not `.` or `..`."""
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\\0")


def _files_of(output: Path, name: str) -> list[str]:
    home = output / "models" / name
    if home.is_symlink() or not home.is_dir():  # a symlink may lead to files of the user
        return []
    files = [home / file for file in _MODEL_FILES if (home / file).is_file()]
    # the printed ones are in the folder of a shard only
    drawings = sorted(path for path in (home / "graphs").glob("*.*") if path.suffix in _DRAWINGS)
    training = [path for path in sorted((home / "training").rglob("*")) if path.is_file()]
    return [path.relative_to(output).as_posix() for path in (*files, *drawings, *training)]
