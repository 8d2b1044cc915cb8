"""Nodes of an ONNX file that undo each other, differ in their conventions, or leak local paths."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from reportgen.onnx.model.protos import STANDARD, all_graphs
from reportgen.sections.onnx.file_result import GraphPatterns, NodeGroup
from reportgen.sections.onnx.inspection.graph import TypedNode, all_nodes, module_path

# as in a Python traceback; drives, mounted folders and home folders
_FOLDERS = "home|Users|root|tmp|mnt|opt|usr|work|data|var"
_ABSOLUTE = re.compile(rf"(?:^|[\"'\s(=:])(?:/(?:{_FOLDERS})/\w|[A-Z]:\\\w)")
_DOUBLE = "tensor(double)"


def find_patterns(model: Any, typed: Iterable[TypedNode]) -> GraphPatterns:
    """The patterns in all graphs of the file; `typed` are its nodes after shape inference."""
    graphs = [*all_graphs(model.graph)]
    casts = [pair for graph in graphs for pair in _pairs(graph, "Cast")]
    transposes = [
        pair for graph in graphs for pair in _pairs(graph, "Transpose") if _is_identity(*pair)
    ]
    return GraphPatterns(
        cast_pairs=_group([second for _, second in casts]),
        transpose_pairs=_group([second for _, second in transposes]),
        resize_modes=_resize_modes(model),
        double_nodes=_group(list(_double_nodes(model, typed))),
        local_paths=_group([node for node in all_nodes(model) if _has_local_path(node)]),
    )


def _group(nodes: list[Any]) -> NodeGroup:
    return NodeGroup(nodes=len(nodes), module=module_path(nodes[0]) if nodes else "")


def _pairs(graph: Any, operator: str) -> Iterator[tuple[Any, Any]]:
    """Nodes of `operator` whose result feeds nothing but another one."""
    readers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    returned = {value.name for value in graph.output}
    inside = Counter(
        name
        for node in graph.node
        for attribute in node.attribute
        for body in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
        for each in all_graphs(body)
        for inner in each.node
        for name in inner.input
    )
    for node in graph.node:
        if node.op_type != operator or node.domain not in STANDARD:
            continue
        used = readers[node.output[0]]
        is_only = len(used) == 1 and node.output[0] not in returned and not inside[node.output[0]]
        if is_only and used[0].op_type == operator:
            yield node, used[0]


def _is_identity(first: Any, second: Any) -> bool:
    """Whether two transpositions together change nothing."""
    before, after = _permutation(first), _permutation(second)
    if before is None or after is None:
        return before is after  # both reverse all dims
    return len(before) == len(after) and [before[i] for i in after] == sorted(before)


def _permutation(node: Any) -> list[int] | None:
    return next((list(each.ints) for each in node.attribute if each.name == "perm"), None)


def _resize_modes(model: Any) -> dict[str, tuple[str, ...]]:
    """By interpolation, the ways in which Resize nodes map coordinates."""
    found: dict[str, dict[str, None]] = {}
    for node in all_nodes(model):
        if node.op_type == "Resize" and node.domain in STANDARD:
            texts = {each.name: each.s.decode() for each in node.attribute if each.s}
            how = texts.get("coordinate_transformation_mode", "half_pixel")
            found.setdefault(texts.get("mode", "nearest"), {})[how] = None
    return {mode: tuple(sorted(ways)) for mode, ways in sorted(found.items())}


def _double_nodes(model: Any, typed: Iterable[TypedNode]) -> Iterator[Any]:
    """Nodes that compute float64; none if an input of the file is float64."""
    import onnx

    if any(v.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE for v in model.graph.input):
        return
    for each in typed:
        if any(each.types.get(name) == _DOUBLE for name in each.node.output):
            yield each.node


def _has_local_path(node: Any) -> bool:
    texts = [node.doc_string, *(each.value for each in node.metadata_props)]
    return any(_ABSOLUTE.search(text) for text in texts if text)
