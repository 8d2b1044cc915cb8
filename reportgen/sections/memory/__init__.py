"""Memory: what a step takes on a CUDA card, and the largest batch that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.outcome import Skipped
from reportgen.sections.memory.analysis import analyze, as_result, fit_of
from reportgen.sections.memory.metrics import metrics_of
from reportgen.sections.memory.page import FILTERS
from reportgen.sections.memory.result import (
    BatchCurve,
    Fit,
    Memory,
    MemoryEstimate,
    Timeline,
    TimelineSample,
    TopModule,
    WhatIf,
)
from reportgen.sections.memory.rules import (
    RULES,
    batch_exceeds_target_memory,
    single_sample_exceeds_target_memory,
)
from reportgen.sections.section import Section

if TYPE_CHECKING:
    from reportgen.context import OnnxFileContext

__all__ = [
    "SECTION",
    "BatchCurve",
    "Fit",
    "Memory",
    "MemoryEstimate",
    "Timeline",
    "TimelineSample",
    "TopModule",
    "WhatIf",
    "analyze",
    "as_result",
    "batch_exceeds_target_memory",
    "fit_of",
    "single_sample_exceeds_target_memory",
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
    metrics=metrics_of,
    filters=FILTERS,
)
