"""Histograms over training steps as ridgelines, the newest in front."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from reportgen.charts.axes import Axis, as_floats, format_position
from reportgen.charts.frame import BOTTOM, draw_frame
from reportgen.charts.paths import line_path
from reportgen.charts.svg import drawing, mixed_color, plot, printable, text, text_group, words

SHADES = 8
"""Colors of ridges from the oldest to the newest, classes `r0` to `r7` in `curves.css`."""

_LIGHT, _DARK = (214, 226, 245), (47, 111, 208)
_LEFT, _TOP, _RIGHT = 12.0, 10.0, 44.0
_OVERLAP = 2.6  # the highest ridge in distances between ridges
_TALLEST_SPACING = 36.0
_MOST_STEP_LABELS = 8


def ridgelines(
    title: str, steps: Sequence[float], counts: Sequence[Sequence[float]], low: float, high: float,
    *, x_title: str = "value", step_title: str = "step", wide: bool = False,
) -> Markup:  # fmt: skip
    """One ridge per step on a common scale, the first step at the back, the last in front.

    Args:
        title: the name of the drawing.
        steps: one per histogram, in order.
        counts: for each step the height of each bucket; all of one length.
        low, high: the range that the buckets divide into equal parts.
        x_title, step_title: titles of the axis of values and of the steps.
        wide: 760 × 300 pixels instead of 360 × 210.
    """
    if not steps or not len(counts[0]) or not (math.isfinite(low) and math.isfinite(high)):
        return drawing(360, 24, title, [text(0, 16, "no values to show", muted=True)])
    width, height = (760.0, 300.0) if wide else (360.0, 210.0)
    x = Axis(low=low, high=high if high > low else low + 1, start=_LEFT, end=width - _RIGHT)
    heights = np.nan_to_num(np.stack([as_floats(row) for row in counts]))
    spacing, bases = _bases(len(steps), height - BOTTOM)
    scale = _OVERLAP * spacing / (float(heights.max()) or 1.0)
    if len(steps) == 1:  # no ridge behind it to overlap
        scale = (height - BOTTOM - _TOP) / (float(heights.max()) or 1.0)
    ridges = [
        _ridge(x, base, heights[row] * scale, row / max(1, len(steps) - 1),
               f"{step_title} {format_position(steps[row])}")
        for row, base in enumerate(bases)
    ]  # fmt: skip
    flat = Axis(low=0, high=1, start=height - BOTTOM, end=_TOP)
    frame = draw_frame(x, flat, printable(x_title), x_ticks=7 if wide else 4,
                       y_labels=[(0, "")], grid=False)  # fmt: skip
    labels = _step_labels(steps, bases, x.end + 6, printable(step_title))
    return plot(title, width, height, "".join([frame, *ridges, labels]))


def _bases(count: int, bottom: float) -> tuple[float, list[float]]:
    """The distance between ridges, and the height of the floor of each."""
    room = bottom - _TOP
    spacing = min(_TALLEST_SPACING, room / (count - 1 + _OVERLAP)) if count > 1 else room
    return spacing, [bottom - spacing * (count - 1 - row) for row in range(count)]


def _ridge(x: Axis, base: float, heights: np.ndarray, age: float, name: str) -> str:
    """One filled outline of buckets; `age` runs from 0, the oldest, to 1."""
    edges = np.linspace(x.low, x.high, len(heights) + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    across = x.at(np.concatenate([[x.low], middles, [x.high]]))
    down = base - np.concatenate([[0.0], heights, [0.0]])
    shade = min(SHADES - 1, int(age * SHADES))
    fill = mixed_color(_LIGHT, _DARK, shade / (SHADES - 1))
    return (
        f'<path d="{line_path(across, down)}z" class="r{shade} seam" fill="{fill}" '
        'stroke="#ffffff" stroke-width="1" stroke-linejoin="round">'
        f"<title>{escape(printable(name))}</title></path>"
    )


def _step_labels(steps: Sequence[float], bases: Sequence[float], left: float, title: str) -> str:
    every = -(-len(steps) // _MOST_STEP_LABELS)
    rows = list(range(len(steps) - 1, -1, -every))  # from the end: the last step has a label
    body = "".join(words(left, bases[row] + 3, _short_step(steps[row])) for row in rows)
    return text_group(body + words(left, bases[-1] + 27, title))


def _short_step(step: float) -> str:
    if abs(step) < 10_000:
        return format_position(step)
    return f"{step / 1e6:.4g}M" if abs(step) >= 1e6 else f"{step / 1e3:.4g}k"
