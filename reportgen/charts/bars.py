"""Bars: one value each, or the parts of a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from reportgen.charts.svg import bar, drawing, fitted, rule, text, width_of

_SIZE = 11
_ROW, _THICK = 20, 12
_GAP = 8
Mark = Callable[[float, float, int], str]


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
    longest = max((each.value for each in bars), default=0) or 1
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
