"""The charts of a model's headline figures, with its changes marked."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

import numpy as np
from markupsafe import Markup

from reportgen.charts.trend import TrendLine, TrendMark, trend
from reportgen.history import describe
from reportgen.history.changes import Change
from reportgen.history.night import Figure
from reportgen.history.overview import ReportHistory
from reportgen.history.timeline import Series, Timeline

_DAYS = 366  # that a chart shows
_MOST_MARKS = 30
_SECONDS_PER_DAY = 86_400


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """The chart of one figure; `places` is how many machines or versions it was measured on."""

    figure: Figure
    drawing: Markup
    places: int


def model_trends(report: ReportHistory) -> dict[str, list[Trend]]:
    """A chart of each headline figure that has a value, by model."""
    timeline = report.timeline
    changes: dict[tuple[str, str], list[Change]] = {}
    for noted in report.changes:
        change = noted.change
        changes.setdefault((change.model, change.figure.key), []).append(change)
    found: dict[str, list[Trend]] = {model: [] for model in timeline.models}
    window = _Window(timeline)
    for series in timeline.series():
        if series.figure.headline:
            key = series.model, series.figure.key
            found[series.model].append(window.trend(series, changes.get(key, [])))
    return found


class _Window:
    """The days that all charts of a timeline show."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        last = timeline.last.time
        first = max(timeline.nights[0].time, last - timedelta(days=_DAYS))
        self._start = datetime.combine(first.date(), time(), UTC)
        self._shown = timeline.position(self._start)
        self._days = np.array([self._day(night.time) for night in timeline.nights])

    def trend(self, series: Series, changes: list[Change]) -> Trend:
        lines = self._lines(series)
        unit = series.figure.unit
        return Trend(
            figure=series.figure,
            drawing=trend(
                f"{series.figure.label} of {series.model}",
                lines,
                [self._mark(change) for change in changes[-_MOST_MARKS:] if self._is_shown(change)],
                first=self._start.date(),
                days=float(self._days[-1]),
                figure=lambda value: describe.figure_text(value, unit),
            ),
            places=len(lines),
        )

    def _lines(self, series: Series) -> list[TrendLine]:
        if series.figure.exact:
            shown = slice(self._shown, None)
            return [TrendLine(days=self._days[shown], values=series.values[shown], stepped=True)]
        nights = series.nights()
        groups = self._timeline.by_environment(nights[nights >= self._shown])
        return [
            TrendLine(days=self._days[group], values=series.values[group], color=color)
            for color, group in enumerate(groups)
        ]

    def _is_shown(self, change: Change) -> bool:
        return change.night >= self._start and not change.reverts

    def _mark(self, change: Change) -> TrendMark:
        return TrendMark(
            day=self._day(change.night),
            value=change.new,
            title=f"{describe.short_change(change)} {describe.period(change)}, {change.cause}",
            kind=change.kind,
            effect=change.effect,
        )

    def _day(self, moment: datetime) -> float:
        return (moment - self._start).total_seconds() / _SECONDS_PER_DAY
