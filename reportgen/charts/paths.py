"""Converts curves in pixels to compact SVG path data: relative moves in tenths of a pixel."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np

from reportgen.charts.axes import Floats

# Pixels are held within these, far outside of any plot, so that the moves between them are finite.
_LEAST, _MOST = -100, 900
_REACH = 10 * (_MOST - _LEAST)


def line_path(x: Floats, y: Floats) -> str:
    """Path data through the points (`x`, `y`); a NaN interrupts it, a lone point is a dot.

    Pixels are rounded to tenths, and points that fall on the one before are left out.
    """
    return "".join(_part_path(across, down) for across, down in _finite_parts(x, y))


def dots_path(x: Floats, y: Floats) -> str:
    """Path data of a dot at each point, to be stroked with round caps."""
    shown = np.isfinite(x) & np.isfinite(y)
    across, down = _tenths(x[shown]), _tenths(y[shown])
    return "".join(
        f"M{a / 10:g} {d / 10:g}h0" for a, d in zip(across.tolist(), down.tolist(), strict=True)
    )


def area_path(x: Floats, upper: Floats, lower: Floats) -> str:
    """Path data of the areas between `upper` and `lower`; a NaN in either interrupts them."""
    gap = ~(np.isfinite(upper) & np.isfinite(lower))
    # With gaps in common, both edges consist of the same parts.
    upper, lower = np.where(gap, np.nan, upper), np.where(gap, np.nan, lower)
    ceilings, floors = _finite_parts(x, upper), _finite_parts(x, lower)
    return "".join(
        _part_path(np.concatenate([ax, bx[::-1]]), np.concatenate([ay, by[::-1]])) + "z"
        for (ax, ay), (bx, by) in zip(ceilings, floors, strict=True)
    )


def clipped(x: Floats, y: Floats, top: float, bottom: float) -> tuple[Floats, Floats]:
    """The polyline cut at `top` and `bottom`: it ends where it crosses them.

    Returns new x and y in which NaN separates the parts that are inside.
    """
    if not ((y < top) | (y > bottom)).any():
        return x, y
    parts: list[tuple[float, float]] = []
    points = list(zip(x.tolist(), y.tolist(), strict=True))
    for before, after in pairwise(points):
        parts.extend(_segment(before, after, top, bottom))
    if points and top <= points[-1][1] <= bottom:
        parts.append(points[-1])
    across, down = zip(*parts, strict=True) if parts else ((), ())
    return np.array(across, dtype=np.float64), np.array(down, dtype=np.float64)


def simplified(x: Floats, y: Floats, tolerance: float = 0.1) -> tuple[Floats, Floats]:
    """The polyline without points that lie within `tolerance` of the line beside them."""
    for _ in range(4):  # each pass drops every other point at most, so that errors stay bounded
        middle, left, right = y[1:-1], y[:-2], y[2:]
        # 1e-9 avoids a division by zero where three points have one x.
        share = (x[1:-1] - x[:-2]) / np.maximum(x[2:] - x[:-2], 1e-9)
        flat = np.abs(middle - (left + share * (right - left))) < tolerance
        flat[1::2] = False
        if not flat.any():
            break
        kept = np.concatenate([[True], ~flat, [True]])
        x, y = x[kept], y[kept]
    return x, y


def _segment(
    before: tuple[float, float], after: tuple[float, float], top: float, bottom: float
) -> list[tuple[float, float]]:
    """The part of one segment that is inside, less its last point; NaN where it breaks off."""
    (x0, y0), (x1, y1) = before, after
    starts, ends = top <= y0 <= bottom, top <= y1 <= bottom
    if np.isnan(y0) or np.isnan(y1):
        return [before, (x0, np.nan)] if starts else []
    if starts and ends:
        return [before]
    edges = (top, bottom) if y1 > y0 else (bottom, top)
    cuts = [(x0 + (edge - y0) / (y1 - y0) * (x1 - x0), edge) for edge in edges
            if min(y0, y1) < edge < max(y0, y1)]  # fmt: skip
    gap = [] if ends or not cuts else [(x1, np.nan)]
    return [*([before] if starts else []), *cuts, *gap]


def _tenths(pixels: Floats) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.rint(np.clip(pixels, _LEAST, _MOST) * 10).astype(np.int64)


@cache
def _moves() -> tuple[str, ...]:
    """Every move from -`_REACH` to `_REACH` tenths as text that separates itself: ` .6`, `-1.2`.

    Looking a number up takes an eighth of the time of formatting it.
    """
    plain = (f"{tenths / 10:.1f}".removesuffix(".0") for tenths in range(-_REACH, _REACH + 1))
    short = (move.replace("0.", ".", 1) if move.lstrip("-")[:2] == "0." else move for move in plain)
    return tuple(move if move.startswith("-") else f" {move}" for move in short)


def _finite_parts(x: Floats, y: Floats) -> list[tuple[Floats, Floats]]:
    """The parts of a polyline between its NaNs."""
    shown = np.isfinite(x) & np.isfinite(y)
    if shown.all():
        return [(x, y)] if len(x) else []
    edges = np.flatnonzero(np.diff(np.concatenate([[False], shown, [False]]))).reshape(-1, 2)
    return [(x[first:end], y[first:end]) for first, end in edges.tolist()]


def _part_path(x: Floats, y: Floats) -> str:
    across, down = _tenths(x), _tenths(y)
    dx, dy = np.diff(across), np.diff(down)
    moved = (dx != 0) | (dy != 0)
    if not moved.any():  # a line of no length is drawn as a dot if its caps are round
        return f"M{across[0] / 10:g} {down[0] / 10:g}h0"
    text = _moves()
    moves = "".join([
        text[a + _REACH] + text[b + _REACH]
        for a, b in zip(dx[moved].tolist(), dy[moved].tolist(), strict=True)
    ])  # fmt: skip
    return f"M{across[0] / 10:g} {down[0] / 10:g}l{moves.lstrip()}"
