"""Collapsing: smaller graphs that keep every path, on graphs made at random."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from reportgen.drawing.collapse import (
    in_runs,
    opened_within,
    readable,
    unwrapped,
    with_ports,
    without_minor,
)
from reportgen.drawing.fold_repeats import folded
from reportgen.drawing.graph import (
    DrawnGraph,
    Edge,
    GraphGroup,
    GraphNode,
    make_graph,
    reachable,
)

PATTERNS = ("chain", "residual", "dense", "parallel")


def make_node(key: int, title: str = "op", **fields: object) -> GraphNode:
    return GraphNode(key=key, kind="operation", title=title, **fields)  # type: ignore[arg-type]


@st.composite
def graphs(draw: st.DrawFn) -> DrawnGraph:
    """Acyclic graphs in nested groups: order of keys is order of running, as in a trace."""
    count = draw(st.integers(2, 24))
    names = draw(st.lists(st.sampled_from("ab"), min_size=count, max_size=count))
    minor = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    nodes = [make_node(k, n, minor=m) for k, (n, m) in enumerate(zip(names, minor, strict=True), 1)]
    pairs = st.tuples(st.integers(1, count), st.integers(1, count))
    edges = {(min(p), max(p)) for p in draw(st.lists(pairs, max_size=40)) if p[0] != p[1]}
    members: list[GraphNode | GraphGroup] = list(nodes)
    key = count + 1
    for _ in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, len(members) - 1))
        stop = draw(st.integers(start + 1, len(members)))
        members[start:stop] = [GraphGroup(key=key, title="G", members=tuple(members[start:stop]))]
        key += 1
    return make_graph(GraphGroup(key=0, title="root", members=tuple(members)), edges)


def repeated(pattern: str, copies: int) -> DrawnGraph:
    """`copies` blocks `in, mid, out` behind one another in one of the ways models use."""
    blocks, edges = [], set()
    for i in range(copies):
        first = 2 + 3 * i
        edges |= {(first, first + 1), (first + 1, first + 2)}
        edges.add((1, first) if i == 0 or pattern == "parallel" else (first - 1, first))
        if pattern == "residual":
            edges.add((first, first + 2))
        if pattern == "dense":
            edges |= {(2 + 3 * j + 2, first) for j in range(i)}
        inside = tuple(make_node(first + n, t) for n, t in enumerate(("in", "mid", "out")))
        blocks.append(GraphGroup(key=1000 + i, title="Block", name=str(i), members=inside))
    end = make_node(2 + 3 * copies, "end")
    edges |= {(2 + 3 * i + 2, end.key) for i in range(copies) if pattern == "parallel"}
    edges.add((end.key - 1, end.key))
    root = GraphGroup(key=0, title="root", members=(make_node(1, "start"), *blocks, end))
    return make_graph(root, edges)


def keeps_every_path(before: DrawnGraph, after: DrawnGraph) -> bool:
    """Whether what reached what still does, wherever both ends are still drawn."""
    both = after.edges | after.loops
    for start in before.home:
        if start not in after.home:
            continue
        then = reachable(before.edges | before.loops, {start}) & set(after.home)
        now = reachable(both, {after.home[start]})
        if not {after.home[each] for each in then} <= now:
            return False
    return True


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_every_step_keeps_every_path(graph: DrawnGraph) -> None:
    for smaller in (
        without_minor(graph),
        unwrapped(graph),
        folded(graph, loose=False),
        folded(graph, loose=True),
        opened_within(graph, 5),
        readable(graph, 4),
    ):
        assert keeps_every_path(graph, smaller)
        assert smaller.size <= graph.size


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_no_edge_leads_to_a_box_that_is_not_drawn(graph: DrawnGraph) -> None:
    smaller = readable(graph, 4)
    drawn = {node.key for node in smaller.root.nodes()}
    assert {key for edge in smaller.edges | smaller.loops for key in edge} <= drawn
    assert set(smaller.home.values()) <= drawn


def test_a_graph_within_its_budget_is_left_alone() -> None:
    graph = repeated("chain", 3)
    assert readable(graph, 100).size == graph.size


def test_runs_become_one_block_whatever_joins_them() -> None:
    for pattern in PATTERNS:
        graph = folded(repeated(pattern, 7), loose=False)
        (block,) = graph.root.groups()
        assert (block.repeat, graph.size) == (7, 5), pattern
        assert block.parallel == (pattern == "parallel")
        assert block.name == "0 … 6"
        assert keeps_every_path(repeated(pattern, 7), graph)
        assert bool(graph.loops) != (pattern == "parallel")


def test_two_members_that_only_run_after_one_another_are_no_block() -> None:
    nodes = [make_node(k, "ab"[k % 2]) for k in range(2, 10)]
    edges = {(1, n.key) for n in nodes}
    members = (make_node(1, "start"), *nodes)
    root = GraphGroup(key=0, title="root", members=members)
    assert folded(make_graph(root, edges), loose=True).size == 9


def test_a_second_block_with_one_more_input_is_not_the_same_block() -> None:
    """Self-attention and cross-attention are built of the same parts and are not `× 2`."""
    parts = ("attention", "add", "norm") * 2
    nodes = [make_node(k, title) for k, title in enumerate(parts, start=3)]
    chain: set[Edge] = {(k, k + 1) for k in range(3, 8)} | {(1, 3), (2, 6)}
    root = GraphGroup(
        key=0, title="root", members=(make_node(1, "x"), make_node(2, "memory"), *nodes)
    )
    assert folded(make_graph(root, chain), loose=True).size == 8


def test_groups_of_other_sizes_fold_only_when_that_is_asked_for() -> None:
    graph = repeated("chain", 3)
    first = next(graph.root.groups())
    other = replace(first, parameters=7)
    root = replace(
        graph.root, members=tuple(other if m is first else m for m in graph.root.members)
    )
    graph = replace(graph, root=root)
    assert folded(graph, loose=True).size == 5
    assert folded(graph, loose=False).size == 8
    (block,) = folded(graph, loose=True).root.groups()
    assert block.varies


def test_each_kind_of_block_is_open_once_and_the_others_say_where_to_look() -> None:
    def block(first: int, path: str) -> GraphGroup:
        inside = tuple(make_node(first + n) for n in range(6))
        return GraphGroup(key=1000 + first, title="Block", path=path, members=inside)

    between = [make_node(100 + i, f"other {i}") for i in range(3)]
    blocks = [block(10, "one"), block(20, "two"), block(30, "three")]
    members = [each for pair in zip(blocks, between, strict=True) for each in pair]
    graph = opened_within(
        make_graph(GraphGroup(key=0, title="m", members=tuple(members)), set()), 12
    )
    assert [g.path for g in graph.root.groups()] == ["one"]
    closed = [n for n in graph.root.nodes() if n.title == "Block"]
    assert all("inside as one" in n.lines for n in closed)
    assert len(closed) == 2


def test_many_long_edges_become_numbered_ports() -> None:
    chain: set[Edge] = {(k, k + 1) for k in range(1, 60)}
    skips: set[Edge] = {(k, k + 30) for k in range(1, 20)}
    nodes = tuple(make_node(k) for k in range(1, 61))
    graph = make_graph(GraphGroup(key=0, title="m", members=nodes), chain | skips)
    cut = with_ports(graph)
    assert sum(n.kind == "port" for n in cut.root.nodes()) == 2 * len(skips)
    assert chain <= cut.edges
    assert not skips & cut.edges
    few = make_graph(graph.root, chain | {(1, 40)})
    assert with_ports(few) is few


@given(graphs(), st.integers(2, 20))
@settings(deadline=None, max_examples=60)
def test_runs_of_neighbors_hold_every_node_and_keep_the_order(
    graph: DrawnGraph, budget: int
) -> None:
    small = in_runs(graph, budget)
    assert small.size <= budget
    assert sum(node.holds for node in small.root.nodes()) == graph.size
    assert all(a < b for a, b in small.edges)  # a later run feeds no earlier one
    for a, b in graph.edges:
        assert small.home[a] == small.home[b] or (small.home[a], small.home[b]) in small.edges


def test_inputs_and_outputs_stay_beside_runs() -> None:
    chain = [make_node(key, "Conv" if key % 2 else "Relu") for key in range(2, 12)]
    ends = [replace(make_node(1), kind="input"), replace(make_node(12), kind="output")]
    graph = make_graph(
        GraphGroup(key=0, title="root", members=(ends[0], *chain, ends[1])),
        {(n, n + 1) for n in range(1, 12)},
    )
    small = list(in_runs(graph, 4).root.nodes())
    assert [node.kind for node in small] == ["input", "operation", "operation", "output"]
    assert small[1].title == "5 operations"
    assert small[1].lines == ("3 Relu", "2 Conv")
