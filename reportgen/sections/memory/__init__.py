"""Memory: what a step takes on a CUDA card, and the largest batch that fits."""

from __future__ import annotations

from reportgen.chapter import Section
from reportgen.sections.memory.examination import as_result, examine, fit_of
from reportgen.sections.memory.result import (
    Change,
    Curve,
    Fit,
    Holder,
    Memory,
    MemoryEstimate,
    Moment,
    Timeline,
)
from reportgen.sections.memory.rules import (
    RULES,
    a_target_without_room_for_one_sample,
    the_manifest_batch_beyond_a_target,
)

__all__ = [
    "SECTION",
    "Change",
    "Curve",
    "Fit",
    "Holder",
    "Memory",
    "MemoryEstimate",
    "Moment",
    "Timeline",
    "a_target_without_room_for_one_sample",
    "as_result",
    "examine",
    "fit_of",
    "the_manifest_batch_beyond_a_target",
]

SECTION = Section(name="memory", title="Memory", result=Memory, examine=examine, rules=RULES)
