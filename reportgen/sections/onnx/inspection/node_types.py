"""The dtype of every value of a file, and which of them a node's kernel depends on."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

_STANDARD = ("", "ai.onnx")

Types = MutableMapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TypedNode:
    """A node and the dtypes around it.

    Attributes:
        types: dtype by the name of a value, as onnxruntime writes it (`tensor(float)`), of the
            values visible to the node; a value of unknown dtype is not among them.
        opset: the version of the node's domain that the file imports; 0 where it names none.
        generic: the node stands in a local function, whose inputs have no dtype of their own.
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
    yield from _of_graph(model.graph, {}, opsets)
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


def _of_graph(graph: Any, outer: Types, opsets: dict[str, int]) -> Iterator[TypedNode]:
    types = ChainMap(_declared(graph), outer)
    for node in graph.node:
        yield TypedNode(node=node, types=types, opset=_opset(node, opsets))
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _of_graph(inner, types, opsets)


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
