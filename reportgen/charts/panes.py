"""Charts that are not curves over steps: scatter, bar, heatmap, box and pie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from reportgen.charts.axes import Axis, Floats, as_floats, format_value, nice_ticks, tick_labels
from reportgen.charts.bars_and_areas import Bar, bar_list, legend
from reportgen.charts.frame import BOTTOM, RIGHT, TOP, Ticks, draw_frame, draw_notes, gutter
from reportgen.charts.paths import dots_path
from reportgen.charts.svg import (
    PALETTE,
    bar,
    color,
    drawing,
    fitted,
    mixed_color,
    plot,
    printable,
    tenth,
    text,
    text_group,
    words,
)

Coordinate = float | str

_WIDTH, _HEIGHT = 420.0, 260.0
_MOST_POINTS, _MOST_TRACES, _MOST_BARS, _MOST_CELLS, _MOST_PARTS = 2000, 12, 120, 64, 30
_MOST_NAMED_BARS, _MOST_COLUMN_LABELS, _MOST_ROW_LABELS = 12, 12, 16
_LEVELS = 16
_RAMP = ((247, 249, 252), (158, 190, 232), (47, 111, 208), (16, 44, 92))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PaneSeries:
    """One trace.

    Attributes:
        x: numbers or categories; numbered from 1 if empty.
        y: numbers; for a heatmap the names of the rows.
        z: the rows of a heatmap, the first at the bottom.
    """

    name: str = ""
    x: Sequence[Coordinate] = ()
    y: Sequence[Coordinate] = ()
    z: Sequence[Sequence[float]] = ()


def pane(
    kind: str, title: str, series: Sequence[PaneSeries], *, x_title: str = "", y_title: str = ""
) -> Markup:
    """The chart of `kind`, 420 × 260 pixels or more: scatter, bar, heatmap, box or pie.

    Values that are not finite numbers are left out. At most 12 traces, 2,000 points, 120 bars and
    30 parts of a pie are drawn, with a note on what was left out; a heatmap of more than 64 × 64
    cells shows means of neighboring cells.

    Raises:
        ValueError: `kind` is unknown.
    """
    charts: dict[str, Callable[[str, Sequence[PaneSeries], str, str], Markup]] = {
        "scatter": _scatter,
        "bar": _bar,
        "heatmap": _heatmap,
        "box": _box,
        "pie": _pie,
    }
    if kind not in charts:
        raise ValueError(f"no chart of kind {kind!r}; there are {', '.join(charts)}")
    return charts[kind](title, series, printable(x_title), printable(y_title))


def _scatter(title: str, series: Sequence[PaneSeries], x_title: str, y_title: str) -> Markup:
    names = _categories([each.x for each in series])
    points = [_points(each, names) for each in series[:_MOST_TRACES]]
    total = sum(len(xs) for xs, _ in points)
    if not total:
        return _empty(title)
    # Each trace gives up the same share of its points, so that none disappears.
    share = min(1.0, _MOST_POINTS / total)
    points = [(xs[: max(1, int(len(xs) * share))], ys[: max(1, int(len(ys) * share))])
              for xs, ys in points]  # fmt: skip
    every_x, every_y = (np.concatenate([pair[axis] for pair in points]) for axis in (0, 1))
    y = _axis(every_y, _HEIGHT - BOTTOM, TOP)
    x = _axis(every_x, gutter(y, 5, title=y_title), _WIDTH - RIGHT)
    labels = [(i, _short(printable(n))) for i, n in enumerate(names) if x.low <= i <= x.high]
    body = draw_frame(x, y, x_title, y_title=y_title, x_labels=labels or None)
    for index, (xs, ys) in enumerate(points):
        body += (
            f'<path d="{dots_path(x.at(xs), y.at(ys))}" class="l{index % len(PALETTE)}" '
            f'stroke="{color(index)}" stroke-width="5" stroke-opacity=".7" '
            'stroke-linecap="round"/>'
        )
    notes = [f"the first {share:.0%} of {total:,} points"] if share < 1 else []
    return _finish(title, body, series, x.start, notes)


def _bar(title: str, series: Sequence[PaneSeries], x_title: str, y_title: str) -> Markup:
    shown = [each for each in series[:_MOST_TRACES] if len(each.y)]
    labels = list(dict.fromkeys(_as_text(x) for each in shown for x in _bar_places(each)))
    if not labels:
        return _empty(title)
    kept = labels[:_MOST_BARS]
    heights = {
        (index, _as_text(x)): value
        for index, each in enumerate(shown)
        for x, value in zip(_bar_places(each), as_floats(_numbers(each.y)), strict=False)
    }
    # Bars begin at zero: their lengths are compared.
    values = np.array([0.0, *(value for value in heights.values() if np.isfinite(value))])
    y = _axis(values, _HEIGHT - BOTTOM, TOP)
    x = Axis(low=-0.5, high=len(kept) - 0.5, start=gutter(y, 5, title=y_title), end=_WIDTH - RIGHT)
    ticks = _bar_labels([place for each in shown for place in _bar_places(each)], kept)
    body = draw_frame(x, y, x_title, y_title=y_title, x_labels=ticks)
    body += "".join(_bars_at(kept, heights, len(shown), x, y))
    notes = [f"the first {len(kept)} of {len(labels):,} bars"] if len(labels) > len(kept) else []
    return _finish(title, body, series, x.start, notes)


def _bar_labels(places: Sequence[Coordinate], kept: Sequence[str]) -> Ticks:
    """The name of each bar; round numbers where many bars stand at equal distances."""
    numeric = sorted({float(place) for place in places if not isinstance(place, str)})
    gaps = np.diff(numeric)
    # 1e-3 allows for rounding errors in places, such as the buckets of a histogram.
    even = len(gaps) > _MOST_NAMED_BARS and bool(np.ptp(gaps) <= 1e-3 * gaps.max())
    if not even or len(numeric) != len(kept):
        return [(index, _short(printable(label))) for index, label in enumerate(kept)]
    ticks = nice_ticks(numeric[0], numeric[-1], 6)
    at = [(tick - numeric[0]) / float(gaps.mean()) for tick in ticks]
    return list(zip(at, tick_labels(ticks), strict=True))


def _bars_at(
    labels: Sequence[str], heights: dict[tuple[int, str], float], traces: int, x: Axis, y: Axis
) -> list[str]:
    slot = (x.end - x.start) / len(labels)
    wide = max(0.5, slot * 0.84 / traces)
    body = []
    for place, label in enumerate(labels):
        for trace in range(traces):
            value = heights.get((trace, label), np.nan)
            if np.isfinite(value):
                ends = sorted((y.pixel(value), y.pixel(0.0)))
                left = x.start + slot * (place + 0.08) + wide * trace
                name = f"{label}: {format_value(value)}"
                body.append(
                    bar(
                        left,
                        ends[0],
                        wide,
                        ends[1] - ends[0],
                        trace % len(PALETTE),
                        printable(name),
                    )
                )
    return body


def _box(title: str, series: Sequence[PaneSeries], x_title: str, y_title: str) -> Markup:
    samples = [(each.name or _as_text(index + 1), _finite(each.y))
               for index, each in enumerate(series[: 2 * _MOST_TRACES])]  # fmt: skip
    samples = [(name, values) for name, values in samples if len(values)]
    if not samples:
        return _empty(title)
    y = _axis(np.concatenate([values for _, values in samples]), _HEIGHT - BOTTOM, TOP)
    left = gutter(y, 5, title=y_title)
    x = Axis(low=-0.5, high=len(samples) - 0.5, start=left, end=_WIDTH - RIGHT)
    ticks = [(index, _short(printable(name))) for index, (name, _) in enumerate(samples)]
    body = draw_frame(x, y, x_title, y_title=y_title, x_labels=ticks)
    wide = min(36.0, 0.6 * (x.end - x.start) / len(samples))
    body += "".join(
        _one_box(values, x.pixel(index), wide, y) for index, (_, values) in enumerate(samples)
    )
    return _finish(title, body, (), x.start, [])


def _one_box(values: Floats, middle: float, wide: float, y: Axis) -> str:
    """Quartiles, whiskers within 1.5 times their distance, and dots beyond."""
    quartiles = np.quantile(values, (0.25, 0.5, 0.75))
    reach = 1.5 * (quartiles[2] - quartiles[0])
    near = values[(values >= quartiles[0] - reach) & (values <= quartiles[2] + reach)]
    far = np.setdiff1d(values, near)[:50]  # equal ones once: their dots would coincide
    low, high = y.pixel(float(near.min())), y.pixel(float(near.max()))
    q1, median, q3 = (y.pixel(float(each)) for each in quartiles)
    left, right, cap = middle - wide / 2, middle + wide / 2, wide / 4
    figure = f"median {format_value(float(quartiles[1]))}, n = {len(values):,}"
    whiskers = (
        f"M{tenth(middle)} {tenth(low)}V{tenth(q1)}M{tenth(middle)} {tenth(q3)}V{tenth(high)}"
        f"M{tenth(middle - cap)} {tenth(low)}h{tenth(2 * cap)}"
        f"M{tenth(middle - cap)} {tenth(high)}h{tenth(2 * cap)}"
    )
    dots = dots_path(np.full(len(far), middle), y.at(far))
    return (
        f'<g class="l0" stroke="{color(0)}" fill="none"><path d="{whiskers}"/>'
        f'<rect x="{tenth(left)}" y="{tenth(q3)}" width="{tenth(wide)}" '
        f'height="{tenth(max(0.0, q1 - q3))}" class="s0 l0" fill="{color(0)}" fill-opacity=".25">'
        f"<title>{figure}</title></rect>"
        f'<path d="M{tenth(left)} {tenth(median)}H{tenth(right)}" stroke-width="2"/>'
        + (f'<path d="{dots}" stroke-width="3.5" stroke-linecap="round"/>' if dots else "")
        + "</g>"
    )


def _heatmap(title: str, series: Sequence[PaneSeries], x_title: str, y_title: str) -> Markup:
    rows = [as_floats(row) for each in series[:1] for row in each.z]
    columns = max(map(len, rows), default=0)
    if not columns:
        return _empty(title)
    grid = np.full((len(rows), columns), np.nan)
    for index, row in enumerate(rows):
        grid[index, : len(row)] = row
    if not np.isfinite(grid).any():
        return _empty(title)
    down, across = (-(-size // _MOST_CELLS) for size in grid.shape)
    shown = _block_means(grid, down, across)
    labels = (_axis_labels(series[0].y, len(rows)), _axis_labels(series[0].x, columns))
    body, left = _cells(shown, (down, across), grid.shape, labels, x_title, y_title)
    notes = [f"means of {down} × {across} cells"] if max(down, across) > 1 else []
    low, high = float(np.nanmin(grid)), float(np.nanmax(grid))
    return _finish(title, body + _scale_bar(low, high), (), left, notes, width=_WIDTH + 30)


def _cells(
    cells: Floats, block: tuple[int, int], shape: tuple[int, int], labels: tuple[Ticks, Ticks],
    x_title: str, y_title: str,
) -> tuple[str, float]:  # fmt: skip
    """The colored cells and their axes, and where the area begins."""
    y = Axis(low=0, high=shape[0], start=_HEIGHT - BOTTOM, end=TOP)
    widest = max((len(label) for _, label in labels[0]), default=0)
    left = min(140.0, max(40.0, 6.0 * widest + 12)) + (16 if y_title else 0)
    x = Axis(low=0, high=shape[1], start=left, end=_WIDTH - 40)  # the scale bar is on the right
    low, high = float(np.nanmin(cells)), float(np.nanmax(cells))
    shares = (cells - low) / ((high - low) or 1.0)
    levels = np.where(np.isfinite(cells), np.minimum(_LEVELS - 1, shares * _LEVELS), -1)
    body = ""
    for level in range(_LEVELS):
        path = _level_path(levels.astype(np.int64) == level, block, x, y)
        # The stroke closes the hairlines that anti-aliasing leaves between cells.
        shade = _ramp(level)
        body += (
            f'<path d="{path}" fill="{shade}" stroke="{shade}" stroke-width=".4"/>' if path else ""
        )
    frame = draw_frame(x, y, x_title, y_title=y_title, grid=False,
                       x_labels=_thinned(labels[1], _MOST_COLUMN_LABELS),
                       y_labels=_thinned(labels[0], _MOST_ROW_LABELS))  # fmt: skip
    return body + frame, left


def _level_path(chosen: np.ndarray, block: tuple[int, int], x: Axis, y: Axis) -> str:
    """One rectangle for each run of chosen cells in a row."""
    path = ""
    for row in range(chosen.shape[0]):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen[row].astype(np.int8), [0]])))
        top = max(y.end, y.pixel((row + 1) * block[0]))  # the last block may be cut off
        for first, end in edges.reshape(-1, 2).tolist():
            left, right = x.pixel(first * block[1]), min(x.end, x.pixel(end * block[1]))
            tall = y.pixel(row * block[0]) - top
            path += (
                f"M{tenth(left)} {tenth(top)}h{tenth(right - left)}v{tenth(tall)}H{tenth(left)}z"
            )
    return path


def _block_means(grid: Floats, down: int, across: int) -> Floats:
    """Means over blocks of `down` rows and `across` columns, NaN left out."""
    rows, columns = -(-grid.shape[0] // down) * down, -(-grid.shape[1] // across) * across
    # NaN does not count in a mean, so a block that is cut off has the mean of its own cells.
    padded = np.full((rows, columns), np.nan)
    padded[: grid.shape[0], : grid.shape[1]] = grid
    blocks = padded.reshape(rows // down, down, columns // across, across)
    known = np.isfinite(blocks)
    counts = known.sum(axis=(1, 3))
    # np.nanmean would warn about blocks without any value.
    sums = np.where(known, blocks, 0.0).sum(axis=(1, 3))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _ramp(level: int) -> str:
    """The color of a level, from light to dark in equal steps of lightness."""
    at = level / (_LEVELS - 1) * (len(_RAMP) - 1)
    index = min(int(at), len(_RAMP) - 2)
    return mixed_color(_RAMP[index], _RAMP[index + 1], at - index)


def _scale_bar(low: float, high: float) -> str:
    left, tall = _WIDTH - 28, (_HEIGHT - BOTTOM - TOP) / _LEVELS
    steps = "".join(
        f'<rect x="{tenth(left)}" y="{tenth(_HEIGHT - BOTTOM - (level + 1) * tall)}" width="10" '
        f'height="{tenth(tall + 0.2)}" fill="{_ramp(level)}"/>'
        for level in range(_LEVELS)
    )
    ends = words(left + 14, TOP + 8, format_value(high)) + words(
        left + 14, _HEIGHT - BOTTOM, format_value(low)
    )
    return steps + text_group(ends)


def _pie(title: str, series: Sequence[PaneSeries], _x_title: str, _y_title: str) -> Markup:
    """Shares as bars, which compare better than angles."""
    parts = [(_as_text(x), float(value)) for each in series
             for x, value in zip(_bar_places(each), as_floats(_numbers(each.y)), strict=False)
             if value > 0]  # fmt: skip
    parts.sort(key=lambda part: -part[1])
    whole = sum(value for _, value in parts)
    if not whole:
        return _empty(title)
    if len(parts) > _MOST_PARTS:
        rest = parts[_MOST_PARTS - 1 :]
        others = (f"{len(rest)} others", sum(value for _, value in rest))
        parts = [*parts[: _MOST_PARTS - 1], others]
    bars = [
        Bar(
            label=printable(name),
            value=value,
            figure=f"{100 * value / whole:.1f} % ({format_value(value)})",
        )
        for name, value in parts
    ]
    return bar_list(printable(title), bars, mono=False)


def _finish(
    title: str, body: str, series: Sequence[PaneSeries], left: float, notes: list[str],
    width: float = _WIDTH,
) -> Markup:  # fmt: skip
    """The drawing with a legend of the traces that have names, and notes."""
    names = [fitted(printable(each.name), 0.6 * width, 11) for each in series[:_MOST_TRACES]]
    used = 0.0
    if any(names):
        key, used = legend(names, left, _HEIGHT + 12, width)
        body += "".join(key)
    if len(series) > _MOST_TRACES:
        notes = [*notes, f"the first {_MOST_TRACES} of {len(series)} traces"]
    lines, below = draw_notes(notes, left, _HEIGHT + used, width - RIGHT)
    return plot(title, width, _HEIGHT + used + below, body + lines)


def _empty(title: str) -> Markup:
    return drawing(_WIDTH, 24, printable(title), [text(0, 16, "no values to show", muted=True)])


def _points(series: PaneSeries, names: Sequence[str]) -> tuple[Floats, Floats]:
    """The finite points; categories are numbered by `names`."""
    ys = as_floats(_numbers(series.y))
    places: Sequence[Coordinate] = series.x or range(len(ys))
    if names and series.x:  # numbers too become categories on an axis that has names
        places = [names.index(_as_text(x)) for x in places]
    xs = as_floats(_numbers(places))
    size = min(len(xs), len(ys))
    real = np.isfinite(xs[:size]) & np.isfinite(ys[:size])
    return xs[:size][real], ys[:size][real]


def _categories(axes: Sequence[Sequence[Coordinate]]) -> list[str]:
    """All names on an axis that has any; empty for an axis of numbers."""
    if all(not isinstance(x, str) for axis in axes for x in axis):
        return []
    return list(dict.fromkeys(_as_text(x) for axis in axes for x in axis))


def _axis_labels(names: Sequence[Coordinate], size: int) -> Ticks:
    """A label in the middle of each row or column of a heatmap."""
    listed = [_short(printable(_as_text(name))) for name in names[:size]]
    return [(index + 0.5, label) for index, label in enumerate(listed or map(str, range(size)))]


def _thinned(labels: Ticks, most: int) -> Ticks:
    return labels[:: -(-len(labels) // most) or 1]


def _bar_places(series: PaneSeries) -> Sequence[Coordinate]:
    return series.x or [index + 1 for index in range(len(series.y))]


def _numbers(values: Sequence[Coordinate]) -> list[float | None]:
    return [None if isinstance(value, str) else float(value) for value in values]


def _finite(values: Sequence[Coordinate]) -> Floats:
    numbers = as_floats(_numbers(values))
    return numbers[np.isfinite(numbers)]


def _axis(values: Floats, start: float, end: float) -> Axis:
    """A linear axis a little wider than `values`."""
    low, high = float(values.min()), float(values.max())
    pad = 0.05 * (high - low) or 0.5 * abs(low) or 1.0
    # A side that ends at zero stays there, unless nothing but zero is left.
    floor = low - pad if low or not high else low
    return Axis(low=floor, high=high + pad if high else high, start=start, end=end)


def _as_text(value: Coordinate) -> str:
    return value if isinstance(value, str) else format_value(float(value))


def _short(label: str) -> str:
    return label if len(label) <= 12 else f"{label[:11]}…"
