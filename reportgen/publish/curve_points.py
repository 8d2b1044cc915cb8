"""The points of a curve: every one from its CSV file, or the decimated ones of report.json."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from reportgen.errors import PublishError
from reportgen.publish.contents import Curve, ModelContents


class CurvePoint(NamedTuple):
    """One point; `wall_time` in seconds since 1970, NaN where the log has none."""

    step: float
    wall_time: float
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoints:
    """The points of one tag of one run; `complete` says whether they are all that were logged."""

    points: Sequence[CurvePoint]
    complete: bool


@dataclass(slots=True)
class CurveFiles:
    """Reads the CSV files of one model, each once."""

    model: ModelContents
    _files: dict[Path, dict[tuple[str, str], list[CurvePoint]]] = field(default_factory=dict)

    def read(self, run: str, tag: str, curve: Curve) -> CurvePoints:
        """The points of `curve`.

        Raises:
            PublishError: the CSV file is damaged.
        """
        path = self.model.file(curve.csv)
        if path is not None:
            if path not in self._files:
                self._files[path] = _read_csv(path)
            if points := self._files[path].get((run, tag)):
                return CurvePoints(points=points, complete=True)
        return CurvePoints(points=list(decimated(curve)), complete=False)


def decimated(curve: Curve) -> Iterator[CurvePoint]:
    """The points in report.json; a value that is not finite is NaN, as JSON cannot say which."""
    times = curve.times if len(curve.times) == len(curve.steps) else [math.nan] * len(curve.steps)
    for step, time, value in zip(curve.steps, times, curve.values, strict=False):
        yield CurvePoint(step, time, math.nan if value is None else value)


def _read_csv(path: Path) -> dict[tuple[str, str], list[CurvePoint]]:
    found: dict[tuple[str, str], list[CurvePoint]] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        try:
            for run, tag, step, time, value in rows:
                point = CurvePoint(float(step), float(time or "nan"), float(value))
                found.setdefault((run, tag), []).append(point)
        except (ValueError, csv.Error) as error:
            raise PublishError(
                f"{path}, line {rows.line_num}: expected run,tag,step,wall_time,value ({error})",
                hint="build the report again",
            ) from error
    return found
