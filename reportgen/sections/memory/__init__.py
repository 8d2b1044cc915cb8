"""Memory: the peak of a step on a CUDA GPU, and the largest batch that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.outcome import Skipped
from reportgen.sections.memory.analysis import analyze, as_result, fit_of
from reportgen.sections.memory.metrics import comparable_of, methods_of, metrics_of
from reportgen.sections.memory.page import FILTERS
from reportgen.sections.memory.result import (
    BatchCurve,
    Fit,
    LoopOption,
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
    "LoopOption",
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
    """Skip: only PyTorch models have a step to estimate."""
    return Skipped(
        reason="an ONNX file contains no PyTorch module to estimate; the size of its weights is "
        "under Layers"
    )


SECTION = Section(
    name="memory",
    title="Memory",
    result=Memory,
    analyze=analyze,
    imports=("reportgen.sections.memory.analysis", "reportgen.cuda_memory.estimator"),
    analyze_file=analyze_file,
    reads=frozenset({"targets", "training", "loss", "budgets.peak_memory_bytes"}),
    rules=RULES,
    runs_beside=True,
    metrics=metrics_of,
    comparable=comparable_of,
    methods=methods_of,
    filters=FILTERS,
)
