"""`LogRun`, the result of every log reader: one per run; it grows while its log is read.

A run holds points in the order of its files. Nothing is sorted, sampled or judged here; resumes,
repeated steps and second attempts are detected later, in `sections.training`.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

UNKNOWN_TIME = math.nan
"""The wall time of a point whose log does not record one."""

Hyperparameter = str | float | int | bool


class Series:
    """The points of one scalar tag, in the order of the log.

    Attributes:
        steps: one per point; a whole number unless the log's axis is not (an epoch of 0.5).
        values: float64; NaN and infinities are points like all others.
        times: seconds since 1970, `UNKNOWN_TIME` where the log has none.
        starts: (index of the first point, session) for each stretch of points of one session,
            in order; `session` is an index into `LogRun.sessions`.
    """

    __slots__ = ("starts", "steps", "times", "values")

    def __init__(self) -> None:
        # Arrays, not lists: a log has a million points, and a float object takes 24 bytes each.
        self.steps = array("d")
        self.values = array("d")
        self.times = array("d")
        self.starts: list[tuple[int, int]] = []

    def append(self, step: float, value: float, time: float, session: int) -> None:
        """Add one point of `session`."""
        if not self.starts or self.starts[-1][1] != session:
            self.starts.append((len(self.values), session))
        self.steps.append(step)
        self.values.append(value)
        self.times.append(time)

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """One process that wrote to a run: one file, or one stretch of a file between restarts.

    Attributes:
        file: the file it wrote, relative to the folder that was read.
        purge_step: the step from which this session replaces what earlier ones wrote
            (TensorBoard's `purge_step`); None where the log does not say.
    """

    file: str
    purge_step: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Payload:
    """The bytes of a picture, read from the log on demand: logs hold gigabytes of pictures.

    Attributes:
        read: returns the encoded picture (PNG, JPEG, GIF, BMP, WebP or SVG).
        size_bytes: how many bytes `read` returns.
    """

    read: Callable[[], bytes]
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedImage:
    """One picture; `width` and `height` in pixels, 0 where the log does not say."""

    tag: str
    step: float
    time: float
    payload: Payload
    width: int = 0
    height: int = 0
    caption: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedHistogram:
    """One histogram: `counts[i]` values lie in `lefts[i] <= x < rights[i]`.

    Empty buckets at both ends are left out. `minimum`, `maximum` and `total` (the sum) are NaN
    where the log does not hold them, or where the data held NaN; `number` counts every value,
    NaN included, so that it may exceed `sum(counts)`.
    """

    tag: str
    step: float
    time: float
    lefts: tuple[float, ...]
    rights: tuple[float, ...]
    counts: tuple[float, ...]
    minimum: float = math.nan
    maximum: float = math.nan
    total: float = math.nan
    number: float = math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedText:
    """One text, without HTML tags."""

    tag: str
    step: float
    time: float
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedPrCurve:
    """A precision-recall curve; both of equal length, in the order of rising threshold."""

    tag: str
    step: float
    time: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedTable:
    """Rows of text with their heads: a table of properties or a text table."""

    tag: str
    step: float
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


PaneKind = Literal["scatter", "bar", "heatmap", "box", "pie"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PaneTrace:
    """One trace of a chart that is not a curve over steps.

    Attributes:
        name: the legend's.
        x: numbers or category names; empty where the trace has none.
        y: numbers; for `heatmap` the row labels.
        z: for `heatmap` the rows of the grid.
    """

    name: str
    x: tuple[float | str, ...] = ()
    y: tuple[float | str, ...] = ()
    z: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedChart:
    """A chart that is not a curve over steps: what a visdom pane or a plotly figure shows.

    `heatmap` also stands for contours and surfaces, `bar` for histograms already binned.
    """

    tag: str
    kind: PaneKind
    traces: tuple[PaneTrace, ...]
    x_title: str = ""
    y_title: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChartLayout:
    """A chart that the log's author composed: which tags (regular expressions) share one plot."""

    category: str
    title: str
    tags: tuple[str, ...]
    margin: bool = False  # three tags: value, lower and upper bound


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """A stretch of a file that could not be read; `file` as in `LogFile`."""

    file: str
    offset: int
    size_bytes: int
    reason: str


@dataclass(kw_only=True, slots=True)
class LogFile:
    """One file and how far it was read: `read_bytes` + skipped bytes = `size_bytes`.

    Attributes:
        path: the file.
        name: its path relative to the folder that was read, with `/`.
        format: as in `FORMATS`.
        size_bytes: the size when it was read last.
        read_bytes: bytes that were decoded; the rest lies in the run's `damage`.
        records: events, rows or panes read.
    """

    path: Path
    name: str
    format: str
    size_bytes: int = 0
    read_bytes: int = 0
    records: int = 0


@dataclass(kw_only=True, slots=True)
class LogRun:
    """One run as its log has it.

    Attributes:
        name: its path relative to the folder that was read; "" for the folder itself.
        format: as in `FORMATS`.
        not_shown: number of records of each kind that is not shown ("audio", "mesh", ...).
        planned_steps: planned number of training steps, if the log records it.
        notes: sentences for the report on how the log was read.
    """

    name: str
    format: str
    scalars: dict[str, Series] = field(default_factory=dict)
    images: list[LoggedImage] = field(default_factory=list)
    histograms: list[LoggedHistogram] = field(default_factory=list)
    texts: list[LoggedText] = field(default_factory=list)
    pr_curves: list[LoggedPrCurve] = field(default_factory=list)
    tables: list[LoggedTable] = field(default_factory=list)
    charts: list[LoggedChart] = field(default_factory=list)
    layouts: list[ChartLayout] = field(default_factory=list)
    hyperparameters: dict[str, Hyperparameter] = field(default_factory=dict)
    planned_steps: int | None = None
    not_shown: Counter[str] = field(default_factory=Counter)
    sessions: list[Session] = field(default_factory=list)
    files: list[LogFile] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def series(self, tag: str) -> Series:
        """The series of `tag`, made empty where the run has none yet."""
        series = self.scalars.get(tag)
        if series is None:
            series = self.scalars[tag] = Series()
        return series


def join_names(*parts: str) -> str:
    """`parts` of a run's name joined by `/`; empty parts are left out."""
    return "/".join(filter(None, parts))


def unique_name(name: str, taken: Container[str]) -> str:
    """`name`, or `name (2)`, `name (3)` and so on if it is taken."""
    unique, count = name, 2
    while unique in taken:
        unique, count = f"{name} ({count})", count + 1
    return unique


class LogReader(Protocol):
    """Reads one folder or file in one format, and later what was appended to it."""

    @property
    def runs(self) -> list[LogRun]:
        """The runs found so far, ordered by name."""

    def update(self) -> bool:
        """Read what is new since the last call, or everything at first; whether anything was.

        Damage is recorded, not raised. A file that shrank or was replaced is read again from the
        start, and so are the runs it belongs to; of one that was deleted, what was read is kept,
        with a note.

        Raises:
            LogError: nothing could be read at all, in one line that names the file.
        """
