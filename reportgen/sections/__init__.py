"""What is examined: one file per chapter of the report, and the one list of them."""

from __future__ import annotations

from reportgen.chapter import AnySection
from reportgen.sections import behaviour, graphs, layers, memory, onnx_export, training

SECTIONS: tuple[AnySection, ...] = (
    layers.SECTION,
    behaviour.SECTION,
    graphs.SECTION,
    onnx_export.SECTION,
    memory.SECTION,
    training.SECTION,
)
"""Every section, in reading order."""
