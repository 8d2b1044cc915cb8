"""What a report written earlier left in the folder: the files of models that are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reportgen.report import Report

_OWN = ("index.html", "layers.csv", "summary.txt", "model.onnx")
_DRAWINGS = ("svg",)


def stale_files(output: Path, report: Report) -> tuple[str, ...]:
    """Files below `output` of models that its `report.json` names and `report` does not.

    Only files that reportgen itself writes are meant; a file of another name is left alone.
    """
    names = {model.name for model in report.models}
    gone = [name for name in _models_of(output / "report.json") if name not in names]
    return tuple(file for name in gone for file in _files_of(output, name))


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
    return [path.relative_to(output).as_posix() for path in (*own, *drawings)]
