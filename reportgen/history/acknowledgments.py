"""Acknowledgments: who accepted a change, or the end of a history, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from reportgen.history.changes import Change

_DATE = re.compile(r"^(?P<path>.+)@(?P<date>\d{4}-\d\d-\d\d)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Acknowledgment:
    """Changes that match `key`, up to `time`, are accepted.

    `key` is a report, `report/model`, `report/model/metric`, `model`, `model/metric` or a metric;
    `@2026-11-20` after it restricts it to the changes of that date.
    """

    key: str
    reason: str
    owner: str
    time: datetime

    def covers(self, change: Change) -> bool:
        """Whether `change` is accepted."""
        return change.night <= self.time and matches(self.key, change)

    def covers_silence(self, report: str, last: datetime) -> bool:
        """Whether it is accepted that no night of `report` follows the one at `last`."""
        return self.key == report and last <= self.time


def matches(key: str, change: Change) -> bool:
    """Whether `key` names `change`, see `Acknowledgment`."""
    dated = _DATE.match(key)
    path = dated["path"] if dated else key
    if dated and dated["date"] != f"{change.night:%Y-%m-%d}":
        return False
    names = (change.report, change.model, change.figure.key)
    # Any part of report/model/metric that begins with one of them and leaves nothing out.
    return path in {"/".join(names[i:j]) for i in range(3) for j in range(i + 1, 4)}


def acknowledged(change: Change, known: Iterable[Acknowledgment]) -> Acknowledgment | None:
    """The newest acknowledgment of `change`."""
    covering = [each for each in known if each.covers(change)]
    return max(covering, key=lambda each: each.time, default=None)


def acknowledgment_to_data(acknowledgment: Acknowledgment) -> dict[str, Any]:
    """`acknowledgment` as the store has it."""
    return {**asdict(acknowledgment), "time": acknowledgment.time.isoformat()}


def acknowledgment_from_data(data: Any) -> Acknowledgment:
    """The acknowledgment that `acknowledgment_to_data` wrote."""
    return Acknowledgment(**{**data, "time": datetime.fromisoformat(data["time"])})
