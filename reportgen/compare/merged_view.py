"""Both graphs of a model as one for the viewer: every node of either, each with what changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from reportgen.comparable import Comparable, Graph, OperatorNode
from reportgen.compare.graph_pairs import ENDS, pair_nodes
from reportgen.compare.module_drawing.marks import Mark, marks_of
from reportgen.compare.result import GraphDiff, MergedView, ModulesDiff
from reportgen.viewer.layout import graph_layouts

_VIEWED = ("modules", "onnx")


def merged_views(
    old: Comparable, new: Comparable, modules: ModulesDiff, graphs: tuple[GraphDiff, ...]
) -> tuple[MergedView, ...]:
    """The module graph and the ONNX graph of both reports, those in which something changed."""
    before = {graph.name: graph for graph in old.graphs}
    after = {graph.name: graph for graph in new.graphs}
    views = []
    for diff in graphs:
        if diff.name in _VIEWED and diff.nodes:
            places = _Places(modules, {node.module for node in after[diff.name].nodes})
            marks = marks_of(modules, diff.nodes)
            view = _merged(before[diff.name], after[diff.name], modules, marks, places)
            gone = set(modules.removed)
            removed = (
                replace(each, path=places.place(each.path))
                for each in old.modules
                if each.path in gone
            )
            views.append(replace(view, modules=(*new.modules, *removed)))
    return tuple(views)


def _merged(
    old: Graph, new: Graph, modules: ModulesDiff, marks: Mapping[str, Mark], places: _Places
) -> MergedView:
    pairs = pair_nodes(old, new, modules)
    entries = list(_entries(old, new, pairs))
    index = {entry: number for number, entry in enumerate(entries)}
    kept = set(pairs.values())
    nodes, found, notes = [], [], []
    for is_new, number in entries:
        node = new.nodes[number] if is_new else places.removed(old.nodes[number])
        mark = marks.get(node.id) or marks.get(node.module)
        if not is_new:
            kind = "removed"
        elif number not in kept:
            kind = "added"
        else:
            kind = mark.kind if mark else ""
        nodes.append(replace(node, body=None))
        found.append(kind)
        notes.append(mark.lines if mark and kind not in ("removed", "added") else ())
    edges = {(index[True, a], index[True, b]) for a, b in new.edges}
    for a, b in old.edges:
        ends = [(True, pairs[n]) if n in pairs else (False, n) for n in (a, b)]
        if not all(is_new for is_new, _ in ends):  # between kept nodes the new graph counts
            edges.add((index[ends[0]], index[ends[1]]))
    graph = Graph(name=new.name, nodes=tuple(nodes), edges=tuple(sorted(edges)))
    return MergedView(
        graph=graph, marks=tuple(found), notes=tuple(notes), layouts=graph_layouts(graph)
    )


def _entries(old: Graph, new: Graph, pairs: Mapping[int, int]) -> Iterator[tuple[bool, int]]:
    """Whether it is in the new graph, and its index there or in the old one."""
    removed: dict[int, list[int]] = defaultdict(list)
    last = -1
    for number in range(len(old.nodes)):
        if number not in pairs:
            removed[last].append(number)
        last = pairs.get(number, last)
    for number in range(-1, len(new.nodes)):
        if number >= 0:
            yield True, number
        yield from ((False, each) for each in removed[number])


class _Places:
    """Where a part of the old model would be in the new one."""

    def __init__(self, modules: ModulesDiff, taken: set[str]) -> None:
        self._renamed = {pair.old: pair.new for pair in modules.pairs}
        self._taken = taken

    def removed(self, node: OperatorNode) -> OperatorNode:
        module = "" if node.kind in ENDS else self.place(node.module)
        id_ = module if node.kind == "module" else f"removed {node.id}"
        return replace(node, id=id_, module=module)

    def place(self, path: str) -> str:
        """The path that a module of the old model would have."""
        if not path or path in self._renamed:
            return self._renamed.get(path, "")
        above, _, name = path.rpartition(".")
        place = f"{self.place(above)}.{name}".removeprefix(".")
        # a new module may have the same name
        return f"{place} (removed)" if place in self._taken else place
