"""A small curve without axes, with the embedded data of its plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from markupsafe import Markup

from reportgen.charts.axes import Axis, YRange, as_floats, decimate
from reportgen.charts.curve_line import CurveLine, plot_data
from reportgen.charts.curves import plot_range
from reportgen.charts.paths import clipped, line_path, simplified
from reportgen.charts.svg import PALETTE, color, plot, tenth

_WIDTH, _HEIGHT, _EDGE = 240.0, 36.0, 4.0
_FEWEST_POINTS, _MOST_LINES = 12, 8
_DIGITS, _TOLERANCE = 4, 0.2  # coarser than in a plot, as a page may have thousands


def sparkline(
    title: str, lines: Sequence[CurveLine], *, x_title: str = "step",
    y_range: YRange | None = None, points: int = 40,
) -> Markup:  # fmt: skip
    """`lines` without axes, 240 × 36 pixels; the script of the page enlarges it to a plot.

    At most eight lines are kept, the first that are not faded, and `points` points are shared
    between them, at least twelve each, so that a page with thousands of sparklines stays small.
    """
    limits = y_range or plot_range(lines)
    chosen = [line for line in lines if not line.faded][:_MOST_LINES] or list(lines[:1])
    most = max(_FEWEST_POINTS, points // max(1, len(chosen)))
    kept = [_thinned(line, most) for line in chosen]
    thinned = any(len(few.xs) < len(line.xs) for few, line in zip(kept, chosen, strict=True))
    body = "".join(_curves(kept, limits))
    # The smoothed line is drawn but not embedded: with so few points it adds nothing.
    plain = [replace(line, smoothed=(), low=(), high=()) for line in kept]
    data = plot_data(title, x_title, plain, limits, digits=_DIGITS, spark=1, thinned=int(thinned))
    return plot(title, _WIDTH, _HEIGHT, body, data, kind="chart spark")


def _thinned(line: CurveLine, most: int) -> CurveLine:
    """`line` with at most `most` points and with the marks that a small picture has room for."""
    kept = decimate(as_floats(line.values), most)
    thinned: dict[str, Any] = {
        name: as_floats(values)[kept] if len(values) else ()
        for name in ("xs", "values", "smoothed", "low", "high", "epochs", "times")
        for values in (getattr(line, name),)
    }
    # The full count is kept, since only three of the marks are.
    total = max(line.non_finite_count, len(line.non_finite))
    return replace(line, **thinned, non_finite=tuple(line.non_finite[:3]), non_finite_count=total)


def _curves(lines: Sequence[CurveLine], limits: YRange) -> list[str]:
    every = np.concatenate([as_floats(line.xs) for line in lines]) if lines else np.array([])
    low, high = (float(np.nanmin(every)), float(np.nanmax(every))) if len(every) else (0.0, 1.0)
    x = Axis(low=low, high=high if high > low else low + 1, start=_EDGE, end=_WIDTH - _EDGE)
    y = Axis(low=limits.low, high=limits.high, log=limits.log,
             start=_HEIGHT - _EDGE, end=_EDGE)  # fmt: skip
    return [_curve(line, x, y) for line in lines]


def _curve(line: CurveLine, x: Axis, y: Axis) -> str:
    values = as_floats(line.smoothed if len(line.smoothed) else line.values)
    thinned = simplified(x.at(as_floats(line.xs)), y.at(values), _TOLERANCE)
    across, down = clipped(*thinned, y.end, y.start)
    series = line.color % len(PALETTE)
    dash = ' stroke-dasharray="4 3"' if line.role == "validation" else ""
    shown = np.isfinite(down)
    end = ""
    if shown.any():
        last = int(np.flatnonzero(shown)[-1])
        end = (
            f'<circle cx="{tenth(across[last])}" cy="{tenth(down[last])}" r="2.2" '
            f'class="s{series}" fill="{color(series)}"/>'
        )
    return (
        f'<g><path d="{line_path(across, down)}" class="l{series}" stroke="{color(series)}" '
        f'fill="none" stroke-width="1.4"{dash}/>{end}</g>'
    )
