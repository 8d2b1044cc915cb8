"""The ONNX graph: the operators of the file, grouped by the modules they were exported from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

from reportgen.drawing.graph import (
    DrawnGraph,
    Edge,
    GraphGroup,
    GraphMember,
    GraphNode,
    make_graph,
    reachable,
)
from reportgen.onnx.export.weightless import is_weight
from reportgen.onnx.model.origin import origin_of
from reportgen.sections.graphs.complete.onnx_modules import module_classes, modules_of

# fmt: off
_RELAYS = frozenset({
    "Cast", "CastLike", "ConstantOfShape", "Expand", "Flatten", "Identity", "Reshape", "Shape",
    "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze",
})
# fmt: on
_SHOWN_WEIGHTS = 2  # shapes on one box
_CHUNKS = 30  # groups of a file without module metadata

Scope = tuple[tuple[str, str], ...]  # (class, path) from the outermost module inwards


def onnx_graph(path: Path, model: Any = None) -> DrawnGraph:
    """The graph of the ONNX file at `path`; its weights are not loaded from external files.

    `model` is the `onnx.ModelProto` of the file if it has been parsed already.
    """
    import onnx

    return graph_of_model(model or onnx.load(str(path), load_external_data=False))


def graph_of_model(model: Any) -> DrawnGraph:
    """The graph of an `onnx.ModelProto`."""
    return _OnnxGraphReader(model.graph).read()


@dataclass(slots=True, eq=False)
class _Scope:
    """A group under construction; `path` is the module's path in the model, `title` its class."""

    title: str
    path: str
    above: str
    members: list[_Scope | GraphNode] = field(default_factory=list)


class _OnnxGraphReader:
    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._keys = count(1)
        self._weights = {each.name: tuple(each.dims) for each in graph.initializer}
        self._weights |= {each.name: _sizes(each) for each in graph.input if is_weight(each)}
        known = (*graph.value_info, *graph.output, *graph.input)
        self._shapes = {value.name: _shape(value) for value in known}
        self._makers: dict[str, int] = {}
        self._edges: set[Edge] = set()
        self._weighted: set[int] = set()  # boxes with weights; their results are no constants
        self._root = _Scope("model", "", "")

    def read(self) -> DrawnGraph:
        given = [v for v in self._graph.input if v.name not in self._weights]
        inputs = [self._end("input", value.name) for value in given]
        classes = module_classes(self._graph)
        modules = modules_of(self._graph)
        for operator, module in zip(self._graph.node, modules, strict=True):
            node = self._operator(operator)
            scope = _scope(operator, module, classes)
            _group_for(self._root, scope).members.append(node)
        outputs = [self._end("output", value.name) for value in self._graph.output]
        members = [_built(m, self._keys) for m in self._root.members]
        if not any(isinstance(member, GraphGroup) for member in members):
            members = _chunked(members, self._keys)
        root = GraphGroup(
            key=next(self._keys), title="model", members=(*inputs, *members, *outputs)
        )
        starts = {node.key for node in inputs} | self._weighted
        return _used_part(root, self._edges, starts, {node.key for node in outputs})

    def _end(self, kind: str, name: str) -> GraphNode:
        key = next(self._keys)
        if kind == "input":
            self._makers[name] = key
        elif name in self._makers:
            self._edges.add((self._makers[name], key))
        shape = self._shapes.get(name, "")
        return GraphNode(key=key, kind=kind, title=name, path=name, lines=(shape,) if shape else ())

    def _operator(self, operator: Any) -> GraphNode:
        key = next(self._keys)
        taken = [*operator.input, *_captured(operator)]
        # ONNX lists nodes in topological order, so the makers are known
        self._edges |= {(self._makers[name], key) for name in taken if name in self._makers}
        self._makers.update(dict.fromkeys(filter(None, operator.output), key))
        weights = [self._weights[name] for name in taken if name in self._weights]
        big = [shape for shape in weights if len(shape) > 1]  # biases and scalars say little
        if big:
            self._weighted.add(key)
        shape = self._shapes.get(operator.output[0], "") if operator.output else ""
        return GraphNode(
            key=key,
            kind="operation",
            title=operator.op_type,
            path=operator.name,
            lines=(*_weight_lines(big), *([shape] if shape else [])),
            parameters=sum(map(prod, big)) or None,
            minor=operator.op_type in _RELAYS,
        )


def _captured(operator: Any) -> Iterable[str]:
    """Names of outer values that the bodies of `If`, `Loop` and `Scan` read."""
    for attribute in operator.attribute:
        for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
            for inner in body.node:
                yield from (*inner.input, *_captured(inner))


def _weight_lines(shapes: list[tuple[int, ...]]) -> list[str]:
    shown = [" × ".join(map(str, shape)) for shape in shapes[:_SHOWN_WEIGHTS]]
    return [f"weight {', '.join(shown)}"] if shown else []


def _sizes(value: Any) -> tuple[int, ...]:
    return tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)


def _shape(value: Any) -> str:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return ""
    dims = [
        str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in kind.shape.dim
    ]
    return " × ".join(dims) or "scalar"


def _scope(operator: Any, module: str, classes: Mapping[str, str]) -> Scope:
    """The modules around an operator of `module`; if the class is unknown, the module's name."""
    origin = origin_of(operator)
    if not origin.modules:
        parts = module.split(".")
        paths = (".".join(parts[: n + 1]) for n in range(len(parts)) if module)
        return tuple(
            (classes.get(path) or path.rpartition(".")[2], path)
            for path in paths
            if path in classes or path == module
        )
    # the first is the model itself
    pairs = zip(origin.classes[1:], origin.modules[1:], strict=True)
    return tuple(((kind or path).rpartition(".")[2], path) for kind, path in pairs)


def _group_for(root: _Scope, scope: Scope) -> _Scope:
    """The group for `scope`: one per outer module, one per call of an innermost module."""
    here = root
    for depth, (title, path) in enumerate(scope):
        innermost = depth == len(scope) - 1
        open_ = here.members[-1:] if innermost else here.members
        found = next((m for m in open_ if isinstance(m, _Scope) and m.path == path), None)
        if found is None:
            found = _Scope(title, path, here.path)
            here.members.append(found)
        here = found
    return here


def _built(member: _Scope | GraphNode, keys: Iterable[int]) -> GraphMember:
    if isinstance(member, GraphNode):
        return member
    inside = tuple(_built(each, keys) for each in member.members)
    name = member.path.removeprefix(f"{member.above}.") if member.above else member.path
    key = next(iter(keys))
    return _operator_group(
        GraphGroup(key=key, title=member.title, name=name, path=member.path, members=inside)
    )


def _operator_group(group: GraphGroup) -> GraphGroup:
    nodes = list(group.nodes())
    weights = sum(node.parameters or 0 for node in nodes) or None
    return replace(group, lines=(f"{len(nodes)} operators",), parameters=weights)


def _chunked(members: list[GraphMember], keys: Iterable[int]) -> list[GraphMember]:
    """A flat list of operators in groups of equal length, so that a large file can be collapsed."""
    if len(members) <= 2 * _CHUNKS:
        return members
    step = -(-len(members) // _CHUNKS)  # rounded up
    return [
        _operator_group(
            GraphGroup(
                key=next(iter(keys)),
                title=f"operators {start + 1} to {min(start + step, len(members))}",
                kind="operation",
                members=tuple(members[start : start + step]),
            )
        )
        for start in range(0, len(members), step)
    ]


def _used_part(root: GraphGroup, edges: set[Edge], starts: set[int], ends: set[int]) -> DrawnGraph:
    """The graph without constants and what is computed from constants only."""
    graph = make_graph(root, edges)
    fed = reachable(graph.edges, starts)
    used = reachable(frozenset((b, a) for a, b in graph.edges), ends)
    # an unused input or a constant output is still a part of the interface
    keep = (fed & used) | {n.key for n in root.nodes() if n.kind in ("input", "output")}
    return make_graph(root.only(keep), edges)
