"""The nodes of a graph as nested clusters: those of a module, a subgraph or a local function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from reportgen.comparable import Graph, OperatorNode
from reportgen.viewer.constants import constant_nodes

_DEEPEST = 24  # names below are one: a hostile path has thousands of parts
_MOST_CHILDREN = 100  # more are cut into parts
_PART = 40  # children of a part, about


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterNode:
    """A node of the graph in its cluster.

    Attributes:
        index: into the graph's nodes.
        name: its path relative to the cluster's; "" for an operation of the cluster itself.
    """

    index: int
    name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """Nodes and clusters that belong together, in execution order.

    Attributes:
        id: the module's path; `path#2` where the same path runs again after others.
        name: relative to the cluster around it.
        children: of a cluster of the graph at least two.
    """

    id: str
    name: str
    children: tuple[ClusterNode | Cluster, ...]


def cluster_tree(graph: Graph, kept: Iterable[int]) -> Cluster:
    """The whole graph as a cluster; only the nodes `kept`.

    A cluster whose nodes feed others that feed it again is cut into runs without others between,
    so that the edges between clusters form no cycle.
    """
    return _Tree(graph, kept).root()


class _Tree:
    def __init__(self, graph: Graph, kept: Iterable[int]) -> None:
        self._paths = _paths(graph)
        self._places = _places(graph)
        self._nodes = sorted(kept, key=self._places.__getitem__)
        known = set(self._nodes)
        self._targets: dict[int, list[int]] = defaultdict(list)
        for source, target in graph.edges:
            if source in known and target in known:
                self._targets[source].append(target)
        self._taken: dict[str, int] = defaultdict(int)

    def root(self) -> Cluster:
        children = self._children("", self._nodes, 0)
        return Cluster(id="", name="", children=children)

    def _children(
        self, above: str, nodes: Sequence[int], depth: int
    ) -> tuple[ClusterNode | Cluster, ...]:
        children = [
            self._child(above, group, depth) for group in self._acyclic_groups(nodes, depth)
        ]
        while len(children) > _MOST_CHILDREN:
            children = self._parts(above, children)
        return tuple(children)

    def _acyclic_groups(self, nodes: Sequence[int], depth: int) -> list[list[int]]:
        """The nodes by the next part of their paths; a node that ends here is alone."""
        groups: dict[object, list[int]] = {}
        for index in nodes:
            path = self._paths[index]
            groups.setdefault(path[depth] if depth < len(path) - 1 else index, []).append(index)
        group_of = {index: key for key, group in groups.items() for index in group}
        edges = {
            (group_of[a], group_of[b])
            for a in nodes
            for b in self._targets.get(a, ())
            if b in group_of and group_of[a] != group_of[b]
        }
        component = components(list(groups), edges)
        runs: list[list[int]] = []
        last: dict[object, object] = {}  # component -> the group of its last node
        current: dict[object, list[int]] = {}
        for index in nodes:
            key = group_of[index]
            if last.get(component[key]) != key:
                current[key] = []
                runs.append(current[key])
            current[key].append(index)
            last[component[key]] = key
        return sorted(runs, key=lambda run: self._places[run[0]])

    def _child(self, above: str, nodes: Sequence[int], depth: int) -> ClusterNode | Cluster:
        path = self._paths[nodes[0]]
        if depth >= len(path) - 1:
            return ClusterNode(index=nodes[0], name=path[-1])
        name = path[depth]
        below = f"{above}.{name}" if above else name
        children = self._children(below, nodes, depth + 1)
        if len(children) == 1:
            only = children[0]
            return replace(only, name=f"{name}.{only.name}" if only.name else name)
        return Cluster(id=self._unique(below), name=name, children=children)

    def _unique(self, id_: str) -> str:
        self._taken[id_] += 1
        return id_ if self._taken[id_] == 1 else f"{id_}#{self._taken[id_]}"

    def _parts(
        self, above: str, children: Sequence[ClusterNode | Cluster]
    ) -> list[ClusterNode | Cluster]:
        """The children in parts, cut where the fewest edges cross."""
        place = {index: n for n, child in enumerate(children) for index in nodes_of(child)}
        crossing = [0] * (len(children) + 1)  # edges over the cut before each child, as differences
        for index, here in place.items():
            for target in self._targets.get(index, ()):
                there = place.get(target, here)
                if there > here:
                    crossing[here + 1] += 1
                    crossing[there + 1 if there + 1 < len(crossing) else there] -= 1
        for n in range(1, len(crossing)):
            crossing[n] += crossing[n - 1]
        cuts = [0]
        while len(children) - cuts[-1] > _PART * 3 // 2:
            near = range(cuts[-1] + _PART // 2, cuts[-1] + _PART * 3 // 2)
            middle = cuts[-1] + _PART
            cuts.append(min(near, key=lambda n: (crossing[n], abs(n - middle))))
        cuts.append(len(children))
        number = len(cuts) - 1
        return [
            Cluster(
                id=self._unique(f"{above}/part {n}"),
                name=f"part {n} of {number}",
                children=tuple(children[start:end]),
            )
            for n, (start, end) in enumerate(pairwise(cuts), start=1)
        ]


def _places(graph: Graph) -> list[tuple[int, int]]:
    """Where each node stands in the order of a drawing: constants just before their first reader.

    A file may have the operations on its weights anywhere before they are read.
    """
    constants = constant_nodes(graph)
    first: dict[int, int] = {}  # of a constant
    # of a chain of constants the last one is first
    for source, target in sorted(graph.edges, key=lambda edge: edge[1], reverse=True):
        if source in constants:
            place = first.get(target, target)
            first[source] = min(place, first.get(source, place))
    return [(first.get(index, index), index) for index in range(len(graph.nodes))]


def nodes_of(member: ClusterNode | Cluster) -> Iterable[int]:
    """The index of every node inside."""
    if isinstance(member, ClusterNode):
        yield member.index
    else:
        for child in member.children:
            yield from nodes_of(child)


def _paths(graph: Graph) -> list[tuple[str, ...]]:
    """Where each node stands: names of clusters, outer ones first, then its own name."""
    owners = {node.body.owner for node in graph.nodes if node.body is not None}
    paths: list[tuple[str, ...]] = []
    for index, node in enumerate(graph.nodes):
        around, own = _around(node), node.id.rpartition("/")[2]
        if node.body is not None:
            owner = paths[node.body.owner][:-1] if node.body.owner >= 0 else ()
            shared = tuple(
                part for part, other in zip(around, owner, strict=False) if part == other
            )
            around = (*owner, node.body.name, *around[len(shared) :])
        if index in owners:  # together with the graphs that it runs
            around = (*around, own)
        name = _own_name(node)
        paths.append((*_bounded(around), name))
    return paths


def _around(node: OperatorNode) -> tuple[str, ...]:
    parts = tuple(node.module.split(".")) if node.module else ()
    return parts[:-1] if node.kind == "module" else parts


def _own_name(node: OperatorNode) -> str:
    if node.kind == "module":
        return node.module.rpartition(".")[2]
    if node.kind in ("input", "output", "parameter"):
        name = node.id.partition("/")[2]
        above = f"{node.module}."
        return name.removeprefix(above) if node.module else name
    return ""


def _bounded(path: tuple[str, ...]) -> tuple[str, ...]:
    return path if len(path) <= _DEEPEST else (*path[:_DEEPEST], ".".join(path[_DEEPEST:]))


def components(keys: Sequence[object], edges: Iterable[tuple[object, object]]) -> dict[object, int]:
    """The strongly connected component of each key, by number."""
    targets: dict[object, list[object]] = defaultdict(list)
    sources: dict[object, list[object]] = defaultdict(list)
    for a, b in edges:
        targets[a].append(b)
        sources[b].append(a)
    order: list[object] = []
    seen: set[object] = set()
    for start in keys:  # Kosaraju's algorithm, without recursion
        waiting: list[tuple[object, bool]] = [(start, False)]
        while waiting:
            key, done = waiting.pop()
            if done:
                order.append(key)
            elif key not in seen:
                seen.add(key)
                waiting.append((key, True))
                waiting.extend((each, False) for each in targets.get(key, ()))
    found: dict[object, int] = {}
    for number, start in enumerate(reversed(order)):
        reach = [start]
        while reach:
            key = reach.pop()
            if key not in found:
                found[key] = number
                reach.extend(sources.get(key, ()))
    return found
