"""Joins the sessions of one run; detects resumes, second attempts, repeats and mixed units.

A log is written by one process or by several, one after another or at once. When a step goes back,
its target and the wall time decide what happened:

- a *resume* goes back to a step inside what was logged: later points replace earlier ones;
- a *second attempt* goes back to the first step: it is a run of its own;
- *repeats* are equal steps written at the same time by several writers: all points are kept;
- *mixed units* are two sequences of steps in one tag, such as epochs among batches: the points
  are drawn in the order of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from reportgen.sections.training.curve import Floats, Resume, as_floats
from reportgen.training_logs.log_run import LogRun, Series

_MOST_STRETCHES = 50  # a step that goes back more often than this is not a series of restarts
_FEWEST_EXCURSIONS = 3  # fewer may be repeats or restarts
_SHORTEST_PAUSE_SECONDS = 1.0  # of a process that is restarted
_LATEST_TIME = 1e11  # seconds since 1970: the year 5138
_CLOCK_SLACK_SECONDS = 1.0  # of wall times of two processes on one machine


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stretch:
    """Points of one tag in one session between two restarts; arrays of equal length."""

    session: int
    steps: Floats
    values: Floats
    times: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplacedPoints:
    """Points of a tag that a resume replaced."""

    tag: str
    from_step: float
    to_step: float
    points: int


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class JoinedTag:
    """One tag of one attempt, in the order of steps; arrays of equal length.

    Attributes:
        repeats: how many points have a step that an earlier point has.
        unit_change: (step before, step after) of the first change between two sequences of
            steps; `steps` then counts the points in the order of the log. None otherwise.
    """

    steps: Floats
    values: Floats
    times: Floats
    resumes: tuple[Resume, ...]
    repeats: int
    unit_change: tuple[float, float] | None = None


@dataclass(kw_only=True, slots=True, eq=False)
class Attempt:
    """One attempt at a training: its sessions, joined tag by tag."""

    sessions: set[int] = field(default_factory=set)
    stretches: dict[str, list[Stretch]] = field(default_factory=dict)
    resumes: list[Resume] = field(default_factory=list)
    replaced: list[ReplacedPoints] = field(default_factory=list)
    tags: dict[str, JoinedTag] = field(default_factory=dict)

    @property
    def first_time(self) -> float:
        """When its first point was logged; NaN where no wall time is known."""
        times = [part.times for parts in self.stretches.values() for part in parts]
        known = [float(np.nanmin(part)) for part in times if not np.isnan(part).all()]
        return min(known, default=float("nan"))


def join_sessions(run: LogRun) -> tuple[Attempt, ...]:
    """The attempts of `run` in order, each with its points joined; at least one."""
    mixed, parts = _stretches_of(run)
    attempts = [Attempt()]
    for number in sorted({(part.session, place) for _, place, part in parts}):
        together = {tag: p for tag, place, p in parts if (p.session, place) == number}
        # A purge step holds for the start of its session, not for what follows a restart inside.
        purge = run.sessions[number[0]].purge_step if number[1] == 0 and run.sessions else None
        _add(attempts, together, purge)
    for attempt in attempts:
        attempt.tags = {tag: _joined(parts, attempt) for tag, parts in attempt.stretches.items()}
    # Their steps do not say when they were logged, so they go to the newest attempt.
    attempts[-1].tags |= {tag: _in_order(series) for tag, series in mixed.items()}
    return tuple(attempts)


def _stretches_of(run: LogRun) -> tuple[dict[str, Series], list[tuple[str, int, Stretch]]]:
    """Tags with mixed units; and (tag, place in its session, stretch) of all the others."""
    mixed, parts = dict[str, Series](), list[tuple[str, int, Stretch]]()
    for tag, series in run.scalars.items():
        if not len(series):
            continue
        sessions = list(_sessions(series))
        if any(_has_mixed_units(session.steps) for session in sessions):
            mixed[tag] = series
            continue
        for session in sessions:
            parts += [(tag, place, part) for place, part in enumerate(_split(session))]
    return mixed, parts


def _sessions(series: Series) -> Iterable[Stretch]:
    steps, values = as_floats(series.steps), as_floats(series.values)
    times = _known_times(series)
    ends = [start for start, _ in series.starts[1:]] + [len(series)]
    for (start, session), end in zip(series.starts, ends, strict=True):
        part = slice(start, end)
        yield Stretch(session=session, steps=steps[part], values=values[part], times=times[part])


def _has_mixed_units(steps: Floats) -> bool:
    """Whether steps leave a rising sequence for single points and return to it, again and again."""
    before = np.maximum.accumulate(steps)[:-2]
    excursions = (steps[1:-1] < before) & (steps[2:] > before)
    backward = int((np.diff(steps) < 0).sum())
    found = int(excursions.sum())
    # Most steps back must be excursions: a restart that happens to look like one is not enough.
    return found >= _FEWEST_EXCURSIONS and found >= 0.8 * backward


def _split(session: Stretch) -> list[Stretch]:
    """`session` split where the step goes back to the first step, or goes back after a pause.

    A step that goes back without a pause is a repeat: one process logged it twice.
    """
    steps = session.steps
    interval = _interval(steps)
    lowest = float(steps.min())
    tops = np.maximum.accumulate(steps)
    drops = np.flatnonzero(steps[1:] < steps[:-1]) + 1
    cuts = [
        int(i)
        for i in drops
        # A step back by a single interval is a repeat, not a restart.
        if tops[i - 1] - steps[i] >= 2 * interval
        and (steps[i] <= lowest + interval or _pauses(session.times, int(i)))
    ]
    if not cuts or len(cuts) > _MOST_STRETCHES:
        return [session]
    bounds = [0, *cuts, len(steps)]
    return [
        Stretch(
            session=session.session,
            steps=steps[start:end],
            values=session.values[start:end],
            times=session.times[start:end],
        )
        for start, end in pairwise(bounds)
    ]


def _known_times(series: Series) -> Floats:
    """Wall times; NaN also for the infinities and for times that no calendar has."""
    times = as_floats(series.times)
    return np.where(np.abs(times) < _LATEST_TIME, times, np.nan)


def _pauses(times: Floats, place: int) -> bool:
    """Whether much more time than usual passed before point `place`; True where none is known."""
    gap = times[place] - times[place - 1]
    if np.isnan(gap):
        return True
    return bool(gap > max(_SHORTEST_PAUSE_SECONDS, 10 * float(np.nanmedian(np.diff(times)))))


def _interval(steps: Floats) -> float:
    """The usual distance of neighboring steps; 1 where none rises."""
    rises = np.diff(steps)
    rises = rises[rises > 0]
    return float(np.median(rises)) if len(rises) else 1.0


def _add(attempts: list[Attempt], parts: dict[str, Stretch], purge: int | None) -> None:
    """Append the `parts` of one session, by tag, to the newest attempt, or begin a new one."""
    current = attempts[-1]
    # Only a tag that both have shows whether the step went back: a new tag may begin at any step.
    common = [tag for tag in parts if tag in current.stretches]
    if purge is not None and current.stretches:
        _resume(current, float(purge))
    elif common:
        # The tag with the most points: one logged per epoch says little about where the step is.
        main = max(common, key=lambda tag: len(parts[tag].steps))
        earlier, later = current.stretches[main], parts[main]
        steps = np.concatenate([part.steps for part in earlier])
        begin, last = float(later.steps.min()), float(steps.max())
        if begin > last:
            current.resumes.append(Resume(step=begin, last_step=last, superseded=0))
        elif not _is_later(earlier, later):
            pass  # several writers at once: every point stays
        elif begin <= steps.min() + _interval(steps):
            current = Attempt()
            attempts.append(current)
        else:
            _resume(current, begin)
    for tag, part in parts.items():
        current.sessions.add(part.session)
        current.stretches.setdefault(tag, []).append(part)


def _is_later(earlier: Sequence[Stretch], later: Stretch) -> bool:
    """Whether wall time moves on between them; a log without times is in the order of its file."""
    times = np.concatenate([part.times for part in earlier])
    if np.isnan(times).all() or np.isnan(later.times).all():
        return True
    return bool(np.nanmin(later.times) >= np.nanmax(times) - _CLOCK_SLACK_SECONDS)


def _resume(attempt: Attempt, step: float) -> None:
    """Drop the points of `attempt` from `step` on in every tag, and record them as replaced."""
    last, dropped = -np.inf, 0
    for tag, stretches in attempt.stretches.items():
        kept = []
        for part in stretches:
            stays = part.steps < step
            last = max(last, float(part.steps.max()))
            if not stays.all():
                gone = part.steps[~stays]
                dropped += len(gone)
                attempt.replaced.append(
                    ReplacedPoints(
                        tag=tag,
                        from_step=float(gone.min()),
                        to_step=float(gone.max()),
                        points=len(gone),
                    )
                )
            kept.append(
                Stretch(
                    session=part.session,
                    steps=part.steps[stays],
                    values=part.values[stays],
                    times=part.times[stays],
                )
            )
        attempt.stretches[tag] = [part for part in kept if len(part.steps)]
    attempt.stretches = {tag: kept for tag, kept in attempt.stretches.items() if kept}
    attempt.resumes.append(Resume(step=step, last_step=float(last), superseded=dropped))


def _joined(parts: Sequence[Stretch], attempt: Attempt) -> JoinedTag:
    steps = np.concatenate([part.steps for part in parts])
    order = np.argsort(steps, kind="stable")  # equal steps stay in the order of the log
    steps = steps[order]
    return JoinedTag(
        steps=steps,
        values=np.concatenate([part.values for part in parts])[order],
        times=np.concatenate([part.times for part in parts])[order],
        resumes=tuple(attempt.resumes),
        repeats=int((np.diff(steps) == 0).sum()),
    )


def _in_order(series: Series) -> JoinedTag:
    """The points of a tag with mixed units, counted in the order of the log."""
    steps = as_floats(series.steps)
    change = int(np.flatnonzero(np.diff(steps) < 0)[0])
    return JoinedTag(
        steps=np.arange(len(steps), dtype=np.float64),
        values=as_floats(series.values),
        times=_known_times(series),
        resumes=(),
        repeats=0,
        unit_change=(float(steps[change]), float(steps[change + 1])),
    )
