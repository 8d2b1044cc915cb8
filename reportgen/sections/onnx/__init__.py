"""ONNX: export, check, parity with PyTorch, latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.outcome import Skipped
from reportgen.sections.onnx.result import (
    Divergence,
    ErrorBin,
    ErrorHistogram,
    Latency,
    NodeCost,
    OnnxExport,
    OutputParity,
    Parity,
    ParityCase,
    Port,
    SecondCall,
    StoredParameters,
    Tried,
)
from reportgen.sections.onnx.rules import RULES
from reportgen.sections.section import Section

if TYPE_CHECKING:
    from reportgen.context import ModelContext, OnnxFileContext

__all__ = [
    "SECTION",
    "Divergence",
    "ErrorBin",
    "ErrorHistogram",
    "Latency",
    "NodeCost",
    "OnnxExport",
    "OutputParity",
    "Parity",
    "ParityCase",
    "Port",
    "SecondCall",
    "StoredParameters",
    "Tried",
    "analyze",
]


def analyze(context: ModelContext) -> OnnxExport | Skipped:
    """Export a model, check the file, compare it with PyTorch, and time it.

    Raises:
        SectionError: the model cannot be exported, with the reason in words.
    """
    if not context.spec.onnx.enabled:
        return Skipped(reason="the manifest turns the export off (onnx: false)")
    from reportgen.sections.onnx.analysis import analyze_file  # needs onnxruntime

    return analyze_file(context, context.onnx_file())


def analyze_file(context: OnnxFileContext) -> OnnxExport:
    """Check a file that is the source itself, and time it."""
    from reportgen.sections.onnx.analysis import examine_source  # needs onnxruntime

    return examine_source(context)


SECTION = Section(
    name="onnx",
    title="ONNX",
    result=OnnxExport,
    analyze=analyze,
    analyze_file=analyze_file,
    rules=RULES,
)
