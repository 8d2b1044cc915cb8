"""ONNX: export, check, parity with PyTorch, latency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.chapter import Section, Skipped
from reportgen.sections.onnx_export.result import (
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
from reportgen.sections.onnx_export.rules import RULES

if TYPE_CHECKING:
    from reportgen.study import FileStudy, Study

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
    "examine",
]


def examine(study: Study) -> OnnxExport | Skipped:
    """Export a model, check the file, compare it with PyTorch, and time it.

    Raises:
        Unable: the model cannot be exported, with the reason in words.
    """
    if not study.spec.onnx.enabled:
        return Skipped(reason="the manifest turns the export off (onnx: false)")
    from reportgen.sections.onnx_export.examination import examine_file  # needs onnxruntime

    return examine_file(study, study.onnx_file())


def examine_file(study: FileStudy) -> OnnxExport:
    """Check a file that is the source itself, and time it."""
    from reportgen.sections.onnx_export.examination import examine_source  # needs onnxruntime

    return examine_source(study)


SECTION = Section(
    name="onnx",
    title="ONNX",
    result=OnnxExport,
    examine=examine,
    examine_file=examine_file,
    rules=RULES,
)
