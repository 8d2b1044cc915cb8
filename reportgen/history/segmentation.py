"""Change points of a measured figure: where its level shifts for good, by more than its noise.

Running median of five nights, exact least-squares segmentation, then a confirmation of each
change: enough nights on both sides, a difference worth a reader's time, and a rank test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FEWEST_NIGHTS = 5
"""A level lasts this many nights at least; fewer nights at the end are a possible change."""

LEAST_SHARE = 0.03
"""The least difference of two medians, as a share of the old one."""

_MOST_NIGHTS = 400  # the segmentation takes quadratic time
_WINDOW = 5
_SIDE = 30  # nights that are compared on each side of a change
_PENALTY = 8.0
_LEAST_RANK_Z = 3.0
_BAND = 4 * 1.4826  # median absolute deviations: four sigmas of normal noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Shift:
    """A change of level at the value of index `at`, from median `old` to median `new`.

    `confirmed` is False for the last nights of a series, too few to be sure.
    """

    at: int
    old: float
    new: float
    confirmed: bool = True


def find_shifts(values: Floats) -> list[Shift]:
    """The shifts of `values`, one finite value a night, in order; only the last 400 are read.

    Error rates on series without and with a shift: `tests/history/test_segmentation.py`.
    """
    skipped = max(0, len(values) - _MOST_NIGHTS)
    values = values[skipped:]
    if len(values) <= FEWEST_NIGHTS:
        return []
    shifts = _confirmed_shifts(values, _segment_starts(values))
    level_start = shifts[-1].at if shifts else 0
    possible = _possible_shift(values[level_start:])
    if possible is not None:
        shifts.append(replace(possible, at=possible.at + level_start))
    return [replace(shift, at=shift.at + skipped) for shift in shifts]


def _confirmed_shifts(values: Floats, starts: list[int]) -> list[Shift]:
    """The changes at `starts` that are confirmed, each against the levels beside it.

    The least certain one is dropped first, since the levels beside the others then have more
    nights: that alone halves the false alarms of series with two levels of noise.
    """
    starts = list(starts)
    while starts:
        edges = [0, *starts, len(values)]
        sides = [
            (values[max(start, at - _SIDE) : at], values[at : min(end, at + _SIDE)])
            for start, at, end in zip(edges, edges[1:], edges[2:], strict=False)
        ]
        doubtful = [i for i, pair in enumerate(sides) if not _is_confirmed(*pair)]
        if not doubtful:
            return [
                Shift(at=at, old=float(np.median(before)), new=float(np.median(after)))
                for at, (before, after) in zip(starts, sides, strict=True)
            ]
        del starts[min(doubtful, key=lambda i: abs(rank_z(*sides[i])))]
    return []


def running_median(values: Floats) -> Floats:
    """The median of each value and the two before and after it; the ends are repeated."""
    padded = np.pad(values, _WINDOW // 2, mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, _WINDOW), axis=1)


def noise(values: Floats) -> float:
    """The size of the noise: the median absolute difference of neighbors, over the root of two.

    It is 0.67 of the standard deviation of normal noise. A shift is one difference among many and
    has no influence.
    """
    return float(np.median(np.abs(np.diff(values)))) / math.sqrt(2)


def _segment_starts(values: Floats) -> list[int]:
    """Starts of all segments but the first in the segmentation with the least cost.

    The cost is the sum of squares around the mean of each segment, plus a penalty for each.
    """
    smooth = running_median(values) - values.mean()  # small sums of squares lose no digits
    penalty = _PENALTY * noise(values) ** 2 * math.log(len(values))
    sums = np.concatenate([[0.0], np.cumsum(smooth)])
    squares = np.concatenate([[0.0], np.cumsum(smooth**2)])
    count = len(values)
    # No split can save more than the whole sum of squares.
    if squares[-1] - sums[-1] ** 2 / count <= penalty:
        return []
    best, start_of = np.full(count + 1, np.inf), np.zeros(count + 1, dtype=np.int64)
    best[0] = -penalty
    indices = np.arange(count + 1)
    for end in range(FEWEST_NIGHTS, count + 1):
        starts = indices[: end - FEWEST_NIGHTS + 1]
        part = sums[end] - sums[starts]
        costs = best[starts] + squares[end] - squares[starts] - part**2 / (end - starts)
        start_of[end] = chosen = int(costs.argmin())
        best[end] = costs[chosen] + penalty
    return _walk_back(start_of)


def _walk_back(start_of: NDArray[np.int64]) -> list[int]:
    starts, end = [], int(start_of[-1])
    while end > 0:
        starts.append(end)
        end = int(start_of[end])
    return starts[::-1]


def _is_confirmed(before: Floats, after: Floats) -> bool:
    old, new = float(np.median(before)), float(np.median(after))
    # The last segment has five nights even if the level has shifted for four.
    at_old = np.abs(before - old) < np.abs(before - new)
    at_new = np.abs(after - new) < np.abs(after - old)
    return (
        min(at_old.sum(), at_new.sum()) >= FEWEST_NIGHTS
        and is_different(old, new)
        and abs(rank_z(before, after)) >= _LEAST_RANK_Z
    )


def is_different(old: float, new: float) -> bool:
    """Whether two levels differ by 3 % or more."""
    return abs(new - old) >= LEAST_SHARE * abs(old) and new != old


def rank_z(before: Floats, after: Floats) -> float:
    """The normal score of the Mann-Whitney rank test, ties included; positive if `after` is larger.

    Zero if all values are equal.
    """
    n, m = len(before), len(after)
    _, inverse, counts = np.unique(
        np.concatenate([before, after]), return_inverse=True, return_counts=True
    )
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]  # ties share their mean rank
    total = n + m
    ties = float((counts**3 - counts).sum()) / (total * (total - 1)) if total > 1 else 0.0
    variance = n * m / 12 * (total + 1 - ties)
    excess = float(ranks[n:].sum()) - m * (total + 1) / 2
    return excess / math.sqrt(variance) if variance > 0 else 0.0


def _possible_shift(values: Floats) -> Shift | None:
    """The last nights if they lie beyond the band of the nights before, all on one side."""
    for count in range(min(FEWEST_NIGHTS - 1, len(values) - FEWEST_NIGHTS), 0, -1):
        before, after = values[:-count][-_SIDE:], values[-count:]
        old, new = float(np.median(before)), float(np.median(after))
        band = max(LEAST_SHARE * abs(old), _BAND * float(np.median(np.abs(before - old))))
        beyond = after - old
        if band > 0 and ((beyond > band).all() or (beyond < -band).all()):
            return Shift(at=len(values) - count, old=old, new=new, confirmed=False)
    return None
