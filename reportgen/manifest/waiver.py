"""Waivers of a manifest: a budget or a finding that is accepted until a date."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema, model_validator

from reportgen.manifest.errors import quote
from reportgen.manifest.fields import Line, Reason, RuleCode, Value

_ISO_DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"


def _date(value: object) -> object:
    # pydantic would read 20261231 as seconds since 1970
    if isinstance(value, date):
        return value
    if isinstance(value, str) and re.match(_ISO_DATE, value):
        try:
            return date.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{quote(value)} is not a date: {error}") from None
    raise ValueError(f"must be a date such as 2026-12-31, not {quote(value)}")


class Waiver(Value):
    """Accepts one budget or the findings of one rule until a date, for a reason."""

    budget: Line | None = None
    """Key of the budget, as under budgets: onnx.bytes."""
    rule: RuleCode | None = None
    """Code of the rule: LAY001."""
    where: Line | None = None
    """With rule: the place of the finding; * matches any text. If omitted, every place."""
    reason: Reason
    """Why it is accepted."""
    owner: Line
    """Who answers for it."""
    expires: Annotated[
        date,
        BeforeValidator(_date),
        WithJsonSchema({"type": "string", "pattern": _ISO_DATE}),
    ]
    """The last day on which it applies: 2026-12-31."""

    @model_validator(mode="after")
    def _accepts_one_thing(self) -> Waiver:
        if (self.budget is None) == (self.rule is None):
            raise ValueError(
                "must name either a budget or a rule, such as budget: onnx.bytes or rule: LAY001"
            )
        if self.where is not None and self.rule is None:
            raise ValueError("where belongs to a rule; a budget has no place")
        return self

    def matches(self, code: str, where: str) -> bool:
        """Whether it accepts findings of the rule `code` at `where`."""
        if code != self.rule:
            return False
        parts = [re.escape(part) for part in (self.where or "*").split("*")]
        return re.fullmatch(".*".join(parts), where, re.DOTALL) is not None

    def applies(self, today: date) -> bool:
        """Whether it has not expired; it still applies on the day `expires`."""
        return today <= self.expires

    def describe(self) -> str:
        """Reason, owner and last day in one line."""
        return f"{self.reason} (accepted by {self.owner} until {self.expires})"

    def describe_expired(self) -> str:
        """What to say where it no longer applies."""
        return f"the waiver by {self.owner} expired on {self.expires}: {self.reason}"


def find_waiver(candidates: tuple[Waiver, ...], today: date) -> Waiver | None:
    """The waiver that applies, else the one that expired last; None without `candidates`."""
    return max(candidates, key=lambda each: (each.applies(today), each.expires), default=None)
