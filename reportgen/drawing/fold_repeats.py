"""Repeated neighbors drawn once: finds members of equal structure, draws one box per run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from reportgen.drawing.graph import (
    DrawnGraph,
    Edge,
    GraphGroup,
    GraphMember,
    GraphNode,
    merged,
    predecessors,
    reachable,
)

_LONGEST_PERIOD = 6  # members that may repeat together, as in `attention, add, mlp, add`


def folded(graph: DrawnGraph, *, loose: bool) -> DrawnGraph:
    """The graph with equal neighbors drawn once as `× n`, innermost first.

    Args:
        graph: the graph.
        loose: ignore shapes and sizes when comparing groups.
    """
    # innermost first: blocks may be equal only after their contents were folded
    for depth in range(_depth(graph.root), -1, -1):
        graph = _folded_at(graph, depth, StructureIndex(graph, loose=loose))
    return graph


def _depth(group: GraphGroup) -> int:
    return 1 + max((_depth(m) for m in group.members if isinstance(m, GraphGroup)), default=-1)


def _folded_at(graph: DrawnGraph, depth: int, index: StructureIndex) -> DrawnGraph:
    moves: dict[int, int] = {}
    crossing: set[Edge] = set()

    def fold(group: GraphGroup, level: int) -> GraphGroup:
        if level < depth:
            inner = (fold(m, level + 1) if isinstance(m, GraphGroup) else m for m in group.members)
            return replace(group, members=tuple(inner))
        members: list[GraphMember] = []
        for run in index.runs(group.members):
            copies = [_keys(copy) for copy in run]
            moved = {k: first for c in copies[1:] for k, first in zip(c, copies[0], strict=True)}
            moves.update(moved)
            between = index.crossing(copies)
            crossing.update(between)
            members.extend(_repeated(run, parallel=not between))
        return replace(group, members=tuple(members))

    root = fold(graph.root, 0)
    loops = {(moves.get(a, a), moves.get(b, b)) for a, b in crossing}
    smaller = merged(replace(graph, edges=graph.edges - crossing), root, moves)
    loops = {(a, b) for a, b in loops | smaller.loops if a != b} - smaller.edges
    return replace(smaller, loops=_needed(loops, smaller.edges))


def _needed(loops: set[Edge], edges: frozenset[Edge]) -> frozenset[Edge]:
    """The loops without those whose target is reachable from another loop of the same source."""
    kept: set[Edge] = set()
    for a, b in sorted(loops):
        if any(c == a and b in reachable(edges, {d}) for c, d in kept):
            continue
        implied = {(c, d) for c, d in kept if c == a and d in reachable(edges, {b})}
        kept = (kept - implied) | {(a, b)}
    return frozenset(kept)


def _keys(members: Iterable[GraphMember]) -> list[int]:
    keys: list[int] = []
    for member in members:
        keys.extend([member.key] if isinstance(member, GraphNode) else _keys(member.members))
    return keys


def _repeated(run: list[Sequence[GraphMember]], *, parallel: bool) -> list[GraphMember]:
    first = run[0]
    if len(run) == 1:
        return list(first)
    if len(first) == 1:
        return [_summed(first[0], [copy[0] for copy in run], parallel=parallel)]
    names = [member.name for member in (first[0], run[-1][-1])]
    return [
        GraphGroup(
            # negative, because the keys of the graph are positive
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


def _summed(first: GraphMember, copies: list[GraphMember], *, parallel: bool) -> GraphMember:
    same = all(copy.lines == first.lines for copy in copies)
    lines = first.lines if same else copies[-1].lines
    name, paths = _span([copy.name for copy in copies]), _span([copy.path for copy in copies])
    repeat = sum(copy.repeat for copy in copies)
    parameters = _sum(copies)
    each = {(copy.parameters or 0) // copy.repeat for copy in copies}
    varies = not same or len(each) > 1
    if isinstance(first, GraphGroup):
        return replace(first, name=name, path=paths, lines=lines, parameters=parameters,
                       repeat=repeat, parallel=parallel, varies=varies)  # fmt: skip
    held = sum(copy.holds for copy in copies if isinstance(copy, GraphNode))
    return replace(first, name=name, path=paths, lines=lines, parameters=parameters,
                   repeat=repeat, parallel=parallel, varies=varies, holds=held)  # fmt: skip


def _sum(members: Iterable[GraphMember]) -> int | None:
    known = [member.parameters for member in members if member.parameters is not None]
    return sum(known) if known else None


def _span(names: list[str]) -> str:
    """`0 … 11`; each name may already be such a span."""
    first, last = names[0].split(" … ")[0], names[-1].split(" … ")[-1]
    return first if first == last else " … ".join(filter(None, (first, last)))


class StructureIndex:
    """Compares members of a graph by structure: titles, members and inner edges."""

    def __init__(self, graph: DrawnGraph, *, loose: bool) -> None:
        self._loose = loose
        self._sources = predecessors(graph.edges)
        self._targets = predecessors(frozenset((b, a) for a, b in graph.edges))
        self._seen: dict[object, int] = {}
        self._known: dict[tuple[int, bool], int] = {}

    def runs(self, members: Sequence[GraphMember]) -> list[list[Sequence[GraphMember]]]:
        """The members in runs: each a list of equal sequences, the first of which is drawn."""
        runs: list[list[Sequence[GraphMember]]] = []
        start = 0
        while start < len(members):
            period, count = self._best(members, start)
            stop = start + period * count
            runs.append([members[i : i + period] for i in range(start, stop, period)])
            start = stop
        return runs

    def _best(self, members: Sequence[GraphMember], start: int) -> tuple[int, int]:
        best = (1, 1)
        for period in range(1, min(_LONGEST_PERIOD, (len(members) - start) // 2) + 1):
            count = self._count(members, start, period)
            # the run that covers most members; of equal ones the shortest period, which comes first
            if count > 1 and period * count > best[0] * best[1]:
                best = (period, count)
        return best

    def _count(self, members: Sequence[GraphMember], start: int, period: int) -> int:
        pattern = members[start : start + period]
        if any(member.kind in ("input", "output") for member in pattern):
            return 1
        # members that only run after one another are not a block
        if not self._connected(pattern):
            return 1
        loose = self._loose and any(isinstance(member, GraphGroup) for member in pattern)
        copies = [frozenset(_keys(pattern))]
        while True:
            at = start + len(copies) * period
            candidate = members[at : at + period]
            if not self._equal(pattern, candidate, loose=loose):
                return len(copies)
            copies.append(frozenset(_keys(candidate)))
            if not self._uniform(copies):
                return len(copies) - 1

    def _connected(self, members: Sequence[GraphMember]) -> bool:
        """Whether each member but the first is fed by an earlier one."""
        before: set[int] = set()
        for member in members:
            keys = frozenset(_keys([member]))
            if before and not self._outside(keys) & before:
                return False
            before |= keys
        return True

    def _uniform(self, copies: list[frozenset[int]]) -> bool:
        """Whether the last copy continues the run: each feeds the next, or none feeds another."""
        sources = [self._outside(copy) for copy in copies]
        chained = bool(sources[1] & copies[0])
        if chained:
            return bool(sources[-1] & copies[-2])
        return sources[-1] == sources[0] and not any(sources[-1] & copy for copy in copies)

    def _outside(self, copy: frozenset[int]) -> frozenset[int]:
        return frozenset(a for b in copy for a in self._sources.get(b, ())) - copy

    def _equal(
        self, some: Sequence[GraphMember], others: Sequence[GraphMember], *, loose: bool
    ) -> bool:
        if len(some) != len(others):
            return False
        if loose and len(some) == 1:  # one of them may be a folded run
            both = (*some, *others)
            groups = [member for member in both if isinstance(member, GraphGroup)]
            return len(groups) == 2 and self.structure(groups[0]) == self.structure(groups[1])
        kinds = [[self.signature(m, loose=loose) for m in each] for each in (some, others)]
        if kinds[0] != kinds[1]:
            return False
        if any(isinstance(member, GraphGroup) for member in some):
            return len(some) == 1 or self._inner(some) == self._inner(others)
        return self._inner(some) == self._inner(others) and self._fed(some) == self._fed(others)

    def _fed(self, members: Sequence[GraphMember]) -> list[int]:
        """The number of outside boxes feeding each member; it is higher in cross-attention."""
        inside = {member.key for member in members}
        return [len(self._sources.get(m.key, set()) - inside) for m in members]

    def structure(self, group: GraphGroup) -> int:
        """A number that is equal for groups with equal contents, regardless of `repeat`."""
        inside = tuple(self.signature(each, loose=True) for each in group.members)
        value = ("structure", group.title, inside, self._inner(group.members))
        return self._seen.setdefault(value, len(self._seen))

    def signature(self, member: GraphMember, *, loose: bool) -> int:
        """A number that is equal for members of equal structure."""
        known = self._known.get((member.key, loose))
        if known is not None:
            return known
        shape: object = () if loose else (member.lines, member.parameters)
        head = (member.kind, member.title, member.repeat, shape)
        if isinstance(member, GraphNode):
            value: object = head
        else:
            inside = tuple(self.signature(each, loose=loose) for each in member.members)
            value = (head, inside, self._inner(member.members))
        number = self._seen.setdefault(value, len(self._seen))
        self._known[member.key, loose] = number
        return number

    def _inner(self, members: Sequence[GraphMember]) -> frozenset[Edge]:
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
