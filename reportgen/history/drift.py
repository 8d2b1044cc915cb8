"""Drift: the first value against the last over 7, 30 and 365 nights.

It shows what moves too slowly for any night to be a change.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from reportgen.history.night import Figure
from reportgen.history.timeline import Indices, Series, Timeline

WINDOWS = (7, 30, 365)
"""Nights over which drift is computed."""

_NIGHTS_PER_END = 5  # of a measured figure: the median of so many nights is compared


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """The drift of one figure of one model.

    Attributes:
        last: the newest value, or the median of the last five nights if it is measured.
        shares: for each of `WINDOWS`, last less first as a share of the first; None if the history
            is not longer than the window before, or the first value is zero.
    """

    report: str
    model: str
    figure: Figure
    last: float
    shares: tuple[float | None, ...]


def find_drift(timeline: Timeline, series: Series) -> Drift | None:
    """The drift of `series`; None if it has no value.

    Measured figures are compared among nights of the last one's machine and versions.
    """
    nights = series.nights()
    if not len(nights):
        return None
    if not series.figure.exact:
        nights = next(g for g in timeline.by_environment(nights) if nights[-1] in g)
    ends = 1 if series.figure.exact else _NIGHTS_PER_END
    values, starts = series.values[nights], [_start(timeline, nights, w) for w in WINDOWS]
    shares = [
        # A window that begins where the shorter one does has nothing to add.
        None if start in (*starts[:index], len(nights) - 1) else _share(values[start:], ends)
        for index, start in enumerate(starts)
    ]
    return Drift(
        report=timeline.report,
        model=series.model,
        figure=series.figure,
        last=float(np.median(values[-ends:])),
        shares=tuple(shares),
    )


def _start(timeline: Timeline, nights: Indices, window: int) -> int:
    """The position in `nights` of the first one that is less than `window` days before the last."""
    # Half a day of slack, since nights do not begin at the same second.
    after = timeline.nights[int(nights[-1])].time - timedelta(days=window - 0.5)
    return next(i for i, night in enumerate(nights) if timeline.nights[int(night)].time >= after)


def _share(values: np.ndarray[tuple[int], np.dtype[np.float64]], ends: int) -> float | None:
    width = max(1, min(ends, len(values) // 2))
    first, last = float(np.median(values[:width])), float(np.median(values[-width:]))
    return (last - first) / abs(first) if first else None
