"""Nodes, dtypes and stored tensors of an ONNX graph."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.model.protos import PACKED_BITS, dtype_name, tensor_bytes
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
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)


def module_path(node: Any) -> str:
    """The path of the module that a node comes from; "" for the model itself, and if unknown."""
    return origin_of(node).module


def enclosing_path(node: Any) -> str:
    """The path of the module around that one, or its own at the top; "" if unknown.

    What onnxruntime fuses (a convolution, its norm, its activation) has one such module in common.
    """
    modules = origin_of(node).modules
    return next(filter(None, modules[-2:]), "the model itself") if modules else ""


# Dtypes -------------------------------------------------------------------------------------------

_STANDARD = ("", "ai.onnx")

Types = MutableMapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TypedNode:
    """A node and the dtypes around it.

    Attributes:
        types: dtype by the name of a value, as onnxruntime writes it (`tensor(float)`), of the
            values visible to the node; a value of unknown dtype is not among them.
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
        return "" if self.node.domain in _STANDARD else str(self.node.domain)


def typed_nodes(model: Any) -> Iterator[TypedNode]:
    """Every node with its dtypes; `model` has been through shape inference.

    Nodes inside branches, loop bodies and local functions are among them.
    """
    opsets = {_domain(entry): entry.version for entry in model.opset_import}
    yield from _typed_nodes_of(model.graph, {}, opsets)
    for function in model.functions:
        own = opsets | {_domain(entry): entry.version for entry in function.opset_import}
        for node in function.node:
            yield TypedNode(node=node, types={}, opset=_opset(node, own), generic=True)


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
                formal = formals[min(index, len(formals) - 1)]
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
    types = ChainMap(_declared(graph), outer)
    for node in graph.node:
        yield TypedNode(node=node, types=types, opset=_opset(node, opsets))
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
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
    return "" if entry.domain in _STANDARD else str(entry.domain)


def _opset(node: Any, opsets: dict[str, int]) -> int:
    return opsets.get("" if node.domain in _STANDARD else node.domain, 0)


# Stored tensors -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TensorData:
    """An initializer, or the value of a Constant node.

    Attributes:
        tensor: the TensorProto; for a sparse initializer its values.
        folder: where its external data lies, if it has any.
        bytes: what it takes, indices of a sparse one included.
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
        """Its bytes as they lie in the file; None where they do not lie there as a whole.

        External data is mapped into memory, not read; outside of the model's folder it is not
        looked at, as no runtime does.
        """
        import numpy as np

        if not self.external:
            return memoryview(self.tensor.raw_data) if self.tensor.raw_data else None
        where = {entry.key: entry.value for entry in self.tensor.external_data}
        path = self.folder / where.get("location", "")
        offset, length = int(where.get("offset", 0)), int(where.get("length", self.bytes))
        if not path.resolve().is_relative_to(self.folder.resolve()):
            return None
        if not path.is_file() or offset + length > path.stat().st_size or not length:
            return None
        return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=length).data

    def values(self) -> Array | None:
        """Its values as a flat array, None where they are missing or text."""
        import numpy as np
        import onnx

        if self.dtype == "string":
            return None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.tensor.data_type)
        bits = PACKED_BITS.get(onnx.TensorProto.DataType.Name(self.tensor.data_type))
        raw = self.raw()
        if raw is not None and bits is None:
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
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx")
        for attribute in node.attribute
        if attribute.HasField("t")
        for stored in (_stored(attribute.t, node.output[0], folder),)
    ]


def external_files(stored: Iterable[TensorData]) -> list[Path]:
    """The files in which external data lies, each once, in the order of the file."""
    places = (
        tensor.folder / entry.value
        for tensor in stored
        if tensor.external
        for entry in tensor.tensor.external_data
        if entry.key == "location"
    )
    return list(dict.fromkeys(places))


def all_graphs(graph: Any) -> Iterator[Any]:
    """`graph` and every graph inside its nodes, the outer ones first."""
    yield graph
    for node in graph.node:
        yield from subgraphs(node)


def subgraphs(node: Any) -> Iterator[Any]:
    """Every graph inside a node: branches and loop bodies, and those inside them."""
    for attribute in node.attribute:
        inner = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in inner:
            yield from all_graphs(graph)


def drop_weights(model: Any, small: int) -> None:
    """Forget the values of every tensor of more than `small` bytes, to save memory."""
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            if len(tensor.raw_data) > small:
                tensor.ClearField("raw_data")


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
