"""A graph with nested groups as a plain value; merging nodes moves their edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphNode:
    """One box: a module, an operation, a parameter, an input or an output.

    Attributes:
        key: unique in its graph; ascends in execution order.
        kind: `module`, `operation`, `parameter`, …; the drawing's CSS class.
        title: the class or the operator.
        name: the attribute path, relative to the enclosing group.
        path: the attribute path from the model.
        lines: shapes and arguments as text.
        parameters: parameters of this box, all repeats together; None for none.
        repeat: number of equal neighbors that this box represents.
        parallel: the repeats do not feed one another.
        varies: the repeats differ in shapes or sizes.
        minor: a reshape or relay; may be replaced by its edges.
        holds: number of nodes that it represents.
    """

    key: int
    kind: str
    title: str
    name: str = ""
    path: str = ""
    lines: tuple[str, ...] = ()
    parameters: int | None = None
    repeat: int = 1
    parallel: bool = False
    varies: bool = False
    minor: bool = False
    holds: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphGroup:
    """Boxes that belong together, such as the contents of a module, in execution order.

    The attributes are those of the `GraphNode` that replaces the group when it is closed.
    """

    key: int
    title: str
    members: tuple[GraphNode | GraphGroup, ...]
    kind: str = "module"
    name: str = ""
    path: str = ""
    lines: tuple[str, ...] = ()
    parameters: int | None = None
    repeat: int = 1
    parallel: bool = False
    varies: bool = False

    def nodes(self) -> Iterator[GraphNode]:
        """Every node inside, in order."""
        for member in self.members:
            if isinstance(member, GraphNode):
                yield member
            else:
                yield from member.nodes()

    def only(self, keep: set[int]) -> GraphGroup:
        """The group with the nodes of `keep` alone; empty groups are removed."""
        inside = (m.only(keep) if isinstance(m, GraphGroup) else m for m in self.members)
        kept = [m for m in inside if (m.members if isinstance(m, GraphGroup) else m.key in keep)]
        return replace(self, members=tuple(kept))

    def groups(self) -> Iterator[GraphGroup]:
        """Every group inside, outer ones first, without the group itself."""
        for member in self.members:
            if isinstance(member, GraphGroup):
                yield member
                yield from member.groups()


GraphMember = GraphNode | GraphGroup
Edge = tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnGraph:
    """Nodes in nested groups and the edges along which tensors flow.

    `loops` are the edges from one repeat of a box into the next. `home` maps every original node
    to the box that contains it now; a node replaced by an edge has no entry.
    """

    root: GraphGroup
    edges: frozenset[Edge]
    loops: frozenset[Edge] = frozenset()
    home: Mapping[int, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of boxes."""
        return sum(1 for _ in self.root.nodes())


def make_graph(root: GraphGroup, edges: set[Edge]) -> DrawnGraph:
    """A graph in which every node is its own home, without dangling edges and self-loops."""
    keys = {node.key for node in root.nodes()}
    # the edges of boxes that were removed since, and those inside of one box
    kept = {(a, b) for a, b in edges if a in keys and b in keys and a != b}
    return DrawnGraph(root=root, edges=frozenset(kept), home={key: key for key in keys})


def merged(graph: DrawnGraph, root: GraphGroup, moves: Mapping[int, int]) -> DrawnGraph:
    """The graph with the groups of `root`; `moves` maps a node to the box it moves into."""

    def move(edges: frozenset[Edge]) -> frozenset[Edge]:
        moved = {(moves.get(a, a), moves.get(b, b)) for a, b in edges}
        return frozenset((a, b) for a, b in moved if a != b)

    edges = move(graph.edges)
    return DrawnGraph(
        root=root,
        edges=edges,
        # a solid arrow already shows it
        loops=move(graph.loops) - edges,
        home={key: moves.get(home, home) for key, home in graph.home.items()},
    )


def rebuild(group: GraphGroup, change: Callable[[GraphGroup], GraphMember]) -> GraphGroup:
    """The group with `change` applied to every inner group, innermost first."""
    members = tuple(
        change(rebuild(member, change)) if isinstance(member, GraphGroup) else member
        for member in group.members
    )
    return replace(group, members=members)


def predecessors(edges: frozenset[Edge]) -> dict[int, set[int]]:
    """The direct predecessors of every node."""
    sources: dict[int, set[int]] = defaultdict(set)
    for a, b in edges:
        sources[b].add(a)
    return sources


def reachable(edges: frozenset[Edge], starts: set[int]) -> set[int]:
    """Every node reachable from `starts`, including `starts`."""
    targets: dict[int, list[int]] = defaultdict(list)
    for a, b in edges:
        targets[a].append(b)
    found, waiting = set(starts), list(starts)
    while waiting:
        for target in targets[waiting.pop()]:
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found
