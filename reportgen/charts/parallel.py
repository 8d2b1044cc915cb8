"""Hyperparameters and metrics of many runs as parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

from reportgen.charts.axes import Axis, as_floats, format_value
from reportgen.charts.svg import (
    MUTED,
    drawing,
    fitted,
    plot,
    printable,
    tenth,
    text,
    text_group,
    width_of,
    words,
)

Setting = str | float | int | bool | None

_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 64.0, 44.0, 22.0
_MOST_COLUMNS, _MOST_ROWS, _MOST_CATEGORIES = 12, 200, 24
_LOG_RATIO = 50.0  # of the largest value to the smallest
_SHADES = ("#c9d8f0", "#9dbbe6", "#6f9adb", "#2f6fd0", "#1b4a96")


@dataclass(frozen=True, kw_only=True, slots=True)
class ParallelColumn:
    """One axis: `values[i]` is of run i, None where the run has none."""

    name: str
    values: Sequence[Setting]


@dataclass(frozen=True, slots=True)
class _Column:
    """An axis ready to draw: for each run its height or None, and labels at heights."""

    name: str
    at: float
    heights: tuple[float | None, ...]
    labels: tuple[tuple[float, str], ...]


def parallel_coordinates(
    title: str, columns: Sequence[ParallelColumn], runs: Sequence[str], *,
    higher_is_better: bool | None = None, width: float = 760, height: float = 320,
) -> Markup:  # fmt: skip
    """One line per run across one axis per column; the last column, the metric, colors the lines.

    Columns with one value in all runs are left out, as are columns after the twelfth and runs
    after the first 200. Numbers have a linear axis, or a logarithmic one if they are positive and
    their ratio reaches 50; anything else is a category. A run without a value passes below the
    axis.

    Args:
        title: the name of the drawing.
        columns: hyperparameters, then the metric.
        runs: their names, shown on hover.
        higher_is_better: whether runs with a high metric are darkest and drawn on top; they are if
            None.
        width, height: pixels.
    """
    shown = _varying(columns)
    rows = min(len(runs), _MOST_ROWS)
    if not shown or not rows:
        return drawing(width, 24, title, [text(0, 16, "all runs have equal settings", muted=True)])
    step = (width - _LEFT - _RIGHT) / max(1, len(shown) - 1)
    axes = [
        _column(column, _LEFT + index * step, rows, height) for index, column in enumerate(shown)
    ]
    ranks = _ranks(axes[-1].heights, upper_is_best=higher_is_better is not False)
    order = sorted(range(rows), key=lambda row: ranks[row])  # the best is drawn last, on top
    body = [_run(axes, row, ranks[row], runs[row], height - _BOTTOM) for row in order]
    drawn = [_axis(axis, height, step) for axis in axes]
    return plot(title, width, height, "".join([*body, *drawn]))


def _varying(columns: Sequence[ParallelColumn]) -> list[ParallelColumn]:
    """The columns that have an axis; the metric has one even if it is constant."""
    # By repr: 1, True and "1" are different settings, and NaN is equal to itself.
    varying = [column for column in columns[:-1] if len({*map(repr, column.values)}) > 1]
    return [*varying[: _MOST_COLUMNS - 1], *columns[-1:]]


def _column(column: ParallelColumn, at: float, rows: int, height: float) -> _Column:
    values = column.values[:rows]
    present = [value for value in values if not _is_missing(value)]
    top, bottom = _TOP, height - _BOTTOM - 20  # below the axis pass runs without a value
    if present and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in present):
        return _numeric(column.name, at, values, top, bottom)
    return _categorical(column.name, at, values, top, bottom)


def _is_missing(value: Setting) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))


def _numeric(name: str, at: float, values: Sequence[Setting], top: float, bottom: float) -> _Column:
    numbers = as_floats([None if _is_missing(value) else value for value in values])
    known = numbers[np.isfinite(numbers)]
    low, high = float(known.min()), float(known.max())
    log = low > 0 and high / low >= _LOG_RATIO
    if low == high:  # only the metric may be constant, see `_varying`
        low, high = (low - abs(low) / 2 or -1.0), (high + abs(high) / 2 or 1.0)
    axis = Axis(low=low, high=high, log=log, start=bottom, end=top)
    heights = tuple(None if np.isnan(pixel) else float(pixel) for pixel in axis.at(numbers))
    distinct = sorted({*known.tolist()})
    ticks = distinct if len(distinct) <= 6 else [low, *(t for t, _ in axis.ticks(4)), high]
    labels = tuple((axis.pixel(tick), format_value(tick)) for tick in ticks)
    return _Column(name, at, heights, _apart(labels))


def _categorical(
    name: str, at: float, values: Sequence[Setting], top: float, bottom: float
) -> _Column:
    names = ["" if _is_missing(value) else str(value) for value in values]
    distinct = sorted({each for each in names if each})
    gap = (bottom - top) / max(1, len(distinct) - 1)
    places = {each: bottom - index * gap for index, each in enumerate(distinct)}
    if len(distinct) == 1:
        places = {distinct[0]: (top + bottom) / 2}
    labels = tuple((places[each], each) for each in distinct[:_MOST_CATEGORIES])
    return _Column(name, at, tuple(places.get(each) for each in names), _apart(labels))


def _apart(labels: Sequence[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """`labels` without those closer than a line to one before; both ends come first."""
    kept: list[tuple[float, str]] = []
    for label in [*labels[:1], *labels[-1:], *labels[1:-1]]:  # the ends give the range
        if all(abs(label[0] - other[0]) >= 12 for other in kept):
            kept.append(label)
    return tuple(kept)


def _ranks(heights: Sequence[float | None], *, upper_is_best: bool) -> list[float]:
    """From 0, the worst or unknown, to 1, the best, by the order of the metric."""
    known = sorted({height for height in heights if height is not None}, reverse=upper_is_best)
    place = {height: index / max(1, len(known) - 1) for index, height in enumerate(known)}
    return [0.0 if height is None else place[height] for height in heights]


def _run(axes: Sequence[_Column], row: int, rank: float, name: str, missing: float) -> str:
    points = [(axis.at, axis.heights[row]) for axis in axes]
    path = " ".join(f"{tenth(at)} {tenth(missing if y is None else y)}" for at, y in points)
    shade = min(len(_SHADES) - 1, int(rank * len(_SHADES)))
    return (
        f'<polyline points="{path}" class="p{shade}" fill="none" stroke="{_SHADES[shade]}" '
        f'stroke-width="{2 if shade == len(_SHADES) - 1 else 1.3}" stroke-linejoin="round">'
        f"<title>{escape(printable(name))}</title></polyline>"
    )


def _axis(axis: _Column, height: float, room: float) -> str:
    line = (
        f'<path d="M{tenth(axis.at)} {tenth(_TOP - 6)}V{tenth(height - _BOTTOM - 14)}" '
        f'class="edge" stroke="{MUTED}"/>'
    )
    widest = max(30.0, room - 12)
    backs, texts = "", ""
    for pixel, label in axis.labels:
        short = fitted(printable(label), widest, 10)
        wide = width_of(short, 10) + 4
        backs += f"M{tenth(axis.at + 4)} {tenth(pixel - 6)}h{tenth(wide)}v12h-{tenth(wide)}z"
        texts += words(axis.at + 6, pixel + 3.5, short)
    missing = None in axis.heights
    texts += words(axis.at + 6, height - _BOTTOM + 3.5, "none") if missing else ""
    name = words(axis.at, _TOP - 16, fitted(printable(axis.name), widest, 11))
    return (
        line
        + f'<path d="{backs}" class="paper" fill="#ffffff" fill-opacity=".8"/>'
        + text_group(texts)
        + text_group(name, size=11, anchor="middle", kind="ink")
    )
