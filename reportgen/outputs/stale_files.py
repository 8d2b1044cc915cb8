"""What a report written earlier left in the folder: files that the report of today has not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reportgen.report import Report

_PAGE = "index.html"
_OWN = (_PAGE, "layers.csv", "summary.txt", "model.onnx", "model.onnx.data", "live.js")
_DRAWINGS = ("svg",)


def stale_files(output: Path, report: Report) -> tuple[str, ...]:
    """Files below `output` of models that its `report.json` names and `report` may not have.

    Of a model that is gone, all; of one that stays, all but its page, which is written only where
    its format is asked for: a `model.onnx` beside a report that says its export failed is a trap.
    Those that `report` writes anew are among them. Only files that reportgen itself writes are
    meant; a file of another name is left alone.
    """
    names = {model.name for model in report.models}
    return tuple(
        file
        for name in _models_of(output / "report.json")
        for file in _files_of(output, name)
        if name not in names or Path(file).name != _PAGE
    )


def _models_of(path: Path) -> list[str]:
    """The names in a `report.json`; none where it is missing, foreign or broken."""
    try:
        data: Any = json.loads(path.read_bytes())
        names = [model["name"] for model in data["models"]]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str) and _is_plain(name)]


def _is_plain(name: str) -> bool:
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\\0")


def _files_of(output: Path, name: str) -> list[str]:
    home = output / "models" / name
    if home.is_symlink() or not home.is_dir():
        return []
    own = [home / file for file in _OWN if (home / file).is_file()]
    drawings = [path for kind in _DRAWINGS for path in sorted((home / "graphs").glob(f"*.{kind}"))]
    training = [path for path in sorted((home / "training").rglob("*")) if path.is_file()]
    return [path.relative_to(output).as_posix() for path in (*own, *drawings, *training)]
