"""Change points of all figures: what changed, when, between which commits, and why.

A figure that is a count changes whenever it differs from the night before. A measured one changes
by the rule of `segmentation`, and only among nights of one machine and one set of versions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any, Literal

import numpy as np

from reportgen.history.night import Figure, ModelNight, Night
from reportgen.history.segmentation import FEWEST_NIGHTS, find_shifts, is_different
from reportgen.history.timeline import Indices, Series, Timeline, measuring_tools

_SAME_CHANGE_NIGHTS = 2  # a later fit may move a measured change by so many nights
UNKNOWN_CAUSE = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One change of one figure of one model.

    Attributes:
        report: name of the report's folder.
        model: name of the model.
        figure: what changed.
        before: time of the last night with the old value.
        night: time of the first night with the new one.
        old: the value, or the median of the nights before.
        new: the same of the nights after.
        confirmed: False for the last nights of a measured figure, too few to be sure.
        commits: of the nights `before` and `night`; "" where unknown.
        cause: what else differs between them: versions, `manifest`, `code`, `weights`, `unknown`.
        environment: hash of the machine and versions of a measured figure; "" for a count.
        recovered: first night at which the figure was back at the old value.
        reverts: it is the recovery of an earlier change.
    """

    report: str
    model: str
    figure: Figure
    before: datetime
    night: datetime
    old: float
    new: float
    confirmed: bool = True
    commits: tuple[str, str] = ("", "")
    cause: str = UNKNOWN_CAUSE
    environment: str = ""
    recovered: datetime | None = None
    reverts: bool = False

    @property
    def key(self) -> str:
        """The key that acknowledges it: `report/model/metric@date`."""
        return f"{self.report}/{self.model}/{self.figure.key}@{self.night:%Y-%m-%d}"

    @property
    def difference(self) -> float:
        """New less old."""
        return self.new - self.old

    @property
    def share(self) -> float | None:
        """The difference as a share of the old value; None if that was zero."""
        return self.difference / abs(self.old) if self.old else None

    @property
    def kind(self) -> Literal["confirmed", "possible", "over"]:
        """How it is marked; it is over once it has recovered."""
        if self.recovered is not None:
            return "over"
        return "confirmed" if self.confirmed else "possible"

    @property
    def effect(self) -> Literal["better", "worse", ""]:
        """By the direction of the figure; "" if none of its directions is better."""
        if self.figure.direction == "none":
            return ""
        return "worse" if (self.difference > 0) == (self.figure.direction == "lower") else "better"


def find_changes(timeline: Timeline) -> list[Change]:
    """All changes of a timeline, in the order of their nights."""
    causes = _Causes(timeline)
    found = [
        change
        for series in timeline.series()
        for change in (
            _counted(series, causes) if series.figure.exact else _measured(timeline, series, causes)
        )
    ]
    return sorted(found, key=lambda change: change.night)


def merge_recorded(
    timeline: Timeline, found: Iterable[Change], recorded: Iterable[Change]
) -> list[Change]:
    """`found`, and the `recorded` changes that a later fit or a pruned night would hide.

    A measured change keeps its first record, wherever a later fit puts it; recorded counts are used
    for nights that were pruned only. Recoveries are marked.
    """
    series: dict[tuple[str, str, str], list[Change]] = {}
    first = timeline.nights[0].time
    mine = [change for change in recorded if change.report == timeline.report]
    pruned = [change for change in mine if not change.figure.exact or change.before < first]
    for change in (*pruned, *found):
        known = series.setdefault((change.model, change.figure.key, change.environment), [])
        if change.figure.exact or not any(_is_same(timeline, change, other) for other in known):
            known.append(change)
    return sorted(
        (change for changes in series.values() for change in _with_recoveries(changes)),
        key=lambda change: change.night,
    )


def change_to_data(change: Change) -> dict[str, Any]:
    """`change` as the store has it; recoveries are found again each time."""
    data = asdict(change)
    del data["recovered"], data["reverts"], data["confirmed"]
    return {**data, "before": change.before.isoformat(), "night": change.night.isoformat()}


def change_from_data(data: Mapping[str, Any]) -> Change:
    """The change that `change_to_data` wrote."""
    fields = {
        **data,
        "figure": Figure(**data["figure"]),
        "before": datetime.fromisoformat(data["before"]),
        "night": datetime.fromisoformat(data["night"]),
        "commits": tuple(data["commits"]),
    }
    return Change(**fields)


def _counted(series: Series, causes: _Causes) -> Iterator[Change]:
    nights = series.nights()
    values = series.values[nights]
    for index in np.flatnonzero(np.diff(values)).tolist():
        yield causes.change(
            series, int(nights[index]), int(nights[index + 1]),
            old=float(values[index]), new=float(values[index + 1]),
        )  # fmt: skip


def _measured(timeline: Timeline, series: Series, causes: _Causes) -> Iterator[Change]:
    for nights in timeline.by_environment(series.nights()):
        environment = timeline.environments[int(nights[0])]
        # What another machine measured last, long ago, will never be confirmed.
        recent = int(nights[-1]) >= len(timeline.nights) - FEWEST_NIGHTS
        for shift in find_shifts(series.values[nights]):
            if shift.confirmed or recent:
                at = causes.explained(series.model, nights, shift.at)
                change = causes.change(
                    series, int(nights[at - 1]), int(nights[at]), old=shift.old, new=shift.new
                )
                yield replace(change, environment=environment, confirmed=shift.confirmed)


class _Causes:
    """Makes changes; the cause of each pair of nights is computed once per model."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._known: dict[tuple[str, int, int], str] = {}

    def change(self, series: Series, before: int, night: int, *, old: float, new: float) -> Change:
        nights = self._timeline.nights
        return Change(
            report=self._timeline.report,
            model=series.model,
            figure=series.figure,
            before=nights[before].time,
            night=nights[night].time,
            old=old,
            new=new,
            commits=(nights[before].commit, nights[night].commit),
            cause=self._between(series.model, before, night),
        )

    def explained(self, model: str, nights: Indices, at: int) -> int:
        """The position in `nights` at which a shift found at `at` has a cause, else `at`.

        Noise may put a shift two nights off, so that a cause that near is taken for its own.
        """
        near = [at, at - 1, at + 1, at - 2, at + 2]
        return next(
            (
                place
                for place in near
                if 0 < place < len(nights)
                and self._between(model, int(nights[place - 1]), int(nights[place]))
                != UNKNOWN_CAUSE
            ),
            at,
        )

    def _between(self, model: str, before: int, night: int) -> str:
        nights, place = self._timeline.nights, (model, before, night)
        if place not in self._known:
            self._known[place] = find_cause(nights[before], nights[night], model)
        return self._known[place]


def find_cause(before: Night, after: Night, model: str) -> str:
    """What differs between two nights that can change a figure: `torch 2.10 → 2.11, code`."""
    old, new = measuring_tools(before), measuring_tools(after)
    causes = [
        f"{tool} {old.get(tool, 'none')} → {new.get(tool, 'none')}"
        for tool in {**old, **new}
        if old.get(tool) != new.get(tool)
    ]
    if before.manifest != after.manifest and before.manifest and after.manifest:
        causes.append("manifest")
    causes += _changed_hashes(before.models.get(model), after.models.get(model))
    return ", ".join(causes) or UNKNOWN_CAUSE


def _changed_hashes(before: ModelNight | None, after: ModelNight | None) -> list[str]:
    """Roles of files that differ; none if a report of an older version has no hashes."""
    if before is None or after is None or not before.hashes or not after.hashes:
        return []
    return [
        role
        for role in {**before.hashes, **after.hashes}
        if before.hashes.get(role) != after.hashes.get(role)
    ]


def _is_same(timeline: Timeline, change: Change, other: Change) -> bool:
    nights = timeline.position(change.night) - timeline.position(other.night)
    return abs(nights) <= _SAME_CHANGE_NIGHTS


def _with_recoveries(changes: list[Change]) -> list[Change]:
    """The changes of one series, with the night at which each was undone."""
    ordered = sorted(changes, key=lambda change: change.night)
    # Of changes still in effect, the last one is undone first: the values before it are nearer.
    rising: list[int] = []
    falling: list[int] = []
    for index, change in enumerate(list(ordered)):
        if not change.confirmed:
            continue
        undone = falling if change.difference > 0 else rising
        reverts = False
        while undone and _excess(ordered[undone[-1]], change) <= 0:
            earlier = undone.pop()
            ordered[earlier] = replace(ordered[earlier], recovered=change.night)
            reverts |= _is_equal(ordered[earlier], change)
        if reverts:
            ordered[index] = replace(change, reverts=True)
        else:
            (rising if change.difference > 0 else falling).append(index)
    return ordered


def _excess(change: Change, later: Change) -> float:
    """How far `later` leaves the figure beyond the value before `change`; zero for equal ones."""
    if _is_equal(change, later):
        return 0.0
    return math.copysign(1.0, change.difference) * (later.new - change.old)


def _is_equal(change: Change, later: Change) -> bool:
    if change.figure.exact:
        return later.new == change.old
    return not is_different(change.old, later.new)
