"""Axes of plots: range, linear or logarithmic scale, ticks and tick labels."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ScaleChoice = Literal["auto", "linear", "log"]

# Beyond these the ratio of two floats overflows.
_LARGEST, _SMALLEST = 1e150, 1e-150
_FENCE = 3.0  # an outlier lies further than this many spans of the bulk beyond it
_PADDING = 0.05  # of the span, at each end
_LOG_RATIO = 100.0  # two decades
_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Axis:
    """Values from `low` to `high` along the pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, values: Floats) -> Floats:
        """The pixels of `values`; NaN for what a logarithmic axis cannot show."""
        low, high = self._ends()
        with np.errstate(invalid="ignore", divide="ignore"):
            shown = np.where(values > 0, np.log10(values), np.nan) if self.log else values
            return self.start + (shown - low) / (high - low) * (self.end - self.start)

    def pixel(self, value: float) -> float:
        """The pixel of one value."""
        return float(self.at(np.array([value]))[0])

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """About `most` round values on this axis, each with its label."""
        ticks = log_ticks(self.low, self.high, most) if self.log else []
        if ticks:
            return [(tick, log_label(tick)) for tick in ticks]
        ticks = nice_ticks(self.low, self.high, most)
        return list(zip(ticks, tick_labels(ticks), strict=True))

    def _ends(self) -> tuple[float, float]:
        return (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class YRange:
    """The vertical range of a plot, and the points outside of it.

    Attributes:
        outside: how many points lie below `low` or above `high`.
        highest, lowest: (x, value) of the most extreme of those, None where there is none.
    """

    low: float
    high: float
    log: bool = False
    outside: int = 0
    highest: tuple[float, float] | None = None
    lowest: tuple[float, float] | None = None


def as_floats(values: Iterable[Any]) -> Floats:
    """`values` as float64: None, NaN and infinities are NaN, magnitudes stay within 1e±150."""
    # np.array copies, so that the assignments below leave an array of the caller as it is.
    array = np.array(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
    array[~np.isfinite(array)] = np.nan
    array[np.abs(array) < _SMALLEST] = 0.0
    return np.clip(array, -_LARGEST, _LARGEST)


def robust_range(
    series: Sequence[tuple[Floats, Floats]], *, keep: Sequence[float] = (),
    include: Sequence[float] = (), scale: ScaleChoice = "auto",
) -> YRange:  # fmt: skip
    """The range of y that shows `series`, each (xs, ys), without isolated outliers.

    The bulk of a series is what remains without the highest and the lowest 1 % of its points (one
    point each from 8 points on, none below), so that a short series counts as much as a long one.
    A point further than three spans of the joint bulk beyond it is left out. The axis is
    logarithmic if the bulk is positive, spans two decades, and a linear axis would put half of
    the points into its lowest tenth. A constant series gets an axis of ± half its value. The range
    begins at zero if that costs less than a fifth of the span.

    Args:
        series: may contain NaN, which is left out.
        keep: values that are inside in any case, such as the best and the last of each series.
        include: values that are inside unless that would halve the height of the curves.
        scale: the caller's choice of the axis; "log" applies only if all of the bulk is positive.
    """
    finite = [(xs[ok], ys[ok]) for xs, ys in series if (ok := np.isfinite(ys)).any()]
    kept = [float(value) for value in as_floats(keep) if not math.isnan(value)]
    if not finite and not kept:
        return _around(0.0)
    if not finite:
        finite = [(np.zeros(len(kept)), np.array(kept))]
    bulk = _bulk([ys for _, ys in finite], kept)
    values = np.concatenate([ys for _, ys in finite])
    log = bulk[0] > 0 and scale != "linear" and (scale == "log" or _is_log(values, bulk))
    inside = _inside(values, bulk, log=log)
    low, high = _widened(*inside, include, log=log)
    return _with_outside(finite, _padded(low, high, log=log, cut=inside != _ends(values)))


def _bulk(series: Sequence[Floats], keep: Sequence[float]) -> tuple[float, float]:
    lows, highs = list(keep), list(keep)
    for ys in series:
        drop = len(ys) // 100 or int(len(ys) >= 8)
        ordered = np.partition(ys, (drop, len(ys) - 1 - drop))
        lows.append(float(ordered[drop]))
        highs.append(float(ordered[len(ys) - 1 - drop]))
    return min(lows), max(highs)


def _is_log(values: Floats, bulk: tuple[float, float]) -> bool:
    low, high = bulk
    return high >= _LOG_RATIO * low and float(np.median(values)) <= low + 0.1 * (high - low)


def _ends(values: Floats) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _inside(values: Floats, bulk: tuple[float, float], *, log: bool) -> tuple[float, float]:
    """The ends of the values that are no outliers."""
    low, high = (math.log10(end) for end in bulk) if log else bulk
    shown = np.log10(values[values > 0]) if log else values
    # A constant bulk has no span to measure outliers by: half its value serves, or 0.3 decades, a
    # factor of two. If the bulk is zero everywhere, nothing is an outlier.
    span = high - low or (0.3 if log else 0.5 * abs(low)) or math.inf
    near = shown[(shown >= low - _FENCE * span) & (shown <= high + _FENCE * span)]
    low, high = min(low, float(near.min())), max(high, float(near.max()))
    return (10**low, 10**high) if log else (low, high)


def _widened(
    low: float, high: float, include: Sequence[float], *, log: bool
) -> tuple[float, float]:
    candidates = [value for value in include if math.isfinite(value) and (value > 0 or not log)]
    if log:
        reach = high / low
        near = [value for value in candidates if low / reach <= value <= high * reach]
    else:
        reach = high - low or abs(high)
        near = [value for value in candidates if low - reach <= value <= high + reach]
    return min([low, *near]), max([high, *near])


def _padded(low: float, high: float, *, log: bool, cut: bool) -> YRange:
    if high - low <= 4e-7 * max(abs(low), abs(high)):  # equal in float32
        return _around((low + high) / 2)
    if log:
        factor = (high / low) ** _PADDING
        return YRange(low=low / factor, high=high * factor, log=True)
    pad = (_PADDING if not cut else 2 * _PADDING) * (high - low)
    floor, ceiling = low - pad, high + pad
    # A metric that is never negative shows no negative axis, one near zero shows zero. A curve that
    # reaches zero stays above the axis line, which would hide it.
    if low >= 0 and low <= 0.2 * (high - low):
        floor = 0.0 if low > 0 else -0.02 * (high - low)
    return YRange(low=floor, high=ceiling)


def _around(value: float) -> YRange:
    half = 0.5 * abs(value) or 1.0
    return YRange(low=value - half, high=value + half)


def _with_outside(series: Sequence[tuple[Floats, Floats]], limits: YRange) -> YRange:
    xs, ys = (np.concatenate([pair[axis] for pair in series]) for axis in (0, 1))
    above, below = ys > limits.high, ys < limits.low
    return YRange(
        low=limits.low,
        high=limits.high,
        log=limits.log,
        outside=int(above.sum() + below.sum()),
        highest=_point(xs, ys, int(ys.argmax())) if above.any() else None,
        lowest=_point(xs, ys, int(ys.argmin())) if below.any() else None,
    )


def _point(xs: Floats, ys: Floats, index: int) -> tuple[float, float]:
    return float(xs[index]), float(ys[index])


def decimate(ys: Floats, most: int, keep: Sequence[int] = ()) -> NDArray[np.int64]:
    """Indices of at most `most` points that draw the same curve as all of `ys`, in order.

    Returns both ends, the indices in `keep`, and the lowest and highest finite point of each of
    several equally long intervals, or its first point if none is finite.

    Raises:
        ValueError: `most` is less than 2, or `keep` leaves no room for both ends.
    """
    fixed = np.unique(np.array([0, len(ys) - 1, *keep], dtype=np.int64))
    if len(ys) <= most:
        return np.arange(len(ys), dtype=np.int64)
    if most < max(2, len(fixed)):
        raise ValueError(f"{most} points have no room for {len(fixed)} that must be kept")
    intervals = (most - len(fixed)) // 2
    if not intervals:
        return fixed
    length = -(-len(ys) // intervals)
    padded = np.full(length * intervals, np.nan)
    padded[: len(ys)] = ys
    padded[~np.isfinite(padded)] = np.nan
    rows = padded.reshape(intervals, length)
    starts = np.arange(intervals) * length
    lowest = np.where(np.isnan(rows), np.inf, rows).argmin(axis=1)
    highest = np.where(np.isnan(rows), -np.inf, rows).argmax(axis=1)
    chosen = np.concatenate([fixed, starts + lowest, starts + highest])
    # The last intervals may hold nothing but padding, whose indices lie beyond the last point.
    return np.unique(chosen[chosen < len(ys)]).astype(np.int64)


def nice_ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` multiples of 1, 2 or 5 times a power of ten from `low` to `high`."""
    span = high - low
    if not span > 0:
        return [low]
    power = math.floor(math.log10(span / most))
    step = next((f for f in (1, 2, 5) if f * 10.0**power * most >= span), 10)
    size = step * 10.0**power
    # Without 1e-9 the rounding error of a quotient may drop a tick at an end.
    first, last = math.ceil(low / size - 1e-9), math.floor(high / size + 1e-9)
    # Read from text, as products of a power of ten are not the nearest float: 3 * 0.1.
    return [float(f"{index * step}e{power}") for index in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Powers of ten from `low` to `high`, with 2 and 5 between where few; empty if under two."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1,), (1, 3), (1, 2, 5)):  # on a log axis 3 is about halfway from 1 to 10
        ticks = [float(f"{f}e{p}") for p in range(first, last + 1) for f in factors]
        ticks = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(ticks) >= 3:
            break
    return ticks[:: -(-len(ticks) // most)] if len(ticks) >= 2 else []


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Labels of equally spaced `ticks` in one notation: `0.25`, `12k`, `2e-5`."""
    largest = max(map(abs, ticks), default=0.0)
    step = min((b - a for a, b in pairwise(ticks)), default=largest)
    if largest == 0:
        return ["0"] * len(ticks)
    if not 1e-3 <= largest < 1e15:  # a float64 has 15 exact decimal digits
        places = math.floor(math.log10(largest)) - math.floor(math.log10(step) + 1e-9)
        return [_scientific(tick, max(0, places)) for tick in ticks]
    # A prefix hides no difference: 1,000,001 and 1,000,002 stay whole.
    for size, prefix in _SI if largest >= 1e4 else ():
        if largest >= size and step >= size / 1000:
            return [_with_prefix(tick, size, prefix) for tick in ticks]
    places = next((p for p in range(12) if abs(round(step, p) - step) < 1e-6 * step), 12)
    return [_minus(f"{tick:,.{places}f}") for tick in ticks]


def log_label(tick: float) -> str:
    """The label of a tick on a logarithmic axis: `1e-5`, `0.01`, `100`, `10k`."""
    if 1e-3 <= tick < 1e4:
        return f"{tick:,.10f}".rstrip("0").rstrip(".")
    return tick_labels([tick])[0]


def format_value(value: float, digits: int = 4) -> str:
    """`value` with `digits` significant digits, and whole where those are not enough.

    With four digits: `0.9123`, `12,346`, `1.5e-6`; `1e6` and `Inf` in short. Used by plots, tables
    and sentences; `formatValue` in `templates/curve_plot.js` has the same rules.
    """
    if value == 0:
        return "0"
    if not math.isfinite(value):
        return {math.inf: "Inf", -math.inf: "−Inf"}.get(value, "NaN")
    rounded = float(f"{value:.{digits}g}")
    if not 1e-3 <= abs(rounded) < 1e6:
        return _scientific(value, digits - 1)
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    text = f"{value:,.{places}f}"
    return _minus(text.rstrip("0").rstrip(".") if "." in text else text)


def format_position(x: float) -> str:
    """A step, or an epoch that need not be whole: `8,200`, `12.25`."""
    if x == int(x) and abs(x) < 1e15:
        return _minus(f"{int(x):,}")
    return format_value(x) if abs(x) < 1e4 or abs(x) >= 1e15 else _minus(f"{x:,.1f}")


def _scientific(value: float, places: int) -> str:
    if value == 0:
        return "0"
    digits, exponent = f"{value:.{places}e}".split("e")
    digits = digits.rstrip("0").rstrip(".") if "." in digits else digits
    return _minus(f"{digits}e{int(exponent)}")


def _with_prefix(value: float, size: float, prefix: str) -> str:
    if value == 0:
        return "0"
    digits = f"{value / size:.3f}".rstrip("0").rstrip(".")
    return _minus(f"{digits}{prefix}")


def _minus(text: str) -> str:
    # In Inter, U+2212 is 0.66 em wide, about as wide as a digit; the hyphen has 0.46.
    return text.replace("-", "−", 1) if text.startswith("-") else text
