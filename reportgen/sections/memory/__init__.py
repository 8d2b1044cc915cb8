"""Memory: what a step takes on a CUDA card, and the largest batch that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.chapter import Section, Skipped
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

if TYPE_CHECKING:
    from reportgen.study import FileStudy

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


def examine_file(_: FileStudy) -> Skipped:
    """Skip: a step of PyTorch is what is estimated here."""
    return Skipped(
        reason="the estimate is of a step of PyTorch, and an ONNX file holds no PyTorch module; "
        "what its weights take stands under Layers"
    )


SECTION = Section(
    name="memory",
    title="Memory",
    result=Memory,
    examine=examine,
    examine_file=examine_file,
    rules=RULES,
)
