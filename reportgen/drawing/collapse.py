"""Simplified graphs: relays drawn into edges, repeats as one box, groups closed, long edges cut.

Each step takes a graph and returns a graph. All but `with_ports` keep every path of the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace

from reportgen.drawing.fold_repeats import StructureIndex, folded
from reportgen.drawing.graph import (
    DrawnGraph,
    Edge,
    GraphGroup,
    GraphMember,
    GraphNode,
    merged,
    predecessors,
    rebuild,
)

_SHOWN_TITLES = 3  # of the operations in one box


def without_minor(graph: DrawnGraph) -> DrawnGraph:
    """The graph without relays (reshapes, transposes, accumulators); their edges are joined."""
    return drawn_through(graph, {node.key for node in graph.root.nodes() if node.minor})


def drawn_through(graph: DrawnGraph, keys: set[int]) -> DrawnGraph:
    """The graph without the boxes `keys`, their edges joined; a box stays if that adds edges."""
    sources: dict[int, set[int]] = dict(predecessors(graph.edges))
    targets = predecessors(frozenset((b, a) for a, b in graph.edges))
    gone: set[int] = set()
    for key in sorted(keys):
        before, after = sources.get(key, set()), targets.get(key, set())
        # without an edge on one side the box is an end of a path, which must stay
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
    """The graph without groups of a single member; the member's name gets the group's as prefix."""

    def unwrap(group: GraphGroup) -> GraphMember:
        # the frame of a repeat states its number
        if len(group.members) != 1 or group.repeat > 1:
            return group
        (only,) = group.members
        if isinstance(only, GraphNode) and only.kind in ("parameter", "constant"):
            return group
        name = ".".join(part for part in (group.name, only.name) if part)
        return replace(only, name=name, path=only.path or group.path)

    return merged(graph, rebuild(graph.root, unwrap), {})


def opened_within(graph: DrawnGraph, budget: int) -> DrawnGraph:
    """The graph with as many groups open as fit into about `budget` boxes.

    Level by level: the whole level if it fits, else the first group of each structure, so that
    every kind of block is drawn in full once. A closed group names the open one of its kind.
    """
    # loose: blocks that differ in sizes only need not be drawn twice
    index = StructureIndex(graph, loose=True)
    opened: set[int] = set()
    shown: dict[int, GraphGroup] = {}
    level = [m for m in graph.root.members if isinstance(m, GraphGroup)]
    while level:
        _open_level(graph.root, level, index, opened, shown, budget)
        level = [
            inner
            for group in level
            if group.key in opened
            for inner in group.members
            if isinstance(inner, GraphGroup)
        ]
    return _closed(graph, opened, index, shown)


def _open_level(
    root: GraphGroup,
    level: list[GraphGroup],
    index: StructureIndex,
    opened: set[int],
    shown: dict[int, GraphGroup],
    budget: int,
) -> None:
    kinds = {group.key: index.structure(group) for group in level}
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
    graph: DrawnGraph, opened: set[int], index: StructureIndex, shown: dict[int, GraphGroup]
) -> DrawnGraph:
    moves: dict[int, int] = {}

    def close(group: GraphGroup) -> GraphMember:
        keys = [node.key for node in group.nodes()]
        moves.update(dict.fromkeys(keys, keys[0]))
        example = shown.get(index.structure(group))
        hint = (
            (f"inside as {_first(example.path)}",) if example is not None and example.path else ()
        )
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
    """The graph in about `budget` boxes at most; collapsed only as far as necessary."""
    graph = unwrapped(graph)
    if graph.size <= budget:
        return graph
    flat = graph = unwrapped(without_minor(graph))
    # blocks of different sizes are drawn as one only if equal ones do not suffice
    for loose in (False, True):
        if graph.size > budget:
            graph = unwrapped(folded(flat, loose=loose))
    return unwrapped(opened_within(graph, budget)) if graph.size > budget else graph


def in_runs(graph: DrawnGraph, budget: int) -> DrawnGraph:
    """The graph in about `budget` boxes: neighbors in execution order are one box.

    For what `readable` cannot collapse: many operations in no module. Inputs and outputs stay.
    """
    boxes = sorted(graph.root.nodes(), key=lambda node: node.key)
    inner = [node for node in boxes if node.kind not in ("input", "output")]
    length = -(-len(inner) // max(1, budget - len(boxes) + len(inner)))
    runs = [inner[start : start + length] for start in range(0, len(inner), length)]
    moves = {node.key: run[0].key for run in runs for node in run}
    ends = [node for node in boxes if node.kind in ("input", "output")]
    members = sorted((*ends, *map(_run_box, runs)), key=lambda node: node.key)
    return merged(graph, replace(graph.root, members=tuple(members)), moves)


def _run_box(run: list[GraphNode]) -> GraphNode:
    if len(run) == 1:
        return run[0]
    counts = Counter(dict.fromkeys(sorted(node.title for node in run), 0))
    for node in run:
        counts[node.title] += node.repeat
    known = [f"{number} {title}" for title, number in counts.most_common(_SHOWN_TITLES)]
    more = len(counts) - len(known)
    return GraphNode(
        key=run[0].key,
        kind="operation",
        title=f"{sum(node.repeat for node in run)} operations",
        lines=(*known, *([f"+{more} more kinds"] if more else [])),
        holds=sum(node.holds for node in run),
    )


_LONG = 12  # an edge that spans more ranks is long
MAX_LONG_EDGES = 6  # a reader can follow this many
_SHOWN_TARGETS = 3  # named on one port


def with_ports(graph: DrawnGraph, *, max_long_edges: int = MAX_LONG_EDGES) -> DrawnGraph:
    """The graph with its long edges cut if there are more than `max_long_edges` of them.

    Each source of long edges is connected to a numbered port; a port with the same number feeds
    every target.
    """
    # longest paths, an estimate of the ranks that dot will assign
    ranks = _ranks(graph)
    long_edges = [(a, b) for a, b in sorted(graph.edges) if ranks[b] - ranks[a] > _LONG]
    if len(long_edges) <= max_long_edges:
        return graph
    nodes = {node.key: node for node in graph.root.nodes()}
    number_of = {a: n for n, a in enumerate(dict.fromkeys(a for a, _ in long_edges), start=1)}
    next_key = max(nodes) + 1
    beside: dict[int, list[GraphNode]] = {}
    edges: set[Edge] = set(graph.edges) - set(long_edges)
    for source, number in number_of.items():
        targets = [nodes[b] for a, b in long_edges if a == source]
        beside.setdefault(source, []).append(_port(next_key, number, "to", targets))
        edges.add((source, next_key))
        next_key += 1
        for target in targets:
            beside.setdefault(target.key, []).append(
                _port(next_key, number, "from", [nodes[source]])
            )
            edges.add((next_key, target.key))
            next_key += 1
    return replace(graph, root=_with(graph.root, beside), edges=frozenset(edges))


def _port(key: int, number: int, way: str, others: list[GraphNode]) -> GraphNode:
    names = [f"{node.title} {node.name}".strip() for node in others[:_SHOWN_TARGETS]]
    more = [f"+{len(others) - _SHOWN_TARGETS} more"] if len(others) > _SHOWN_TARGETS else []
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
    """The edges on the longest path to each node; the edge that closes a cycle is ignored."""
    sources = predecessors(graph.edges)
    ranks: dict[int, int] = {}
    for start in sorted(node.key for node in graph.root.nodes()):
        waiting = [start]  # a stack: deep models would exceed the recursion limit
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
