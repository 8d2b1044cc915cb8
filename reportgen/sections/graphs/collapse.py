"""Smaller graphs that say the same: relays drawn into edges, repeats as one box, groups closed.

Each step takes a graph and gives a graph in which every path of the first still exists.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from reportgen.sections.graphs.fold_repeats import StructureIndex, folded
from reportgen.sections.graphs.graph import (
    DrawnGraph,
    GraphGroup,
    GraphMember,
    GraphNode,
    leading_to,
    merged,
    rebuild,
)


def without_minor(graph: DrawnGraph) -> DrawnGraph:
    """The graph with relays (reshapes, transposes, accumulators) drawn into their edges."""
    return drawn_through(graph, {node.key for node in graph.root.nodes() if node.minor})


def drawn_through(graph: DrawnGraph, keys: set[int]) -> DrawnGraph:
    """The graph without the boxes `keys`, their edges joined; kept where that adds edges."""
    sources: dict[int, set[int]] = dict(leading_to(graph.edges))
    targets = leading_to(frozenset((b, a) for a, b in graph.edges))
    gone: set[int] = set()
    for key in sorted(keys):
        before, after = sources.get(key, set()), targets.get(key, set())
        if not before or not after or len(before) * len(after) > len(before) + len(after):
            continue
        for a in before:
            targets[a] = (targets[a] - {key}) | after
        for b in after:
            sources[b] = (sources[b] - {key}) | before
        gone.add(key)
    edges = frozenset((a, b) for b, feeding in sources.items() if b not in gone for a in feeding)
    return DrawnGraph(
        root=graph.root.only({n.key for n in graph.root.nodes()} - gone),
        edges=edges,
        loops=graph.loops,
        home={key: home for key, home in graph.home.items() if home not in gone},
    )


def unwrapped(graph: DrawnGraph) -> DrawnGraph:
    """The graph without groups around a single member, which takes over the group's name."""

    def unwrap(group: GraphGroup) -> GraphMember:
        if len(group.members) != 1 or group.repeat > 1:
            return group
        (only,) = group.members
        if isinstance(only, GraphNode) and only.kind in ("parameter", "constant"):
            return group
        name = ".".join(part for part in (group.name, only.name) if part)
        return replace(only, name=name, path=only.path or group.path)

    return merged(graph, rebuild(graph.root, unwrap), {})


def opened_within(graph: DrawnGraph, budget: int) -> DrawnGraph:
    """The graph with as many groups open as give at most about `budget` boxes.

    Level by level: a whole level where it fits, else the first group of each build, so that every
    kind of block is drawn in full once; groups closed for that say where to look.
    """
    alike = StructureIndex(graph, loose=True)
    opened: set[int] = set()
    shown: dict[int, GraphGroup] = {}
    level = [m for m in graph.root.members if isinstance(m, GraphGroup)]
    while level:
        _open_level(graph.root, level, alike, opened, shown, budget)
        level = [
            inner
            for group in level
            if group.key in opened
            for inner in group.members
            if isinstance(inner, GraphGroup)
        ]
    return _closed(graph, opened, alike, shown)


def _open_level(
    root: GraphGroup,
    level: list[GraphGroup],
    alike: StructureIndex,
    opened: set[int],
    shown: dict[int, GraphGroup],
    budget: int,
) -> None:
    kinds = {group.key: alike.build(group) for group in level}
    keys = set(kinds)
    if _drawn(root, opened | keys) <= budget:
        opened |= keys
    else:
        for group in level:
            fits = _drawn(root, opened | {group.key}) <= budget
            if fits and kinds[group.key] not in shown:
                opened.add(group.key)
                shown.setdefault(kinds[group.key], group)
    for group in level:
        if group.key in opened:
            shown.setdefault(kinds[group.key], group)


def _drawn(group: GraphGroup, opened: set[int]) -> int:
    return sum(
        _drawn(member, opened) if isinstance(member, GraphGroup) and member.key in opened else 1
        for member in group.members
    )


def _closed(
    graph: DrawnGraph, opened: set[int], alike: StructureIndex, shown: dict[int, GraphGroup]
) -> DrawnGraph:
    moves: dict[int, int] = {}

    def close(group: GraphGroup) -> GraphMember:
        keys = [node.key for node in group.nodes()]
        moves.update(dict.fromkeys(keys, keys[0]))
        twin = shown.get(alike.build(group))
        hint = (f"inside as {_first(twin.path)}",) if twin is not None and twin.path else ()
        return _closed_box(group, keys[0], (*group.lines, *hint))

    root = replace(graph.root, members=_close_members(graph.root, close, opened))
    return merged(graph, root, moves)


def _close_members(
    group: GraphGroup, close: Callable[[GraphGroup], GraphMember], opened: set[int]
) -> tuple[GraphMember, ...]:
    members: list[GraphMember] = []
    for member in group.members:
        if isinstance(member, GraphGroup) and member.key in opened:
            inner = _close_members(member, close, opened)
            members.append(replace(member, members=inner))
        else:
            members.append(close(member) if isinstance(member, GraphGroup) else member)
    return tuple(members)


def _closed_box(group: GraphGroup, key: int, lines: tuple[str, ...]) -> GraphNode:
    return GraphNode(
        key=key,
        kind=group.kind,
        title=group.title,
        name=group.name,
        path=group.path,
        lines=lines,
        parameters=group.parameters,
        repeat=group.repeat,
        parallel=group.parallel,
        varies=group.varies,
        holds=sum(node.holds for node in group.nodes()),
    )


def _first(path: str) -> str:
    return path.split(" … ", maxsplit=1)[0]


def readable(graph: DrawnGraph, budget: int) -> DrawnGraph:
    """The graph in at most about `budget` boxes, collapsed no further than that takes."""
    graph = unwrapped(graph)
    if graph.size <= budget:
        return graph
    flat = graph = unwrapped(without_minor(graph))
    for loose in (False, True):
        if graph.size > budget:
            graph = unwrapped(folded(flat, loose=loose))
    return unwrapped(opened_within(graph, budget)) if graph.size > budget else graph
