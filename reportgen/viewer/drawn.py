"""A complete graph as a picture: clusters to a depth, or one part of it with what it touches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reportgen.comparable import Graph, OperatorNode
from reportgen.drawing.graph import (
    DrawnGraph,
    GraphGroup,
    GraphMember,
    GraphNode,
    make_graph,
    merged,
    rebuild,
)
from reportgen.errors import ReportgenError
from reportgen.viewer.clusters import Cluster, ClusterNode, cluster_tree
from reportgen.viewer.constants import constant_nodes

_SHOWN_OUTPUTS = 2


def focused(graph: Graph, path: str) -> Graph:
    """The nodes of the module at `path`, and those that they read or that read them as its ends.

    Raises:
        ReportgenError: no node belongs to such a module.
    """
    inside = {
        index
        for index, node in enumerate(graph.nodes)
        if path in (node.module, node.id) or node.module.startswith(f"{path}.")
    }
    if not inside:
        raise ReportgenError(
            f"no node of the {graph.name} graph belongs to {path!r}",
            hint="--focus takes the path of a module that runs, such as layer1.0",
        )
    edges = [(a, b) for a, b in graph.edges if a in inside or b in inside]
    kept = sorted(inside | {end for edge in edges for end in edge})
    place = {index: number for number, index in enumerate(kept)}
    sources = {a for a, _ in edges if a not in inside}
    return replace(
        graph,
        nodes=tuple(
            graph.nodes[i] if i in inside else _end(graph.nodes[i], is_source=i in sources)
            for i in kept
        ),
        edges=tuple(
            (place[a], place[b]) for a, b in edges if not (a not in inside and b not in inside)
        ),
        figures={name: tuple(values[i] for i in kept) for name, values in graph.figures.items()},
    )


def _end(node: OperatorNode, *, is_source: bool) -> OperatorNode:
    kind = "input" if is_source else "output"
    name = node.id.partition("/")[2] if node.kind in ("input", "output") else node.id
    outputs = node.outputs if is_source else ()  # a reader's own result is another value
    return replace(node, id=f"{kind}/{name}", kind=kind, module="", body=None, outputs=outputs)


def drawn_graph(graph: Graph, types: Mapping[str, str], *, depth: int | None = None) -> DrawnGraph:
    """The graph without constants, as boxes in groups.

    Args:
        graph: the complete graph.
        types: class names of modules by path.
        depth: clusters nested deeper are closed; None for none.
    """
    every = frozenset(range(len(graph.nodes)))
    tree = cluster_tree(graph, every - constant_nodes(graph))
    builder = _Builder(graph, types)
    root = GraphGroup(key=0, title="model", members=builder.members(tree))
    edges = {(a + 1, b + 1) for a, b in graph.edges}
    drawn = make_graph(root, edges)
    return drawn if depth is None else _closed_below(drawn, depth)


class _Builder:
    def __init__(self, graph: Graph, types: Mapping[str, str]) -> None:
        self._graph, self._types = graph, types
        self._next = len(graph.nodes) + 1

    def members(self, cluster: Cluster) -> tuple[GraphMember, ...]:
        return tuple(
            self._node(child) if isinstance(child, ClusterNode) else self._group(child)
            for child in cluster.children
        )

    def _node(self, child: ClusterNode) -> GraphNode:
        node = self._graph.nodes[child.index]
        is_end = node.kind in ("input", "output", "parameter")
        return GraphNode(
            key=child.index + 1,
            kind="operation" if node.kind == "constant" else node.kind,
            title=child.name or node.operator if is_end else node.operator,
            name="" if is_end else child.name,
            path=node.module,
            lines=tuple(filter(None, node.outputs[:_SHOWN_OUTPUTS])),
        )

    def _group(self, cluster: Cluster) -> GraphGroup:
        self._next += 1
        key = self._next
        type_ = self._types.get(cluster.id.partition("#")[0], "")
        return GraphGroup(
            key=key,
            title=type_ or cluster.name,
            name=cluster.name if type_ else "",
            path=cluster.id,
            members=self.members(cluster),
        )


def _closed_below(graph: DrawnGraph, depth: int) -> DrawnGraph:
    moves: dict[int, int] = {}
    levels = {graph.root.key: 0}
    for group in (graph.root, *graph.root.groups()):
        for member in group.members:
            levels[member.key] = levels[group.key] + 1

    def close(group: GraphGroup) -> GraphMember:
        if levels[group.key] <= depth:
            return group
        nodes = list(group.nodes())
        into = {node.key: nodes[0].key for node in nodes}
        # what is in a group that was closed before moves on with it
        moves.update({key: into.get(box, box) for key, box in moves.items()} | into)
        count = sum(node.holds for node in nodes)
        return GraphNode(
            key=nodes[0].key,
            kind="module",
            title=group.title,
            name=group.name,
            path=group.path,
            lines=(f"{count} nodes",),
            holds=count,
        )

    return merged(graph, rebuild(graph.root, close), moves)
