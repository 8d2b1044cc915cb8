"""The layout of every cluster of a graph, as plain values for the page.

Only ranks and the order within them matter: the page gives each box its place, and moves the
others when a reader opens a cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

from reportgen.comparable import Graph, OperatorNode
from reportgen.viewer.clusters import cluster_tree
from reportgen.viewer.constants import constant_nodes
from reportgen.viewer.levels import Item, Level, levels_of, signature
from reportgen.viewer.sketch import PORT, Sketch, lay_out

SECONDS = 4.0  # for all clusters of one graph
_NARROWEST, _NARROWEST_CLUSTER, _WIDEST = 56, 120, 184  # boxes, in points
_ENDS = ("input", "output", "parameter")  # have a name and a shape
_SIGN = 20  # the plus with which a cluster is opened
_STEP = 8  # widths are multiples of it: boxes of equal widths share a layout
_CHARACTER, _SMALL_CHARACTER, _MARGIN = 6.4, 5.4, 20  # widths in points
_LONG, _MOST_LONG_EDGES = 12, 6  # an edge that spans more ranks; how many a reader can follow


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelDrawing:
    """Where the items of a cluster stand: many clusters share one.

    Attributes:
        kinds: a letter for each item: `n`ode, `c`luster, value `i`n, value `o`ut.
        widths: of the items, in points.
        ranks: of the items along the direction of the flow, from 0.
        places: of the centers of the items across the flow, in points.
        producers: the item that each value comes from.
        edges: for each drawn edge the value, the reading item, and where it crosses the ranks
            between them.
        named: value and reading item by turns, where the reader shows the name of the value.
    """

    kinds: str
    widths: tuple[int, ...]
    ranks: tuple[int, ...]
    places: tuple[int, ...]
    producers: tuple[int, ...]
    edges: tuple[tuple[int, ...], ...]
    named: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterContent:
    """One cluster.

    Attributes:
        id: a module's path; "" for the whole graph.
        name: relative to the cluster around it.
        drawing: index of its drawing.
        children: node i is i, cluster i is -i; in the order of the drawing's items.
        names: of those children that are nodes, relative to the cluster.
        incoming: nodes whose values come in: the drawing's items of kind `i`, in order.
        outgoing: nodes whose values go out: the items of kind `o`.
        sources: the node that each of the drawing's values comes from.
    """

    id: str
    name: str
    drawing: int
    children: tuple[int, ...]
    names: tuple[str, ...]
    incoming: tuple[int, ...]
    outgoing: tuple[int, ...]
    sources: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphLayout:
    """All clusters of a graph, the whole graph first, and their drawings.

    Attributes:
        name: of the graph.
        complete: constants and shape arithmetic are shown.
        clusters: outer ones first.
        drawings: each once.
        engine: `dot`, or why (some of) the clusters are laid out in execution order.
    """

    name: str
    complete: bool
    clusters: tuple[ClusterContent, ...]
    drawings: tuple[LevelDrawing, ...]
    engine: str = "dot"


def graph_layouts(graph: Graph, *, seconds: float = SECONDS) -> tuple[GraphLayout, ...]:
    """The layout without constants and shape arithmetic and, if there are any, one with them."""
    every = frozenset(range(len(graph.nodes)))
    hidden = constant_nodes(graph)
    if not hidden:
        return (_layout(graph, every, seconds, complete=True),)
    return (
        _layout(graph, every - hidden, seconds / 2, complete=False),
        _layout(graph, every, seconds / 2, complete=True),
    )


def _layout(graph: Graph, kept: frozenset[int], seconds: float, *, complete: bool) -> GraphLayout:
    levels = levels_of(graph, cluster_tree(graph, kept))
    numbers: dict[object, int] = {}
    distinct: list[Sketch] = []
    contents: list[ClusterContent] = []
    for level in levels:
        widths = [_width(graph, item) for item in level.items]
        key = signature(level, widths)
        if numbers.setdefault(key, len(distinct)) == len(distinct):
            distinct.append(Sketch(level, widths))
        contents.append(_content(level, numbers[key]))
    engine = lay_out(distinct, seconds)
    return GraphLayout(
        name=graph.name,
        complete=complete,
        clusters=tuple(contents),
        drawings=tuple(map(_drawing, distinct)),
        engine=engine,
    )


def _width(graph: Graph, item: Item) -> int:
    if item.kind in ("in", "out"):
        return PORT
    longest = len(item.name) * _CHARACTER
    if item.kind == "node":
        node = graph.nodes[item.key]
        other = ", ".join(node.outputs) if node.kind in _ENDS else node.operator
        below = " · ".join(filter(None, (item.name, _stored(node))))  # in small letters
        longest = max(longest, len(other) * _CHARACTER, len(below) * _SMALL_CHARACTER)
    if item.kind == "cluster":
        wanted = min(max(_MARGIN + longest + _SIGN, _NARROWEST_CLUSTER), _WIDEST)
    else:
        wanted = min(max(_MARGIN + longest, _NARROWEST), _WIDEST)
    return -int(-wanted // _STEP) * _STEP


def _stored(node: OperatorNode) -> str:
    """The first tensor that an operation of a file stores, as its box has it: `W 64×3×7×7`."""
    types = (
        value
        for name, value in node.attributes.items()
        if name.startswith("input ") and isinstance(value, str)
    )
    return "W " + first.rpartition(" ")[2] if (first := next(types, "")) else ""


def _content(level: Level, drawing: int) -> ClusterContent:
    def keys(kind: str) -> tuple[int, ...]:
        return tuple(item.key for item in level.items if item.kind == kind)

    return ClusterContent(
        id=level.id,
        name=level.name,
        drawing=drawing,
        children=tuple(
            -item.key if item.kind == "cluster" else item.key
            for item in level.items
            if item.kind in ("node", "cluster")
        ),
        names=tuple(item.name for item in level.items if item.kind == "node"),
        incoming=keys("in"),
        outgoing=keys("out"),
        sources=tuple(source for _, source in level.values),
    )


def _drawing(sketch: Sketch) -> LevelDrawing:
    level, named = sketch.level, list(sketch.level.named)
    spans = {
        edge: abs(sketch.ranks[edge[1]] - sketch.ranks[level.values[edge[0]][0]])
        for edge in level.edges
    }
    long_edges = {edge for edge, span in spans.items() if span > _LONG}
    if len(long_edges) <= _MOST_LONG_EDGES:
        long_edges = set()
    named += sorted(edge for edge in long_edges if level.items[edge[1]].kind != "out")
    return LevelDrawing(
        kinds="".join(item.kind[0] for item in level.items),
        widths=tuple(sketch.widths),
        ranks=tuple(sketch.ranks),
        places=tuple(sketch.places),
        producers=tuple(producer for producer, _ in level.values),
        edges=tuple(
            (*edge, *sketch.crossings.get(edge, ())) for edge in level.edges if edge not in named
        ),
        named=tuple(index for edge in named for index in edge),
    )
