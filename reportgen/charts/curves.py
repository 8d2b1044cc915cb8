"""Curves over steps: raw and smoothed lines, best and last values, bands, NaN, and outliers.

A plot is drawn for paper and for a page without scripts; its data is embedded, so that
`templates/curve_plot.js` can draw it again with other axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from reportgen.charts.axes import (
    Axis,
    Floats,
    ScaleChoice,
    YRange,
    as_floats,
    decimate,
    format_position,
    format_value,
    robust_range,
)
from reportgen.charts.bars_and_areas import legend
from reportgen.charts.curve_line import CurveLine, HorizontalMark, VerticalMark, plot_data
from reportgen.charts.frame import (
    BOTTOM,
    RIGHT,
    TOP,
    LabelBox,
    Labels,
    crowd_of,
    draw_frame,
    draw_notes,
    gutter,
)
from reportgen.charts.paths import area_path, clipped, dots_path, line_path, simplified
from reportgen.charts.svg import BAD, MUTED, PALETTE, color, fitted, plot, printable, tenth

__all__ = [
    "CurveLine",
    "CurvePlot",
    "HorizontalMark",
    "VerticalMark",
    "curve_plot",
    "plot_range",
]

_FEW_POINTS = 30
_DASH = "5 3"
_FADED, _TINT = "#b8c0cb", "#fbe9e7"
_MOST_IN_LEGEND, _MOST_NAMED_MARKS = 12, 12


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePlot:
    """A drawn plot.

    Attributes:
        svg: for a page, with its data; `standalone` makes a file of it, `bare` is for paper.
        outside: how many points lie outside of the vertical range, as a note says below the plot.
        y: that range.
    """

    svg: Markup
    outside: int
    y: YRange


@dataclass(frozen=True, slots=True, eq=False)
class _DrawnCurve:
    """A line with its arrays."""

    line: CurveLine
    xs: Floats
    ys: Floats
    smoothed: Floats
    low: Floats
    high: Floats

    @property
    def stroke(self) -> str:
        if self.line.faded:
            return f'class="faded" stroke="{_FADED}"'
        return f'class="l{self.line.color % len(PALETTE)}" stroke="{color(self.line.color)}"'

    @property
    def fill(self) -> str:
        if self.line.faded:
            return f'class="faded-dot" fill="{_FADED}"'
        return f'class="s{self.line.color % len(PALETTE)}" fill="{color(self.line.color)}"'

    @property
    def dash(self) -> str:
        return f' stroke-dasharray="{_DASH}"' if self.line.role == "validation" else ""


def plot_range(lines: Sequence[CurveLine], references: Sequence[HorizontalMark] = (),
               scale: ScaleChoice = "auto") -> YRange:  # fmt: skip
    """The vertical range of a plot of `lines`; see `robust_range` for its rules.

    Call it with all points and pass the result to `curve_plot` with fewer, so that outliers are
    judged and counted before decimation.
    """
    return _range([_curve(line) for line in lines], references, scale)


def curve_plot(
    title: str, lines: Sequence[CurveLine], *, x_title: str = "step",
    y_range: YRange | None = None, scale: ScaleChoice = "auto",
    references: Sequence[HorizontalMark] = (), marks: Sequence[VerticalMark] = (),
    valid: tuple[float | None, float | None] = (None, None), wide: bool = False,
) -> CurvePlot:  # fmt: skip
    """A plot of `lines`, 360 × 210 pixels or, `wide`, 760 × 300, and more for a long legend.

    Args:
        title: the name of the drawing; it is not drawn, as a page has its own caption.
        lines: drawn in this order, faded ones first.
        x_title: what the horizontal axis shows.
        y_range: from `plot_range` over all points; by the points given otherwise.
        scale: linear or logarithmic y; by the data if "auto".
        references, marks: lines across and up the plot.
        valid: the range outside of which the background is tinted; None for an open end.
    """
    curves = sorted((_curve(line) for line in lines), key=lambda curve: not curve.line.faded)
    limits = y_range or _range(curves, references, scale)
    width, height = (760.0, 300.0) if wide else (360.0, 196.0)
    x, y = _axes(curves, limits, width, height)
    shown = [curve for curve in curves if not curve.line.faded]
    labels = Labels(x, y, crowd_of([(x.at(curve.xs), y.at(curve.ys)) for curve in shown], x))
    # The labels of best values come first: a label without a free place is left out.
    rings = _extremes(shown, x, y, labels, 8 if wide else 4)
    body = [
        _invalid(valid, x, y),
        draw_frame(x, y, x_title, x_ticks=9 if wide else 5, y_ticks=7 if wide else 5),
        *(_band(curve, x, y) for curve in curves),
        _vertical(marks, x, y, labels),
        _across(references, x, y, labels),
        *(_strokes(curve, x, y) for curve in curves),
        *(_edge_marks(curve, x, y) for curve in curves),
        rings,
        labels.svg(),
    ]
    key, used = _legend(curves, x, height, width)
    notes, below = draw_notes(_notes(curves, limits, references, x_title), x.start,
                              height + used, width - RIGHT)  # fmt: skip
    data = plot_data(
        title, x_title, [curve.line for curve in curves], limits,
        area=[x.start, x.end, y.end, y.start, x.low, x.high],
        references=[[each.label, float(each.value)] for each in references],
        marks=[[mark.label, float(mark.x)] for mark in marks],
        valid=[*valid] if valid != (None, None) else [],
    )  # fmt: skip
    svg = plot(title, width, height + used + below, "".join([*body, key, notes]), data)
    return CurvePlot(svg=svg, outside=limits.outside, y=limits)


def _curve(line: CurveLine) -> _DrawnCurve:
    return _DrawnCurve(
        line,
        as_floats(line.xs),
        *(as_floats(each) for each in (line.values, line.smoothed, line.low, line.high)),
    )


def _range(
    curves: Sequence[_DrawnCurve], references: Sequence[HorizontalMark], scale: ScaleChoice
) -> YRange:
    keep = [point[1] for curve in curves for point in (curve.line.best, curve.line.last) if point]
    # A band whose ends lie far out must not squeeze its mean, so it is included and not kept.
    include = [reference.value for reference in references]
    for curve in curves:
        for edge in (curve.low, curve.high):
            include.extend(edge[np.isfinite(edge)].tolist())
    series = [(curve.xs, curve.ys) for curve in curves]
    return robust_range(series, keep=keep, include=include, scale=scale)


def _axes(
    curves: Sequence[_DrawnCurve], limits: YRange, width: float, height: float
) -> tuple[Axis, Axis]:
    y = Axis(low=limits.low, high=limits.high, log=limits.log, start=height - BOTTOM, end=TOP)
    # A run that has diverged may end in points that are marked only.
    marked = as_floats([x for curve in curves for x, _ in curve.line.non_finite])
    every = np.concatenate([marked, *(curve.xs for curve in curves)])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    # The dot and the ring at the ends of a curve are not cut off.
    pad = 0.015 * (high - low) or 0.5 * (abs(low) or 1.0)
    left = gutter(y, 7 if width > 400 else 5)
    return Axis(low=low - pad, high=high + pad, start=left, end=width - RIGHT), y


def _invalid(valid: tuple[float | None, float | None], x: Axis, y: Axis) -> str:
    """The tinted areas below and above the valid range."""
    body = ""
    for value, edge in zip(valid, (y.start, y.end), strict=True):
        if value is None:
            continue
        at = y.pixel(min(max(value, y.low), y.high))
        top, tall = tenth(min(at, edge)), tenth(abs(edge - at))
        body += (
            f'<rect x="{tenth(x.start)}" y="{top}" width="{tenth(x.end - x.start)}" '
            f'height="{tall}" class="invalid" fill="{_TINT}"/>'
        )
    return body


def _band(curve: _DrawnCurve, x: Axis, y: Axis) -> str:
    if not len(curve.low) or not len(curve.high):
        return ""
    low, high = (np.clip(edge, y.low, y.high) for edge in (curve.low, curve.high))
    path = area_path(x.at(curve.xs), y.at(high), y.at(low))
    return f'<path d="{path}" {curve.fill} fill-opacity=".18"/>' if path else ""


def _strokes(curve: _DrawnCurve, x: Axis, y: Axis) -> str:
    """The raw line, thin where a smoothed one is drawn over it, and dots where points are few."""
    across, down = x.at(curve.xs), y.at(curve.ys)
    smooth = bool(len(curve.smoothed))
    dotted = int(np.isfinite(curve.ys).sum()) <= _FEW_POINTS
    width = "1.2" if curve.line.faded else "1.3" if dotted and not smooth else "1.8"
    # More points than this are closer than half a pixel; their extremes draw the same line.
    shown = decimate(curve.ys, max(300, int(x.end - x.start)))
    raw = line_path(*clipped(across[shown], down[shown], y.end, y.start))
    if smooth:
        line = clipped(*simplified(across, y.at(curve.smoothed)), y.end, y.start)
        body = _path(raw, "1", ' stroke-opacity=".35"') + _path(line_path(*line), width, curve.dash)
    else:
        body = _path(raw, width, curve.dash)
    if dotted:
        inside = (curve.ys >= y.low) & (curve.ys <= y.high)
        dots = dots_path(across[inside], down[inside])
        body += _path(dots, "4", ' stroke-opacity=".5"' if smooth else "")
    return (
        f'<g {curve.stroke} fill="none" stroke-linecap="round" stroke-linejoin="round">{body}</g>'
    )


def _path(data: str, width: str, more: str = "") -> str:
    return f'<path d="{data}" stroke-width="{width}"{more}/>' if data else ""


def _edge_marks(curve: _DrawnCurve, x: Axis, y: Axis) -> str:
    """Triangles where points lie outside; crosses and triangles for NaN and infinities."""
    across = x.at(curve.xs)
    non_finite = {kind: x.at(as_floats([at for at, each in curve.line.non_finite if each == kind]))
                  for kind in ("nan", "inf", "-inf")}  # fmt: skip
    outside = _triangles(across[curve.ys > y.high], y.end, 5)
    outside += _triangles(across[curve.ys < y.low], y.start, -5)
    infinite = _triangles(non_finite["inf"], y.end, 7)
    infinite += _triangles(non_finite["-inf"], y.start, -7)
    crosses = "".join(_cross(first, last, y.start) for first, last in _merged(non_finite["nan"], 8))
    body = f'<path d="{outside}" {curve.fill}/>' if outside else ""
    body += f'<path d="{infinite}" class="bad" fill="{BAD}"/>' if infinite else ""
    if crosses:
        shape = f'stroke="{BAD}" stroke-width="1.6" fill="none"'
        body += f'<path d="{crosses}" class="alarm" {shape}/>'
    return body


def _triangles(pixels: Floats, edge: float, size: float) -> str:
    return "".join(_triangle(first, edge, size) for first, _ in _merged(pixels, 6))


def _merged(pixels: Floats, gap: float) -> list[tuple[float, float]]:
    """First and last of each group of pixels that are less than `gap` apart."""
    if not len(pixels):
        return []
    ordered = np.sort(pixels)
    groups = np.split(ordered, np.flatnonzero(np.diff(ordered) >= gap) + 1)
    return [(float(group[0]), float(group[-1])) for group in groups]


def _triangle(x: float, y: float, size: float) -> str:
    """A triangle with its tip at `y`, pointing up, or down for a negative size."""
    half = abs(size) * 0.6
    return f"M{tenth(x)} {tenth(y)}l{tenth(half)} {tenth(size)}h{tenth(-2 * half)}z"


def _cross(first: float, last: float, y: float) -> str:
    """A cross at `first`, and a line along the axis as far as the marks go on without a gap."""
    on = f"M{tenth(first)} {tenth(y)}H{tenth(last)}" if last - first > 1 else ""
    return f"M{tenth(first - 3.5)} {tenth(y - 3.5)}l7 7m0-7l-7 7{on}"


def _vertical(marks: Sequence[VerticalMark], x: Axis, y: Axis, labels: Labels) -> str:
    """Vertical lines; if there are many, short ticks at the top without labels."""
    inside = [mark for mark in marks if x.low <= mark.x <= x.high]
    named = len(inside) <= _MOST_NAMED_MARKS
    end = y.start if named else y.end + 8
    for mark in inside if named else ():
        labels.on_vertical(x.pixel(mark.x), mark.label)
    return _dashed([f"M{tenth(x.pixel(m.x))} {tenth(y.end)}V{tenth(end)}" for m in inside], "2 3")


def _across(references: Sequence[HorizontalMark], x: Axis, y: Axis, labels: Labels) -> str:
    inside = [reference for reference in references if y.low <= reference.value <= y.high]
    for reference in inside:
        labels.on_horizontal(y.pixel(reference.value), reference.label)
    heights = [tenth(y.pixel(reference.value)) for reference in inside]
    return _dashed([f"M{tenth(x.start)} {height}H{tenth(x.end)}" for height in heights], "6 3")


def _dashed(lines: Sequence[str], dash: str) -> str:
    shape = f'stroke="{MUTED}" stroke-dasharray="{dash}" fill="none"'
    return f'<path d="{"".join(lines)}" class="rule" {shape}/>' if lines else ""


def _extremes(curves: Sequence[_DrawnCurve], x: Axis, y: Axis, labels: Labels, most: int) -> str:
    """A ring at each best value and a dot at each last one; `most` of the best get labels."""
    body = ""
    for curve in curves:
        if (last := _inside_point(curve.line.last, x, y)) is not None:
            body += f'<circle cx="{tenth(last[0])}" cy="{tenth(last[1])}" r="2.6" {curve.fill}/>'
    ringed = [(curve, at) for curve in curves if (at := _inside_point(curve.line.best, x, y))]
    for curve, (across, down) in ringed:
        body += (
            f'<circle cx="{tenth(across)}" cy="{tenth(down)}" r="3.6" {curve.stroke} '
            f'fill="none" stroke-width="1.6"/>'
        )
        # Before any label is placed, so that none covers a ring.
        labels.taken.append(LabelBox(across - 5, down - 5, across + 5, down + 5))
    # Validation first, as a model is chosen by its best validation value.
    ringed.sort(key=lambda pair: pair[0].line.role != "validation")
    for curve, at in ringed[:most]:
        labels.beside(at, format_value(curve.line.best[1]) if curve.line.best else "")
    return body


def _inside_point(
    point: tuple[float, float] | None, x: Axis, y: Axis
) -> tuple[float, float] | None:
    if point is None or not (x.low <= point[0] <= x.high and y.low <= point[1] <= y.high):
        return None
    return x.pixel(point[0]), y.pixel(point[1])


def _legend(curves: Sequence[_DrawnCurve], x: Axis, top: float, width: float) -> tuple[str, float]:
    """Names with their colors, and which line is train and which validation; and its height."""
    # Curves of one run share name and color, so they share an entry.
    entries = list(dict.fromkeys((c.line.name, c.stroke) for c in curves if c.line.name))
    entries += _role_entries(curves)
    if not entries:
        return "", 0.0
    shown = entries[:_MOST_IN_LEGEND]
    names = [fitted(printable(name), 0.6 * width, 11) for name, _ in shown]
    if len(entries) > len(shown):
        names.append(f"and {len(entries) - len(shown)} more")

    def sample(left: float, bottom: float, index: int) -> str:
        if index >= len(shown):
            return ""
        line = f"M{tenth(left)} {tenth(bottom - 5)}h22"
        return f'<path d="{line}" {shown[index][1]} fill="none" stroke-width="2"/>'

    body, used = legend(names, x.start, top + 12, width, sample)
    return "".join(body), used


def _role_entries(curves: Sequence[_DrawnCurve]) -> list[tuple[str, str]]:
    """Legend entries for solid (train) and dashed (validation) lines, if a plot has both."""
    roles = {curve.line.role: curve for curve in curves if curve.line.role != "none"}
    if len(roles) < 2:
        return []
    strokes = {curve.stroke for curve in curves}
    stroke = strokes.pop() if len(strokes) == 1 else f'class="edge" stroke="{MUTED}"'
    return [("train", stroke), ("validation", stroke + roles["validation"].dash)]


def _notes(
    curves: Sequence[_DrawnCurve],
    limits: YRange,
    references: Sequence[HorizontalMark],
    x_title: str,
) -> list[str]:
    """Short notes below the plot: points outside the range, NaN, lines left out."""
    notes = ["log scale"] if limits.log else []
    if limits.outside:
        noun = "point" if limits.outside == 1 else "points"
        ends = [f"{name} {format_value(point[1])} at {x_title} {format_position(point[0])}"
                for name, point in (("max", limits.highest), ("min", limits.lowest))
                if point is not None]  # fmt: skip
        notes += [", ".join([f"{limits.outside:,} {noun} outside", *ends[:1]]), *ends[1:]]
    notes.extend(_non_finite_note(curves, x_title))
    for reference in references:
        if not limits.low <= reference.value <= limits.high:
            side = "above" if reference.value > limits.high else "below"
            label = fitted(printable(reference.label), 120, 10)
            notes.append(f"{label} ({format_value(reference.value)}) is {side}")
    return notes


def _non_finite_note(curves: Sequence[_DrawnCurve], x_title: str) -> Iterable[str]:
    points = [point for curve in curves for point in curve.line.non_finite]
    if not points:
        return
    shown = {"nan": "NaN", "inf": "Inf", "-inf": "−Inf"}
    kinds = " and ".join(text for kind, text in shown.items() if kind in {k for _, k in points})
    count = sum(max(len(c.line.non_finite), c.line.non_finite_count) for c in curves)
    first = format_position(min(x for x, _ in points))
    yield (f"{kinds} at {x_title} {first}" if count == 1
           else f"{count:,} points {kinds}, first at {x_title} {first}")  # fmt: skip
