"""The sections of the report: one package each, and the one list of them."""

from __future__ import annotations

from reportgen.sections import behavior, graphs, layers, memory, onnx, training
from reportgen.sections.section import AnySection

SECTIONS: tuple[AnySection, ...] = (
    layers.SECTION,
    behavior.SECTION,
    graphs.SECTION,
    onnx.SECTION,
    memory.SECTION,
    training.SECTION,
)
"""Every section, in reading order."""
