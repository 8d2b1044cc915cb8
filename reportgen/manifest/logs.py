"""Where the logs of a training are, and how its curves are to be shown."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from reportgen.manifest.fields import (
    Line,
    Number,
    OneOrMany,
    Positive,
    Value,
    existing_path,
    reading_folder,
)
from reportgen.manifest.wording import quote

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
    """A file, a folder or a glob of training logs: its path alone, or a path with a format.

    Attributes:
        path: absolute; may hold `*`, `?` and `[...]`, which match at least one file when read.
        text: the path as written; what a report shows, for it is the same on every machine.
    """

    path: str
    """A log file, a folder of them, or a glob such as runs/*/."""
    format: LogFormat | None = None
    """How the file is written; found out from its content when left out."""
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
            raise ValueError("unknown key 'text'; known are path, format")
        return {**data, "path": _log_path(data["path"], folder), "text": data["path"]}

    def matches(self) -> list[Path]:
        """The files and folders that `path` names now, in the order of their names."""
        if Path(self.path).exists():
            return [Path(self.path)]
        return [Path(found) for found in sorted(glob.glob(self.path))]  # noqa: PTH207 - absolute


def _log_path(text: object, folder: Path) -> str:
    if not isinstance(text, str) or not text:
        raise ValueError(f"must be a path, not {quote(text)}")
    if glob.has_magic(text) and not (folder / text).exists():
        pattern = str((folder / text).absolute()) + ("/" if text.endswith("/") else "")
        if next(glob.iglob(pattern), None) is None:  # noqa: PTH207 - the pattern is absolute
            raise ValueError(f"nothing matches {quote(text)}")
        return pattern
    return str(existing_path(text, folder, folders=True))


def _as_list(data: object, info: ValidationInfo) -> object:
    """One path, a list of logs, or a mapping from formats to paths, as a list."""
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
    """A horizontal line across the plots of a metric: a baseline, chance, a budget."""

    metric: Line
    """The tag of the metric, as the log has it."""
    value: Number
    """Where the line is."""
    label: Line
    """What it means."""


class StepMark(Value):
    """A vertical line in every plot: a change of the schedule, a checkpoint."""

    step: Number
    """Where the mark is, in steps."""
    label: Line
    """What happened there."""


class LogOptions(Value):
    """How training logs are read and shown."""

    x: Line = "step"
    """Horizontal axis: step, epoch, relative time, wall time, order, or the tag of a metric."""
    planned_steps: Positive | None = None
    """How many steps the training was to take; taken from the log where it says so."""
    reference_lines: tuple[ReferenceLine, ...] = ()
    """Horizontal lines in the plots of a metric."""
    marks: tuple[StepMark, ...] = ()
    """Vertical lines in every plot."""
    ranges: dict[str, tuple[Number | None, Number | None]] = Field(default_factory=dict)
    """Valid range of a metric, [lowest, highest], null for none: {val/acc: [0, 1]}."""
    directions: dict[str, MetricDirection] = Field(default_factory=dict)
    """Whether lower or higher is better, where the tag does not say: {score_x: higher}."""
    average: Annotated[tuple[Line, ...], OneOrMany()] = ()
    """Runs to show as a mean with a band, by a glob of their names: seed_*."""
    mean: Channels | None = None
    """Mean that logged images were normalized with, per channel; shows them in true colors."""
    std: Channels | None = None
    """Standard deviation that logged images were normalized with, per channel."""

    @model_validator(mode="after")
    def _check(self) -> LogOptions:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std are given together")
        for metric, (low, high) in self.ranges.items():
            if low is not None and high is not None and low > high:
                raise ValueError(f"the range of {quote(metric)} ends before it begins")
        return self
