"""Reads from a report's folder what is published of it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from reportgen.errors import PublishError
from reportgen.metrics import Metric

_FORMAT = 1
_LONGEST_SLUG = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class Headline:
    """One section's result in a sentence."""

    section: str
    sentence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a rule reports; `ignored` is the manifest's reason to ignore it."""

    code: str
    severity: str
    where: str
    message: str
    advice: str = ""
    ignored: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One tag of one run as report.json has it: decimated; `csv` has every point."""

    steps: tuple[float, ...]
    values: tuple[float | None, ...]
    times: tuple[float, ...] = ()
    csv: str = ""
    plot: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A logged picture; `file` is relative to the model's folder."""

    tag: str
    step: float
    file: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A logged table of text."""

    tag: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of the training logs."""

    name: str
    summary: str = ""
    scalars: dict[str, Curve] = field(default_factory=dict)
    images: tuple[Image, ...] = ()
    tables: tuple[Table, ...] = ()
    hyperparameters: dict[str, str | float | int | bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """A plot that several curves share, by `Curve.plot`."""

    key: str
    title: str
    x: str = "step"


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
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
    runs: tuple[Run, ...]
    plots: tuple[Plot, ...]
    graphs: tuple[Graph, ...]

    def file(self, name: str) -> Path | None:
        """The path of a file of this model; None if it does not exist or lies elsewhere."""
        path = (self.folder / name).resolve()
        inside = self.folder.resolve() in path.parents
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


# The form of report.json ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Training:
    runs: tuple[Run, ...] = ()
    plots: tuple[Plot, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _TrainingOutcome:
    result: _Training = field(default_factory=_Training)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drawing:
    svg: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Graphs:
    modules: _Drawing = field(default_factory=_Drawing)
    autograd: _Drawing = field(default_factory=_Drawing)
    onnx: _Drawing = field(default_factory=_Drawing)


@dataclass(frozen=True, kw_only=True, slots=True)
class _GraphsOutcome:
    result: _Graphs = field(default_factory=_Graphs)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sections:
    training: _TrainingOutcome = field(default_factory=_TrainingOutcome)
    graphs: _GraphsOutcome = field(default_factory=_GraphsOutcome)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Model:
    name: str
    verdict: str
    headlines: tuple[Headline, ...] = ()
    metrics: tuple[Metric, ...] = ()
    findings: tuple[Finding, ...] = ()
    sections: _Sections = field(default_factory=_Sections)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Timings:
    built: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Report:
    title: str
    models: tuple[_Model, ...]
    timings: _Timings = field(default_factory=_Timings)


def _parse(file: Path) -> _Report:
    data = _load(file)
    found = data.get("format") if isinstance(data, dict) else None
    if found != _FORMAT:
        raise PublishError(
            f"{file}: expected format {_FORMAT}, got {found!r}",
            hint="build the report again with this version of reportgen",
        )
    try:
        return TypeAdapter(_Report).validate_python(data)
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


def _build_time(report: _Report, file: Path) -> datetime:
    """When the report was built; a report without timings was built when its file was written."""
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


def _model(model: _Model, report_dir: Path) -> ModelContents:
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


def _graphs(graphs: _Graphs) -> Iterator[Graph]:
    for kind in ("modules", "autograd", "onnx"):
        svg: str | None = getattr(graphs, kind).svg
        if svg:
            yield Graph(kind=kind, svg=svg)
