"""Parts of a whole through time, stacked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from reportgen.charts.bars import legend
from reportgen.charts.svg import color, drawing, number, rule, text

_LEFT, _TOP, _BOTTOM = 74.0, 26.0, 40.0
_GRID_LINES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A stretch of the x axis with a name; `start` and `end` are shares of it."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Frame:
    right: float
    bottom: float
    highest: float

    def x(self, share: float) -> float:
        return _LEFT + share * (self.right - _LEFT)

    def y(self, value: float) -> float:
        return self.bottom - value / self.highest * (self.bottom - _TOP)


def stacked_areas(
    title: str, names: Sequence[str], xs: Sequence[float], rows: Sequence[Sequence[float]], *,
    stages: Sequence[Stage], peak: int, figure: Callable[[float], str], x_label: str,
    width: float = 760, height: float = 300,
) -> Markup:  # fmt: skip
    """`rows[i]` holds the parts, in the order of `names`, at `xs[i]` (0 to 1); `peak` is marked.

    The first part lies at the bottom. The highest total is what row `peak` adds up to.
    """
    if not rows:
        return drawing(width, 24, title, [text(0, 16, "nothing to plot", muted=True)])
    frame = _Frame(right=width - 14, bottom=height - _BOTTOM, highest=1.06 * sum(rows[peak]) or 1)
    body = [*_grid(frame, figure, x_label), *_areas(frame, names, xs, rows)]
    body += [*_stages(frame, stages), *_peak(frame, xs[peak], sum(rows[peak]), figure)]
    key, below = legend(list(names), _LEFT, height + 12, width)
    return drawing(width, height + below, title, [*body, *key])


def _areas(
    frame: _Frame, names: Sequence[str], xs: Sequence[float], rows: Sequence[Sequence[float]]
) -> list[str]:
    floor, body = [0.0] * len(rows), []
    for series, name in enumerate(names):
        ceiling = [low + row[series] for low, row in zip(floor, rows, strict=True)]
        path = [*_points(frame, xs, ceiling), *reversed(_points(frame, xs, floor))]
        body.append(
            f'<path d="M{" L".join(path)} Z" class="s{series}" fill="{color(series)}">'
            f"<title>{escape(name)}</title></path>"
        )
        floor = ceiling
    return body


def _points(frame: _Frame, xs: Sequence[float], ys: Sequence[float]) -> list[str]:
    return [f"{number(frame.x(x))} {number(frame.y(y))}" for x, y in zip(xs, ys, strict=True)]


def _grid(frame: _Frame, figure: Callable[[float], str], x_label: str) -> list[str]:
    body = []
    for line in range(_GRID_LINES + 1):
        value = frame.highest * line / _GRID_LINES
        body.append(rule(_LEFT, frame.y(value), frame.right, frame.y(value)))
        body.append(text(_LEFT - 8, frame.y(value) + 4, figure(value), anchor="end", muted=True))
    body.append(text((_LEFT + frame.right) / 2, frame.bottom + 32, x_label, anchor="middle"))
    return body


def _stages(frame: _Frame, stages: Sequence[Stage]) -> list[str]:
    """A line where each stage begins, and its name where there is room for it."""
    body = []
    for stage in stages:
        start, end = frame.x(stage.start), frame.x(stage.end)
        body.append(rule(start, _TOP, start, frame.bottom + 4))
        if end - start > 7 * len(stage.name):
            middle = (start + end) / 2
            body.append(text(middle, frame.bottom + 15, stage.name, anchor="middle", muted=True))
    return body


def _peak(frame: _Frame, x: float, total: float, figure: Callable[[float], str]) -> list[str]:
    across = frame.x(x)
    anchor = "end" if x > 0.7 else "start" if x < 0.3 else "middle"
    return [
        rule(across, _TOP - 6, across, frame.bottom, dashed=True),
        text(across, _TOP - 11, f"peak {figure(total)}", anchor=anchor),
    ]
