"""reportgen: a static-analysis report generator for PyTorch models.

A model object: `analyze`, or one question: `summary`, `draw`, `estimate_memory`, `check_onnx`.
A manifest: `build(load_manifest(path))`.

torch is not imported until a model is analyzed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reportgen.errors import ManifestError, ModelError, OutputError, ReportgenError
    from reportgen.findings import Finding, Severity
    from reportgen.manifest import Manifest, load_manifest
    from reportgen.pipeline import build
    from reportgen.python_api.analyze import analyze
    from reportgen.python_api.questions import check_onnx, draw, estimate_memory, summary
    from reportgen.python_api.report import Report
    from reportgen.report import Verdict
    from reportgen.sections.layers.cost.registration import register_flops

__version__ = "0.1.0"

__all__ = [
    "Finding",
    "Manifest",
    "ManifestError",
    "ModelError",
    "OutputError",
    "Report",
    "ReportgenError",
    "Severity",
    "Verdict",
    "__version__",
    "analyze",
    "build",
    "check_onnx",
    "draw",
    "estimate_memory",
    "load_manifest",
    "register_flops",
    "summary",
]

_HOMES = {
    "Finding": "findings",
    "Manifest": "manifest",
    "ManifestError": "errors",
    "ModelError": "errors",
    "OutputError": "errors",
    "Report": "python_api.report",
    "ReportgenError": "errors",
    "Severity": "findings",
    "Verdict": "report",
    "analyze": "python_api.analyze",
    "build": "pipeline",
    "check_onnx": "python_api.questions",
    "draw": "python_api.questions",
    "estimate_memory": "python_api.questions",
    "load_manifest": "manifest",
    "register_flops": "sections.layers.cost.registration",
    "summary": "python_api.questions",
}


# On first use: importing them all here would cost every command a second.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reportgen' has no attribute {name!r}")
    return getattr(import_module(f"reportgen.{_HOMES[name]}"), name)
