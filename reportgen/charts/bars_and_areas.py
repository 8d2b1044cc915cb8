"""Bars and stacked areas: one value each, or the parts of a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from reportgen.charts.svg import bar, color, drawing, fitted, number, rule, text, width_of

_SIZE = 11
_ROW, _THICK = 20, 12
_GAP = 8
Mark = Callable[[float, float, int], str]
_LEFT, _TOP, _BOTTOM = 74.0, 26.0, 40.0  # pixels around the areas; the top has the peak's label
_GRID_LINES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One bar: what it is of, how long it is, and the figure beside it."""

    label: str
    value: float
    figure: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A part of a stack; parts of one name share a color through all stacks."""

    name: str
    value: float
    figure: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """One bar made of parts, and the figure of the whole."""

    label: str
    parts: tuple[Part, ...]
    figure: str


def bar_list(
    title: str, bars: Sequence[Bar], *, series: int = 0, width: float = 400, mono: bool = True
) -> Markup:
    """Horizontal bars under each other on one scale that begins at zero."""
    figures = max((width_of(each.figure, _SIZE) for each in bars), default=0)
    labels = _label_room([each.label for each in bars], 0.42 * width, mono=mono)
    left = labels + _GAP
    room = width - left - figures - _GAP
    longest = max((each.value for each in bars), default=0) or 1  # all bars may be zero
    body = []
    for row, each in enumerate(bars):
        top = row * _ROW + (_ROW - _THICK) / 2
        length = room * max(0.0, each.value) / longest
        label = fitted(each.label, labels, _SIZE, mono=mono)
        body.append(text(labels, top + 10, label, size=_SIZE, anchor="end", mono=mono))
        body.append(bar(left, top, length, _THICK, series, f"{each.label}: {each.figure}"))
        body.append(text(left + length + 6, top + 10, each.figure, size=_SIZE, muted=True))
    body.append(rule(left, 0, left, len(bars) * _ROW))
    return drawing(width, max(1, len(bars)) * _ROW, title, body)


def stacked_bars(title: str, stacks: Sequence[Stack], *, width: float = 760) -> Markup:
    """Horizontal bars made of parts, on one scale, with a legend of the parts' names."""
    names = _names(stacks)
    labels = _label_room([stack.label for stack in stacks], 0.34 * width, mono=False)
    figures = max((width_of(stack.figure, _SIZE) for stack in stacks), default=0)
    left = labels + _GAP
    totals = [sum(part.value for part in stack.parts) for stack in stacks]
    scale = (width - left - figures - _GAP) / (max(totals, default=0) or 1)
    body = []
    for row, stack in enumerate(stacks):
        top = row * (_ROW + 4) + 2
        label = fitted(stack.label, labels, _SIZE)
        body.append(text(labels, top + 14, label, size=_SIZE, anchor="end"))
        body.extend(_parts(stack, names, left, top, scale))
        end = left + totals[row] * scale
        body.append(text(end + 6, top + 14, stack.figure, size=_SIZE, muted=True))
    bottom = len(stacks) * (_ROW + 4)
    body.append(rule(left, 0, left, bottom))
    key, height = legend(names, left, bottom + 18, width)
    return drawing(width, bottom + 6 + height, title, [*body, *key])


def legend(
    names: Sequence[str], left: float, top: float, width: float, mark: Mark | None = None
) -> tuple[list[str], float]:
    """A key of series in their order, wrapped at `width`; and its height.

    `mark` draws the sample of a series, 10 high and up to 22 wide, from its lower left corner;
    a square otherwise.
    """
    sample, room_for_sample = (mark, 28) if mark else (_square, 15)
    body: list[str] = []
    x, y = left, top
    for series, name in enumerate(names):
        room = room_for_sample + width_of(name, _SIZE) + 15
        if x + room > width and x > left:
            x, y = left, y + 17
        body.append(sample(x, y + 1, series))
        body.append(text(x + room_for_sample, y, name, size=_SIZE, muted=True))
        x += room
    return body, y - top + 20


def _names(stacks: Sequence[Stack]) -> tuple[str, ...]:
    """The names of all parts, in the order of the stack that has most of them."""
    # That stack most likely has the parts of all others, in an order that makes sense.
    richest_first = sorted(stacks, key=lambda stack: -len(stack.parts))
    return tuple(dict.fromkeys(part.name for stack in richest_first for part in stack.parts))


def _parts(stack: Stack, names: Sequence[str], left: float, top: float, scale: float) -> list[str]:
    body, x = [], left
    for part in stack.parts:
        title = f"{stack.label}, {part.name}: {part.figure}"
        body.append(bar(x, top + 2, part.value * scale, 16, names.index(part.name), title))
        x += part.value * scale
    return body


def _square(x: float, y: float, series: int) -> str:
    return bar(x, y - 10, 10, 10, series)


def _label_room(labels: Sequence[str], most: float, *, mono: bool) -> float:
    return min(most, max((width_of(label, _SIZE, mono=mono) for label in labels), default=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """A named part of the x axis; `start` and `end` are shares of it."""

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
