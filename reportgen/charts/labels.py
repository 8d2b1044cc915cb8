"""Places labels inside a plot where they cover the fewest points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from reportgen.charts.axes import Axis, Floats
from reportgen.charts.svg import fitted, width_of
from reportgen.charts.svg_file import printable, tenth, text_group, words

_SIZE, _HEIGHT = 10, 12.0
_WIDEST = 120.0


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
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
    grid = np.arange(x.start, x.end, 3.0)
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
    taken: list[Box] = field(default_factory=list)
    _drawn: dict[str, list[tuple[Box, str]]] = field(default_factory=dict)

    def beside(self, at: tuple[float, float], text: str) -> None:
        """Label a point: above, below, right, left, or at one of its corners."""
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
        boxes = [Box(left, top, left + width, top + _HEIGHT) for left, top in corners]
        free = [box for box in boxes if self._is_free(box)]
        if free:
            box = min(free, key=lambda box: box.count(self.crowd))
            self.taken.append(box)
            self._drawn.setdefault(kind, []).append((box, text))

    def _is_free(self, box: Box) -> bool:
        across = self.x.start + 1 <= box.left and box.right <= self.x.end + 8
        inside = across and self.y.end - 8 <= box.top and box.bottom <= self.y.start
        return inside and not any(box.meets(other) for other in self.taken)


def _back(box: Box) -> str:
    width, height = tenth(box.right - box.left), tenth(box.bottom - box.top)
    return f"M{tenth(box.left)} {tenth(box.top)}h{width}v{height}h-{width}z"
