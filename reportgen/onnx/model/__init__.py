"""The nodes of an ONNX file: what each reads, gives, holds and costs.

Read from the file alone, without PyTorch: for files that come without a module, and as a count
of a module's cost that owes nothing to the one made of the module itself.
"""

from __future__ import annotations

from reportgen.onnx.model.reading import Node, Nodes, load_graph, read_nodes
from reportgen.onnx.model.shapes import Shape, symbol_sizes
from reportgen.onnx.model.stored_weights import Weight

__all__ = ["Node", "Nodes", "Shape", "Weight", "load_graph", "read_nodes", "symbol_sizes"]
