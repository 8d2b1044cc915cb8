"""Shared by all rules of the training section: hits of one kind of diagnosis, evidence as text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from reportgen.charts.axes import format_position, format_value
from reportgen.findings import Hit
from reportgen.sections.training.headline import SENTENCE_DIGITS, count_of
from reportgen.sections.training.result import Diagnosis, Training

Evidence = dict[str, float | int | str]

_MOST_HITS = 30  # of one rule; a page of hundreds of findings is not read


def hits_of(result: Training, kind: str, sentence: Callable[[Diagnosis], str]) -> Iterator[Hit]:
    """One hit for each sentence about the diagnoses of `kind`, at most 30 and a last one."""
    places: dict[str, list[Diagnosis]] = {}
    for found in result.diagnoses:
        if found.kind == kind:
            places.setdefault(sentence(found), []).append(found)
    for number, (message, together) in enumerate(places.items()):
        if number == _MOST_HITS:
            left = sum(map(len, list(places.values())[_MOST_HITS:]))
            message = "see diagnoses in report.json"
            yield Hit(where=f"{left:,} more curves", message=message, key="more curves")
            return
        first = place_of(result, together[0].run, together[0].tag)
        yield Hit(where=_where(first, together), message=message, key=first)


def _where(first: str, found: Sequence[Diagnosis]) -> str:
    """One place, or how many places share a sentence: hundreds of runs of one script may."""
    return first if len(found) == 1 else f"{first} and {len(found) - 1:,} more"


def place_of(result: Training, run: str, tag: str) -> str:
    """`run · tag`; the tag alone in a log of one run, the run alone for a finding on all of it."""
    if len(result.runs) == 1 and tag:
        return tag
    return " · ".join(filter(None, (run, tag))) or "run"


def step_of(evidence: Evidence, name: str) -> str:
    """The step `name` of the evidence."""
    return format_position(float(evidence[name]))


def value_of(evidence: Evidence, name: str) -> str:
    """The value `name` of the evidence."""
    return format_value(float(evidence[name]), SENTENCE_DIGITS)


def count_in(evidence: Evidence, name: str, what: str) -> str:
    """The count `name` of the evidence with its noun."""
    return count_of(int(evidence[name]), what)
