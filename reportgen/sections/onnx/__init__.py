"""ONNX: export, check, parity with PyTorch, latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.outcome import Skipped
from reportgen.sections.onnx.metrics import (
    comparable_of,
    counts_of,
    files_of,
    methods_of,
    metrics_of,
)
from reportgen.sections.onnx.page import FILTERS
from reportgen.sections.onnx.result import OnnxResult
from reportgen.sections.onnx.rules import RULES
from reportgen.sections.section import Section

if TYPE_CHECKING:
    from reportgen.context import ModelContext, OnnxFileContext

__all__ = ["SECTION", "OnnxResult", "analyze"]


def analyze(context: ModelContext) -> OnnxResult | Skipped:
    """Export a model, check the file, compare it with PyTorch, and time it.

    Raises:
        SectionError: the model cannot be exported, with the reason in words.
    """
    if not context.spec.onnx.enabled:
        return Skipped(reason="the manifest turns the export off (onnx: false)")
    from reportgen.sections.onnx.analysis import analyze_exported  # imports onnxruntime

    return analyze_exported(context, context.onnx_file())


def analyze_file(context: OnnxFileContext) -> OnnxResult:
    """Check and time an ONNX file that is itself the source."""
    from reportgen.sections.onnx.analysis import analyze_source  # imports onnxruntime

    return analyze_source(context)


SECTION = Section(
    name="onnx",
    title="ONNX",
    result=OnnxResult,
    analyze=analyze,
    imports=("reportgen.sections.onnx.analysis", "torch.onnx"),
    exports=True,
    analyze_file=analyze_file,
    reads=frozenset({"onnx", "threads", "timings"}),
    rules=RULES,
    metrics=metrics_of,
    methods=methods_of,
    counts=counts_of,
    comparable=comparable_of,
    files=files_of,
    filters=FILTERS,
)
