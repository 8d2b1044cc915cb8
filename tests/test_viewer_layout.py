"""Clusters of a graph, what is drawn in each, and their layouts with and without graphviz."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.comparable import Graph, NodeBody, OperatorNode
from reportgen.errors import ReportgenError
from reportgen.viewer.clusters import Cluster, ClusterNode, cluster_tree, nodes_of
from reportgen.viewer.constants import constant_nodes
from reportgen.viewer.drawn import drawn_graph, focused
from reportgen.viewer.layout import GraphLayout, graph_layouts
from reportgen.viewer.levels import levels_of


def _graph(modules: Iterable[str], edges: Iterable[tuple[int, int]]) -> Graph:
    nodes = tuple(
        OperatorNode(id=f"{module}/Add#{n}", operator="Add", kind="operation", module=module)
        for n, module in enumerate(modules)
    )
    return Graph(name="onnx", nodes=nodes, edges=tuple(sorted(set(edges))))


def _chain(modules: list[str]) -> Graph:
    return _graph(modules, [(n, n + 1) for n in range(len(modules) - 1)])


def _tree(graph: Graph) -> Cluster:
    return cluster_tree(graph, range(len(graph.nodes)))


def _shape(member: Cluster | ClusterNode) -> object:
    """Nested names and indexes."""
    if isinstance(member, ClusterNode):
        return member.index
    return {member.id: [_shape(child) for child in member.children]}


def test_clusters_nest_as_modules_do_and_single_children_are_unwrapped() -> None:
    tree = _tree(_chain(["stem", "body.0.a", "body.0.b", "body.1.a", "body.1.b", "head.out"]))
    assert _shape(tree) == {"": [0, {"body": [{"body.0": [1, 2]}, {"body.1": [3, 4]}]}, 5]}
    last = tree.children[-1]
    assert isinstance(last, ClusterNode)
    assert last.name == "head.out"


def test_a_module_that_runs_again_after_others_is_a_second_cluster() -> None:
    tree = _tree(_chain(["cell.a", "cell.b", "other.a", "other.b", "cell.a", "cell.b"]))
    assert _shape(tree) == {"": [{"cell": [0, 1]}, {"other": [2, 3]}, {"cell#2": [4, 5]}]}


def test_constants_stand_before_their_first_reader() -> None:
    graph = _graph([""] * 6, [(0, 1), (1, 4), (2, 3), (3, 4), (4, 5)])
    nodes = list(graph.nodes)
    nodes[2] = OperatorNode(id="input/x", operator="input", kind="input")
    graph = Graph(name="onnx", nodes=tuple(nodes), edges=graph.edges)
    assert constant_nodes(graph) == {0, 1}  # as where a file scales its stored weights first
    assert _shape(_tree(graph)) == {"": [2, 3, 0, 1, 4, 5]}


def test_a_long_chain_is_cut_where_the_fewest_edges_cross() -> None:
    skips = [(n, n + 3) for n in range(240) if (n + 3) // 30 == n // 30]
    graph = _graph([""] * 240, [*((n, n + 1) for n in range(239)), *skips])
    starts = {min(nodes_of(part)) for part in _tree(graph).children}
    assert starts <= set(range(0, 240, 30))
    assert len(starts) >= 3


def test_a_value_with_many_readers_is_named_at_all_but_the_first() -> None:
    graph = _graph([""] * 12, [(0, n) for n in range(1, 12)])
    (level,) = levels_of(graph, _tree(graph))
    assert level.edges == [(0, 1)]
    assert level.named == [(0, n) for n in range(2, 12)]


def test_a_skip_connection_enters_a_block_once_and_leaves_it_once() -> None:
    graph = _graph(["", "block.a", "block.b", ""], [(0, 1), (1, 2), (0, 2), (2, 3)])
    root, block = levels_of(graph, _tree(graph))
    assert [item.kind for item in block.items] == ["node", "node", "in", "out"]
    carried = sorted((block.values[value][1], reader) for value, reader in block.edges)
    assert carried == [(0, 0), (0, 1), (1, 1), (2, 3)]
    assert len(root.edges) == 2


_PATHS = st.lists(st.sampled_from(["", "a", "a.b", "a.b.c", "a.d", "e", "e.f", "e.g"]), max_size=30)


@given(_PATHS, st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=60))
def test_the_levels_have_every_edge_and_no_other(
    modules: list[str], pairs: list[tuple[int, int]]
) -> None:
    edges = {(min(p), max(p)) for p in pairs if p[0] != p[1] and max(p) < len(modules)}
    graph = _graph(modules, edges)
    levels = levels_of(graph, _tree(graph))
    found: set[tuple[int, int]] = set()
    for level in levels:
        for value, reader in (*level.edges, *level.named):
            item, source = level.items[reader], level.values[value][1]
            if item.kind == "node":
                found.add((source, item.key))
            elif item.kind == "cluster":  # where it enters
                assert any(i.kind == "in" and i.key == source for i in levels[item.key].items)
    assert found == edges
    nodes = [item.key for level in levels for item in level.items if item.kind == "node"]
    assert sorted(nodes) == list(range(len(modules)))


def test_shape_arithmetic_and_constants_are_hidden_and_random_values_are_not() -> None:
    def node(operator: str, kind: str = "operation", **more: object) -> OperatorNode:
        return OperatorNode(id=f"/{operator}", operator=operator, kind=kind, **more)  # type: ignore[arg-type]

    body = NodeBody(owner=-1, name="function F")
    middle = (node(name) for name in ("Reshape", "RandomNormal", "Add"))
    starts = (node("input", "input"), node("Shape"), node("Gather"), node("Constant", "constant"))
    nodes = (*starts, *middle, node("Relu", body=body))
    edges = ((0, 1), (1, 2), (0, 4), (2, 4), (3, 6), (4, 6), (5, 6))
    graph = Graph(name="onnx", nodes=nodes, edges=tuple(sorted(edges)))
    assert constant_nodes(graph) == {1, 2, 3}
    hidden, complete = graph_layouts(graph)
    assert (hidden.complete, complete.complete) == (False, True)
    assert len(hidden.clusters[0].children) < len(complete.clusters[0].children)


def _check(layout: GraphLayout) -> None:
    """Each edge goes on by ranks, with a place in every rank between."""
    for cluster in layout.clusters:
        drawing = layout.drawings[cluster.drawing]
        assert len(drawing.kinds) == len(drawing.ranks) == len(drawing.places)
        assert len(drawing.producers) == len(cluster.sources)
        for value, reader, *crossings in drawing.edges:
            span = drawing.ranks[reader] - drawing.ranks[drawing.producers[value]]
            assert len(crossings) == max(0, abs(span) - 1)


def test_equal_blocks_share_a_layout() -> None:
    parts = ["q", "k", "v", "out"]
    graph = _chain([f"layers.{n}.{part}" for n in range(20) for part in parts])
    (layout,) = graph_layouts(graph)
    assert layout.engine == "dot"
    assert len(layout.clusters) == 22  # the graph, the list of layers, 20 of them
    assert len(layout.drawings) == 5  # the first and the last layer have one port less
    _check(layout)


def test_without_graphviz_boxes_stand_in_execution_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    graph = _graph(["", "a.x", "a.y", ""], [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3)])
    (layout,) = graph_layouts(graph)
    assert layout.engine == "graphviz is not installed, so boxes stand in execution order"
    assert layout.drawings[0].ranks == (0, 1, 2)
    _check(layout)


def test_a_layout_out_of_time_stands_in_execution_order() -> None:
    (layout,) = graph_layouts(_chain([""] * 30), seconds=0.0)
    assert layout.engine.startswith("graphviz did not finish 1 of 1 layouts in time")
    _check(layout)


def test_a_picture_closes_what_is_below_its_depth() -> None:
    graph = _chain(["stem", "body.0.a", "body.0.b", "body.1.a", "body.1.b"])
    sizes = [drawn_graph(graph, {}, depth=depth).size for depth in range(3)]
    assert sizes == [2, 3, 5]
    assert drawn_graph(graph, {}).size == 5
    for depth in range(3):
        drawn = drawn_graph(graph, {}, depth=depth)
        boxes = {node.key for node in drawn.root.nodes()}
        assert {key for edge in drawn.edges for key in edge} == boxes  # a chain


def test_a_focus_keeps_a_module_and_what_it_touches() -> None:
    graph = _chain(["stem", "body.0.a", "body.0.b", "body.1.a", "body.1.b"])
    part = focused(graph, "body.0")
    assert [node.kind for node in part.nodes] == ["input", "operation", "operation", "output"]
    assert part.edges == ((0, 1), (1, 2), (2, 3))
    with pytest.raises(ReportgenError, match=r"no node of the onnx graph belongs to .body\.7."):
        focused(graph, "body.7")
