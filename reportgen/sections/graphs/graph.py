"""A graph in nested groups as a plain value, and how its edges follow when nodes are merged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphNode:
    """One box: a module, an operation, a parameter, an input or an output.

    Attributes:
        key: unique in its graph; ascending in the order in which things ran.
        kind: what it is, one word; the drawing's CSS class.
        title: the class or the operator.
        name: the attribute path, relative to the enclosing group.
        path: the attribute path from the model.
        lines: shapes and arguments, ready to read.
        parameters: parameters of this box, all repeats together; None where it has none to tell.
        repeat: how many equal things in a row this box stands for.
        parallel: the repeats do not feed one another.
        varies: the repeats differ in shapes or sizes.
        minor: only reshapes or relays; may be drawn into its edges.
        holds: how many nodes it stands for.
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
    """Boxes that belong together, such as the inside of a module, in the order in which they ran.

    The attributes are those of the `GraphNode` that stands for the group when it is drawn closed.
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
        """The group with the nodes of `keep` alone; groups left empty are left out."""
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
    """Nodes in nested groups, and edges between them along which tensors flow.

    `loops` are the edges from one repeat of a box into the next. `home` says for every node that
    ever was in this graph in which box it is drawn now; a node drawn into an edge has none.
    """

    root: GraphGroup
    edges: frozenset[Edge]
    loops: frozenset[Edge] = frozenset()
    home: Mapping[int, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many boxes are drawn."""
        return sum(1 for _ in self.root.nodes())


def make_graph(root: GraphGroup, edges: set[Edge]) -> DrawnGraph:
    """A graph in which every node is its own home; edges to nowhere and to itself are left out."""
    keys = {node.key for node in root.nodes()}
    kept = {(a, b) for a, b in edges if a in keys and b in keys and a != b}
    return DrawnGraph(root=root, edges=frozenset(kept), home={key: key for key in keys})


def merged(graph: DrawnGraph, root: GraphGroup, moves: Mapping[int, int]) -> DrawnGraph:
    """The graph with `root` for its groups, each node of `moves` drawn in another's box."""

    def move(edges: frozenset[Edge]) -> frozenset[Edge]:
        moved = {(moves.get(a, a), moves.get(b, b)) for a, b in edges}
        return frozenset((a, b) for a, b in moved if a != b)

    edges = move(graph.edges)
    return DrawnGraph(
        root=root,
        edges=edges,
        loops=move(graph.loops) - edges,
        home={key: moves.get(home, home) for key, home in graph.home.items()},
    )


def rebuild(group: GraphGroup, change: Callable[[GraphGroup], GraphMember]) -> GraphGroup:
    """The group with every group inside it replaced by `change` of it, innermost first."""
    members = tuple(
        change(rebuild(member, change)) if isinstance(member, GraphGroup) else member
        for member in group.members
    )
    return replace(group, members=members)


def leading_to(edges: frozenset[Edge]) -> dict[int, set[int]]:
    """For every node the set of those that feed it directly."""
    sources: dict[int, set[int]] = defaultdict(set)
    for a, b in edges:
        sources[b].add(a)
    return sources


def reachable(edges: frozenset[Edge], starts: set[int]) -> set[int]:
    """Every node on a path from `starts`, these included."""
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
