"""The nodes of an ONNX file: inputs, outputs, weights and multiply-adds of each.

Read from the file alone, without PyTorch: for files that come without a module, and as a count
of a module's cost that is independent of the one made from the module itself.

Built on protobuf messages, not on `onnx_ir` (1.1): that one drops sparse initializers and refuses
sparse attributes and map types, all of which files have.
"""

from __future__ import annotations

from reportgen.onnx.model.reading import (
    OnnxModel,
    OnnxNode,
    OnnxNodes,
    load_onnx,
    read_nodes,
    symbol_sizes,
)
from reportgen.onnx.model.shapes import Shape
from reportgen.onnx.model.stored_weights import Weight

__all__ = [
    "OnnxModel",
    "OnnxNode",
    "OnnxNodes",
    "Shape",
    "Weight",
    "load_onnx",
    "read_nodes",
    "symbol_sizes",
]
