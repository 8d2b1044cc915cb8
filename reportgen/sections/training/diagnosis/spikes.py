"""Spikes: values far above those just before, with or without recovery."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reportgen.sections.training.curve import Floats
from reportgen.sections.training.diagnosis.trend import Trend
from reportgen.sections.training.result import Diagnosis
from reportgen.sections.training.statistics import trailing_medians

_FEWEST_POINTS = 40
_SHORTEST_WINDOW, _LONGEST_WINDOW = 20, 200
_CHECKPOINTS = 16  # at which the usual size of a change is recomputed
_LARGE = 1.0  # times the level before, on top of it: what a warning of a lasting spike needs
_HUGE = 3.0  # the same of single points: a batch of outliers doubles a loss in healthy runs
_MANY = 3
_EVEN = 0.15  # of the mean distance: how much distances of periodic spikes differ


@dataclass(frozen=True, kw_only=True, slots=True)
class Spike:
    """One spike; `first`, `peak` and `end` are indices of points, `end` the first one back.

    Attributes:
        level: the median cost before it.
        height: the highest cost.
        length: how many points from `first` on are above a quarter of the height.
        recovered: whether the cost came back.
    """

    first: int
    peak: int
    end: int
    level: float
    height: float
    length: int
    recovered: bool

    @property
    def rise(self) -> float:
        """How far the cost rose."""
        return self.height - self.level


def find_spikes(trend: Trend, restarts: Iterable[float]) -> Iterator[Diagnosis]:
    """`repeated-or-lasting-spikes`, or `recovered-spike` if they are few and short.

    None with fewer than 40 points. A rise that follows a restart of the learning rate is ignored.

    Args:
        restarts: the steps at which a learning rate rose again.
    """
    if len(trend) < _FEWEST_POINTS:
        return
    window = spike_window(len(trend))
    spikes = spikes_of(trend.costs)
    restarted = [int(np.searchsorted(trend.steps, step)) for step in restarts]
    # From two points before: a rate is often logged less often than the loss.
    spikes = [s for s in spikes if not any(at - 2 <= s.first <= at + window for at in restarted)]
    if not spikes:
        return
    highest = max(spikes, key=lambda spike: spike.rise)
    severe = _are_severe(spikes, trend, window)
    yield trend.found(
        "repeated-or-lasting-spikes" if severe else "recovered-spike",
        spikes=len(spikes),
        first_step=float(trend.steps[spikes[0].first]),
        step=float(trend.steps[highest.peak]),
        height=trend.value(highest.height),
        level=trend.value(highest.level),
        length=highest.length,
        longest=max(spike.length for spike in spikes),
        not_recovered=sum(not spike.recovered for spike in spikes),
    )


def spike_window(points: int) -> int:
    """The number of preceding points that a point is compared with: n / 20, from 20 to 200."""
    return min(max(points // 20, _SHORTEST_WINDOW), _LONGEST_WINDOW)


def spikes_of(costs: Floats) -> list[Spike]:
    """The spikes of a curve in which lower is better."""
    window = spike_window(len(costs))
    levels, deviations = trailing_medians(costs, window, max(1, window // 10))
    rises = costs - levels
    low, high = np.quantile(costs, (0.01, 0.99))
    with np.errstate(invalid="ignore"):  # the first window has no level
        far = (rises > 0.25 * np.abs(levels)) & (rises > 0.05 * (high - low))
        lasting = _in_a_row(far & (rises > 6 * deviations))
        sharp = far & (rises > 10 * deviations) & (rises > 3 * _usual_change(costs))
        # In a short curve one spike makes the next one usual; these are spikes in any case.
        sharp |= (
            (rises > _HUGE * np.abs(levels))
            & (rises > 20 * deviations)
            & (rises > 0.25 * (high - low))
        )
    return list(_merged(np.flatnonzero(lasting | sharp), costs, levels, window))


def _in_a_row(marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The marks that are part of three or more in a row."""
    middle = marks[:-2] & marks[1:-1] & marks[2:]
    rows = np.zeros_like(marks)
    for shift in range(3):
        rows[shift : len(marks) - 2 + shift] |= middle
    return rows


def _usual_change(costs: Floats) -> Floats:
    """For each point the 99th percentile of the changes between points before it."""
    changes = np.abs(np.diff(costs))
    bounds = np.unique(np.linspace(_SHORTEST_WINDOW, len(costs), _CHECKPOINTS + 1).astype(int))
    usual = np.full(len(costs), np.inf)
    # Only changes before a point count: those of the spike itself would make it usual.
    for start, end in pairwise(bounds):
        usual[start:end] = np.quantile(changes[: start - 1], 0.99)
    return usual


def _merged(
    places: NDArray[np.intp], costs: Floats, levels: Floats, window: int
) -> Iterator[Spike]:
    """Spikes of the points `places`: those close together or before a return are one."""
    end = -1
    groups = np.split(places, np.flatnonzero(np.diff(places) > max(window // 4, 1)) + 1)
    for group in groups:
        if not len(group) or group[0] < end:
            continue
        first, last = int(group[0]), int(group[-1])
        level = float(levels[first])
        peak = first + int(np.argmax(costs[first : last + 1]))
        height = float(costs[peak])
        line = level + 0.25 * (height - level)
        back = np.flatnonzero(costs[peak:] <= line)
        end = max(peak + int(back[0]), last + 1) if len(back) else len(costs)
        yield Spike(
            first=first,
            peak=peak,
            end=end,
            level=level,
            height=height,
            length=int((costs[first:end] > line).sum()),
            recovered=bool(len(back)),
        )


def _are_severe(spikes: Sequence[Spike], trend: Trend, window: int) -> bool:
    """Whether there are three huge spikes at no regular distance, or a large one that lasts."""
    large = [spike for spike in spikes if _is_large(spike, trend)]
    lasting = max(5, window // 4)
    if any(not spike.recovered or spike.length >= lasting for spike in large):
        return True
    huge = [spike for spike in large if spike.rise > _HUGE * abs(spike.level)]
    return len(huge) >= _MANY and not _are_periodic([spike.first for spike in huge])


def _is_large(spike: Spike, trend: Trend) -> bool:
    """Whether it more than doubles the level before it, and exceeds a quarter of the progress."""
    return spike.rise > _LARGE * abs(spike.level) and spike.rise > 0.25 * trend.progress


def _are_periodic(places: Sequence[int]) -> bool:
    """Whether spikes come at equal distances, as those of epochs or restarts do."""
    distances = np.diff(places)
    return len(distances) >= _MANY - 1 and bool(distances.std() <= _EVEN * distances.mean())
