"""The points of a curve: every one from its CSV file, or the decimated ones of report.json."""

from __future__ import annotations

import csv
import math
from array import array
from dataclasses import dataclass, field
from pathlib import Path

from reportgen.errors import PublishError
from reportgen.publish.contents import Curve, ModelContents


def _doubles() -> array[float]:
    return array("d")


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePoints:
    """The points of one tag of one run, in three arrays of equal length.

    Attributes:
        wall_times: seconds since 1970, NaN where the log has none.
        complete: whether they are all that were logged.
    """

    steps: array[float] = field(default_factory=_doubles)
    wall_times: array[float] = field(default_factory=_doubles)
    values: array[float] = field(default_factory=_doubles)
    complete: bool = True

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(slots=True)
class CurveFiles:
    """Reads the CSV files of one model, each once: a file holds many curves."""

    model: ModelContents
    _files: dict[Path, dict[tuple[str, str], CurvePoints]] = field(default_factory=dict)

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
                return points
        return decimated(curve)


def decimated(curve: Curve) -> CurvePoints:
    """The points in report.json; non-finite values are NaN, as report.json has null for all."""
    count = min(len(curve.steps), len(curve.values))
    times = curve.times if len(curve.times) == len(curve.steps) else [math.nan] * count
    return CurvePoints(
        steps=array("d", curve.steps[:count]),
        wall_times=array("d", times[:count]),
        values=array("d", (math.nan if v is None else v for v in curve.values[:count])),
        complete=False,
    )


def _read_csv(path: Path) -> dict[tuple[str, str], CurvePoints]:
    found: dict[tuple[str, str], CurvePoints] = {}
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.reader(file)
        next(rows, None)
        try:
            for run, tag, step, time, value in rows:
                points = found.get((run, tag))
                if points is None:
                    points = found[run, tag] = CurvePoints()
                points.steps.append(float(step))
                points.wall_times.append(float(time or "nan"))
                points.values.append(float(value))
        except (ValueError, csv.Error) as error:
            raise PublishError(
                f"{path}, line {rows.line_num}: expected run,tag,step,wall_time,value ({error})",
                hint="build the report again",
            ) from error
    return found
