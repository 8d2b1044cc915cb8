"""From an ONNX file to its nodes as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.onnx.model.control_flow import CONTROL_FLOW, Cost, cost_inside
from reportgen.onnx.model.cost import UNCOUNTED, formula_of
from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.model.protos import STANDARD, operator_name
from reportgen.onnx.model.shapes import MakeFeed, Shape, shapes_by_running, value_shapes
from reportgen.onnx.model.stored_weights import (
    Weight,
    carried_weights,
    constants_of,
    stored_tensors,
    weights_read,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """One operation of the file.

    Attributes:
        name: as written; `operator` and its place in the graph where the file gives none.
        operator: its type, with the domain before it unless that is the standard one.
        module: path of the module it comes from, as the exporter wrote it; "" if unknown.
        attributes: its whole numbers, floats, texts and tuples of them.
        inputs: shapes of what it reads other than stored tensors; None where unknown.
        outputs: shapes of what it gives; None where unknown.
        weights: names of the stored tensors it makes use of, also of those that come to it cast,
            dequantized or transposed, and of those that nodes within it read.
        macs: multiply-adds; None where they cannot be counted, `uncounted` then says why.
    """

    name: str
    operator: str
    module: str
    attributes: dict[str, Any]
    inputs: tuple[Shape | None, ...]
    outputs: tuple[Shape | None, ...]
    weights: tuple[str, ...]
    macs: int | None
    uncounted: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Nodes:
    """All operations of a file in the order they stand there, and what is stored in it.

    Constants count as stored; nodes that only make them are not among `nodes`. What is made of
    stored tensors alone has no weights itself: they are those of the nodes that read it.
    """

    nodes: tuple[Node, ...]
    weights: dict[str, Weight]
    inputs: dict[str, Shape | None]
    outputs: dict[str, Shape | None]

    @property
    def macs(self) -> int:
        """Multiply-adds of all nodes that could be counted."""
        return sum(node.macs or 0 for node in self.nodes)

    @property
    def uncounted(self) -> dict[str, str]:
        """Operators that could not be counted, and why."""
        return {node.operator: node.uncounted for node in self.nodes if node.uncounted}


def read_nodes(path: Path, sizes: Mapping[str, int], make_feed: MakeFeed | None = None) -> Nodes:
    """The nodes of the file at `path`, with shapes for the given `sizes` of its symbols.

    Local functions are put in place of their calls. Where shapes that a cost needs cannot be
    inferred, the file is run once on what `make_feed` gives.

    Raises:
        ValueError: the file is no ONNX model.
    """
    model = load_graph(path)
    nodes = list(model.graph.node)
    stored = stored_tensors(model)
    attributes = [_attributes(node) for node in nodes]
    shapes = value_shapes(model, sizes) | {name: each.shape for name, each in stored.items()}
    missing = [
        name
        for node in nodes
        if formula_of(operator_name(node)) is not None
        for name in (*node.input, *node.output)
        if name and name not in shapes
    ]
    if missing and make_feed is not None:
        shapes |= shapes_by_running(path, missing, make_feed)
    initial = {each.name for each in model.graph.initializer}
    carried, constants = carried_weights(model, stored), constants_of(model)
    return Nodes(
        nodes=tuple(
            _node(node, place, given, _Known(shapes, carried, constants))
            for place, (node, given) in enumerate(zip(nodes, attributes, strict=True))
            if node.op_type != "Constant"
        ),
        weights=stored,
        inputs={v.name: shapes.get(v.name) for v in model.graph.input if v.name not in initial},
        outputs={value.name: shapes.get(value.name) for value in model.graph.output},
    )


def load_graph(path: Path) -> Any:
    """The model at `path`, local functions inlined, external weights left where they are.

    Raises:
        ValueError: the file is no ONNX model.
    """
    import onnx
    import onnx.inliner

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and whatever a truncated file causes
        raise ValueError(f"{path.name} is no ONNX model") from error
    if not model.graph.node and not model.graph.input and not model.graph.output:
        raise ValueError(f"{path.name} is no ONNX model: its graph is empty")
    return onnx.inliner.inline_local_functions(model) if model.functions else model


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of the values of a graph, by name."""

    shapes: Mapping[str, Shape]
    carried: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, int]


def _node(node: Any, place: int, attributes: dict[str, Any], known: _Known) -> Node:
    operator, shapes, carried = operator_name(node), known.shapes, known.carried
    macs, why = _macs(node, attributes, known)
    is_carried = all(name in carried for name in node.output if name)
    return Node(
        name=node.name or f"{node.op_type}_{place}",
        operator=operator,
        module=origin_of(node).module,
        attributes=attributes,
        inputs=tuple(shapes.get(name) for name in node.input if name and name not in carried),
        outputs=tuple(shapes.get(name) for name in node.output if name),
        weights=() if is_carried else weights_read(node, carried),
        macs=macs,
        uncounted=why,
    )


def _macs(node: Any, attributes: dict[str, Any], known: _Known) -> Cost:
    operator, shapes = operator_name(node), known.shapes
    formula = formula_of(operator)
    if operator in CONTROL_FLOW:
        return cost_inside(
            node, lambda inner: _macs(inner, _attributes(inner), known), shapes, known.constants
        )
    if formula is None:
        why = _why_uncounted(node, operator)
        return (None, why) if why else (0, "")
    inputs = [shapes.get(name) if name else () for name in node.input]
    outputs = [shapes.get(name) if name else () for name in node.output]
    known_inputs = [shape for shape in inputs if shape is not None]
    known_outputs = [shape for shape in outputs if shape is not None]
    if len(known_inputs) < len(inputs) or outputs[0] is None:
        return None, "a shape that it needs is not known"
    try:
        return int(formula(known_inputs, known_outputs, attributes)), ""
    except (ValueError, IndexError, KeyError) as error:
        return None, str(error) or "its inputs have an unexpected form"


def _why_uncounted(node: Any, operator: str) -> str:
    if operator in UNCOUNTED or node.domain.startswith("ai.onnx."):
        return "there is no formula for it"
    return "" if node.domain in STANDARD else "it is not of the standard domain"


def _attributes(node: Any) -> dict[str, Any]:
    """The plain attributes; tensors and graphs are left out."""
    import onnx

    kinds = onnx.AttributeProto
    found: dict[str, Any] = {}
    for each in node.attribute:
        if each.type in (kinds.TENSOR, kinds.GRAPH, kinds.GRAPHS, kinds.SPARSE_TENSOR):
            continue
        value = onnx.helper.get_attribute_value(each)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        found[each.name] = tuple(value) if not isinstance(value, str | int | float) else value
    return found
