"""The whole history as a value: the timelines with their changes, what needs attention, silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from reportgen.history.acknowledgments import (
    Acknowledgment,
    acknowledged,
    acknowledgment_from_data,
)
from reportgen.history.changes import Change, change_from_data, find_changes, merge_recorded
from reportgen.history.drift import Drift, find_drift
from reportgen.history.night import night_from_data
from reportgen.history.store import read_records
from reportgen.history.timeline import Timeline, make_timelines

SILENCE_HOURS = 36
"""A report without a new night for so long is an alarm."""

_RECENT_DAYS = 30  # older changes do not need attention any more
_RESTLESS_CHANGES = 10  # in these days: a log of a running training changes every night


@dataclass(frozen=True, slots=True)
class Places:
    """Where the history of the reports in the folder `root` is."""

    root: Path

    @property
    def nights(self) -> Path:
        """A file for each night."""
        return self.root / "history" / "nights"

    @property
    def changes(self) -> Path:
        """Files with the changes that were found, so that they stay listed."""
        return self.root / "history" / "changes"

    @property
    def acknowledgments(self) -> Path:
        """A file for each acknowledgment."""
        return self.root / "history" / "acknowledgments"

    @property
    def reports(self) -> Path:
        """The dated copies of reports."""
        return self.root / "history" / "reports"

    @property
    def index(self) -> Path:
        """The page over all nights."""
        return self.root / "index.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class NotedChange:
    """A change and its acknowledgment, None if there is none."""

    change: Change
    acknowledgment: Acknowledgment | None

    @property
    def needs_attention(self) -> bool:
        """Whether someone should act: a confirmed change for the worse, still in effect."""
        change = self.change
        return (
            change.confirmed
            and change.effect == "worse"
            and change.recovered is None
            and self.acknowledgment is None
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportHistory:
    """The nights of one report and what they show.

    Attributes:
        timeline: its nights.
        changes: the oldest first, without those of restless figures.
        restless: (model, label) of figures that changed on ten of the last 30 nights or more, such
            as those of a training that still runs; their changes are no news.
        drifts: of all headline figures.
        acknowledgments: all of the history.
    """

    timeline: Timeline
    changes: tuple[NotedChange, ...]
    restless: tuple[tuple[str, str], ...]
    drifts: tuple[Drift, ...]
    acknowledgments: tuple[Acknowledgment, ...]

    @property
    def deadline(self) -> datetime:
        """When the history counts as stopped unless another night has arrived."""
        return self.timeline.last.time + timedelta(hours=SILENCE_HOURS)

    @property
    def silence_accepted(self) -> Acknowledgment | None:
        """The acknowledgment that no further night is expected."""
        last, report = self.timeline.last.time, self.timeline.report
        return next((a for a in self.acknowledgments if a.covers_silence(report, last)), None)

    def is_silent(self, now: datetime) -> bool:
        """Whether a night is missing, and nobody has accepted that."""
        return now > self.deadline and self.silence_accepted is None

    @property
    def recent(self) -> tuple[NotedChange, ...]:
        """The changes of the last 30 days."""
        return tuple(n for n in self.changes if _is_recent(n.change, self.timeline))

    @property
    def urgent(self) -> tuple[NotedChange, ...]:
        """The recent changes that need attention."""
        return tuple(noted for noted in self.recent if noted.needs_attention)


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """All reports of one folder; `damaged` are files that could not be read."""

    reports: tuple[ReportHistory, ...]
    damaged: tuple[str, ...]

    def needs_attention(self, now: datetime) -> bool:
        """Whether a night is missing or a change needs attention."""
        return any(report.is_silent(now) or report.urgent for report in self.reports)


def load_history(places: Places) -> History:
    """Read everything and find the changes."""
    nights = read_records(places.nights, night_from_data)
    recorded = read_recorded_changes(places)
    notes = read_records(places.acknowledgments, acknowledgment_from_data)
    return History(
        reports=tuple(
            _report_history(timeline, recorded, notes.items)
            for timeline in make_timelines(nights.items)
        ),
        damaged=(*nights.damaged, *notes.damaged),
    )


def read_recorded_changes(places: Places) -> list[Change]:
    """The changes that earlier runs have found."""
    files = read_records(
        places.changes, lambda data: [change_from_data(c) for c in data["changes"]]
    )
    return [change for changes in files.items for change in changes]


def _report_history(
    timeline: Timeline, recorded: Iterable[Change], notes: tuple[Acknowledgment, ...]
) -> ReportHistory:
    changes = merge_recorded(timeline, find_changes(timeline), recorded)
    often = Counter((c.model, c.figure.key) for c in changes if _is_recent(c, timeline))
    restless = {series for series, count in often.items() if count >= _RESTLESS_CHANGES}
    drifts = (find_drift(timeline, s) for s in timeline.series() if s.figure.headline)
    return ReportHistory(
        timeline=timeline,
        changes=tuple(
            NotedChange(change=change, acknowledgment=acknowledged(change, notes))
            for change in changes
            if (change.model, change.figure.key) not in restless
        ),
        restless=tuple((model, timeline.figures[key].label) for model, key in sorted(restless)),
        drifts=tuple(drift for drift in drifts if drift is not None),
        acknowledgments=notes,
    )


def _is_recent(change: Change, timeline: Timeline) -> bool:
    return timeline.last.time - change.night <= timedelta(days=_RECENT_DAYS)
