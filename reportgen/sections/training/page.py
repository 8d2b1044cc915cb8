"""What the training section's template needs: groups of plots, tables, and drawings of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from reportgen.charts.axes import format_position, format_value
from reportgen.charts.curves import CurveLine
from reportgen.charts.histograms import ridgelines
from reportgen.charts.parallel import ParallelColumn, parallel_coordinates
from reportgen.charts.pr_curves import PrLine, pr_curve_plot
from reportgen.charts.sparkline import sparkline
from reportgen.sections.training.plots import OTHER
from reportgen.sections.training.result import Histogram, Image, Plot, Run, Scalar, Training

_FULL_PLOTS, _PLOTS_IN_PRINT = 120, 40
_LINES_OF_SMALL_PLOT = 4
_OPEN_GROUPS = 8
_METRIC_ROWS, _METRIC_ROWS_IN_PRINT = 120, 30
# With up to 4 runs, settings are rows; with more, runs are rows, and settings columns: fewer fit.
_HYPERPARAMETERS, _HYPERPARAMETERS_BY_RUN, _RUNS_IN_TABLE = 60, 12, 40
# Two lines between axes say no more than the table does.
_FEWEST_PARALLEL_RUNS, _PARALLEL_COLUMNS = 3, 8
_MOST_SUPERSEDED = 20
_STATE_CLASSES = {"healthy": "good", "no verdict": "unknown", "overfitting": "doubt"}
ShownScalar = tuple[Run, str, Scalar]


def last_step(run: Run) -> str:
    """The last step of any curve, and how many were planned."""
    steps = [scalar.last_step for scalar in run.scalars.values()]
    if not steps:
        return "–"
    return format_position(max(steps)) + (f" of {run.planned_steps:,}" if run.planned_steps else "")


def state_class(run: Run) -> str:
    """The style of a run's state."""
    return _STATE_CLASSES.get(run.state, "bad")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownPlot:
    """A plot of a group; `small` is a sparkline to show instead of the plot, empty for none."""

    plot: Plot
    small: Markup
    last: str


@dataclass(frozen=True, kw_only=True, slots=True)
class PlotGroup:
    """Plots under one heading."""

    title: str
    plots: tuple[ShownPlot, ...]
    open: bool


def plot_groups(result: Training, on_paper: bool) -> list[PlotGroup]:
    """The plots by section: the first 120 at full size on a page, the rest as sparklines.

    Paper has the first 40 only; see `plots_left_out`.
    """
    scalars: dict[str, list[ShownScalar]] = {}
    for run in result.runs:
        for tag, scalar in run.scalars.items():
            scalars.setdefault(scalar.plot, []).append((run, tag, scalar))
    shown = result.plots[:_PLOTS_IN_PRINT] if on_paper else result.plots
    sections: dict[str, list[ShownPlot]] = {}
    for place, plot in enumerate(shown):
        small = place >= _FULL_PLOTS
        sections.setdefault(plot.section, []).append(
            _shown(plot, scalars.get(plot.key, []), small, named=len(result.runs) > 1)
        )
    return [
        PlotGroup(
            title=title,
            plots=tuple(plots),
            open=place == 0 or (place < _OPEN_GROUPS and title != OTHER),
        )
        for place, (title, plots) in enumerate(sections.items())
    ]


def _shown(plot: Plot, scalars: Sequence[ShownScalar], small: bool, *, named: bool) -> ShownPlot:
    if not small:
        return ShownPlot(plot=plot, small=Markup(), last="")
    lines = [
        CurveLine(
            name=f"{run.name} · {tag}" if named else tag,
            role=scalar.role,
            color=color,
            xs=scalar.steps,
            values=scalar.values,
        )
        for color, (run, tag, scalar) in enumerate(scalars[:_LINES_OF_SMALL_PLOT])
    ]
    return ShownPlot(plot=plot, small=sparkline(plot.title, lines), last=_last(scalars))


def _last(scalars: Sequence[ShownScalar]) -> str:
    if not scalars:
        return ""
    last = scalars[0][2].last
    return "last value non-finite" if last is None else f"last {format_value(last)}"


def plots_left_out(result: Training, on_paper: bool) -> int:
    """The number of plots that are left out on paper."""
    return max(0, len(result.plots) - _PLOTS_IN_PRINT) if on_paper else 0


def ridgeline(histogram: Histogram) -> Markup:
    """A tag's histograms over its steps, the first at the back."""
    return ridgelines(
        histogram.tag, histogram.steps, histogram.counts, histogram.low, histogram.high
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class PrChart:
    """The last precision-recall curves of one tag, of all runs that have it."""

    tag: str
    svg: Markup


def pr_charts(result: Training) -> list[PrChart]:
    """One chart per tag; a run keeps its color."""
    lines: dict[str, list[PrLine]] = {}
    for color, run in enumerate(result.runs):
        for curve in run.pr_curves:
            start = f"{run.name}, " if len(result.runs) > 1 else ""
            lines.setdefault(curve.tag, []).append(
                PrLine(
                    name=f"{start}step {format_position(curve.step)}",
                    precision=curve.precision,
                    recall=curve.recall,
                    color=color,
                )
            )
    return [PrChart(tag=tag, svg=pr_curve_plot(tag, shown)) for tag, shown in lines.items()]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalarRow:
    """One row of the table of best and last values."""

    run: str
    tag: str
    scalar: Scalar


@dataclass(frozen=True, kw_only=True, slots=True)
class ScalarTable:
    """The rows to show, and the number of rows left out."""

    rows: tuple[ScalarRow, ...]
    hidden: int


def metric_rows(result: Training, on_paper: bool) -> ScalarTable:
    """One row per curve, runs of a metric side by side; validation metrics first, others last."""
    rows = [
        ScalarRow(run=run.name, tag=tag, scalar=scalar)
        for run in result.runs
        for tag, scalar in run.scalars.items()
    ]
    rows.sort(
        key=lambda row: (
            row.scalar.direction == "none",
            row.scalar.role != "validation",
            row.tag,
        )
    )
    most = _METRIC_ROWS_IN_PRINT if on_paper else _METRIC_ROWS
    return ScalarTable(rows=tuple(rows[:most]), hidden=max(0, len(rows) - most))


@dataclass(frozen=True, kw_only=True, slots=True)
class SettingRow:
    """One hyperparameter of all runs, or all hyperparameters of one run."""

    name: str
    values: tuple[str, ...]
    differs: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Hyperparameters by name and by run; those that differ come first.

    Attributes:
        hidden: the number of values left out of both tables.
    """

    names: tuple[str, ...]
    runs: tuple[str, ...]
    rows: tuple[SettingRow, ...]
    by_run: tuple[SettingRow, ...]
    hidden: int


def hyperparameters(result: Training) -> Settings:
    """The union of the hyperparameters of all runs, and the best value of a metric they share.

    `–` where a run does not have one. Hyperparameters that differ come first.
    """
    runs = [run for run in result.runs if run.hyperparameters][:_RUNS_IN_TABLE]
    names = list(dict.fromkeys(name for run in runs for name in run.hyperparameters))
    rows = [
        SettingRow(
            name=name,
            values=tuple(_setting(run, name) for run in runs),
            differs=len({_setting(run, name) for run in runs}) > 1,
        )
        for name in names
    ]
    rows.sort(key=lambda row: not row.differs)
    most = _HYPERPARAMETERS if len(runs) <= 4 else _HYPERPARAMETERS_BY_RUN
    shown = [*_best_row(runs), *rows[:most]]
    by_run = [
        SettingRow(name=run.name, values=tuple(row.values[place] for row in shown))
        for place, run in enumerate(runs)
    ]
    return Settings(
        names=tuple(row.name for row in shown),
        runs=tuple(run.name for run in runs),
        rows=tuple(shown),
        by_run=tuple(by_run),
        hidden=max(0, len(rows) - most) * len(runs),
    )


def _best_row(runs: Sequence[Run]) -> list[SettingRow]:
    metric = _common_metric(runs)
    if metric is None:
        return []
    bests = [run.scalars[metric].best for run in runs]
    values = tuple(format_value(best.value) if best is not None else "–" for best in bests)
    return [SettingRow(name=f"best {metric}", values=values, differs=True)]


def _setting(run: Run, name: str) -> str:
    value = run.hyperparameters.get(name)
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def parallel(result: Training) -> Markup | None:
    """Hyperparameters that differ and the best value of a metric; None for few runs."""
    runs = [run for run in result.runs if run.hyperparameters and run.attempt == run.attempts]
    names = [
        row.name
        for row in hyperparameters(result).rows
        if row.differs and any(row.name in run.hyperparameters for run in runs)
    ]
    metric = _common_metric(runs)
    if len(runs) < _FEWEST_PARALLEL_RUNS or not names:
        return None
    columns = [
        ParallelColumn(name=name, values=[run.hyperparameters.get(name) for run in runs])
        for name in names[:_PARALLEL_COLUMNS]
    ]
    higher = None
    if metric is not None:
        bests = [run.scalars[metric].best for run in runs]
        values = [best.value if best else None for best in bests]
        columns.append(ParallelColumn(name=f"best {metric}", values=values))
        higher = runs[0].scalars[metric].direction == "higher"
    return parallel_coordinates(
        "Hyperparameters and results",
        columns,
        [run.name for run in runs],
        higher_is_better=higher,
    )


def _common_metric(runs: Sequence[Run]) -> str | None:
    """A metric that every run has, a validation metric first."""
    tags = [
        (scalar.role != "validation", scalar.direction != "higher", tag)
        for tag, scalar in (runs[0].scalars.items() if runs else ())
        if scalar.direction != "none" and all(tag in run.scalars for run in runs)
    ]
    return min(tags)[2] if tags else None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageCounts:
    """The number of images shown, and of those in the logs."""

    shown: int
    found: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownImage:
    """An image and the name of its run."""

    run: str
    image: Image


def images_by_tag(result: Training, most: int | None = None) -> list[ShownImage]:
    """At most `most` images of each run; those of one tag stand side by side, run by run."""
    shown = [
        ShownImage(run=run.name, image=image) for run in result.runs for image in run.images[:most]
    ]
    order = {tag: place for place, tag in enumerate(dict.fromkeys(s.image.tag for s in shown))}
    return sorted(shown, key=lambda each: order[each.image.tag])


def image_counts(result: Training, most: int | None = None) -> ImageCounts:
    """Images on the page, at most `most` of each run."""
    return ImageCounts(
        shown=sum(len(run.images[:most]) for run in result.runs),
        found=sum(run.images_found for run in result.runs),
    )


def read_notes(result: Training) -> list[str]:
    """One sentence for each damaged place, replaced stretch of points and kind not shown."""
    return [note for run in result.runs for note in _run_notes(run, len(result.runs) > 1)]


def _run_notes(run: Run, several: bool) -> Iterator[str]:
    start = f"{run.name}: " if several else ""
    for damage in run.damage:
        yield (
            f"{start}{damage.file}: {damage.bytes:,} bytes at offset {damage.offset:,} "
            f"were skipped ({damage.reason})."
        )
    for gone in run.superseded[:_MOST_SUPERSEDED]:
        points = f"{gone.points:,} point{'s' if gone.points != 1 else ''}"
        yield (
            f"{start}{gone.tag}: {points} of steps {format_position(gone.from_step)} to "
            f"{format_position(gone.to_step)} were replaced by a resumed session."
        )
    if len(run.superseded) > _MOST_SUPERSEDED:
        yield f"{start}{len(run.superseded) - _MOST_SUPERSEDED:,} more tags with replaced points."
    for kind, records in run.not_shown.items():
        yield f"{start}{records:,} {kind} record{'s' if records != 1 else ''} not shown."
    for note in run.notes:
        yield f"{start}{note.rstrip('.')}."


FILTERS: dict[str, Callable[..., Any]] = {
    "number": format_value,
    "step": format_position,
    "last_step": last_step,
    "state_class": state_class,
    "plot_groups": plot_groups,
    "plots_left_out": plots_left_out,
    "ridgeline": ridgeline,
    "pr_charts": pr_charts,
    "metric_rows": metric_rows,
    "hyperparameters": hyperparameters,
    "parallel_coordinates": parallel,
    "images_by_tag": images_by_tag,
    "image_counts": image_counts,
    "read_notes": read_notes,
}
