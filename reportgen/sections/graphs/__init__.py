"""Graphs: the modules, autograd and the ONNX graph as drawings."""

from __future__ import annotations

from reportgen.chapter import Section
from reportgen.sections.graphs.examination import examine, examine_file
from reportgen.sections.graphs.result import Drawing, Graphs, Tile

__all__ = ["SECTION", "Drawing", "Graphs", "Tile", "examine"]

SECTION = Section(
    name="graphs",
    title="Graphs",
    result=Graphs,
    examine=examine,
    examine_file=examine_file,
    rules=(),
)
