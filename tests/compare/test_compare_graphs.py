"""Graphs of real small models: an edit names exactly its nodes, nothing else is named."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_study
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet18

from reportgen.comparable import Comparable, Graph, OperatorNode
from reportgen.compare.alignment import align_nodes
from reportgen.compare.graphs import diff_graph
from reportgen.compare.merged_view import merged_views
from reportgen.compare.modules import diff_modules
from reportgen.compare.result import GraphDiff, ModulesDiff, NodeChange
from reportgen.sections.graphs.complete.autograd import complete_autograd_graph
from reportgen.sections.graphs.complete.modules import complete_module_graph
from reportgen.sections.graphs.complete.onnx import complete_onnx_graph
from reportgen.sections.graphs.trace import trace_forward
from reportgen.sections.layers.records import module_records


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(width, width, 3, padding=1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x)) + x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8), Block(8))
        self.head = nn.Linear(8, 5)
        self.softmax_dim, self.head_name = 1, "head"

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return functional.softmax(getattr(self, self.head_name)(pooled), dim=self.softmax_dim)


Edit = Callable[[Any], object]


def edited(edit: Edit) -> Net:
    model = Net()
    edit(model)
    return model


def module_graph(model: nn.Module, batch: int = 2) -> Graph:
    return complete_module_graph(trace_forward(model.eval(), (torch.ones(batch, 3, 8, 8),), {}))


def modules_between(old: nn.Module, new: nn.Module) -> ModulesDiff:
    return diff_modules(module_records(old), module_records(new))


def diff_of(old: nn.Module, new: nn.Module) -> GraphDiff:
    return diff_graph(module_graph(old), module_graph(new), modules_between(old, new))


def rows(diff: GraphDiff) -> list[tuple[str, ...]]:
    return [(c.new or f"-{c.old}", c.field, c.before, c.after) for c in diff.nodes]


def set_stride(net: Any) -> None:
    net.blocks[1].conv.stride = (2, 2)
    net.blocks[1].forward = lambda x: net.blocks[1].relu(net.blocks[1].conv(x))


def insert_dropout(net: Any) -> None:
    net.blocks.insert(1, nn.Dropout(0.1))


def widen_head(net: Any) -> None:
    net.head = nn.Linear(8, 7)


def rename_head(net: Any) -> None:
    net.head_name = "tail"
    net.add_module("tail", net._modules.pop("head"))


EDITS: dict[str, tuple[Edit, list[tuple[str, ...]]]] = {
    "dropout inserted": (insert_dropout, [("blocks.1", "", "", "")]),
    "block removed": (
        lambda net: net.blocks.pop(2),
        [
            ("-blocks.2.conv", "", "", ""), ("-blocks.2.relu", "", "", ""),
            ("-blocks.2/add", "", "", ""),
        ],
    ),
    "activation type": (
        lambda net: setattr(net.blocks[1], "relu", nn.GELU()),
        [("blocks.1.relu", "type", "ReLU", "GELU")],
    ),
    "head size": (widen_head, [
        ("head", "out_features", "5", "7"), ("head", "shape", "2×5", "2×7"),
    ]),
    "argument of a function": (
        lambda net: setattr(net, "softmax_dim", 0), [("/softmax", "dim", "1", "0")],
    ),
    "module renamed": (rename_head, []),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_names_exactly_its_nodes(name: str) -> None:
    edit, expected = EDITS[name]
    assert rows(diff_of(Net(), edited(edit))) == expected


def test_a_stride_is_named_and_the_shapes_after_it_are_counted() -> None:
    diff = diff_of(Net(), edited(set_stride))
    assert rows(diff) == [
        ("blocks.1.conv", "stride", "[1, 1]", "[2, 2]"),
        ("blocks.1.conv", "shape", "2×8×8×8", "2×8×4×4"),
        ("-blocks.1/add", "", "", ""),
    ]
    # relu, and the three nodes of the last block; mean has no spatial size any more
    assert [change.follows for change in diff.nodes] == [4, 0, 0]


def test_another_batch_size_is_said_once() -> None:
    model = Net()
    diff = diff_graph(module_graph(model), module_graph(model, 4), modules_between(model, model))
    assert rows(diff) == [("input/input0", "shape", "2×3×8×8", "4×3×8×8")]
    assert diff.nodes[0].follows == len(module_graph(model).nodes) - 1


def test_operators_and_opsets_are_counted() -> None:
    old, new = module_graph(Net()), module_graph(edited(insert_dropout))
    diff = diff_graph(
        replace(old, attributes={"opset": 18}), replace(new, attributes={"opset": 20}),
        modules_between(Net(), edited(insert_dropout)),
    )  # fmt: skip
    assert [(o.name, o.old, o.new) for o in diff.operators] == [("Dropout", 0, 1)]
    assert [(a.field, a.old, a.new) for a in diff.attributes] == [("opset", 18, 20)]


def mirrored(change: NodeChange) -> NodeChange:
    return replace(
        change, old=change.new, new=change.old, before=change.after, after=change.before,
        module="", operator="", follows=0,
    )  # fmt: skip


def as_set(changes: Any) -> set[NodeChange]:
    return {replace(change, module="", operator="", follows=0) for change in changes}


@pytest.mark.parametrize("edit", [set_stride, insert_dropout, widen_head, rename_head])
def test_a_diff_mirrors(edit: Edit) -> None:
    there, back = diff_of(Net(), edited(edit)), diff_of(edited(edit), Net())
    assert {mirrored(change) for change in there.nodes} == as_set(back.nodes)
    assert {(p.old, p.new) for p in there.pairs} == {(p.new, p.old) for p in back.pairs}
    assert [(o.name, o.new, o.old) for o in there.operators] == [
        (o.name, o.old, o.new) for o in back.operators
    ]


def test_equal_graphs_differ_in_nothing_and_every_node_has_its_pair() -> None:
    model = resnet18(weights=None)
    trace = trace_forward(model.eval(), (torch.ones(1, 3, 32, 32),), {})
    none = modules_between(model, model)
    for graph in (complete_module_graph(trace), complete_autograd_graph(trace)):
        diff = diff_graph(graph, graph, none)
        assert (diff.nodes, diff.operators, diff.attributes) == ((), (), ())
        assert [pair.old for pair in diff.pairs] == [node.id for node in graph.nodes]


@cache
def exported(folder: Path, name: str) -> Graph:
    edit = {"old": lambda net: None, "stride": set_stride, "dropout": insert_dropout,
            "head": widen_head, "gelu": EDITS["activation type"][0]}[name]  # fmt: skip
    context = make_study(edited(edit), "x=batch,3,8,8", folder=folder / name)
    return complete_onnx_graph(context.onnx_proto(context.onnx_file().path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "edit", "expected"),
    [
        ("dropout", insert_dropout, []),  # nothing in evaluation mode, and no index shift
        ("stride", set_stride, [
            ("blocks.1.conv/Conv", "strides", "[1, 1]", "[2, 2]"),
            ("blocks.1.conv/Conv", "shape", "batch×8×8×8", "batch×8×4×4"),
            ("-blocks.1/Add", "", "", ""),
        ]),
        ("head", widen_head, [
            ("head/Gemm", "input 1", "float32 5×8", "float32 7×8"),
            ("head/Gemm", "input 2", "float32 5", "float32 7"),
            ("head/Gemm", "shape", "batch×5", "batch×7"),
        ]),
    ],
)  # fmt: skip
def test_an_edit_names_exactly_its_onnx_nodes(
    name: str, edit: Edit, expected: list[tuple[str, ...]], folder: Path
) -> None:
    modules = modules_between(Net(), edited(edit))
    diff = diff_graph(exported(folder, "old"), exported(folder, name), modules)
    assert rows(diff) == expected


@pytest.mark.slow
def test_another_activation_is_other_onnx_nodes(folder: Path) -> None:
    modules = modules_between(Net(), edited(EDITS["activation type"][0]))
    diff = diff_graph(exported(folder, "old"), exported(folder, "gelu"), modules)
    assert {change.module for change in diff.nodes} == {"blocks.1.relu"}
    assert [change.old for change in diff.nodes if change.new is None] == ["blocks.1.relu/Relu"]
    counts = {operator.name: (operator.old, operator.new) for operator in diff.operators}
    assert counts["Relu"] == (3, 2)


OPERATORS = st.lists(st.sampled_from("abc"), max_size=12)


def nodes_of(operators: list[str]) -> list[OperatorNode]:
    return [
        OperatorNode(id=f"/{name}#{place}", operator=name, kind="operation")
        for place, name in enumerate(operators)
    ]


def longest_common(a: list[str], b: list[str]) -> int:
    """The length of the longest common subsequence, by recursion from its definition."""

    @cache
    def length(i: int, j: int) -> int:
        if i == len(a) or j == len(b):
            return 0
        if a[i] == b[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    return length(0, 0)


@given(OPERATORS, OPERATORS)
def test_an_alignment_is_in_order_as_long_as_possible_and_mirrors(
    a: list[str], b: list[str]
) -> None:
    pairs = align_nodes(nodes_of(a), nodes_of(b))
    assert all(a[i] == b[j] for i, j in pairs)
    assert all(i < k and j < m for (i, j), (k, m) in pairwise(pairs))
    assert len(pairs) == longest_common(a, b)
    assert align_nodes(nodes_of(b), nodes_of(a)) == [(j, i) for i, j in pairs]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).chunk(3, -1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x)
        return self.proj(functional.softmax(q @ k.mT, -1) @ v)


class SplitAttention(Attention):
    def __init__(self) -> None:
        super().__init__()
        del self.qkv
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.q(x), self.k(x), self.v(x)


def test_a_merged_view_has_splits_and_marks_no_function_of_a_changed_class() -> None:
    old, new = Attention(), SplitAttention()
    modules = modules_between(old, new)
    graphs = [complete_module_graph(trace_forward(m, (torch.ones(2, 4, 8),), {}))
              for m in (old, new)]  # fmt: skip
    sides = [Comparable(modules=module_records(m), graphs=(graph,))
             for m, graph in zip((old, new), graphs, strict=True)]  # fmt: skip
    (view,) = merged_views(*sides, modules, (diff_graph(*graphs, modules),))
    nodes = zip(view.graph.nodes, view.marks, view.notes, strict=True)
    assert {node.id: (mark, notes) for node, mark, notes in nodes if mark} == {
        "qkv": ("removed", ("split into q, k, v",)),
        "removed /chunk": ("removed", ()),
        **dict.fromkeys("qkv", ("added", ("part of qkv",))),
    }
    assert {each.path: each.type for each in view.modules if each.path in ("", "qkv", "q")} == {
        "": "SplitAttention", "qkv": "Linear", "q": "Linear",
    }  # fmt: skip


def chain(length: int, width: int) -> Graph:
    """A file without modules in which every shape depends on `width`."""
    nodes = tuple(
        OperatorNode(
            id=f"/{i}", operator=f"Op{i * 7 % 11}", kind="operation", attributes={"axis": i % 5},
            outputs=(f"batch×{i + width}",),
        )
        for i in range(length)
    )  # fmt: skip
    return Graph(name="onnx", nodes=nodes, edges=tuple(pairwise(range(length))))


def test_a_large_file_without_modules_is_compared_in_time() -> None:
    start = time.process_time()
    diff = diff_graph(chain(3000, 0), chain(3000, 1), ModulesDiff())
    assert len(diff.pairs) == 3000
    assert rows(diff) == [("/0", "shape", "batch×0", "batch×1")]
    assert diff.nodes[0].follows == 2999
    assert time.process_time() - start < 2  # 0.2 s on two busy cores
