"""Parts of all plots with two axes: grid, ticks, titles, notes, and labels that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reportgen.charts.axes import Axis, Floats
from reportgen.charts.svg import (
    LINE,
    MUTED,
    fitted,
    printable,
    tenth,
    text_group,
    width_of,
    words,
)

RIGHT, TOP, BOTTOM = 12.0, 10.0, 30.0
"""Pixels around the area of a plot; its left side depends on the labels, see `gutter`."""

# 40 pixels hold most tick labels, so that the plots of a page begin at the same x.
_TICK_SIZE, _LEAST_GUTTER = 10, 40.0
_NOTE_HEIGHT = 15
Ticks = Sequence[tuple[float, str]]
_SIZE, _HEIGHT = 10, 12.0
_WIDEST = 120.0  # of a label, in pixels


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
        (f'<path d="{lines}" class="rule" stroke="{LINE}"/>' if lines else "")
        + f'<path d="{edge}" class="edge" stroke="{MUTED}" fill="none"/>'
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
    # `fitted` cuts at the start, which is right for paths and wrong for sentences.
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


@dataclass(frozen=True, slots=True)
class LabelBox:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: LabelBox) -> bool:
        """Whether the two overlap."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def count(self, points: Floats) -> int:
        """How many of `points`, x and y as rows, lie inside."""
        x, y = points
        within = (x > self.left) & (x < self.right) & (y > self.top) & (y < self.bottom)
        return int(within.sum())


def crowd_of(curves: Sequence[tuple[Floats, Floats]], x: Axis) -> Floats:
    """Points in pixels, x and y as rows, that lie densely on `curves`, each (xs, ys) in pixels."""
    rows = [np.empty((2, 0))]
    grid = np.arange(x.start, x.end, 3.0)  # a label is some ten times as wide
    for across, down in curves:
        shown = np.isfinite(across) & np.isfinite(down)
        if shown.any():
            rows.append(np.stack([grid, np.interp(grid, across[shown], down[shown])]))
    return np.concatenate(rows, axis=1)


@dataclass(slots=True)
class Labels:
    """The labels of a plot: they cover few points of `crowd` and never overlap a `taken` box.

    A label that no place is free for is left out.
    """

    x: Axis
    y: Axis
    crowd: Floats
    taken: list[LabelBox] = field(default_factory=list)
    _drawn: dict[str, list[tuple[LabelBox, str]]] = field(default_factory=dict)

    def beside(self, at: tuple[float, float], text: str) -> None:
        """Label a point: above, below, right, left, or at one of its corners."""
        # `min` in `_put` takes the first of equally good places, so the order is a preference.
        width = width_of(text, _SIZE) + 2
        left, middle, right = -6.0 - width, -width / 2, 6.0
        above, level, below = -18.0, -6.0, 6.0
        offsets = [(middle, above), (middle, below), (right, level), (left, level)]
        offsets += [(dx, dy) for dx in (right - 1, left + 1) for dy in (above, below)]
        self._put(text, [(at[0] + dx, at[1] + dy) for dx, dy in offsets], kind="ink")

    def on_horizontal(self, down: float, text: str) -> None:
        """Label a horizontal line at its right or left end, above or below it."""
        text = fitted(printable(text), _WIDEST, _SIZE)
        right = self.x.end - width_of(text, _SIZE) - 4
        ends = (right, self.x.start + 4)
        self._put(text, [(left, down + dy) for dy in (-13.0, 2.0) for left in ends], kind="muted")

    def on_vertical(self, across: float, text: str) -> None:
        """Label a vertical line at its top or bottom, right or left of it."""
        text = fitted(printable(text), _WIDEST, _SIZE)
        tops = (self.y.end - 2, self.y.start - 14)
        sides = (across + 2, across - 4 - width_of(text, _SIZE))
        self._put(text, [(left, top) for top in tops for left in sides], kind="muted")

    def svg(self) -> str:
        """All labels, each on paper that dims what it hides."""
        body = ""
        for kind, labels in self._drawn.items():
            backs = "".join(_back(box) for box, _ in labels)
            texts = "".join(words(box.left + 1, box.top + 10, text) for box, text in labels)
            body += f'<path d="{backs}" class="paper" fill="#ffffff" fill-opacity=".75"/>'
            body += text_group(texts, size=_SIZE, kind=kind)
        return body

    def _put(self, text: str, corners: Sequence[tuple[float, float]], kind: str) -> None:
        width = width_of(text, _SIZE) + 2
        boxes = [LabelBox(left, top, left + width, top + _HEIGHT) for left, top in corners]
        free = [box for box in boxes if self._is_free(box)]
        if free:
            box = min(free, key=lambda box: box.count(self.crowd))
            self.taken.append(box)
            self._drawn.setdefault(kind, []).append((box, text))

    def _is_free(self, box: LabelBox) -> bool:
        across = self.x.start + 1 <= box.left and box.right <= self.x.end + 8
        inside = across and self.y.end - 8 <= box.top and box.bottom <= self.y.start
        return inside and not any(box.meets(other) for other in self.taken)


def _back(box: LabelBox) -> str:
    width, height = tenth(box.right - box.left), tenth(box.bottom - box.top)
    return f"M{tenth(box.left)} {tenth(box.top)}h{width}v{height}h-{width}z"
