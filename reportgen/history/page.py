"""The page over all nights: what its template prints, computed beforehand."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from urllib.parse import quote

from markupsafe import Markup

from reportgen.history import describe
from reportgen.history.archive import first_page
from reportgen.history.changes import Change
from reportgen.history.drift import Drift
from reportgen.history.night import Night
from reportgen.history.overview import History, NotedChange, Places, ReportHistory
from reportgen.history.trends import model_trends
from reportgen.render import page_text

_MOST_OLDER_ROWS = 150
_MOST_PARTS = 3  # figures of a row; the others are counted and listed when it is opened
_MOST_DRIFTS = 20
_LEAST_DRIFT = 0.001
_MOST_UNFOLDED = 12  # models
_KINDS = ("confirmed", "possible", "over")  # in reading order


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeRow:
    """Changes of one model on one night that have everything but the figure in common.

    Attributes:
        parts: the first few: `+4.0 % MACs / sample`, each with its effect.
        details: all of them with both values.
        kind: `confirmed`, `possible` or `over`.
        effect: `worse` if any is for the worse, else `better` or "".
    """

    model: str
    night: str
    period: str
    kind: str
    effect: str
    parts: tuple[tuple[str, str], ...]
    details: tuple[str, ...]
    commits: str
    cause: str
    acknowledgment: str

    @property
    def more(self) -> int:
        """How many changes `parts` leaves out."""
        return len(self.details) - len(self.parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftRow:
    """One figure's drift as text, a share for each window."""

    model: str
    anchor: str
    label: str
    last: str
    shares: tuple[str, ...]
    effect: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chart:
    """One figure of one model; `places` is how many machines or versions have measured it."""

    label: str
    last: str
    drift: tuple[str, ...]
    drawing: Markup
    places: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelPart:
    """One model: its verdict in the last night, "" if that lacks it, and its charts.

    `changes` are those of the last 30 days; without any it is folded among many models.
    """

    name: str
    anchor: str
    verdict: str
    href: str
    changes: int
    unfolded: bool
    charts: tuple[Chart, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NightLink:
    """One night; `href` is "" once its copy was deleted."""

    label: str
    title: str
    verdict: str
    href: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPart:
    """The history of one report."""

    name: str
    anchor: str
    title: str
    last: str
    deadline: str
    deadline_iso: str
    silent: bool
    ended: str
    urgent: int
    recent: tuple[ChangeRow, ...]
    older: tuple[ChangeRow, ...]
    hidden: int
    restless: tuple[tuple[str, str], ...]  # model, labels
    drifts: tuple[DriftRow, ...]
    models: tuple[ModelPart, ...]
    months: tuple[tuple[str, tuple[NightLink, ...]], ...]
    nights: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """All reports; `damaged` are files of the store that could not be read."""

    verdict: str
    sentence: str
    reports: tuple[ReportPart, ...]
    damaged: tuple[str, ...]


def render_history(history: History, places: Places, now: datetime) -> str:
    """The page as HTML, self-contained; links lead to the copies of reports beside it."""
    reports = tuple(_report_part(report, places, now) for report in history.reports)
    silent, urgent = sum(r.silent for r in reports), sum(r.urgent for r in reports)
    page = Page(
        verdict="fail" if silent else "warn" if urgent else "pass",
        sentence=_sentence(silent, urgent),
        reports=reports,
        damaged=history.damaged,
    )
    return page_text("history.html.j2", page=page)


def _sentence(silent: int, urgent: int) -> str:
    parts = []
    if silent:
        parts.append("The nightly build has stopped.")
    if urgent:
        was = "changes are" if urgent > 1 else "change is"
        parts.append(f"{urgent} recent {was} for the worse and not acknowledged.")
    return " ".join(parts) or "No recent change for the worse."


def _report_part(report: ReportHistory, places: Places, now: datetime) -> ReportPart:
    timeline, recent = report.timeline, report.recent
    known = set(recent)
    older = change_rows(noted for noted in report.changes if noted not in known)
    accepted = report.silence_accepted
    return ReportPart(
        name=timeline.report,
        anchor=_anchor(timeline.report),
        title=timeline.last.title,
        last=describe.minute(timeline.last.time),
        deadline=describe.minute(report.deadline),
        deadline_iso=report.deadline.isoformat(),
        silent=report.is_silent(now),
        ended=describe.acknowledgment_text(accepted) if accepted else "",
        urgent=len(report.urgent),
        recent=tuple(sorted(change_rows(recent), key=lambda row: _KINDS.index(row.kind))),
        older=tuple(older[:_MOST_OLDER_ROWS]),
        hidden=len(older[_MOST_OLDER_ROWS:]),
        restless=_restless(report),
        drifts=_drift_rows(report.drifts),
        models=_model_parts(report, places),
        months=_months(timeline.nights, places),
        nights=len(timeline.nights),
    )


def _anchor(*names: str) -> str:
    """An id for a part of the page: names may contain spaces, ids may not."""
    return "-".join(re.sub(r"[^\w.-]", "_", name) for name in names)


def _restless(report: ReportHistory) -> tuple[tuple[str, str], ...]:
    return tuple(
        (model, ", ".join(label for _, label in group))
        for model, group in groupby(report.restless, key=lambda pair: pair[0])
    )


def change_rows(changes: Iterable[NotedChange]) -> list[ChangeRow]:
    """A row for the changes of each model and night with one cause, the newest first."""
    shown = [noted for noted in changes if not noted.change.reverts]
    ordered = sorted(shown, key=_row_of, reverse=True)
    return [_change_row(list(group)) for _, group in groupby(ordered, key=_row_of)]


def _row_of(noted: NotedChange) -> tuple[object, ...]:
    change, note = noted.change, noted.acknowledgment
    over = describe.day(change.recovered) if change.recovered else ""
    accepted = describe.acknowledgment_text(note) if note else ""
    return (
        change.night, change.before, change.model, change.cause, change.commits,
        change.confirmed, over, accepted,
    )  # fmt: skip


def _change_row(group: Sequence[NotedChange]) -> ChangeRow:
    changes = sorted((noted.change for noted in group), key=_importance)
    change, note = changes[0], group[0].acknowledgment
    effects = {each.effect for each in changes}
    return ChangeRow(
        model=change.model,
        night=describe.day(change.night),
        period=describe.period(change),
        kind=change.kind,
        effect=next((effect for effect in ("worse", "better") if effect in effects), ""),
        parts=tuple((describe.short_change(c), c.effect) for c in changes[:_MOST_PARTS]),
        details=tuple(map(describe.full_change, changes)),
        commits=describe.commit_range(change),
        cause=change.cause,
        acknowledgment=describe.acknowledgment_text(note) if note else "",
    )


def _importance(change: Change) -> tuple[bool, float]:
    return not change.figure.headline, -abs(change.share or 0.0)


def _drift_rows(drifts: Iterable[Drift]) -> tuple[DriftRow, ...]:
    """The largest drifts, those for the worse first."""
    notable = [d for d in drifts if _largest(d) >= _LEAST_DRIFT]
    ordered = sorted(notable, key=lambda d: (_drift_effect(d) != "worse", -_largest(d)))
    return tuple(
        DriftRow(
            model=drift.model,
            anchor=_anchor(drift.report, drift.model),
            label=drift.figure.label,
            last=describe.figure_text(drift.last, drift.figure.unit),
            shares=tuple(map(describe.share_text, drift.shares)),
            effect=_drift_effect(drift),
        )
        for drift in ordered[:_MOST_DRIFTS]
    )


def _largest(drift: Drift) -> float:
    return max((abs(share) for share in drift.shares if share is not None), default=0.0)


def _drift_effect(drift: Drift) -> str:
    share = max((s for s in drift.shares if s is not None), key=abs, default=0.0)
    if drift.figure.direction == "none" or not share:
        return ""
    return "worse" if (share > 0) == (drift.figure.direction == "lower") else "better"


def _model_parts(report: ReportHistory, places: Places) -> tuple[ModelPart, ...]:
    last, trends = report.timeline.last, model_trends(report)
    drifts = {(drift.model, drift.figure.key): drift for drift in report.drifts}
    changes = Counter(row.model for row in change_rows(report.recent))
    few = len(report.timeline.models) <= _MOST_UNFOLDED
    return tuple(
        ModelPart(
            name=model,
            anchor=_anchor(report.timeline.report, model),
            verdict=last.models[model].verdict if model in last.models else "",
            href=_model_href(last, model, places) if model in last.models else "",
            changes=changes[model],
            unfolded=few or changes[model] > 0,
            charts=tuple(
                Chart(
                    label=trend.figure.label,
                    last=describe.figure_text(drift.last, trend.figure.unit),
                    drift=tuple(map(describe.share_text, drift.shares)),
                    drawing=trend.drawing,
                    places=trend.places,
                )
                for trend in trends[model]
                for drift in (drifts[model, trend.figure.key],)
            ),
        )
        for model in report.timeline.models
    )


def _model_href(night: Night, model: str, places: Places) -> str:
    page = f"models/{model}/index.html"
    if (places.reports / night.copy / page).is_file():
        return quote(f"history/reports/{night.copy}/{page}")
    return _night_href(night, places)


def _night_href(night: Night, places: Places) -> str:
    page = first_page(places.reports / night.copy) if night.copy else ""
    return quote(f"history/reports/{night.copy}/{page}") if page else ""


def _months(
    nights: Sequence[Night], places: Places
) -> tuple[tuple[str, tuple[NightLink, ...]], ...]:
    newest_first = sorted(nights, key=lambda night: night.time, reverse=True)
    return tuple(
        (month, tuple(_night_link(night, places) for night in group))
        for month, group in groupby(newest_first, key=lambda night: f"{night.time:%Y-%m}")
    )


def _night_link(night: Night, places: Places) -> NightLink:
    verdicts = [model.verdict for model in night.models.values()]
    worst = next((verdict for verdict in ("fail", "warn") if verdict in verdicts), "pass")
    title = f"{describe.minute(night.time)}, {verdicts.count('fail')} of {len(verdicts)} failed"
    commit = f", commit {night.commit}" if night.commit else ""
    return NightLink(
        label=f"{night.time:%d}",
        title=title + commit,
        verdict=worst,
        href=_night_href(night, places),
    )
