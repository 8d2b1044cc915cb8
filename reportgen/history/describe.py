"""Changes, drift and figures as words, for the page and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from reportgen.charts.axes import format_value
from reportgen.history.acknowledgments import Acknowledgment
from reportgen.history.changes import Change
from reportgen.history.drift import WINDOWS
from reportgen.history.overview import History, NotedChange, ReportHistory
from reportgen.render.filters import plural
from reportgen.units import format_in_unit

_MINUTE = "%Y-%m-%d %H:%M UTC"


def day(moment: datetime) -> str:
    """`2026-11-20`."""
    return f"{moment:%Y-%m-%d}"


def minute(moment: datetime) -> str:
    """`2026-11-20 03:15 UTC`."""
    return moment.strftime(_MINUTE)


def figure_text(value: float, unit: str) -> str:
    """A value in its unit; fractions without a unit keep four digits: `0.7123`."""
    if unit in ("bytes", "ms") or value == int(value) or abs(value) >= 10_000:
        return format_in_unit(value, unit)
    return format_value(value)


def share_text(share: float | None) -> str:
    """`+4.0 %`; `–` for None."""
    if share is None:
        return "–"
    percent = 100 * abs(share)
    if percent == 0:
        return "0 %"
    text = f"{percent:,.1f}" if percent >= 0.1 else f"{percent:.1g}"
    return f"{'+' if share > 0 else '−'}{text} %"


def short_change(change: Change) -> str:
    """`+4.0 % MACs / sample`; with both values if there is no share."""
    if change.share is None:
        unit = change.figure.unit
        old, new = figure_text(change.old, unit), figure_text(change.new, unit)
        return f"{change.figure.label} {old} → {new}"
    return f"{share_text(change.share)} {change.figure.label}"


def full_change(change: Change) -> str:
    """`MACs / sample 4.1 G → 4.3 G (+4.0 %)`."""
    old, new = (figure_text(value, change.figure.unit) for value in (change.old, change.new))
    if old == new:  # the difference is less than a digit that is shown
        old, new = f"{change.old:,.10g}", f"{change.new:,.10g}"
    share = f" ({share_text(change.share)})" if change.share is not None else ""
    return f"{change.figure.label} {old} → {new}{share}"


def period(change: Change) -> str:
    """`since 2026-11-20`, or from when until when it lasted."""
    if change.recovered is not None:
        return f"{day(change.night)} – {day(change.recovered)}, recovered"
    return f"since {day(change.night)}"


def commit_range(change: Change) -> str:
    """`c0ffee123456..badcab123456`; "" if no commit is known."""
    old, new = change.commits
    if not old or not new:
        return old or new
    return f"{old}..{new}" if old != new else f"{new}, unchanged"


def acknowledgment_text(note: Acknowledgment) -> str:
    """`expected after the new head (Kim, 2026-11-21)`."""
    return f"{note.reason} ({note.owner}, {day(note.time)})"


def history_lines(history: History, key: str, now: datetime) -> Iterator[str]:
    """What `history show` prints: each report, then the recent changes or those that match `key`.

    `key` is that of an acknowledgment, or part of a model's or metric's name.
    """
    for report in history.reports:
        yield from _report_lines(report, key, now)
    for name in history.damaged:
        yield f"damaged file, not read: {name}"


def _report_lines(report: ReportHistory, key: str, now: datetime) -> Iterator[str]:
    nights = report.timeline.nights
    yield (
        f"{report.timeline.report}: {plural(len(nights), 'night')} from {day(nights[0].time)} to "
        f"{minute(nights[-1].time)}, {plural(len(nights[-1].models), 'model')}"
    )
    if report.is_silent(now):
        yield f"  ALARM: no new night since {minute(nights[-1].time)}"
    elif (accepted := report.silence_accepted) is not None and now > report.deadline:
        yield f"  ended: {acknowledgment_text(accepted)}"
    if key:
        yield from _figure_lines(report, key)
    chosen = [n for n in report.changes if key in n.change.key] if key else report.recent
    urgent = report.urgent
    for noted in reversed([n for n in chosen if not n.change.reverts]):
        yield f"  {_change_line(noted, urgent=noted in urgent)}"
    if not key and not chosen:
        yield "  no changes in the last 30 days"


def _figure_lines(report: ReportHistory, key: str) -> Iterator[str]:
    for drift in report.drifts:
        if key in f"{drift.report}/{drift.model}/{drift.figure.key}":
            shares = [
                f"{window} nights {share_text(share)}"
                for window, share in zip(WINDOWS, drift.shares, strict=True)
                if share is not None
            ]
            now = figure_text(drift.last, drift.figure.unit)
            yield f"  {drift.model} {drift.figure.key}: {', '.join([now, *shares])}"


def _change_line(noted: NotedChange, *, urgent: bool) -> str:
    change, note = noted.change, noted.acknowledgment
    words = [
        f"{change.key}: {full_change(change)}",
        period(change),
        f"commits {commits}" if (commits := commit_range(change)) else "",
        f"cause: {change.cause}",
        "" if change.confirmed else "possible, not confirmed",
        f"acknowledged: {acknowledgment_text(note)}" if note else "",
    ]
    return ("! " if urgent else "  ") + "; ".join(filter(None, words))
