"""Long edges cut into labeled ports, where many of them would cover a drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from reportgen.sections.graphs.graph import (
    DrawnGraph,
    Edge,
    GraphGroup,
    GraphMember,
    GraphNode,
    leading_to,
)

_LONG = 12  # ranks that an edge may pass before it counts as long
_BEARABLE = 6  # long edges that a reader can follow
_TOLD = 3  # targets named on a port


def with_ports(graph: DrawnGraph, *, bearable: int = _BEARABLE) -> DrawnGraph:
    """The graph with its long edges cut, where there are more than `bearable` of them.

    Each source of long edges gets a box with a number at the end of a short edge; a box with the
    same number stands before every target.
    """
    ranks = _ranks(graph)
    long_edges = [(a, b) for a, b in sorted(graph.edges) if ranks[b] - ranks[a] > _LONG]
    if len(long_edges) <= bearable:
        return graph
    nodes = {node.key: node for node in graph.root.nodes()}
    number_of = {a: n for n, a in enumerate(dict.fromkeys(a for a, _ in long_edges), start=1)}
    fresh = max(nodes) + 1
    beside: dict[int, list[GraphNode]] = {}
    edges: set[Edge] = set(graph.edges) - set(long_edges)
    for source, number in number_of.items():
        targets = [nodes[b] for a, b in long_edges if a == source]
        beside.setdefault(source, []).append(_port(fresh, number, "to", targets))
        edges.add((source, fresh))
        fresh += 1
        for target in targets:
            beside.setdefault(target.key, []).append(_port(fresh, number, "from", [nodes[source]]))
            edges.add((fresh, target.key))
            fresh += 1
    return replace(graph, root=_with(graph.root, beside), edges=frozenset(edges))


def _port(key: int, number: int, way: str, others: list[GraphNode]) -> GraphNode:
    names = [f"{node.title} {node.name}".strip() for node in others[:_TOLD]]
    more = [f"+{len(others) - _TOLD} more"] if len(others) > _TOLD else []
    return GraphNode(key=key, kind="port", title=f"{way} {number}" if way == "to" else f"{number}",
                lines=(f"{way} {', '.join(names + more)}",))  # fmt: skip


def _with(group: GraphGroup, beside: Mapping[int, list[GraphNode]]) -> GraphGroup:
    members: list[GraphMember] = []
    for member in group.members:
        if isinstance(member, GraphGroup):
            members.append(_with(member, beside))
        else:
            members.extend([*beside.get(member.key, ()), member])
    return replace(group, members=tuple(members))


def _ranks(graph: DrawnGraph) -> dict[int, int]:
    """For every node how many edges the longest way to it has; cycles are cut where they close."""
    sources = leading_to(graph.edges)
    ranks: dict[int, int] = {}
    for start in sorted(node.key for node in graph.root.nodes()):
        waiting = [start]
        begun: set[int] = set()
        while waiting:
            key = waiting[-1]
            open_ = [s for s in sorted(sources.get(key, ())) if s not in ranks and s not in begun]
            begun.add(key)
            if key not in ranks and open_:
                waiting.extend(open_)
                continue
            waiting.pop()
            ranks[key] = 1 + max((ranks.get(s, 0) for s in sources.get(key, ())), default=-1)
    return ranks
