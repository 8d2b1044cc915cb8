"""Nodes, dtypes and stored tensors of an ONNX graph."""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.model.protos import (
    PACKED_BITS,
    STANDARD,
    all_graphs,
    dtype_name,
    subgraphs,
    tensor_bytes,
)
from reportgen.sections.onnx.file_result import StoredTensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]


def all_nodes(model: Any) -> Iterator[Any]:
    """Every node of the file, those in branches, loop bodies and local functions included."""
    yield from _nodes(model.graph.node)
    for function in model.functions:
        yield from _nodes(function.node)


def _nodes(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _nodes(graph.node)


def module_path(node: Any) -> str:
    """The path of the module that a node comes from; "" for the model itself, and if unknown."""
    return origin_of(node).module


def enclosing_path(node: Any) -> str:
    """The path of the module around that one, or its own at the top; "" if unknown."""
    modules = origin_of(node).modules
    return next(filter(None, modules[-2:]), "the model itself") if modules else ""


def ranked(counts: Counter[str]) -> dict[str, int]:
    """The counts, largest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


Types = MutableMapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TypedNode:
    """A node and the dtypes around it.

    Attributes:
        types: dtype by the name of a value, as onnxruntime writes it (`tensor(float)`), of the
            values visible to the node; values of unknown dtype are left out.
        opset: the version of the node's domain that the file imports; 0 where it names none.
        generic: the node is in a local function, whose inputs have no declared dtype.
    """

    node: Any
    types: Types
    opset: int
    generic: bool = False

    @property
    def domain(self) -> str:
        """The node's domain; "" for the standard one."""
        return _domain(self.node)


def typed_nodes(model: Any) -> Iterator[TypedNode]:
    """Every node with its dtypes; `model` has been through shape inference.

    Nodes inside branches, loop bodies and local functions are among them.
    """
    opsets = {_domain(entry): entry.version for entry in model.opset_import}
    yield from _typed_nodes_of(model.graph, {}, opsets)
    for function in model.functions:
        own = opsets | {_domain(entry): entry.version for entry in function.opset_import}
        for node in function.node:
            # inferred dtypes belong to each call of a function, not to its body
            yield TypedNode(node=node, types={}, opset=own.get(_domain(node), 0), generic=True)


def slots_of(typed: TypedNode) -> tuple[int, dict[str, tuple[str | None, ...]]]:
    """The opset in which a node's operator last changed, and the dtypes at its type parameters.

    A dtype stands under the name of its type parameter (`T`) and of the input or output itself
    (`indices`); None is one that is not known. (0, {}) for an operator that onnx does not define.
    """
    import onnx

    node = typed.node
    try:
        schema = onnx.defs.get_schema(node.op_type, typed.opset, typed.domain)
    except onnx.defs.SchemaError:
        return 0, {}
    slots: dict[str, tuple[str | None, ...]] = {}
    sides = ((node.input, schema.inputs), (node.output, schema.outputs))
    for names, formals in sides:
        for index, name in enumerate(names):
            if name and formals:
                formal = formals[min(index, len(formals) - 1)]  # only the last may be variadic
                found = (typed.types.get(name),)
                slots[formal.type_str] = slots.get(formal.type_str, ()) + found
                slots[formal.name] = slots.get(formal.name, ()) + found
    return int(schema.since_version), slots


def outputs_of(typed: TypedNode) -> list[str | None]:
    """The dtypes of a node's outputs, None for one that is not known."""
    return [typed.types.get(name) for name in typed.node.output if name]


def sizes_of(model: Any) -> dict[str, tuple[int | None, ...]]:
    """The shape of every value of the main graph that has one, None for a size not known."""
    graph = model.graph
    shapes = {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None
            for dim in value.type.tensor_type.shape.dim
        )
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _typed_nodes_of(graph: Any, outer: Types, opsets: dict[str, int]) -> Iterator[TypedNode]:
    types = ChainMap(_declared(graph), outer)  # a subgraph sees the values around it
    for node in graph.node:
        yield TypedNode(node=node, types=types, opset=opsets.get(_domain(node), 0))
        for inner in subgraphs(node):
            yield from _typed_nodes_of(inner, types, opsets)


def _declared(graph: Any) -> dict[str, str]:
    types = {
        value.name: text
        for value in (*graph.value_info, *graph.input, *graph.output)
        if (text := _type_text(value.type))
    }
    for tensor in graph.initializer:
        types[tensor.name] = f"tensor({_type_name(tensor.data_type)})"
    return types


def _type_text(proto: Any) -> str:
    kind = proto.WhichOneof("value")
    if kind == "tensor_type" and proto.tensor_type.elem_type:
        return f"tensor({_type_name(proto.tensor_type.elem_type)})"
    if kind in ("sequence_type", "optional_type"):
        inner = _type_text(getattr(proto, kind).elem_type)
        return f"{'seq' if kind == 'sequence_type' else 'optional'}({inner})" if inner else ""
    return ""


def _type_name(elem_type: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(elem_type)).lower()


def _domain(entry: Any) -> str:
    return "" if entry.domain in STANDARD else str(entry.domain)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TensorData:
    """An initializer, or the value of a Constant node.

    Attributes:
        tensor: the TensorProto; for a sparse initializer its values.
        folder: where its external data lies, if it has any.
        bytes: its size, including the indices of a sparse one.
        sparse: whether it is sparse; `values` then returns the stored part only.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    external: bool
    sparse: bool
    tensor: Any
    folder: Path

    @property
    def summary(self) -> StoredTensor:
        """Its entry in the report."""
        return StoredTensor(name=self.name, dtype=self.dtype, shape=self.shape, bytes=self.bytes)

    def raw(self) -> memoryview | None:
        """Its bytes in the file; None if they are not stored there in one piece."""
        import numpy as np

        if not self.external:
            raw = self.tensor.raw_data  # a copy, each time
            return memoryview(raw) if raw else None
        where = {entry.key: entry.value for entry in self.tensor.external_data}
        path = self.folder / where.get("location", "")
        offset, length = int(where.get("offset", 0)), int(where.get("length", self.bytes))
        # runtimes refuse data outside of the model's folder: a file could name any on this machine
        if not path.resolve().is_relative_to(self.folder.resolve()):
            return None
        if not path.is_file() or offset + length > path.stat().st_size or not length:
            return None
        return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=length).data

    def values(self) -> Array | None:
        """Its values as a flat array; None if they are missing or text."""
        import numpy as np
        import onnx

        if self.dtype == "string":
            return None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.tensor.data_type)
        bits = PACKED_BITS.get(onnx.TensorProto.DataType.Name(self.tensor.data_type))
        raw = self.raw()
        if raw is not None and bits is None:  # without a copy
            flat: np.ndarray[Any, Any] = np.frombuffer(raw, dtype=dtype)
            return flat
        if self.external:
            return None
        array: np.ndarray[Any, Any] = onnx.numpy_helper.to_array(self.tensor).reshape(-1)
        return array


def stored_tensors(model: Any, folder: Path) -> list[TensorData]:
    """Every initializer of the graph and of its subgraphs, sparse ones included."""
    return [
        stored for graph in all_graphs(model.graph) for stored in _initializers_of(graph, folder)
    ]


def constant_tensors(model: Any, folder: Path) -> list[TensorData]:
    """The value of every Constant node of the graph and its subgraphs, by its output's name."""
    return [
        stored
        for graph in all_graphs(model.graph)
        for node in graph.node
        if node.op_type == "Constant" and node.domain in STANDARD
        for attribute in node.attribute
        if attribute.HasField("t")  # not the short forms: value_float, value_ints, ...
        for stored in (_stored(attribute.t, node.output[0], folder),)
    ]


def external_files(stored: Iterable[TensorData]) -> list[Path]:
    """The files with external data, each once, in the order of the file."""
    places = (
        tensor.folder / entry.value
        for tensor in stored
        if tensor.external
        for entry in tensor.tensor.external_data
        if entry.key == "location"
    )
    return list(dict.fromkeys(places))


def _initializers_of(graph: Any, folder: Path) -> Iterator[TensorData]:
    for tensor in graph.initializer:
        yield _stored(tensor, tensor.name, folder)
    for sparse in graph.sparse_initializer:
        values = _stored(sparse.values, sparse.values.name, folder)
        yield TensorData(
            name=values.name,
            dtype=values.dtype,
            shape=tuple(sparse.dims),
            bytes=values.bytes + tensor_bytes(sparse.indices),
            external=values.external,
            sparse=True,
            tensor=sparse.values,
            folder=folder,
        )


def _stored(tensor: Any, name: str, folder: Path) -> TensorData:
    return TensorData(
        name=name,
        dtype=dtype_name(tensor.data_type),
        shape=tuple(tensor.dims),
        bytes=tensor_bytes(tensor),
        external=tensor.data_location == tensor.EXTERNAL,
        sparse=False,
        tensor=tensor,
        folder=folder,
    )
