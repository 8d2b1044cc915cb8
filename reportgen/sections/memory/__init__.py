"""Memory: what a step takes on a CUDA card, and the largest batch that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.outcome import Skipped
from reportgen.sections.memory.analysis import analyze, as_result, fit_of
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
from reportgen.sections.section import Section

if TYPE_CHECKING:
    from reportgen.context import OnnxFileContext

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
    "analyze",
    "as_result",
    "fit_of",
    "the_manifest_batch_beyond_a_target",
]


def analyze_file(_: OnnxFileContext) -> Skipped:
    """Skip: a step of PyTorch is what is estimated here."""
    return Skipped(
        reason="the estimate is of a step of PyTorch, and an ONNX file holds no PyTorch module; "
        "what its weights take stands under Layers"
    )


SECTION = Section(
    name="memory",
    title="Memory",
    result=Memory,
    analyze=analyze,
    analyze_file=analyze_file,
    rules=RULES,
)
