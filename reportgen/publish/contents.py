"""Reads from a report's folder what is published of it."""

from __future__ import annotations

import csv
import json
import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reportgen.errors import PublishError
from reportgen.findings import Finding
from reportgen.metrics import Metric
from reportgen.report import Headline

_FORMAT = 1
_LONGEST_SLUG = 80  # file systems hold 255 bytes, 3 for a letter of Korean


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCurve:
    """One tag of one run as report.json has it: decimated; `csv` has every point."""

    steps: tuple[float, ...]
    values: tuple[float | None, ...]
    times: tuple[float, ...] = ()
    csv: str = ""
    plot: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedImage:
    """A logged picture; `file` is relative to the model's folder."""

    tag: str
    step: float
    file: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedTable:
    """A logged table of text."""

    tag: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRun:
    """One run of the training logs."""

    name: str
    summary: str = ""
    scalars: dict[str, PublishedCurve] = field(default_factory=dict)
    images: tuple[PublishedImage, ...] = ()
    tables: tuple[PublishedTable, ...] = ()
    hyperparameters: dict[str, str | float | int | bool] = field(default_factory=dict)

    def images_by_tag(self) -> dict[str, list[PublishedImage]]:
        """The pictures of each tag by rising step."""
        by_tag: dict[str, list[PublishedImage]] = {}
        for image in sorted(self.images, key=lambda image: image.step):
            by_tag.setdefault(image.tag, []).append(image)
        return by_tag


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedPlot:
    """A plot that several curves share, by `PublishedCurve.plot`."""

    key: str
    title: str
    x: str = "step"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedGraph:
    """A drawing of the model: its kind (modules, autograd, onnx) and its SVG file."""

    kind: str
    svg: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelContents:
    """What is published of one model; all files are relative to `folder`."""

    name: str
    folder: Path
    verdict: str
    headlines: tuple[Headline, ...]
    metrics: tuple[Metric, ...]  # those with a finite value
    findings: tuple[Finding, ...]
    runs: tuple[PublishedRun, ...]
    plots: tuple[PublishedPlot, ...]
    graphs: tuple[PublishedGraph, ...]

    def file(self, name: str) -> Path | None:
        """The path of a file of this model; None if it does not exist or lies elsewhere."""
        path = (self.folder / name).resolve()
        inside = self.folder.resolve() in path.parents  # report.json may come from elsewhere
        return path if name and inside and path.is_file() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What is published of one report.

    Attributes:
        slug: the title as a name for folders and environments.
        built: when the report was built, in UTC.
    """

    title: str
    slug: str
    built: datetime
    models: tuple[ModelContents, ...]


def read_contents(report_dir: Path) -> Contents:
    """The report in the folder `report_dir`.

    Raises:
        PublishError: there is no report.json, or it is not one that this version reads.
    """
    file = report_dir / "report.json"
    report = _parse(file)
    return Contents(
        title=report.title,
        slug=slug(report.title),
        built=_build_time(report, file),
        models=tuple(_model(model, report_dir) for model in report.models),
    )


def slug(title: str) -> str:
    """`title` in lower case, with a hyphen for everything but letters, digits and `_`."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")[:_LONGEST_SLUG].strip("-") or "report"


# The classes below have the keys of report.json that are published; pydantic ignores all others.


@dataclass(frozen=True, kw_only=True, slots=True)
class _TrainingJson:
    runs: tuple[PublishedRun, ...] = ()
    plots: tuple[PublishedPlot, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _TrainingOutcomeJson:
    result: _TrainingJson = field(default_factory=_TrainingJson)


@dataclass(frozen=True, kw_only=True, slots=True)
class _DrawingJson:
    svg: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _GraphsJson:
    modules: _DrawingJson = field(default_factory=_DrawingJson)
    autograd: _DrawingJson = field(default_factory=_DrawingJson)
    onnx: _DrawingJson = field(default_factory=_DrawingJson)


@dataclass(frozen=True, kw_only=True, slots=True)
class _GraphsOutcomeJson:
    result: _GraphsJson = field(default_factory=_GraphsJson)


@dataclass(frozen=True, kw_only=True, slots=True)
class _SectionsJson:
    training: _TrainingOutcomeJson = field(default_factory=_TrainingOutcomeJson)
    graphs: _GraphsOutcomeJson = field(default_factory=_GraphsOutcomeJson)


@dataclass(frozen=True, kw_only=True, slots=True)
class _ModelJson:
    name: str
    verdict: str
    headlines: tuple[Headline, ...] = ()
    metrics: tuple[Metric, ...] = ()
    findings: tuple[Finding, ...] = ()
    sections: _SectionsJson = field(default_factory=_SectionsJson)


@dataclass(frozen=True, kw_only=True, slots=True)
class _TimingsJson:
    built: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _ReportJson:
    title: str
    models: tuple[_ModelJson, ...]
    timings: _TimingsJson = field(default_factory=_TimingsJson)


def _parse(file: Path) -> _ReportJson:
    data = _load(file)
    found = data.get("format") if isinstance(data, dict) else None
    if found != _FORMAT:
        raise PublishError(
            f"{file}: expected format {_FORMAT}, got {found!r}",
            hint="build the report again with this version of reportgen",
        )
    try:
        return TypeAdapter(_ReportJson).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise PublishError(
            f"{file}: {place}: {first['msg']}", hint="build the report again"
        ) from error


def _load(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise PublishError(
            f"{file.parent}: no report.json",
            hint="name the output folder of `reportgen build`, built with json in --format",
        ) from None
    except OSError as error:
        raise PublishError(
            f"{file}: cannot be read: {error.strerror}",
            hint="name the output folder of `reportgen build`",
        ) from error
    except ValueError as error:
        raise PublishError(
            f"{file}: not valid JSON: {error}", hint="build the report again"
        ) from error


def _build_time(report: _ReportJson, file: Path) -> datetime:
    # A report without timings was built when its file was written.
    if not report.timings.built:
        return datetime.fromtimestamp(int(file.stat().st_mtime), UTC)
    try:
        built = datetime.fromisoformat(report.timings.built)
    except ValueError:
        raise PublishError(
            f"{file}: timings.built: expected an ISO 8601 time, got {report.timings.built!r}",
            hint="build the report again",
        ) from None
    return built.astimezone(UTC) if built.tzinfo else built.replace(tzinfo=UTC)


def _model(model: _ModelJson, report_dir: Path) -> ModelContents:
    return ModelContents(
        name=model.name,
        folder=report_dir / "models" / model.name,
        verdict=model.verdict,
        headlines=model.headlines,
        metrics=tuple(m for m in model.metrics if m.value is not None and math.isfinite(m.value)),
        findings=model.findings,
        runs=model.sections.training.result.runs,
        plots=model.sections.training.result.plots,
        graphs=tuple(_graphs(model.sections.graphs.result)),
    )


def _graphs(graphs: _GraphsJson) -> Iterator[PublishedGraph]:
    for kind in ("modules", "autograd", "onnx"):
        svg: str | None = getattr(graphs, kind).svg
        if svg:
            yield PublishedGraph(kind=kind, svg=svg)


# An array takes 8 bytes for a point, a list of floats 32; logs may have millions of points.
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

    def read(self, run: str, tag: str, curve: PublishedCurve) -> CurvePoints:
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


def decimated(curve: PublishedCurve) -> CurvePoints:
    """The points in report.json; non-finite values are NaN, as report.json has null for all."""
    count = min(len(curve.steps), len(curve.values))
    # Times of another number of points cannot be assigned to them.
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
        next(rows, None)  # the header
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
