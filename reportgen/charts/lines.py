"""Lines on logarithmic axes, against levels that they may cross."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

from reportgen.charts.bars_and_areas import legend
from reportgen.charts.svg import color, dash_attribute, drawing, number, rule, text, width_of

_SIZE = 11
_LEFT, _TOP, _BOTTOM = 74.0, 12.0, 44.0  # pixels around the plot, for titles and tick labels
Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One curve: its name and its points, x rising, both coordinates above zero."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """A horizontal line across the plot, named at its right end."""

    name: str
    value: float


@dataclass(frozen=True, slots=True)
class _Scale:
    """Powers of two from `low` to `high` spread from `start` to `end`: batch sizes double."""

    low: int
    high: int
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (math.log2(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        step = max(1, math.ceil((self.high - self.low) / most))
        return [2.0**power for power in range(self.low, self.high + 1, step)]


def thinned(points: Sequence[Point], most: int = 500) -> tuple[Point, ...]:
    """At most `most` of `points`: both ends, and the lowest and highest of every interval."""
    if len(points) <= most:
        return tuple(points)
    intervals = max(1, (most - 2) // 2)
    inner = range(1, len(points) - 1)
    kept = {0, len(points) - 1}
    for interval in range(intervals):
        part = inner[interval * len(inner) // intervals : (interval + 1) * len(inner) // intervals]
        if part:
            kept.add(min(part, key=lambda index: points[index][1]))
            kept.add(max(part, key=lambda index: points[index][1]))
    return tuple(points[index] for index in sorted(kept))


def line_chart(
    title: str, lines: Sequence[Line], levels: Sequence[Level], *, x_label: str, y_label: str,
    y_figure: Callable[[float], str], width: float = 760, height: float = 340,
) -> Markup:  # fmt: skip
    """`lines` on two axes of powers of two, `levels` across; a line without points is left out."""
    lines = [Line(name=line.name, points=thinned(line.points)) for line in lines if line.points]
    if not lines:
        return drawing(width, 24, title, [text(0, 16, "nothing to plot", muted=True)])
    right = width - 14 - max((width_of(level.name, _SIZE) for level in levels), default=0)
    x, y = _scales(lines, levels, right, height)
    body = [*_grid(x, y, x_label, y_label, y_figure), *_levels(levels, x, y)]
    for series, line in enumerate(lines):
        body.append(_curve(line, series, x, y))
    key, below = legend([line.name for line in lines], _LEFT, height + 12, width, _sample)
    return drawing(width, height + below, title, [*body, *key])


def _scales(
    lines: Sequence[Line], levels: Sequence[Level], right: float, height: float
) -> tuple[_Scale, _Scale]:
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points] + [level.value for level in levels]
    return (
        _Scale(*_powers(xs), _LEFT, right),
        _Scale(*_powers(ys), height - _BOTTOM, _TOP),
    )


def _powers(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log2(min(values))), math.ceil(math.log2(max(values)))
    return low, max(high, low + 1)  # a single value gets an axis of one doubling


def _grid(
    x: _Scale, y: _Scale, x_label: str, y_label: str, y_figure: Callable[[float], str]
) -> list[str]:
    body = []
    for value in y.ticks(9):
        body.append(rule(x.start, y.at(value), x.end, y.at(value)))
        body.append(text(x.start - 8, y.at(value) + 4, y_figure(value), anchor="end", muted=True))
    for value in x.ticks(12):
        body.append(rule(x.at(value), y.start, x.at(value), y.start + 4))
        body.append(text(x.at(value), y.start + 17, f"{value:,.0f}", anchor="middle", muted=True))
    body.append(text((x.start + x.end) / 2, y.start + 35, x_label, anchor="middle"))
    body.append(text(11, (y.start + y.end) / 2, y_label, anchor="middle", turned=True))
    return body


def _levels(levels: Sequence[Level], x: _Scale, y: _Scale) -> list[str]:
    body = []
    ordered = sorted(levels, key=lambda level: level.value)
    heights = _apart([y.at(level.value) for level in ordered], 13)
    for level, label_at in zip(ordered, heights, strict=True):
        at = y.at(level.value)
        body.append(rule(x.start, at, x.end, at, dashed=True))
        body.append(text(x.end + 6, label_at + 4, level.name))
    return body


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """`heights` (falling, as y grows downwards) moved up until each is `gap` above the last."""
    moved = list(heights[:1])
    for _, height in pairwise(heights):
        moved.append(min(height, moved[-1] - gap))
    return moved


def _curve(line: Line, series: int, x: _Scale, y: _Scale) -> str:
    points = [f"{number(x.at(px))} {number(y.at(py))}" for px, py in line.points]
    return _stroke(f"M{' L'.join(points)}", series, f"<title>{escape(line.name)}</title>")


def _sample(x: float, y: float, series: int) -> str:
    return _stroke(f"M{number(x)} {number(y - 5)} h22", series)


def _stroke(path: str, series: int, inside: str = "") -> str:
    return (
        f'<path d="{path}" class="l{series}" fill="none" stroke="{color(series)}" '
        f'stroke-width="2" stroke-linejoin="round"{dash_attribute(series)}>{inside}</path>'
    )
