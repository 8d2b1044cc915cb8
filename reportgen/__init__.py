"""reportgen: a static-analysis report generator for PyTorch models.

    from reportgen import build, load_manifest

torch is not imported until a model is analyzed, and then in the model's own process.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reportgen.errors import ManifestError, ModelError, OutputError, ReportgenError
    from reportgen.findings import Finding, Severity
    from reportgen.manifest import Manifest, load_manifest
    from reportgen.pipeline import build
    from reportgen.report import Report, Verdict
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
    "build",
    "load_manifest",
    "register_flops",
]

_HOMES = {
    "Finding": "findings",
    "Manifest": "manifest",
    "ManifestError": "errors",
    "ModelError": "errors",
    "OutputError": "errors",
    "Report": "report",
    "ReportgenError": "errors",
    "Severity": "findings",
    "Verdict": "report",
    "build": "pipeline",
    "load_manifest": "manifest",
    "register_flops": "sections.layers.cost.registration",
}


# On first use: importing them all here would cost every command a second.
def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'reportgen' has no attribute {name!r}")
    return getattr(import_module(f"reportgen.{_HOMES[name]}"), name)
