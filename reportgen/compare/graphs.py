"""Two graphs of one model: operators, attributes and nodes that differ.

Nodes are paired through their modules, and within a module in order. A change of shape that
follows from an earlier one is not listed; the earlier one says how many follow.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from reportgen.comparable import Graph, OperatorNode
from reportgen.compare.consequences import causes_of, count_followers
from reportgen.compare.graph_pairs import ENDS, pair_nodes
from reportgen.compare.result import (
    FieldChange,
    GraphDiff,
    ModulesDiff,
    NodeChange,
    OperatorChange,
    PathPair,
)

_COUNTED = ("operation", "module", "constant")
_SHAPE_OPERATORS = frozenset({  # their integer arguments are sizes
    "ConstantOfShape", "Expand", "Range", "Reshape", "Resize", "Slice", "Split", "Tile",
    "arange", "expand", "full", "narrow", "new_zeros", "ones", "repeat", "reshape", "split",
    "unflatten", "view", "zeros",
})  # fmt: skip

Fields = list[tuple[str, JsonValue, JsonValue]]  # field, before, after


def diff_graph(old: Graph, new: Graph, modules: ModulesDiff) -> GraphDiff:
    """What changed between two graphs of the same name; `modules` pairs their modules."""
    pairs = pair_nodes(old, new, modules)
    return GraphDiff(
        name=new.name,
        operators=tuple(_operators(old, new)),
        attributes=tuple(_graph_attributes(old, new)),
        nodes=tuple(_NodeChanges(old, new, pairs, modules).found()),
        pairs=tuple(PathPair(old=old.nodes[i].id, new=new.nodes[j].id) for i, j in pairs.items()),
    )


def _operators(old: Graph, new: Graph) -> Iterator[OperatorChange]:
    before, after = (
        Counter(node.operator for node in graph.nodes if node.kind in _COUNTED)
        for graph in (old, new)
    )
    for name in sorted({*before, *after}):
        if before[name] != after[name]:
            yield OperatorChange(name=name, old=before[name], new=after[name])


def _graph_attributes(old: Graph, new: Graph) -> Iterator[FieldChange]:
    for name in sorted({*old.attributes, *new.attributes}):
        before, after = old.attributes.get(name), new.attributes.get(name)
        if before != after:
            yield FieldChange(path="", field=name, old=before, new=after)


class _NodeChanges:
    def __init__(
        self, old: Graph, new: Graph, pairs: Mapping[int, int], modules: ModulesDiff
    ) -> None:
        self._old, self._new, self._pairs = old, new, pairs
        self._before = {j: old.nodes[i] for i, j in pairs.items()}
        self._module_fields: dict[str, Fields] = defaultdict(list)
        for change in modules.changed:
            self._module_fields[change.path].append((change.field, change.old, change.new))
        reshaped = {j for j, node in self._before.items() if node.outputs != new.nodes[j].outputs}
        self._causes = causes_of(old, new, pairs, reshaped)
        own = {j: self._own_fields(j) for j in self._before}
        silent = {j for j in reshaped if j in self._causes and not own[j]}
        self._followers = count_followers(self._causes, silent)
        self._fields = {j: own[j] + self._shape(j) for j in self._before if j not in silent}

    def found(self) -> Iterator[NodeChange]:
        """Changes in the order of the new graph, removed nodes last."""
        for j, node in enumerate(self._new.nodes):
            follows = self._followers[j]
            if j not in self._before:
                yield _node_change(None, node, follows=follows)
            for field, before, after in self._fields.get(j, ()):
                yield _node_change(self._before[j], node, field, before, after, follows=follows)
                follows = 0  # said once
        for i, node in enumerate(self._old.nodes):
            if i not in self._pairs:
                yield _node_change(node, None, follows=self._followers[-1 - i])

    def _own_fields(self, j: int) -> Fields:
        """What differs of a node itself and does not follow from the nodes that feed it."""
        before, after = self._before[j], self._new.nodes[j]
        if after.kind == "module":
            return self._of_module(before, after)
        if after.kind in ENDS:
            names = before.id.partition("/")[2], after.id.partition("/")[2]
            return [("name", *names)] if names[0] != names[1] else []
        found: Fields = []
        for name in sorted({*before.attributes, *after.attributes}):
            values = before.attributes.get(name), after.attributes.get(name)
            follows = j in self._causes and after.operator in _SHAPE_OPERATORS
            if values[0] != values[1] and not (follows and all(map(_is_size, values))):
                found.append((name, *values))
        return found

    def _of_module(self, before: OperatorNode, after: OperatorNode) -> Fields:
        """The differences that the modules' own comparison found; at the first call alone."""
        if after.id != after.module:
            return []
        if before.operator != after.operator:  # which implies other attributes
            return [("type", before.operator, after.operator)]
        known = self._module_fields.get(after.module, [])
        # a size implies the shapes of the weights: `out_features`, `weight.shape`
        return [each for each in known if "." not in each[0]] or known

    def _shape(self, j: int) -> Fields:
        before, after = self._before[j].outputs, self._new.nodes[j].outputs
        if before == after or j in self._causes:
            return []
        return [("shape", ", ".join(before), ", ".join(after))]


def _is_size(value: JsonValue) -> bool:
    if isinstance(value, list):
        return all(map(_is_size, value))
    return isinstance(value, int) and not isinstance(value, bool)


def _node_change(
    old: OperatorNode | None,
    new: OperatorNode | None,
    field: str = "",
    before: JsonValue = None,
    after: JsonValue = None,
    *,
    follows: int,
) -> NodeChange:
    node = new or old
    assert node is not None
    return NodeChange(
        operator=node.operator,
        module=node.module,
        old=old.id if old else None,
        new=new.id if new else None,
        field=field,
        before=_text(before),
        after=_text(after),
        follows=follows,
    )


def _text(value: JsonValue) -> str:
    """A value as a reader sees it; "" for none."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
