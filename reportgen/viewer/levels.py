"""What is drawn inside each cluster: its children, and the edges that begin, pass or end there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from reportgen.comparable import Graph
from reportgen.viewer.clusters import Cluster, ClusterNode

_MOST_READERS = 8  # of one value in one cluster; more get the value's name instead of an edge

ItemKind = Literal["node", "cluster", "in", "out"]


@dataclass(frozen=True, slots=True)
class Item:
    """Something drawn in a cluster.

    Attributes:
        kind: `in` and `out` are where a value enters and leaves the cluster.
        key: index of a node or a cluster, or of the node whose value enters or leaves.
        name: relative to the cluster; "" for an operation of the cluster itself and for ports.
    """

    kind: ItemKind
    key: int
    name: str = ""


@dataclass(slots=True)
class Level:
    """A cluster with its direct content.

    Attributes:
        id: of the cluster.
        name: relative to the cluster around it.
        parent: index of that cluster; -1 for the whole graph.
        items: what is drawn, in execution order.
        values: what the edges carry: the index of the producing item and of the producing node.
        edges: indexes into `values` and of the reading item.
        named: those of them that are shown as the name of the value at its reader.
    """

    id: str
    name: str
    parent: int
    items: list[Item] = field(default_factory=list)
    values: list[tuple[int, int]] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    named: list[tuple[int, int]] = field(default_factory=list)


def levels_of(graph: Graph, tree: Cluster) -> list[Level]:
    """A level for each cluster, outer ones first, the whole graph at 0."""
    return _Levels(graph, tree).found


class _Levels:
    def __init__(self, graph: Graph, tree: Cluster) -> None:
        self.found: list[Level] = []
        self._place: dict[int, list[tuple[int, int]]] = {}  # node -> (level, item), outer first
        self._members: list[dict[Item, int]] = []
        self._values: list[dict[int, int]] = []
        self._edges: list[dict[tuple[int, int], None]] = []
        self._add(tree, -1, [])
        for source, target in sorted(graph.edges):
            if source in self._place and target in self._place:
                self._connect(source, target)
        for number, level in enumerate(self.found):
            self._finish(number, level)

    def _add(self, cluster: Cluster, parent: int, above: list[tuple[int, int]]) -> int:
        number = len(self.found)
        level = Level(id=cluster.id, name=cluster.name, parent=parent)
        self.found.append(level)
        self._members.append({})
        self._values.append({})
        self._edges.append({})
        for place, child in enumerate(cluster.children):
            path = [*above, (number, place)]
            if isinstance(child, ClusterNode):
                item = Item("node", child.index, child.name)
                self._place[child.index] = path
            else:
                item = Item("cluster", self._add(child, number, path), child.name)
            self._members[number][item] = place
        return number

    def _connect(self, source: int, target: int) -> None:
        start, end = self._place[source], self._place[target]
        common = 0
        while common < min(len(start), len(end)) and start[common] == end[common]:
            common += 1
        # both are in the cluster start[common][0] but in different children of it
        level, place = start[common]
        self._edge(level, place, source, end[common][1])
        for level, place in start[common + 1 :]:
            self._edge(level, place, source, self._item(level, Item("out", source)))
        for level, place in end[common + 1 :]:
            self._edge(level, self._item(level, Item("in", source)), source, place)

    def _item(self, level: int, item: Item) -> int:
        members = self._members[level]
        return members.setdefault(item, len(members))

    def _edge(self, level: int, producer: int, source: int, reader: int) -> None:
        values = self._values[level]
        if source not in values:
            values[source] = len(values)
            self.found[level].values.append((producer, source))
        self._edges[level][values[source], reader] = None

    def _finish(self, number: int, level: Level) -> None:
        level.items = list(self._members[number])
        readers: dict[int, list[int]] = defaultdict(list)
        for value, reader in self._edges[number]:
            readers[value].append(reader)
        for value, items in readers.items():
            ports = [each for each in items if level.items[each].kind == "out"]
            others = sorted(each for each in items if level.items[each].kind != "out")
            # the first reader keeps its edge: a chain stays a chain
            shown = others if len(others) <= _MOST_READERS else others[:1]
            level.edges.extend((value, each) for each in (*shown, *ports))
            level.named.extend((value, each) for each in others[len(shown) :])
        level.edges.sort()


def signature(level: Level, widths: Iterable[int]) -> tuple[object, ...]:
    """What two levels with the same drawing have in common."""
    kinds = tuple(item.kind for item in level.items)
    producers = tuple(producer for producer, _ in level.values)
    return kinds, tuple(widths), producers, tuple(level.edges), tuple(level.named)
