"""Smaller graphs that say the same: relays drawn into edges, repeats as one box, groups closed.

Each step takes a graph and gives a graph in which every path of the first still exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from reportgen.sections.graphs.graph import (
    Edge,
    Graph,
    Group,
    Member,
    Node,
    leading_to,
    merged,
    reachable,
    rebuild,
)

_LONGEST_PERIOD = 6  # members that may repeat together, as in `attention, add, mlp, add`


def without_minor(graph: Graph) -> Graph:
    """The graph with relays (reshapes, transposes, accumulators) drawn into their edges."""
    return drawn_through(graph, {node.key for node in graph.root.nodes() if node.minor})


def drawn_through(graph: Graph, keys: set[int]) -> Graph:
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
    return Graph(
        root=_without(graph.root, gone),
        edges=edges,
        loops=graph.loops,
        home={key: home for key, home in graph.home.items() if home not in gone},
    )


def _without(group: Group, gone: set[int]) -> Group:
    kept = [
        _without(member, gone) if isinstance(member, Group) else member
        for member in group.members
        if member.key not in gone
    ]
    return replace(
        group, members=tuple(m for m in kept if not isinstance(m, Group) or m.members)
    )


def unwrapped(graph: Graph) -> Graph:
    """The graph without groups around a single member, which takes over the group's name."""

    def unwrap(group: Group) -> Member:
        if len(group.members) != 1 or group.repeat > 1:
            return group
        (only,) = group.members
        if isinstance(only, Node) and only.kind in ("parameter", "constant"):
            return group
        name = ".".join(part for part in (group.name, only.name) if part)
        return replace(only, name=name, path=only.path or group.path)

    return merged(graph, rebuild(graph.root, unwrap), {})


def folded(graph: Graph, *, loose: bool) -> Graph:
    """The graph with equal neighbours drawn once as `× n`, innermost first.

    Args:
        graph: the graph.
        loose: groups of the same build are equal also where shapes and sizes differ.
    """
    for depth in range(_depth(graph.root), -1, -1):
        graph = _folded_at(graph, depth, _Alike(graph, loose=loose))
    return graph


def _depth(group: Group) -> int:
    return 1 + max((_depth(m) for m in group.members if isinstance(m, Group)), default=-1)


def _folded_at(graph: Graph, depth: int, alike: _Alike) -> Graph:
    moves: dict[int, int] = {}
    crossing: set[Edge] = set()

    def fold(group: Group, level: int) -> Group:
        if level < depth:
            inner = (fold(m, level + 1) if isinstance(m, Group) else m for m in group.members)
            return replace(group, members=tuple(inner))
        members: list[Member] = []
        for run in alike.runs(group.members):
            copies = [_keys(copy) for copy in run]
            moved = {k: first for c in copies[1:] for k, first in zip(c, copies[0], strict=True)}
            moves.update(moved)
            between = alike.crossing(copies)
            crossing.update(between)
            members.extend(_repeated(run, parallel=not between))
        return replace(group, members=tuple(members))

    root = fold(graph.root, 0)
    loops = {(moves.get(a, a), moves.get(b, b)) for a, b in crossing}
    smaller = merged(replace(graph, edges=graph.edges - crossing), root, moves)
    loops = {(a, b) for a, b in loops | smaller.loops if a != b} - smaller.edges
    return replace(smaller, loops=_needed(loops, smaller.edges))


def _needed(loops: set[Edge], edges: frozenset[Edge]) -> frozenset[Edge]:
    """The loops without those whose target another loop from the same node leads to anyway."""
    kept: set[Edge] = set()
    for a, b in sorted(loops):
        if any(c == a and b in reachable(edges, {d}) for c, d in kept):
            continue
        implied = {(c, d) for c, d in kept if c == a and d in reachable(edges, {b})}
        kept = (kept - implied) | {(a, b)}
    return frozenset(kept)


def _keys(members: Iterable[Member]) -> list[int]:
    keys: list[int] = []
    for member in members:
        keys.extend([member.key] if isinstance(member, Node) else _keys(member.members))
    return keys


def _repeated(run: list[Sequence[Member]], *, parallel: bool) -> list[Member]:
    """One run as the members that are drawn for it."""
    first = run[0]
    if len(run) == 1:
        return list(first)
    if len(first) == 1:
        return [_summed(first[0], [copy[0] for copy in run], parallel=parallel)]
    names = [member.name for member in (first[0], run[-1][-1])]
    return [
        Group(
            key=-1 - first[0].key,
            title="repeated",
            kind="repeat",
            name=_span(names),
            members=tuple(first),
            parameters=_sum(member for copy in run for member in copy),
            repeat=len(run),
            parallel=parallel,
        )
    ]


def _summed(first: Member, copies: list[Member], *, parallel: bool) -> Member:
    same = all(copy.lines == first.lines for copy in copies)
    lines = first.lines if same else copies[-1].lines
    name, paths = _span([copy.name for copy in copies]), _span([copy.path for copy in copies])
    repeat = sum(copy.repeat for copy in copies)
    parameters = _sum(copies)
    if isinstance(first, Group):
        return replace(first, name=name, path=paths, lines=lines, parameters=parameters,
                       repeat=repeat, parallel=parallel)  # fmt: skip
    held = sum(copy.holds for copy in copies if isinstance(copy, Node))
    return replace(first, name=name, path=paths, lines=lines, parameters=parameters,
                   repeat=repeat, parallel=parallel, holds=held)  # fmt: skip


def _sum(members: Iterable[Member]) -> int | None:
    known = [member.parameters for member in members if member.parameters is not None]
    return sum(known) if known else None


def _span(names: list[str]) -> str:
    first, last = names[0], names[-1]
    return first if first == last else " … ".join(filter(None, (first, last)))


class _Alike:
    """Which members of a graph are built alike: same titles, same inside, same inner edges."""

    def __init__(self, graph: Graph, *, loose: bool) -> None:
        self._loose = loose
        self._sources = leading_to(graph.edges)
        self._targets = leading_to(frozenset((b, a) for a, b in graph.edges))
        self._seen: dict[object, int] = {}
        self._known: dict[tuple[int, bool], int] = {}

    def runs(self, members: Sequence[Member]) -> list[list[Sequence[Member]]]:
        """The members cut into runs: each a list of equal stretches, of which the first is drawn."""
        runs: list[list[Sequence[Member]]] = []
        start = 0
        while start < len(members):
            period, count = self._best(members, start)
            stop = start + period * count
            runs.append([members[i : i + period] for i in range(start, stop, period)])
            start = stop
        return runs

    def _best(self, members: Sequence[Member], start: int) -> tuple[int, int]:
        best = (1, 1)
        for period in range(1, min(_LONGEST_PERIOD, (len(members) - start) // 2) + 1):
            count = self._count(members, start, period)
            if count > 1 and period * count > best[0] * best[1]:
                best = (period, count)
        return best

    def _count(self, members: Sequence[Member], start: int, period: int) -> int:
        model = members[start : start + period]
        if any(member.kind in ("input", "output") for member in model):
            return 1
        loose = self._loose and any(isinstance(member, Group) for member in model)
        count = 1
        while self._equal(model, members[start + count * period :][:period], loose=loose):
            count += 1
        return count

    def _equal(self, some: Sequence[Member], others: Sequence[Member], *, loose: bool) -> bool:
        if len(some) != len(others):
            return False
        kinds = [[self.signature(m, loose=loose) for m in each] for each in (some, others)]
        if kinds[0] != kinds[1]:
            return False
        if any(isinstance(member, Group) for member in some):
            return len(some) == 1 or self._inner(some) == self._inner(others)
        return self._inner(some) == self._inner(others) and self._fed(some) == self._fed(others)

    def _fed(self, members: Sequence[Member]) -> list[int]:
        """How many boxes outside feed each member: cross-attention is no second self-attention."""
        inside = {member.key for member in members}
        return [len(self._sources.get(m.key, set()) - inside) for m in members]

    def build(self, group: Group) -> int:
        """A number that is the same for groups with equal insides, however often each repeats."""
        inside = tuple(self.signature(each, loose=True) for each in group.members)
        value = ("build", group.title, inside, self._inner(group.members))
        return self._seen.setdefault(value, len(self._seen))

    def signature(self, member: Member, *, loose: bool) -> int:
        """A number that is the same for members that are built alike."""
        known = self._known.get((member.key, loose))
        if known is not None:
            return known
        shape: object = () if loose else (member.lines, member.parameters)
        head = (member.kind, member.title, member.repeat, shape)
        if isinstance(member, Node):
            value: object = head
        else:
            inside = tuple(self.signature(each, loose=loose) for each in member.members)
            value = (head, inside, self._inner(member.members))
        number = self._seen.setdefault(value, len(self._seen))
        self._known[member.key, loose] = number
        return number

    def _inner(self, members: Sequence[Member]) -> frozenset[Edge]:
        place = {key: index for index, key in enumerate(_keys(members))}
        return frozenset(
            (place[a], place[b]) for a in place for b in self._targets.get(a, ()) if b in place
        )

    def crossing(self, copies: list[list[int]]) -> set[Edge]:
        """The edges from one of `copies` into another."""
        if len(copies) == 1:
            return set()
        copy_of = {key: number for number, keys in enumerate(copies) for key in keys}
        return {
            (a, b)
            for a in copy_of
            for b in self._targets.get(a, ())
            if b in copy_of and copy_of[a] != copy_of[b]
        }


def opened_within(graph: Graph, budget: int) -> Graph:
    """The graph with as many groups open as give at most about `budget` boxes.

    Level by level: a whole level where it fits, else the first group of each build, so that every
    kind of block is drawn in full once; groups closed for that say where to look.
    """
    alike = _Alike(graph, loose=True)
    opened: set[int] = set()
    shown: dict[int, Group] = {}
    level = [m for m in graph.root.members if isinstance(m, Group)]
    while level:
        _open_level(graph.root, level, alike, opened, shown, budget)
        level = [
            inner
            for group in level
            if group.key in opened
            for inner in group.members
            if isinstance(inner, Group)
        ]
    return _closed(graph, opened, alike, shown)


def _open_level(
    root: Group,
    level: list[Group],
    alike: _Alike,
    opened: set[int],
    shown: dict[int, Group],
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


def _drawn(group: Group, opened: set[int]) -> int:
    return sum(
        _drawn(member, opened) if isinstance(member, Group) and member.key in opened else 1
        for member in group.members
    )


def _closed(graph: Graph, opened: set[int], alike: _Alike, shown: dict[int, Group]) -> Graph:
    moves: dict[int, int] = {}

    def close(group: Group) -> Member:
        keys = [node.key for node in group.nodes()]
        moves.update(dict.fromkeys(keys, keys[0]))
        twin = shown.get(alike.build(group))
        hint = (f"inside as {_first(twin.path)}",) if twin is not None and twin.path else ()
        return _closed_box(group, keys[0], (*group.lines, *hint))

    root = replace(graph.root, members=_close_members(graph.root, close, opened))
    return merged(graph, root, moves)


def _close_members(
    group: Group, close: Callable[[Group], Member], opened: set[int]
) -> tuple[Member, ...]:
    members: list[Member] = []
    for member in group.members:
        if isinstance(member, Group) and member.key in opened:
            inner = _close_members(member, close, opened)
            members.append(replace(member, members=inner))
        else:
            members.append(close(member) if isinstance(member, Group) else member)
    return tuple(members)


def _closed_box(group: Group, key: int, lines: tuple[str, ...]) -> Node:
    return Node(
        key=key,
        kind=group.kind,
        title=group.title,
        name=group.name,
        path=group.path,
        lines=lines,
        parameters=group.parameters,
        repeat=group.repeat,
        parallel=group.parallel,
        holds=sum(node.holds for node in group.nodes()),
    )


def _first(path: str) -> str:
    return path.split(" … ", maxsplit=1)[0]


def readable(graph: Graph, budget: int) -> Graph:
    """The graph in at most about `budget` boxes, collapsed no further than that takes."""
    graph = unwrapped(graph)
    if graph.size <= budget:
        return graph
    graph = unwrapped(without_minor(graph))
    for loose in (False, True):
        if graph.size > budget:
            graph = unwrapped(folded(graph, loose=loose))
    return unwrapped(opened_within(graph, budget)) if graph.size > budget else graph
