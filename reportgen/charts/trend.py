"""Small charts of one figure over many days, with marks where it changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

import numpy as np
from markupsafe import Markup, escape

from reportgen.charts.axes import Axis, Floats
from reportgen.charts.paths import line_path, simplified
from reportgen.charts.svg import MUTED, PALETTE, color, plot, rule, tenth, text_group, words

_WIDTH, _HEIGHT = 240.0, 86.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 4.0, 236.0, 16.0, 66.0
_PADDING = 0.12  # of the span, above and below
_TOLERANCE = 0.4  # pixels; a page may have hundreds
_RADIUS = 3.4


@dataclass(frozen=True, kw_only=True, slots=True)
class TrendLine:
    """Values by day, NaN where there is none; the days rise. A stepped line holds each value."""

    days: Floats
    values: Floats
    stepped: bool = False
    color: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrendMark:
    """A change on `day` to `value`; `title` describes it when pointed at.

    Attributes:
        kind: the fill of the mark: a possible change is hollow, one that is over is gray.
        effect: the color: whether it is for the better or the worse.
    """

    day: float
    value: float
    title: str
    kind: Literal["confirmed", "possible", "over"] = "confirmed"
    effect: Literal["better", "worse", ""] = ""


def trend(
    title: str, lines: Sequence[TrendLine], marks: Sequence[TrendMark], *,
    first: date, days: float, figure: Callable[[float], str],
) -> Markup:  # fmt: skip
    """`lines` over `days` days from `first`, 240 × 86 pixels; `figure` formats a value.

    The vertical range is that of the values; it is written above them.
    """
    values = np.concatenate([line.values for line in lines] or [np.array([np.nan])])
    if not np.isfinite(values).any():
        return plot(title, _WIDTH, _HEIGHT, text_group(words(_LEFT, 40, "no values")))
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    x = Axis(low=0.0, high=max(days, 1.0), start=_LEFT, end=_RIGHT)
    y = _vertical(low, high)
    body = [rule(_LEFT, _BOTTOM, _RIGHT, _BOTTOM), *_labels(low, high, first, days, figure)]
    body += [_curve(line, x, y) for line in lines]
    body += [_mark(mark, x, y) for mark in marks]
    return plot(title, _WIDTH, _HEIGHT, "".join(body), kind="chart trend")


def _vertical(low: float, high: float) -> Axis:
    span = high - low or abs(high) or 1.0  # a constant runs through the middle
    middle = (low + high) / 2
    half = span * (0.5 + _PADDING)
    return Axis(low=middle - half, high=middle + half, start=_BOTTOM, end=_TOP)


def _labels(
    low: float, high: float, first: date, days: float, figure: Callable[[float], str]
) -> list[str]:
    last, least, most = first + timedelta(days=days), figure(low), figure(high)
    span = most if least == most else f"{least} to {most}"
    starts = words(_LEFT, _BOTTOM + 14, f"{first:%Y-%m-%d}") + words(_LEFT, _TOP - 6, span)
    ends = words(_RIGHT, _BOTTOM + 14, f"{last:%Y-%m-%d}")
    return [text_group(starts, size=9), text_group(ends, size=9, anchor="end")]


def _curve(line: TrendLine, x: Axis, y: Axis) -> str:
    days, values = _steps(line) if line.stepped else (line.days, line.values)
    across, down = x.at(days), y.at(values)
    if not line.stepped:
        across, down = simplified(across, down, _TOLERANCE)
    series = line.color % len(PALETTE)
    width = "1.6" if line.stepped else "1"
    return (
        f'<path d="{line_path(across, down)}" class="l{series}" stroke="{color(series)}" '
        f'fill="none" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round"/>'
    )


def _steps(line: TrendLine) -> tuple[Floats, Floats]:
    """The corners of a stepped line: both ends of each run of equal values."""
    values = line.values
    with np.errstate(invalid="ignore"):
        same = (values[1:] == values[:-1]) | (np.isnan(values[1:]) & np.isnan(values[:-1]))
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    # A run lasts until the next one begins; the last one until the last day.
    ends = line.days[np.concatenate([starts[1:], [len(values) - 1]])]
    days = np.column_stack([line.days[starts], ends]).ravel()
    return days, np.repeat(values[starts], 2)


def _mark(mark: TrendMark, x: Axis, y: Axis) -> str:
    look = f'fill="{MUTED}"'
    if mark.kind == "possible":
        look = f'fill="#fff" stroke="{MUTED}" stroke-width="1.6"'
    return (
        f'<circle cx="{tenth(x.pixel(mark.day))}" cy="{tenth(y.pixel(mark.value))}" '
        f'r="{_RADIUS}" class="mark {mark.kind} {mark.effect or "neutral"}" {look}>'
        f"<title>{escape(mark.title)}</title></circle>"
    )
