"""The module graph: which module feeds which in one traced forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING

from reportgen.drawing.collapse import drawn_through
from reportgen.drawing.graph import (
    DrawnGraph,
    Edge,
    GraphGroup,
    GraphMember,
    GraphNode,
    make_graph,
    reachable,
)
from reportgen.sections.graphs.trace import Call, Operation, Shape, TensorSource, Trace
from reportgen.units import format_shape

if TYPE_CHECKING:
    from torch import nn

# fmt: off
RELAYS = frozenset({  # functions that only move, view or convert a tensor
    "alias_copy", "broadcast_to", "chunk", "clone", "contiguous", "cpu", "data", "detach", "double",
    "expand", "expand_as", "flatten", "float", "getitem", "half", "identity", "mT", "T", "H",
    "movedim", "moveaxis", "narrow", "permute", "repeat", "reshape", "reshape_as", "select",
    "split", "squeeze", "swapaxes", "t", "tensor_split", "to", "transpose", "type", "type_as",
    "unbind", "unflatten", "unsqueeze", "unsafe_chunk", "unsafe_split", "view", "view_as",
})
# fmt: on

_INDEXING = frozenset(["getitem", "index_select", "pack_padded_sequence", "pad_packed_sequence"])

_SHOWN_OUTPUTS = 2  # shapes on one box


def module_graph(trace: Trace) -> DrawnGraph:
    """One box per module without submodule calls, and one per function between them."""
    reader = _ModuleReader()
    inputs = [reader.source(s) for s in trace.sources if s.kind == "input"]
    members = reader.members(trace.root)
    outputs = [reader.output(o.name, o.shape, o.maker) for o in trace.outputs]
    root = GraphGroup(
        key=reader.key(),
        title=trace.root.title,
        members=(*inputs, *members, *outputs),
    )
    # computations of positions and masks would add an edge from the input to many boxes
    return drawn_through(_without_unused(root, reader.edges), reader.indexing)


def _without_unused(root: GraphGroup, edges: set[Edge]) -> DrawnGraph:
    """The graph without functions of constants and without unused results."""
    nodes = list(root.nodes())
    begins = {n.key for n in nodes if n.kind in ("input", "parameter", "module")}
    ends = {n.key for n in nodes if n.kind in ("output", "module")}
    fed = reachable(frozenset(edges), begins)
    used = reachable(frozenset((b, a) for a, b in edges), ends)
    # a module is kept even if its result is unused: it exists in the model
    keep = {n.key for n in nodes if n.kind in ("input", "output", "module")} | (fed & used)
    return make_graph(root.only(keep), edges)


class _ModuleReader:
    def __init__(self) -> None:
        self.edges: set[Edge] = set()
        self.indexing: set[int] = set()  # boxes that index, or compute indices
        self._keys = count(1)
        self._boxes: dict[int, int] = {}  # id of an operation or a source -> key of its box

    def key(self) -> int:
        return next(self._keys)

    def members(self, call: Call) -> tuple[GraphMember, ...]:
        """The boxes inside one call; a parameter precedes the first function that reads it."""
        drawn: list[GraphMember] = []
        for member in call.members:
            if isinstance(member, Operation):
                drawn.extend(self._parameters(member))
                drawn.append(self._function(member))
            elif member.is_leaf:
                drawn.extend(self._leaf(member))
            elif inside := self.members(member):
                drawn.append(self._group(member, inside))
        return tuple(drawn)

    def source(self, source: TensorSource) -> GraphNode:
        key = self._boxes[id(source)] = self.key()
        return GraphNode(
            key=key,
            kind=source.kind,
            title=source.name or source.kind,
            path=source.name,
            lines=(format_shape(source.shape),),
        )

    def output(self, name: str, shape: Shape, maker: Operation | TensorSource | None) -> GraphNode:
        key = self.key()
        self._connect(key, [maker] if maker is not None else [])
        return GraphNode(
            key=key, kind="output", title=name or "output", lines=(format_shape(shape),)
        )

    def _parameters(self, operation: Operation) -> list[GraphNode]:
        return [
            self.source(source)
            for source in operation.sources
            if isinstance(source, TensorSource) and id(source) not in self._boxes
        ]

    def _function(self, operation: Operation) -> GraphNode:
        key = self._boxes[id(operation)] = self.key()
        self._connect(key, operation.sources)
        if operation.indices or operation.name in _INDEXING:
            self.indexing.add(key)
        return GraphNode(
            key=key,
            kind="operation",
            title=operation.name,
            path=operation.call.path,
            lines=shape_lines(operation.shapes),
            minor=operation.name in RELAYS,
        )

    def _leaf(self, call: Call) -> list[GraphNode]:
        operations = list(call.operations())
        if not operations:
            return []
        key = self.key()
        for operation in operations:
            self._boxes[id(operation)] = key
            self._connect(key, operation.sources)
        lines = (*arguments(call.module), *shape_lines(call.shapes))
        return [
            GraphNode(
                key=key,
                kind="module",
                title=call.title,
                name=call.name,
                path=call.path,
                lines=lines,
                parameters=parameters(call.module),
            )
        ]

    def _group(self, call: Call, inside: tuple[GraphMember, ...]) -> GraphGroup:
        return GraphGroup(
            key=self.key(),
            title=call.title,
            name=call.name,
            path=call.path,
            members=inside,
            lines=shape_lines(call.shapes),
            parameters=parameters(call.module),
        )

    def _connect(self, key: int, sources: Iterable[Operation | TensorSource]) -> None:
        self.edges |= {(self._boxes[id(s)], key) for s in sources if id(s) in self._boxes}


def shape_lines(shapes: list[Shape]) -> tuple[str, ...]:
    """The first few shapes as one line of text."""
    if not shapes:
        return ()
    text = ", ".join(format_shape(shape) for shape in shapes[:_SHOWN_OUTPUTS])
    more = len(shapes) - _SHOWN_OUTPUTS
    return (f"{text}, +{more} more" if more > 0 else text,)


def parameters(module: nn.Module) -> int | None:
    """The number of parameters of a module, each tensor once; None for none."""
    # parameters() yields a shared tensor once
    return sum(p.numel() for p in module.parameters()) or None


def arguments(module: nn.Module) -> tuple[str, ...]:
    """The arguments of a convolution or pooling: `3×3, stride 2, groups 32`."""
    parts = [_sizes(getattr(module, "kernel_size", None))]
    for name in ("stride", "dilation", "groups"):
        text = _sizes(getattr(module, name, None), alone=True)
        # the default of a stride is 1 for a convolution, kernel_size for pooling
        if text not in ("", "1") and parts[0] and not (name == "stride" and text == parts[0]):
            parts.append(f"{name} {text}")
    return (", ".join(parts),) if parts[0] else ()


def _sizes(value: object, *, alone: bool = False) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value) if alone else f"{value}×{value}"
    if not isinstance(value, tuple) or not all(isinstance(each, int) for each in value):
        return ""
    return str(value[0]) if alone and len(set(value)) == 1 else "×".join(map(str, value))
