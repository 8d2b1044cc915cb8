"""Names of operators and types in an ONNX file, its subgraphs, and the size of its tensors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

STANDARD = ("", "ai.onnx")  # both name the standard operator domain

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap"})
"""Operators that run the nodes of graphs within them."""

PACKED_BITS = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
"""Bits of an element, for dtypes with several elements per byte."""

_SMALL = 4096  # tensors up to this many bytes may decide shapes; larger ones are weights
_PLAIN = {"float": "float32", "double": "float64"}


def operator_name(node: Any) -> str:
    """`Conv`, and `com.microsoft.Gelu` for an operator outside the standard domain."""
    return str(node.op_type) if node.domain in STANDARD else f"{node.domain}.{node.op_type}"


def subgraphs(node: Any) -> Iterator[Any]:
    """The graphs within a node."""
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def all_graphs(graph: Any) -> Iterator[Any]:
    """`graph` and every graph within one of its nodes, however deep."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from all_graphs(body)


def drop_large_contents(graph: Any) -> None:
    """Clear the contents of initializers that cannot decide a shape; shapes and dtypes remain."""
    for each in all_graphs(graph):
        for tensor in each.initializer:
            if not is_small(tensor):
                tensor.ClearField("raw_data")


def is_small(tensor: Any) -> bool:
    """Whether its contents may decide a shape: it is no weight."""
    # not by the length of raw_data: reading it makes a copy
    return not tensor.HasField("raw_data") or tensor_bytes(tensor) <= _SMALL


def dtype_name(data_type: int) -> str:
    """A tensor's element type by the name that PyTorch and NumPy use."""
    import onnx

    return plain_dtype(str(onnx.TensorProto.DataType.Name(data_type)).lower())


def plain_dtype(name: str) -> str:
    """`float32` for ONNX's `float`; most names are the same."""
    return _PLAIN.get(name, name)


def type_name(kind: Any) -> str:
    """A value's type: that of a tensor's elements, or `sequence of float32`, `optional float32`.

    Args:
        kind: an `onnx.TypeProto`.
    """
    which = kind.WhichOneof("value")
    if which == "sequence_type":
        return f"sequence of {type_name(kind.sequence_type.elem_type)}"
    if which == "optional_type":
        return f"optional {type_name(kind.optional_type.elem_type)}"
    if which == "map_type":
        return f"map to {type_name(kind.map_type.value_type)}"
    if which == "sparse_tensor_type":
        return f"sparse {dtype_name(kind.sparse_tensor_type.elem_type)}"
    return dtype_name(kind.tensor_type.elem_type)


def tensor_bytes(tensor: Any) -> int:
    """The size of a stored tensor's elements."""
    import onnx

    # from the shape: the bytes may be in raw_data, in a typed field or in another file
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(map(len, tensor.string_data))
    bits = PACKED_BITS.get(onnx.TensorProto.DataType.Name(tensor.data_type))
    if bits is None:
        bits = 8 * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return int(math.prod(tensor.dims) * bits + 7) // 8
