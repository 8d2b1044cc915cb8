"""Parts common to all plots with two axes: grid, ticks, axis titles, and notes below."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reportgen.charts.axes import Axis
from reportgen.charts.svg import fitted, width_of
from reportgen.charts.svg_file import tenth, text_group, words

RIGHT, TOP, BOTTOM = 12.0, 10.0, 30.0
"""Pixels around the area of a plot; its left side depends on the labels, see `gutter`."""

_TICK_SIZE, _LEAST_GUTTER = 10, 40.0
_NOTE_HEIGHT = 15
Ticks = Sequence[tuple[float, str]]


def gutter(y: Axis, ticks: int, *, title: str = "") -> float:
    """The left edge of the plot area, with room for the labels of `y`; equal in most plots."""
    labels = max((width_of(label, _TICK_SIZE) for _, label in y.ticks(ticks)), default=0)
    return max(_LEAST_GUTTER, math.ceil(labels) + 10) + (16 if title else 0)


def draw_frame(
    x: Axis, y: Axis, x_title: str = "", *, y_title: str = "", x_ticks: int = 5, y_ticks: int = 5,
    x_labels: Ticks | None = None, y_labels: Ticks | None = None, grid: bool = True,
) -> str:  # fmt: skip
    """The grid, the ticks with labels, and the titles of the two axes.

    `x_labels` and `y_labels`, (value, label), take the place of round numbers.
    """
    across = [(x.pixel(value), label) for value, label in x_labels or x.ticks(x_ticks)]
    up = [(y.pixel(value), label) for value, label in y_labels or y.ticks(y_ticks)]
    lines = "".join(f"M{tenth(x.start)} {_crisp(at)}H{tenth(x.end)}" for at, _ in up if grid)
    edge = f"M{tenth(x.start)} {_crisp(y.start)}H{tenth(x.end)}"
    edge += "".join(f"M{_crisp(at)} {tenth(y.start + 0.5)}v4" for at, _ in across)
    under = "".join(words(at, y.start + 15, label) for at, label in _uncrowded(across, x))
    beside = "".join(words(x.start - 6, at + 3.5, label) for at, label in up)
    titles = words((x.start + x.end) / 2, y.start + 27, x_title) if x_title else ""
    return (
        (f'<path d="{lines}" class="rule" stroke="#d5dae1"/>' if lines else "")
        + f'<path d="{edge}" class="edge" stroke="#5b6472" fill="none"/>'
        + text_group(under + titles, anchor="middle")
        + text_group(beside, anchor="end")
        + _turned(y_title, y)
    )


def draw_notes(notes: Sequence[str], left: float, top: float, right: float) -> tuple[str, float]:
    """`notes` wrapped below `top`, and the height of their lines."""
    if not notes:
        return "", 0.0
    room = right - left
    lines: list[str] = []
    for note in (_cut(note, room) for note in notes):
        joined = f"{lines[-1]} · {note}" if lines else ""
        if lines and width_of(joined, _TICK_SIZE) <= room:
            lines[-1] = joined
        else:
            lines.append(note)
    body = "".join(
        words(left, top + 11 + row * _NOTE_HEIGHT, line) for row, line in enumerate(lines)
    )
    return text_group(body), 4.0 + _NOTE_HEIGHT * len(lines)


def _cut(note: str, room: float) -> str:
    """`note` cut at its end to fit `room`."""
    return fitted(note[::-1], room, _TICK_SIZE)[::-1]


def _crisp(pixel: float) -> str:
    """The middle of a pixel, where a line one pixel wide is sharp."""
    return tenth(math.floor(pixel) + 0.5)


def _uncrowded(ticks: Ticks, x: Axis) -> Ticks:
    """`ticks` without the labels that would run into the one before or out of the drawing."""
    kept: list[tuple[float, str]] = []
    free = -math.inf
    for at, label in ticks:
        half = width_of(label, _TICK_SIZE) / 2
        if at - half >= free and at + half <= x.end + RIGHT:
            kept.append((at, label))
            free = at + half + 6
    return kept


def _turned(title: str, y: Axis) -> str:
    if not title:
        return ""
    middle = (y.start + y.end) / 2
    turn = f'<g transform="rotate(-90 11 {tenth(middle)})">'
    short = fitted(title, abs(y.start - y.end), _TICK_SIZE)
    return turn + text_group(words(11, middle, short), anchor="middle") + "</g>"
