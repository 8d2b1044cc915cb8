"""The nodes of ONNX files: shapes and multiply-adds against closed forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from reportgen.onnx.model import read_nodes, symbol_sizes
from reportgen.onnx.model.shapes import evaluate
from reportgen.sections.layers.onnx_layers import is_parameter


def written(
    folder: Path,
    nodes: list[Any],
    inputs: dict[str, list[Any]],
    weights: dict[str, tuple[int, ...]] | None = None,
    outputs: tuple[str, ...] = ("y",),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, dims) for n, dims in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [
            numpy_helper.from_array(np.ones(shape, np.float32), name)
            for name, shape in (weights or {}).items()
        ],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets), path)
    return path


def declare_output(path: Path, shape: list[int]) -> None:
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    onnx.save(model, path)


CASES: dict[str, tuple[Any, dict[str, list[Any]], dict[str, tuple[int, ...]], int]] = {
    "grouped convolution": (
        helper.make_node("Conv", ["x", "w"], ["y"], group=2, pads=[1, 1, 1, 1]),
        {"x": ["batch", 4, 8, 8]}, {"w": (6, 2, 3, 3)}, 2 * 6 * 64 * 2 * 9,
    ),
    "strided convolution": (
        helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2]),
        {"x": ["batch", 3, 9, 9]}, {"w": (5, 3, 3, 3)}, 2 * 5 * 16 * 27,
    ),
    "transposed convolution": (
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
        {"x": ["batch", 4, 5, 5]}, {"w": (4, 6, 3, 3)}, 2 * 4 * 25 * 6 * 9,
    ),
    "product of a batch of matrices": (
        helper.make_node("MatMul", ["x", "z"], ["y"]),
        {"x": ["batch", 7, 5], "z": ["batch", 5, 3]}, {}, 2 * 7 * 5 * 3,
    ),
    "product with a vector": (
        helper.make_node("MatMul", ["x", "w"], ["y"]), {"x": ["batch", 5]}, {"w": (5,)}, 2 * 5,
    ),
    "transposed gemm": (
        helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1),
        {"x": ["batch", 5]}, {"w": (3, 5), "b": (3,)}, 2 * 5 * 3,
    ),
    "gemm with a transposed left side": (
        helper.make_node("Gemm", ["x", "w"], ["y"], transA=1),
        {"x": [5, "batch"]}, {"w": (5, 3)}, 2 * 5 * 3,
    ),
    "einsum": (
        helper.make_node("Einsum", ["x", "z"], ["y"], equation="bij, bkj -> bik"),
        {"x": ["batch", 7, 5], "z": ["batch", 3, 5]}, {}, 2 * 7 * 5 * 3,
    ),
    "einsum over an ellipsis": (
        helper.make_node("Einsum", ["x", "w"], ["y"], equation="...i,ij->...j"),
        {"x": ["batch", 7, 5]}, {"w": (5, 3)}, 2 * 7 * 5 * 3,
    ),
    "lstm in two directions": (
        helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4, direction="bidirectional"),
        {"x": [6, "batch", 3]}, {"w": (2, 16, 3), "r": (2, 16, 4)}, 6 * 2 * 2 * 4 * 4 * (3 + 4),
    ),
    "attention": (
        helper.make_node("Attention", ["x", "z", "v"], ["y"]),
        {"x": ["batch", 2, 7, 8], "z": ["batch", 2, 5, 8], "v": ["batch", 2, 5, 6]}, {},
        2 * 2 * 7 * 5 * (8 + 6),
    ),
    "attention fused with its projection": (
        helper.make_node("Attention", ["x", "w", "b"], ["y"], num_heads=2, domain="com.microsoft"),
        {"x": ["batch", 7, 8]}, {"w": (8, 24), "b": (24,)}, 2 * (7 * 8 * 24 + 7 * 7 * 16),
    ),
    "multi-head attention": (
        helper.make_node(
            "MultiHeadAttention", ["x", "k", "v"], ["y"], num_heads=2, domain="com.microsoft"
        ),
        {"x": ["batch", 7, 8], "k": ["batch", 5, 8], "v": ["batch", 5, 6]}, {},
        2 * 7 * 5 * (8 + 6),
    ),
    "multi-head attention with packed keys and values": (
        helper.make_node(
            "MultiHeadAttention", ["x", "k"], ["y"], num_heads=2, domain="com.microsoft"
        ),
        {"x": ["batch", 7, 8], "k": ["batch", 5, 2, 2, 4]}, {}, 2 * 7 * 5 * (8 + 8),
    ),
    "a mixture of experts": (
        helper.make_node(
            "MoE", ["x", "r", "w", "", "z"], ["y"], k=2, domain="com.microsoft"
        ),
        {"x": ["batch", 3, 8], "r": [6, 4]}, {"w": (4, 8, 16), "z": (4, 16, 8)},
        2 * 3 * 2 * (8 * 16 + 16 * 8),
    ),
    "a fused norm is free": (
        helper.make_node("SkipLayerNormalization", ["x", "z", "g"], ["y"], domain="com.microsoft"),
        {"x": ["batch", 7, 8], "z": ["batch", 7, 8]}, {"g": (8,)}, 0,
    ),
    "a fused activation is free": (
        helper.make_node("BiasGelu", ["x", "g"], ["y"], domain="com.microsoft"),
        {"x": ["batch", 8]}, {"g": (8,)}, 0,
    ),
    "look-ups are free": (
        helper.make_node("Relu", ["x"], ["y"]), {"x": ["batch", 5]}, {}, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_macs_are_those_of_the_closed_form(tmp_path: Path, case: str) -> None:
    node, inputs, weights, macs = CASES[case]
    path = written(tmp_path, [node], inputs, weights)
    if node.domain:  # shape inference knows the standard operators only
        declare_output(path, [2, 7, 8])
    found = read_nodes(path, {"batch": 2})
    assert found.macs == macs
    assert found.uncounted == {}
    assert sum(weight.elements for weight in found.weights.values()) == sum(
        int(np.prod(shape)) for shape in weights.values()
    )


def test_a_shape_that_inference_cannot_know_is_found_by_running(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["shape"], ["s"]),
        helper.make_node("Cast", ["s"], ["t"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["x", "t"], ["z"]),
        helper.make_node("MatMul", ["z", "w"], ["y"]),
    ]
    path = written(tmp_path, nodes, {"x": [12], "shape": [2]}, {"w": (4, 5)})
    unknown = read_nodes(path, {})
    assert unknown.uncounted == {"MatMul": "a required shape is unknown"}
    feed = {"x": np.ones(12, np.float32), "shape": np.array([3, 4], np.float32)}
    assert read_nodes(path, {}, lambda: feed).macs == 3 * 4 * 5


def test_a_node_outside_the_standard_domain_is_uncounted_not_free(tmp_path: Path) -> None:
    node = helper.make_node("Mystery", ["x"], ["y"], domain="com.microsoft")
    found = read_nodes(written(tmp_path, [node], {"x": [3]}), {})
    assert found.nodes[0].macs is None
    assert found.uncounted == {"com.microsoft.Mystery": "not in the standard ONNX domain"}


def product_in_a_loop(trips: str, **constants: Any) -> Any:
    """A Loop of one product of 3×3 matrices; `on` says whether it goes on after each turn."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "w"], ["b"]),
            helper.make_node("Identity", [constants.get("on", "go")], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["batch", 3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, ["batch", 3]),
        ],
    )
    return helper.make_node("Loop", [trips, "", "x"], ["y"], body=body)


def constant(name: str, value: Any) -> Any:
    tensor = numpy_helper.from_array(np.array(value), name)
    return helper.make_node("Constant", [], [name], value=tensor)


@pytest.mark.parametrize("loop", [product_in_a_loop(""), product_in_a_loop("five", on="stop")])
def test_products_in_a_loop_of_unknown_length_are_uncounted_and_their_weights_used(
    loop: Any, tmp_path: Path
) -> None:
    nodes = [constant("five", 5), constant("stop", value=False), loop]
    path = written(tmp_path, nodes, {"x": ["batch", 3]}, {"w": (3, 3)})
    found = read_nodes(path, {"batch": 3})
    assert "loop trip count of MatMul is unknown" in found.uncounted["Loop"]
    assert "w" in found.nodes[0].weights


def test_a_loop_whose_length_is_stored_counts_every_turn(tmp_path: Path) -> None:
    nodes = [constant("five", 5), product_in_a_loop("five")]
    found = read_nodes(written(tmp_path, nodes, {"x": ["batch", 3]}, {"w": (3, 3)}), {"batch": 2})
    assert (found.macs, found.uncounted) == (5 * 2 * 3 * 3, {})


def test_a_scan_counts_every_step_of_what_it_reads(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"]),
            helper.make_node("Add", ["next", "step"], ["out"]),
        ],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in ("state", "step")],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3]) for n in ("next", "out")],
    )
    scan = helper.make_node("Scan", ["h", "x"], ["last", "y"], num_scan_inputs=1, body=body)
    inputs = {"h": [2, 3], "x": ["time", 2, 3]}
    found = read_nodes(written(tmp_path, [scan], inputs, {"w": (3, 3)}), {"time": 7})
    assert found.macs == 7 * 2 * 3 * 3


def graph_of(*nodes: Any, inputs: tuple[Any, ...] = (), outputs: tuple[Any, ...] = ()) -> Any:
    """A graph within a node; its result is that of the last node unless `outputs` says more."""
    last = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), "inner", list(inputs), list(outputs) or [last])


def product_or_two(condition: str, tag: str = "") -> Any:
    """An If: one product of 4 and 5, or one of 4 and 4 before it; x is [batch, 4]."""
    once = graph_of(helper.make_node("MatMul", ["x", "v"], ["a"]))
    twice = graph_of(
        helper.make_node("MatMul", ["x", "w"], [f"b{tag}"]),
        helper.make_node("MatMul", [f"b{tag}", "v"], ["c"]),
    )
    return helper.make_node("If", [condition], [f"y{tag}"], then_branch=once, else_branch=twice)


def file_with_a_branch(folder: Path) -> Path:
    test = [helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0)]
    test += [constant("zero", np.float32(0)), helper.make_node("Greater", ["sum", "zero"], ["on"])]
    weights = {"v": (4, 5), "w": (4, 4)}
    return written(folder, [*test, product_or_two("on")], {"x": ["batch", 4]}, weights)


@pytest.mark.parametrize(("sign", "macs"), [(1, 2 * 4 * 5), (-1, 2 * (4 * 4 + 4 * 5))])
def test_of_an_if_the_branch_that_ran_counts_and_all_weights_are_used(
    tmp_path: Path, sign: int, macs: int
) -> None:
    feed = {"x": np.full((2, 4), sign, np.float32)}
    found = read_nodes(file_with_a_branch(tmp_path), {"batch": 2}, lambda: feed)
    assert (found.macs, found.uncounted) == (macs, {})
    assert set(found.nodes[-1].weights) == {"v", "w"}
    assert found.outputs == {"y": (2, 5)}


def test_of_an_if_that_was_not_run_the_cheaper_branch_is_a_lower_bound(tmp_path: Path) -> None:
    found = read_nodes(file_with_a_branch(tmp_path), {"batch": 2})
    assert (found.macs, found.nodes[-1].macs) == (40, 40)
    assert found.uncounted == {"If": "its branches take 40 and 72, and which one runs is unknown"}


def test_an_if_with_a_stored_condition_needs_no_run(tmp_path: Path) -> None:
    nodes = [constant("on", value=False), product_or_two("on")]
    path = written(tmp_path, nodes, {"x": ["batch", 4]}, {"v": (4, 5), "w": (4, 4)})
    assert (read_nodes(path, {"batch": 2}).macs, read_nodes(path, {"batch": 2}).uncounted) == (
        72,
        {},
    )


def test_an_operator_in_the_branch_that_did_not_run_leaves_the_count_whole(tmp_path: Path) -> None:
    plain = graph_of(helper.make_node("MatMul", ["x", "v"], ["a"]))
    signal = graph_of(
        helper.make_node("Det", ["square"], ["d"]), helper.make_node("Add", ["x", "d"], ["b"])
    )
    node = helper.make_node("If", ["on"], ["y"], then_branch=plain, else_branch=signal)
    path = written(tmp_path, [node], {"x": [2, 4], "square": [3, 3]}, {"v": (4, 5)})
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("on", TensorProto.BOOL, []))
    onnx.save(model, path)
    feed = {"x": np.ones((2, 4), np.float32), "square": np.eye(3, dtype=np.float32)}
    taken = read_nodes(path, {}, lambda: feed | {"on": np.array(True)})
    assert (taken.macs, taken.uncounted) == (40, {})
    other = read_nodes(path, {}, lambda: feed | {"on": np.array(False)})
    assert other.nodes[0].macs is None
    assert other.uncounted == {"If": "inside, Det: there is no formula for it"}


def test_every_turn_of_a_loop_counts_with_its_own_shapes_and_branches(tmp_path: Path) -> None:
    """`turns` of them; state and cost grow by one row a turn, every other turn costs more."""
    number = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    go = helper.make_tensor_value_info("go", TensorProto.BOOL, [])
    state = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    body = graph_of(
        helper.make_node("Mod", ["i", "two"], ["odd"]),
        helper.make_node("Cast", ["odd"], ["is_odd"], to=TensorProto.BOOL),
        product_or_two("is_odd", tag="_inner"),
        helper.make_node("Concat", ["x", "row"], ["longer"], axis=0),
        helper.make_node("Identity", ["go"], ["still"]),
        inputs=(number, go, state),
        outputs=(
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("longer", TensorProto.FLOAT, None),
        ),
    )
    nodes = [
        constant("two", 2),
        constant("row", np.ones((1, 4), np.float32)),
        helper.make_node("Cast", ["turns"], ["trips"], to=TensorProto.INT64),
        helper.make_node("Loop", ["trips", "", "start"], ["y"], body=body),
    ]
    inputs: dict[str, list[Any]] = {"start": [1, 4], "turns": []}
    path = written(tmp_path, nodes, inputs, {"v": (4, 5), "w": (4, 4)})
    feed = {"start": np.ones((1, 4), np.float32), "turns": np.array(3, np.float32)}
    found = read_nodes(path, {}, lambda: feed)
    rows_of_turns = {1: 4 * 4 + 4 * 5, 2: 4 * 5, 3: 4 * 4 + 4 * 5}
    assert found.macs == sum(rows * each for rows, each in rows_of_turns.items())
    assert (found.uncounted, found.outputs) == ({}, {"y": (4, 4)})
    none = read_nodes(path, {}, lambda: feed | {"turns": np.array(0, np.float32)})
    assert (none.macs, none.uncounted) == (0, {})


def test_a_sparse_weight_takes_what_it_stores(tmp_path: Path) -> None:
    path = written(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["batch", 6]})
    values = helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    places = helper.make_tensor("places", TensorProto.INT64, [3, 2], [0, 0, 2, 3, 5, 1])
    model = onnx.load(path)
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [6, 4]))
    onnx.save(model, path)
    found = read_nodes(path, {"batch": 2}, lambda: {"x": np.ones((2, 6), np.float32)})
    weight = found.weights["w"]
    assert (weight.shape, weight.elements, weight.kept) == ((6, 4), 24, 3)
    assert weight.bytes == 3 * 4 + 3 * 2 * 8
    assert (found.macs, found.nodes[0].weights) == (2 * 6 * 4, ("w",))


def test_a_shape_that_only_a_run_could_tell_and_no_node_makes_stays_unknown(tmp_path: Path) -> None:
    path = written(tmp_path, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["batch", 6]})
    found = read_nodes(path, {"batch": 2}, lambda: {"x": np.ones((2, 6), np.float32)})
    assert found.uncounted == {"MatMul": "a required shape is unknown"}


def test_a_weight_that_is_dequantized_first_belongs_to_its_reader(tmp_path: Path) -> None:
    nodes = [
        constant("w", np.ones((4, 3, 3, 3), np.int8)),
        constant("scales", np.ones(4, np.float32)),
        helper.make_node("DequantizeLinear", ["w", "scales"], ["wide"], axis=0),
        helper.make_node("Conv", ["x", "wide", "bias"], ["y"]),
    ]
    path = written(tmp_path, nodes, {"x": ["batch", 3, 8, 8]}, {"bias": (4,)})
    dequantize, convolution = read_nodes(path, {"batch": 2}).nodes
    assert dequantize.weights == ()
    assert set(convolution.weights) == {"w", "scales", "bias"}
    assert convolution.inputs == ((2, 3, 8, 8),)
    found = read_nodes(path, {"batch": 2})
    assert {name for name, weight in found.weights.items() if weight.is_scale} == {"scales"}


def test_what_is_made_of_stored_values_and_leaves_the_file_stays_where_it_is_made(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, [helper.make_node("Relu", ["w"], ["y"])], {}, {"w": (2, 3)})
    assert read_nodes(path, {}).nodes[0].weights == ("w",)


def test_a_local_function_is_counted_where_it_is_called(tmp_path: Path) -> None:
    function = helper.make_function(
        "own", "twice", ["a", "w"], ["c"],
        [helper.make_node("MatMul", ["a", "w"], ["b"]),
         helper.make_node("MatMul", ["b", "w"], ["c"])],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    graph = helper.make_graph(
        [helper.make_node("twice", ["x", "w"], ["y"], domain="own")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((3, 3), np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, functions=[function]), path)
    assert read_nodes(path, {}).macs == 2 * 2 * 3 * 3


def test_symbols_have_the_sizes_of_the_arrays(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    path = written(tmp_path, [node], {"x": ["batch", 3, "width"]})
    assert symbol_sizes(path, {"x": np.ones((2, 3, 7))}) == {"batch": 2, "width": 7}


@pytest.mark.parametrize("content", [b"", b"no protobuf \xff\xff", b"\x08\x0a"])
def test_a_file_that_is_not_an_onnx_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.onnx is not an ONNX model"):
        read_nodes(path, {})


@given(st.integers(1, 50), st.integers(1, 50))
def test_expressions_of_symbols_have_python_values(a: int, b: int) -> None:
    sizes = {"a": a, "b": b}
    assert evaluate("a", sizes) == a
    assert evaluate("2*a + b", sizes) == 2 * a + b
    assert evaluate("((a - 1)//2) + 1", sizes) == (a - 1) // 2 + 1
    assert evaluate("floor(a/2)", sizes) == a // 2
    assert evaluate("Max(a, b)", sizes) == max(a, b)


@pytest.mark.parametrize("text", ["unk__1", "a + c", "a / 2", "import os", "f(a)", "a.b", "(" * 99])
def test_what_cannot_be_told_is_unknown(text: str) -> None:
    assert evaluate(text, {"a": 3}) is None


def test_a_name_of_two_branches_has_no_shape_of_its_own(tmp_path: Path) -> None:
    small = graph_of(
        helper.make_node("MatMul", ["x", "v"], ["a"]), helper.make_node("Relu", ["a"], ["b"])
    )
    large = graph_of(
        helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("MatMul", ["a", "v"], ["c"])
    )
    node = helper.make_node("If", ["on"], ["y"], then_branch=small, else_branch=large)
    path = written(tmp_path, [node], {"x": [2, 4]}, {"v": (4, 5), "w": (4, 4)})
    assert "a required shape is unknown" in read_nodes(path, {}).uncounted["If"]
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("on", TensorProto.BOOL, []))
    onnx.save(model, path)
    feed = {"x": np.ones((2, 4), np.float32), "on": np.array(False)}
    assert read_nodes(path, {}, lambda: feed).macs == 2 * (4 * 4 + 4 * 5)


@pytest.mark.parametrize("cached", [0, 3])
def test_a_grouped_attention_that_runs_counts_every_key(tmp_path: Path, cached: int) -> None:
    """4 query heads and 2 key heads of 8; shapes come from onnxruntime."""
    node = helper.make_node(
        "GroupQueryAttention", ["x", "k", "v", "pk", "pv", "last", "total"], ["y", "nk", "nv"],
        num_heads=4, kv_num_heads=2, domain="com.microsoft",
    )  # fmt: skip
    inputs: dict[str, list[Any]] = {"x": [1, 7, 32], "k": [1, 7, 16], "v": [1, 7, 16]}
    inputs |= {name: [1, 2, cached, 8] for name in ("pk", "pv")}
    if cached:
        inputs |= {"x": [1, 1, 32], "k": [1, 1, 16], "v": [1, 1, 16]}
    path = written(tmp_path, [node], inputs, outputs=("y", "nk", "nv"))
    length = inputs["x"][1]
    model = onnx.load(path)
    for name, value in (("last", cached + length - 1), ("total", cached + length)):
        model.graph.initializer.append(numpy_helper.from_array(np.array([value], np.int32), name))
    onnx.save(model, path)
    feed = {name: np.ones(shape, np.float32) for name, shape in inputs.items()}
    found = read_nodes(path, {}, lambda: feed)
    assert (found.macs, found.uncounted) == (length * (cached + length) * 2 * 32, {})


def integers(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def test_packed_weights_have_their_logical_number(tmp_path: Path) -> None:
    """Two 4-bit numbers in a byte: a product of 10 x 60, padded to 64, and a table of 6 x 32."""
    nodes = [
        helper.make_node(
            "GatherBlockQuantized", ["table", "ids", "ts"], ["x"], bits=4, block_size=32,
            domain="com.microsoft",
        ),
        helper.make_node(
            "MatMulNBits", ["x", "q", "qs", "qz"], ["y"], K=60, N=10, bits=4, block_size=32,
            domain="com.microsoft",
        ),
    ]  # fmt: skip
    path = written(tmp_path, nodes, {"ids": [3]}, {"ts": (6, 1), "qs": (20,)})
    model = onnx.load(path)
    packed = {"table": (6, 16), "q": (10, 2, 16), "qz": (10,)}
    model.graph.initializer.extend(integers(n, s, np.uint8) for n, s in packed.items())
    onnx.save(model, path)
    weights = read_nodes(path, {}).weights
    assert {n: w.elements for n, w in weights.items() if w.is_quantized} == {"table": 192, "q": 600}
    assert weights["q"].bytes == 320
    assert {n for n, w in weights.items() if w.is_scale} == {"ts", "qs", "qz"}


def test_an_integer_bias_is_a_parameter_and_a_shape_is_not(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QLinearConv", ["x", "s", "z", "w", "s", "z", "s", "z", "bias"], ["c"]),
        helper.make_node("DequantizeLinear", ["other", "s"], ["o"]),
        helper.make_node("ConvInteger", ["x", "w"], ["i"]),
        helper.make_node("Add", ["i", "third"], ["j"]),
        helper.make_node("Reshape", ["c", "shape"], ["y"]),
    ]
    path = written(tmp_path, nodes, {"x": [1, 3, 8, 8]}, {"s": ()})
    model = onnx.load(path)
    stored = [
        integers("w", (4, 3, 3, 3), np.int8), integers("z", (), np.int8),
        integers("bias", (4,), np.int32), integers("other", (5,), np.int32),
        integers("third", (4, 1, 1), np.int32), integers("shape", (2,), np.int64),
    ]  # fmt: skip
    model.graph.initializer.extend(stored)
    onnx.save(model, path)
    weights = read_nodes(path, {}).weights
    assert {name for name, weight in weights.items() if weight.is_quantized} == {
        "bias", "other", "third",
    }  # fmt: skip
    parameters = {name: w.elements for name, w in weights.items() if is_parameter(w)}
    assert parameters == {"w": 108, "bias": 4, "other": 5, "third": 4}
