"""Both graphs of a model as one for the viewer: every node of either, each with what changed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from reportgen.comparable import Comparable, Graph, ModuleRecord, OperatorNode
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
            merging = _Merging(old, new, modules, diff)
            views.append(merging.view(before[diff.name], after[diff.name]))
    return tuple(views)


class _Merging:
    def __init__(
        self, old: Comparable, new: Comparable, modules: ModulesDiff, diff: GraphDiff
    ) -> None:
        self._modules = modules
        self._marks = marks_of(modules, diff.nodes)
        # a class that changed says nothing of each function that it calls itself
        self._containers = {each.path.rpartition(".")[0] for each in (*new.modules, *old.modules)}
        graph = next(each for each in new.graphs if each.name == diff.name)
        self._places = _Places(modules, {node.module for node in graph.nodes})
        self._records = (*new.modules, *self._removed_modules(old))
        self._regrouped = dict(_regrouped(modules))

    def _removed_modules(self, old: Comparable) -> Iterator[ModuleRecord]:
        gone = set(self._modules.removed)
        for each in old.modules:
            if each.path in gone:
                yield replace(each, path=self._places.place(each.path))

    def view(self, old: Graph, new: Graph) -> MergedView:
        pairs = pair_nodes(old, new, self._modules)
        entries = list(_entries(old, new, pairs))
        index = {entry: number for number, entry in enumerate(entries)}
        kept = set(pairs.values())
        nodes, kinds, notes = [], [], []
        for is_new, number in entries:
            node = new.nodes[number] if is_new else old.nodes[number]
            mark = self._mark(node)
            if not is_new or number not in kept:
                kinds.append("added" if is_new else "removed")
                notes.append(self._regrouped.get((is_new, node.module), ()))
            else:
                kinds.append(mark.kind if mark else "")
                notes.append(mark.lines if mark else ())
            nodes.append(replace(node if is_new else self._places.removed(node), body=None))
        edges = {(index[True, a], index[True, b]) for a, b in new.edges}
        for a, b in old.edges:
            ends = [(True, pairs[n]) if n in pairs else (False, n) for n in (a, b)]
            if not all(is_new for is_new, _ in ends):  # between kept nodes the new graph counts
                edges.add((index[ends[0]], index[ends[1]]))
        graph = Graph(name=new.name, nodes=tuple(nodes), edges=tuple(sorted(edges)))
        return MergedView(
            graph=graph,
            marks=tuple(kinds),
            notes=tuple(notes),
            layouts=graph_layouts(graph),
            modules=self._records,
        )

    def _mark(self, node: OperatorNode) -> Mark | None:
        mark = self._marks.get(node.id)
        if mark is None and node.module not in self._containers:
            mark = self._marks.get(node.module)
        return mark


def _regrouped(modules: ModulesDiff) -> Iterator[tuple[tuple[bool, str], tuple[str, ...]]]:
    """What to say of modules that were split or merged, by whether it is a new one, and path."""
    for group in modules.regrouped:
        one_is_old = len(group.old) == 1
        before, after = ", ".join(group.old), ", ".join(group.new)
        for path in group.old:
            yield (False, path), (f"{'split' if one_is_old else 'merged'} into {after}",)
        for path in group.new:
            yield (True, path), (f"{'part of' if one_is_old else 'merged from'} {before}",)


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
