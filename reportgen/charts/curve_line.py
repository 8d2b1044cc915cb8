"""The lines of a curve plot, and the data embedded in its SVG for the script of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from reportgen.charts.axes import Floats, YRange, as_floats
from reportgen.charts.paths import simplified
from reportgen.charts.svg import numbers

CurveRole = Literal["train", "validation", "none"]
Values = Sequence[float | None] | Floats


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class CurveLine:
    """One curve of a plot; all sequences are as long as `xs`, or empty.

    Attributes:
        name: what the legend shows, usually the run; lines of one run share name and color.
        role: a validation curve is dashed.
        color: index into the palette, which repeats.
        xs: rising; the axis of the plot.
        values: None or NaN where not finite.
        smoothed: drawn thick over the thin raw line.
        low, high: a band, such as the range over several seeds.
        times: seconds since 1970, for the read-out and the time axes.
        epochs: the same points in epochs.
        non_finite: (x, "nan" | "inf" | "-inf") of points to mark; `non_finite_count` where the
            curve has more of them than are listed.
        best, last: (x, value); None where there is none.
        faded: an earlier attempt, drawn gray and thin.
    """

    name: str
    xs: Values
    values: Values
    role: CurveRole = "none"
    color: int = 0
    smoothed: Values = ()
    low: Values = ()
    high: Values = ()
    times: Values = ()
    epochs: Values = ()
    non_finite: Sequence[tuple[float, str]] = ()
    non_finite_count: int = 0
    best: tuple[float, float] | None = None
    last: tuple[float, float] | None = None
    faded: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class HorizontalMark:
    """A horizontal line: a baseline, chance, a budget."""

    label: str
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class VerticalMark:
    """A vertical line: a resume, a change of the learning rate, an epoch."""

    label: str
    x: float


def plot_data(
    title: str, x_title: str, lines: Sequence[CurveLine], limits: YRange, *,
    digits: int = 6, **extras: Any,
) -> dict[str, Any]:  # fmt: skip
    """The data with which `templates/curve_plot.js` redraws a plot; empty `extras` are left out.

    Values have `digits` significant digits.

    Keys: title; x_title; y [low, high, is logarithmic] and outside, highest, lowest as in `YRange`;
    x, the lists of xs that `lines` refer to by index; lines, see `_line_data`. A list of whole xs
    is its first one and then differences, marked by `steps`.
    """
    every_x = [as_floats(line.xs) for line in lines]
    # Differences between steps have fewer digits than the steps.
    whole = all(bool((xs == np.rint(xs)).all()) for xs in every_x)
    written = [numbers(np.diff(xs, prepend=0.0) if whole else xs, 12) for xs in every_x]
    distinct = list(dict.fromkeys(written))
    found = {"highest": limits.highest, "lowest": limits.lowest, "outside": limits.outside}
    extras |= {name: value for name, value in found.items() if value}
    return {
        "title": title,
        "x_title": x_title,
        "y": [*(float(f"{end:.6g}") for end in (limits.low, limits.high)), int(limits.log)],
        "steps": int(whole),
        **{name: value for name, value in extras.items() if value},
        "x": distinct,
        "lines": [
            _line_data(line, distinct.index(xs), digits)
            for line, xs in zip(lines, written, strict=True)
        ],
    }


def _line_data(line: CurveLine, x: int, digits: int) -> dict[str, Any]:
    """One line; `x` is the index of its xs.

    Keys: x, name, role, c (color), y (values), s (smoothed), lo and hi (band), e (epochs by x), t0
    (first time) and t (seconds since, by x), nf (non-finite points), nfc (how many where there are
    more), best, last, faded. Epochs and times are knots [[x, ...], [value, ...]] between which a
    straight line is good to a thousandth of their range.
    """
    xs, times = as_floats(line.xs), as_floats(line.times)
    known = times[np.isfinite(times)]  # seconds since the first are shorter than since 1970
    start = float(known[0]) if len(known) else 0.0
    listed = len(line.non_finite)
    optional: dict[str, Any] = {
        "s": numbers(as_floats(line.smoothed), digits - 1) if len(line.smoothed) else "",
        "lo": numbers(as_floats(line.low), digits - 1) if len(line.low) else "",
        "hi": numbers(as_floats(line.high), digits - 1) if len(line.high) else "",
        "e": _knots(xs, as_floats(line.epochs)),
        "t0": round(start),
        "t": _knots(xs, times - start),
        "nf": [[float(at), kind] for at, kind in line.non_finite],
        "nfc": line.non_finite_count if line.non_finite_count > listed else 0,
        "best": _point(line.best),
        "last": _point(line.last),
        "faded": int(line.faded),
    }
    return {
        "x": x,
        "name": line.name,
        "role": line.role,
        "c": line.color,
        "y": numbers(as_floats(line.values), digits),
        **{key: value for key, value in optional.items() if value},
    }


def _point(point: tuple[float, float] | None) -> list[float]:
    return [float(point[0]), float(f"{point[1]:.6g}")] if point else []


def _knots(xs: Floats, values: Floats) -> list[str]:
    known = np.isfinite(values) if len(values) else np.array([], dtype=bool)
    if not known.any():
        return []
    x, y = xs[known], values[known]
    # `simplified` makes four passes, each of which may err by the tolerance.
    # Without 1e-9 no point of a constant would be left out.
    x, y = simplified(x, y, float(np.ptp(y)) / 4000 + 1e-9)
    return [numbers(x, 12), numbers(np.round(y, 2), 8)]
