"""Manifest keys `logs` and `log_options`: where training logs are and how to show them."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from reportgen.manifest.errors import quote
from reportgen.manifest.fields import (
    Line,
    Number,
    OneOrMany,
    Positive,
    Value,
    existing_path,
    reading_folder,
)

LogFormat = Literal[
    "tensorboard",
    "visdom",
    "visdom client log",
    "csv",
    "hf trainer state",
    "json lines",
    "trackio",
    "mlflow",
    "mlflow folder",
]
MetricDirection = Literal["lower", "higher", "none"]
Channels = Annotated[tuple[Number, ...], Field(min_length=1, max_length=4), OneOrMany()]


class LogSource(Value):
    """A file, a folder or a glob of training logs: a path, or a path with a format.

    Attributes:
        path: absolute; globs (`*`, `?`, `[...]`) must match something when the manifest is read.
        text: the path as written in the manifest, relative to its folder; shown in reports, equal
            on every machine.
    """

    path: str
    """A log file, a folder of them, or a glob such as runs/*/."""
    format: LogFormat | None = None
    """Format of the log; detected from its content if omitted."""
    text: str = ""

    @model_validator(mode="before")
    @classmethod
    def _read_path(cls, data: object, info: ValidationInfo) -> object:
        folder = reading_folder(info)
        if folder is None:
            return data
        data = {"path": data} if isinstance(data, str) else data
        if not isinstance(data, dict) or "path" not in data:
            return data
        if "text" in data:
            raise ValueError("unknown key 'text'; known keys: path, format")
        return {
            **data,
            "path": _log_path(data["path"], folder),
            "text": _label(data["path"], folder),
        }

    def matches(self) -> list[Path]:
        """The files and folders that match `path` now, sorted by name."""
        if Path(self.path).exists():
            return [Path(self.path)]
        return [Path(found) for found in sorted(glob.glob(self.path))]  # noqa: PTH207 - absolute


def _log_path(text: object, folder: Path) -> str:
    if not isinstance(text, str) or not text:
        raise ValueError(f"must be a path, not {quote(text)}")
    # a folder may be called run[1]
    if glob.has_magic(text) and not (folder / text).exists():
        # pathlib drops a final slash, with which a glob matches folders only
        pattern = str((folder / text).absolute()) + ("/" if text.endswith("/") else "")
        if next(glob.iglob(pattern), None) is None:  # noqa: PTH207 - the pattern is absolute
            raise ValueError(f"nothing matches {quote(text)}")
        return pattern
    path = folder / text
    # existing_path would say that there is no file, though `ls` lists it
    if path.is_symlink() and not path.exists():
        raise ValueError(f"{quote(text)} is a broken link")
    return str(existing_path(text, folder, folders=True))


def _label(text: object, folder: Path) -> object:
    """A path relative to the manifest's folder; only the name of an absolute path elsewhere."""
    if not isinstance(text, str) or not Path(text).is_absolute():
        return text
    path = Path(text)
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def _as_list(data: object, info: ValidationInfo) -> object:
    """Convert one path, or a mapping from formats to paths, to a list of logs."""
    if reading_folder(info) is None or isinstance(data, list):
        return data
    if not isinstance(data, dict) or "path" in data:
        return [data]
    if unknown := [key for key in data if key not in ("tensorboard", "visdom")]:
        raise ValueError(
            f"unknown key {quote(unknown[0])}; write a path, a list of paths, "
            "{path: ..., format: ...} or {tensorboard: ..., visdom: ...}"
        )
    return [{"path": path, "format": name} for name, path in data.items()]


Logs = Annotated[tuple[LogSource, ...], BeforeValidator(_as_list)]


class ReferenceLine(Value):
    """A horizontal line in the plots of a metric: a baseline, chance level, a budget."""

    metric: Line
    """Tag of the metric in the log."""
    value: Number
    """Value of the metric at the line."""
    label: Line
    """Text beside the line, such as chance."""


class StepMark(Value):
    """A vertical line in every plot: a schedule change, a checkpoint."""

    step: Number
    """Step of the line."""
    label: Line
    """Text beside the line, such as warm-up ends."""


class LogOptions(Value):
    """How training logs are plotted and diagnosed."""

    x: Line = "step"
    """Horizontal axis: step, epoch, relative time, wall time, order, or the tag of a metric."""
    planned_steps: Positive | None = None
    """Planned number of training steps; if omitted, the number in the log, if any."""
    reference_lines: tuple[ReferenceLine, ...] = ()
    """Horizontal lines in the plots of a metric."""
    marks: tuple[StepMark, ...] = ()
    """Vertical lines in every plot."""
    ranges: dict[str, tuple[Number | None, Number | None]] = Field(default_factory=dict)
    """Valid range of a metric, [lowest, highest], null for no bound: {val/acc: [0, 1]}."""
    directions: dict[str, MetricDirection] = Field(default_factory=dict)
    """Whether lower or higher values are better, or none; overrides the tag: {gap: higher}."""
    average: Annotated[tuple[Line, ...], OneOrMany()] = ()
    """Runs to show as a mean with a min-max band, as globs of run names: seed_*."""
    mean: Channels | None = None
    """Mean per channel that logged images were normalized with; undone before they are shown."""
    std: Channels | None = None
    """Standard deviation per channel that logged images were normalized with."""

    @model_validator(mode="after")
    def _check(self) -> LogOptions:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std must be given together")
        for metric, (low, high) in self.ranges.items():
            if low is not None and high is not None and low > high:
                raise ValueError(
                    f"the range of {quote(metric)} must be [lowest, highest], not [{low}, {high}]"
                )
        return self
