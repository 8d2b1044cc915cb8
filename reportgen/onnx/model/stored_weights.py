"""What an ONNX file stores: weights, constants, and the scales of quantized ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from reportgen.onnx.model.protos import (
    CONTROL_FLOW,
    all_graphs,
    dtype_name,
    subgraphs,
    tensor_bytes,
)
from reportgen.onnx.model.quantized import quantized_uses
from reportgen.onnx.model.shapes import Shape

_RANDOM = ("Random", "Bernoulli", "Multinomial", "Dropout")  # prefixes


@dataclass(frozen=True, kw_only=True, slots=True)
class Weight:
    """A stored tensor.

    Attributes:
        is_scale: it is only used as scale or zero point of quantized numbers.
        is_quantized: it is used as a quantized weight or bias, whatever its integer type.
        packed: how many numbers its bytes hold where there are several in one; None otherwise.
        kept: how many elements of a sparse tensor are stored; None for a dense one.
    """

    shape: Shape
    dtype: str
    bytes: int
    is_scale: bool = False
    is_quantized: bool = False
    packed: int | None = None
    kept: int | None = None

    @property
    def elements(self) -> int:
        """The number of elements, zeros of a sparse tensor and every packed one included."""
        return math.prod(self.shape) if self.packed is None else self.packed


def stored_tensors(model: Any) -> dict[str, Weight]:
    """Initializers, dense and sparse, and constants, by name; those of inner graphs too."""
    graphs = list(all_graphs(model.graph))
    found = {name: weight for graph in graphs for name, weight in _stored(graph)}
    in_bytes = {n: w.bytes for n, w in found.items() if w.dtype in ("uint8", "int8")}
    uses = quantized_uses(graphs, in_bytes)
    return {
        name: replace(
            weight,
            is_scale=name in uses.scales,
            is_quantized=name in uses.integers or name in uses.packed,
            packed=uses.packed.get(name),
        )
        for name, weight in found.items()
    }


def constants_of(model: Any) -> dict[str, int]:
    """Single whole numbers and truth values that are stored, by name."""
    from onnx import TensorProto, numpy_helper

    found: dict[str, int] = {}
    for graph in all_graphs(model.graph):
        for name, tensor in _tensors(graph):
            plain = tensor.data_type in (TensorProto.INT64, TensorProto.BOOL)
            if plain and math.prod(tensor.dims) == 1:
                found[name] = int(numpy_helper.to_array(tensor).reshape(-1)[0])
    return found


def carried_weights(model: Any, stored: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Values computed from stored tensors only, each with those tensors.

    A weight that is dequantized, cast or transposed first belongs to the node that uses it.
    """
    carried: dict[str, tuple[str, ...]] = {name: (name,) for name in stored}
    leaving = {value.name for value in model.graph.output}
    read = {name for graph in all_graphs(model.graph) for node in graph.node for name in node.input}
    for node in model.graph.node:
        given = [name for name in node.input if name]
        fixed = given and all(name in carried for name in given)  # RandomNormal has no inputs
        if not fixed or node.op_type in CONTROL_FLOW or node.op_type.startswith(_RANDOM):
            continue
        # an output of the graph, or a value that no node reads, has no later node to belong to
        if all(name in read and name not in leaving for name in node.output if name):
            made_of = tuple(dict.fromkeys(each for name in given for each in carried[name]))
            carried |= dict.fromkeys(filter(None, node.output), made_of)
    return carried


def weights_read(node: Any, carried: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """The stored tensors that `node`, or a node of a graph within it, uses."""
    names = [*node.input]
    for body in subgraphs(node):
        names += [n for graph in all_graphs(body) for inner in graph.node for n in inner.input]
    return tuple(dict.fromkeys(each for name in names for each in carried.get(name, ())))


def _stored(graph: Any) -> Iterator[tuple[str, Weight]]:
    for name, tensor in _tensors(graph):
        shape, dtype = tuple(tensor.dims), dtype_name(tensor.data_type)
        yield name, Weight(shape=shape, dtype=dtype, bytes=tensor_bytes(tensor))
    for name, sparse in _sparse(graph):
        values, places = sparse.values, sparse.indices
        yield (
            name,
            Weight(
                shape=tuple(sparse.dims),
                dtype=dtype_name(values.data_type),
                bytes=tensor_bytes(values) + tensor_bytes(places),
                kept=math.prod(values.dims),
            ),
        )


def _tensors(graph: Any) -> Iterator[tuple[str, Any]]:
    yield from ((tensor.name, tensor) for tensor in graph.initializer)
    for node, attribute in _constants(graph):
        if attribute.name == "value":
            yield node.output[0], attribute.t


def _sparse(graph: Any) -> Iterator[tuple[str, Any]]:
    yield from ((sparse.values.name, sparse) for sparse in graph.sparse_initializer)
    for node, attribute in _constants(graph):
        if attribute.name == "sparse_value":
            yield node.output[0], attribute.sparse_tensor


def _constants(graph: Any) -> Iterator[tuple[Any, Any]]:
    for node in graph.node:
        if node.op_type == "Constant":
            yield from ((node, attribute) for attribute in node.attribute)
