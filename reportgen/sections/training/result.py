"""Result of the training section: runs with curves, pictures and texts, plots, and diagnoses.

Plain values only. Series are decimated (extremes kept); the CSV files have every point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Step = int | float
"""A step: an integer unless the log has fractional steps."""
Direction = Literal["lower", "higher", "none"]
Role = Literal["train", "validation", "none"]
NonFiniteKind = Literal["nan", "inf", "-inf"]
State = Literal["healthy", "diverged", "not learning", "overfitting", "non-finite", "no verdict"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Extremum:
    """A value and the step at which it was logged first."""

    step: Step
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NonFinitePoint:
    """A NaN or an infinity at its step."""

    step: Step
    kind: NonFiniteKind


@dataclass(frozen=True, kw_only=True, slots=True)
class Scalar:
    """One tag of one run after resumed sessions were joined.

    Attributes:
        points: every point, non-finite ones included.
        non_finite: how many of them are NaN or infinite.
        min, max: over the finite points, with the first step of each; None where there is none.
        last: the last value; None where it is not finite.
        best: by `direction`; None where the direction is none or no point is finite.
        steps, values: at most 500 points, both ends and extremes kept; a non-finite value is None.
        times: seconds since 1970 of the same points, whole; empty where the log has none.
        smoothed: the debiased exponential mean over all points, at the same points.
        half_life: of that mean, in points; 0 where the series is not smoothed.
        non_finite_points: the first 100 of them.
        csv: the file with every point, relative to the model's folder.
        plot: key of the plot with this curve.
    """

    points: int
    non_finite: int
    first_step: Step
    last_step: Step
    min: float | None
    min_step: Step | None
    max: float | None
    max_step: Step | None
    last: float | None
    best: Extremum | None
    direction: Direction
    role: Role
    steps: tuple[Step, ...]
    values: tuple[float | None, ...]
    times: tuple[int, ...]
    smoothed: tuple[float | None, ...]
    half_life: float
    non_finite_points: tuple[NonFinitePoint, ...]
    csv: str
    plot: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """A picture that the report keeps; `file` is relative to the model's folder."""

    tag: str
    step: float
    file: str
    width: int
    height: int
    caption: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """One tag's histograms, resampled to at most 40 equal buckets over the range of all steps.

    Attributes:
        records: how many the log has; at most 24, evenly spread, are kept.
        low, high: the range of the buckets.
        steps: of the kept ones.
        counts: for each kept step, the share of values in each bucket.
    """

    tag: str
    records: int
    low: float
    high: float
    steps: tuple[float, ...]
    counts: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Text:
    """The last texts of a tag; `records` is how many the log has."""

    tag: str
    step: float
    text: str
    records: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PrCurve:
    """A precision-recall curve: the last of its tag."""

    tag: str
    step: float
    precision: tuple[float, ...]
    recall: tuple[float, ...]
    records: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of text."""

    tag: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """A chart that is not a curve over steps; `svg` is relative to the model's folder."""

    tag: str
    kind: str
    svg: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DamagedStretch:
    """Bytes of a log that could not be read."""

    file: str
    offset: int
    bytes: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Superseded:
    """Points that a resumed session replaced: those of `tag` from `from_step` on."""

    tag: str
    from_step: float
    to_step: float
    points: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """A problem or property found in one curve, with its evidence; `rules` report it.

    Attributes:
        kind: the name of the rule that reports it, such as `diverged`.
        run: the run's name.
        tag: the curve's tag; "" for a statement about the run.
        points: the number of points it is based on.
        evidence: steps, values and names; the keys depend on `kind`.
    """

    kind: str
    run: str
    tag: str
    points: int
    evidence: dict[str, float | int | str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run of a training: one attempt, its resumed sessions joined.

    Attributes:
        name: the path of its log below the path in the manifest.
        source: the path as written in the manifest.
        attempt: 1 for the first; `attempts` is how many the log holds.
        group: the name that runs with equal settings share; "" for a run on its own.
        state: the verdict on the run as a whole.
        summary: the same verdict as a sentence with steps and values.
        sessions: how many processes wrote it.
        not_shown: the number of records of each kind that the report does not show.
    """

    name: str
    source: str
    format: str
    attempt: int
    attempts: int
    group: str
    state: State
    summary: str
    sessions: int
    scalars: dict[str, Scalar]
    images: tuple[Image, ...]
    images_found: int
    histograms: tuple[Histogram, ...]
    texts: tuple[Text, ...]
    pr_curves: tuple[PrCurve, ...]
    tables: tuple[Table, ...]
    charts: tuple[Chart, ...]
    hyperparameters: dict[str, str | float | int | bool]
    damage: tuple[DamagedStretch, ...]
    superseded: tuple[Superseded, ...]
    planned_steps: int | None
    not_shown: dict[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunGroup:
    """Runs with equal settings: mean and range of one tag over them, at the last common step.

    Attributes:
        best_mean, best_deviation: over each run's best value; the deviation is that of a sample.
    """

    name: str
    tag: str
    runs: int
    at_step: float
    mean: float
    deviation: float
    low: float
    high: float
    best_mean: float | None
    best_deviation: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """One plot: the same metric of all runs, train and validation together.

    Attributes:
        key: unique in the report; the name of its files.
        section: the part of the tag before its first slash; plots are shown grouped by it.
        svg, csv: relative to the model's folder; `csv` has every point of every line.
        lines: how many lines it has.
        x: what the horizontal axis shows.
        outside: how many points lie outside the drawn range of y.
    """

    key: str
    title: str
    section: str
    svg: str
    csv: str
    lines: int
    x: str
    outside: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LogFileRead:
    """One file of a log: `read_bytes` + `skipped_bytes` = `bytes`."""

    file: str
    format: str
    bytes: int
    read_bytes: int
    skipped_bytes: int
    records: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """The training section of one model.

    Attributes:
        headline: one sentence on the newest run with a verdict.
        points: scalar points read in all runs.
        smoothing: a description of the smoothed lines.
    """

    headline: str
    points: int
    smoothing: str
    runs: tuple[Run, ...]
    plots: tuple[Plot, ...]
    groups: tuple[RunGroup, ...]
    diagnoses: tuple[Diagnosis, ...]
    files: tuple[LogFileRead, ...]
    notes: tuple[str, ...]
