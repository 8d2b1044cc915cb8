"""From an ONNX file to its nodes as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.onnx.model.control_flow import (
    Call,
    cost_of_calls,
    cost_of_dearer_branch,
    cost_unobserved,
)
from reportgen.onnx.model.cost import UNCOUNTED, Cost, formula_of
from reportgen.onnx.model.fused_cost import FREE
from reportgen.onnx.model.observed import Observed, Place, observe
from reportgen.onnx.model.origin import origin_of
from reportgen.onnx.model.protos import (
    CONTROL_FLOW,
    STANDARD,
    all_graphs,
    drop_large_contents,
    operator_name,
    subgraphs,
)
from reportgen.onnx.model.shapes import (
    MakeFeed,
    Shape,
    symbol_sizes_of,
    value_shapes,
)
from reportgen.onnx.model.stored_weights import (
    Weight,
    carried_weights,
    constants_of,
    stored_tensors,
    weights_read,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class OnnxNode:
    """One operation of the file.

    Attributes:
        name: as written; if the file has none, `operator` and its position in the graph.
        operator: its type, with the domain before it unless that is the standard one.
        module: path of the module it comes from, as the exporter wrote it; "" if unknown.
        attributes: its whole numbers, floats, texts and tuples of them.
        inputs: shapes of its inputs other than stored tensors; None if unknown.
        outputs: shapes of its outputs; None if unknown.
        weights: names of the stored tensors that it uses, also those that are cast, dequantized or
            transposed on the way, and those that nodes within it read.
        macs: multiply-adds. Where `uncounted` says why some could not be counted it is a lower
            bound, None if none could.
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
class OnnxNodes:
    """All operations of a file in its order, and what is stored in it.

    Constants count as stored; Constant nodes are not among `nodes`. A node that reads stored
    tensors only has no weights: they belong to the nodes that read its result.
    """

    nodes: tuple[OnnxNode, ...]
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


@dataclass(frozen=True, slots=True, eq=False)
class OnnxModel:
    """An ONNX file, parsed once.

    Attributes:
        path: the file.
        proto: the `onnx.ModelProto` as written, without the contents of external tensors and of
            initializers above 4 KiB: their names, shapes and dtypes remain.
    """

    path: Path
    proto: Any

    def inlined(self) -> Any:
        """The `onnx.ModelProto` with calls of local functions replaced by the functions' nodes."""
        import onnx.inliner

        has_functions = bool(self.proto.functions)  # inlining copies the whole model
        return onnx.inliner.inline_local_functions(self.proto) if has_functions else self.proto

    def symbol_sizes(self, feed: Mapping[str, Any]) -> dict[str, int]:
        """The size of every symbolic dimension of the inputs, taken from the arrays in `feed`."""
        return symbol_sizes_of(self.proto, feed)

    def nodes(
        self,
        sizes: Mapping[str, int],
        make_feed: MakeFeed | None = None,
        *,
        costs_only: bool = False,
        dearer_branch: bool = False,
    ) -> OnnxNodes:
        """The nodes, with shapes for the given `sizes` of symbolic dimensions.

        Local functions are inlined. If shape inference does not give a shape, or what runs in a
        branch or a loop decides the cost, the file is run once on the arrays that `make_feed`
        returns. With `costs_only`, shapes that no cost needs may stay unknown. With
        `dearer_branch`, an If that was a `torch.cond` costs what its dearer branch does, as in
        torch.utils.flop_counter, instead of the one that ran.
        """
        return _read(
            self.path,
            self.inlined(),
            sizes,
            make_feed,
            costs_only=costs_only,
            dearer_branch=dearer_branch,
        )


def load_onnx(path: Path) -> OnnxModel:
    """Parse the file at `path`.

    Raises:
        ValueError: the file is not an ONNX model.
    """
    import onnx

    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's DecodeError, and whatever a truncated file causes
        raise ValueError(f"{path.name} is not an ONNX model") from error
    if not proto.graph.node and not proto.graph.input and not proto.graph.output:
        raise ValueError(f"{path.name} is not an ONNX model: its graph is empty")
    drop_large_contents(proto.graph)
    return OnnxModel(path, proto)


def read_nodes(
    path: Path, sizes: Mapping[str, int], make_feed: MakeFeed | None = None
) -> OnnxNodes:
    """`load_onnx(path).nodes(sizes, make_feed)`."""
    return load_onnx(path).nodes(sizes, make_feed)


def symbol_sizes(path: Path, feed: Mapping[str, Any]) -> dict[str, int]:
    """`load_onnx(path).symbol_sizes(feed)`."""
    return load_onnx(path).symbol_sizes(feed)


def _read(
    path: Path,
    model: Any,
    sizes: Mapping[str, int],
    make_feed: MakeFeed | None,
    *,
    costs_only: bool,
    dearer_branch: bool,
) -> OnnxNodes:
    nodes = list(model.graph.node)
    stored = stored_tensors(model)
    attributes = [_attributes(node) for node in nodes]
    stored_shapes = {name: each.shape for name, each in stored.items()}
    # the shapes that formulas need: without them a run of the file may help
    costly = [
        name
        for node in nodes
        if formula_of(operator_name(node)) is not None
        for name in (*node.input, *node.output)
        if name and name not in stored_shapes
    ]
    # nodes in subgraphs may need more shapes than are listed here
    is_plain = costs_only and not any(operator_name(node) in CONTROL_FLOW for node in nodes)
    shapes = value_shapes(model, sizes, costly if is_plain else None) | stored_shapes
    observed = Observed()
    if make_feed is not None:
        missing = [name for name in dict.fromkeys(costly) if name not in shapes]
        others = [] if costs_only else _unknown_values(model, shapes, missing)
        observed = _observe(path, nodes, missing, others, make_feed)
    shapes |= observed.shapes
    # before IR version 4 every initializer is listed as an input as well
    initial = {each.name for each in model.graph.initializer}
    carried, constants = carried_weights(model, stored), constants_of(model)
    known = _Known(shapes, carried, constants, observed.calls, dearer_branch)
    return OnnxNodes(
        nodes=tuple(
            _node(
                node,
                place,
                given,
                known,
            )
            for place, (node, given) in enumerate(zip(nodes, attributes, strict=True))
            if node.op_type != "Constant"
        ),
        weights=stored,
        inputs={v.name: shapes.get(v.name) for v in model.graph.input if v.name not in initial},
        outputs={value.name: shapes.get(value.name) for value in model.graph.output},
    )


def _unknown_values(model: Any, shapes: Mapping[str, Shape], missing: list[str]) -> list[str]:
    made = [name for node in model.graph.node for name in node.output if name]
    return [name for name in made if name not in shapes and name not in missing]


def _observe(
    path: Path, nodes: list[Any], missing: list[str], others: list[str], make_feed: MakeFeed
) -> Observed:
    """Run the file if that can show something: `missing` are shapes that costs need."""
    bodies = (body for node in nodes for body in subgraphs(node))
    inner = (node for body in bodies for graph in all_graphs(body) for node in graph.node)
    if any(map(_ports, inner)) or missing or others:
        found = observe(path, [*missing, *others], _ports, make_feed)
        # a value of the others may be a sequence, which has no shape: no session opens then
        if found.shapes or found.calls or not others:
            return found
        return _observe(path, nodes, missing, [], make_feed)
    return Observed()


def _ports(node: Any) -> list[str]:
    """The values of a node within others whose shapes say what its calls cost."""
    operator = operator_name(node)
    if formula_of(operator) is not None:
        return [name for name in (*node.input, *node.output) if name]
    return [node.output[0]] if _why_uncounted(node, operator) else []


@dataclass(frozen=True, slots=True)
class _Known:
    """Known properties of the values of a graph, by name."""

    shapes: Mapping[str, Shape]
    carried: Mapping[str, tuple[str, ...]]
    constants: Mapping[str, int]
    calls: Mapping[Place, list[Call]]
    dearer_branch: bool


def _node(node: Any, place: int, attributes: dict[str, Any], known: _Known) -> OnnxNode:
    operator, shapes, carried = operator_name(node), known.shapes, known.carried
    is_cond = operator == "If" and bool(origin_of(node).torch_operator)
    if is_cond and known.dearer_branch:
        macs, why = cost_of_dearer_branch(node, lambda each: _macs(each, _attributes(each), known))
    elif operator in CONTROL_FLOW and any(call[0] == place for call in known.calls):
        macs, why = cost_of_calls(node, (place,), known.calls, _cost_of_call)
    else:
        macs, why = _macs(node, attributes, known)
    is_carried = all(name in carried for name in node.output if name)
    return OnnxNode(
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
    if operator in CONTROL_FLOW:
        return cost_unobserved(
            node, lambda inner: _macs(inner, _attributes(inner), known), shapes, known.constants
        )
    # "" is an optional input that is left out
    inputs = [shapes.get(name) if name else () for name in node.input]
    outputs = [shapes.get(name) if name else () for name in node.output]
    return _cost(node, attributes, inputs, outputs)


def _cost_of_call(node: Any, call: Call) -> Cost:
    ports = iter(call)
    inputs = [next(ports, None) if name else () for name in node.input]
    outputs = [next(ports, None) if name else () for name in node.output]
    return _cost(node, _attributes(node), inputs, outputs)


def _cost(
    node: Any,
    attributes: dict[str, Any],
    inputs: list[Shape | None],
    outputs: list[Shape | None],
) -> Cost:
    operator = operator_name(node)
    formula = formula_of(operator)
    if formula is None:
        why = _why_uncounted(node, operator)
        return (None, why) if why else (0, "")
    known_inputs = [shape for shape in inputs if shape is not None]
    known_outputs = [shape for shape in outputs if shape is not None]
    if len(known_inputs) < len(inputs) or outputs[0] is None:
        return None, "a required shape is unknown"
    try:
        return int(formula(known_inputs, known_outputs, attributes)), ""
    except (ValueError, IndexError, KeyError) as error:  # a file may violate the specification
        return None, str(error) or "its inputs have unexpected shapes"


def _why_uncounted(node: Any, operator: str) -> str:
    # outside the standard domain an operator without a formula is free only if it is listed
    if operator in UNCOUNTED or node.domain.startswith("ai.onnx."):
        return "there is no formula for it"
    is_free = node.domain in STANDARD or operator in FREE
    return "" if is_free else "not in the standard ONNX domain"


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
            value = value.decode("utf-8", "replace")  # bytes of any encoding
        found[each.name] = tuple(value) if not isinstance(value, str | int | float) else value
    return found
