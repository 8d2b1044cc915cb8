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

from reportgen.onnx_nodes import read_nodes, symbol_sizes
from reportgen.onnx_nodes.shapes import evaluate


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
    "look-ups are free": (
        helper.make_node("Relu", ["x"], ["y"]), {"x": ["batch", 5]}, {}, 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_macs_are_those_of_the_closed_form(tmp_path: Path, case: str) -> None:
    node, inputs, weights, macs = CASES[case]
    found = read_nodes(written(tmp_path, [node], inputs, weights), {"batch": 2})
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
    assert unknown.uncounted == {"MatMul": "a shape that it needs is not known"}
    feed = {"x": np.ones(12, np.float32), "shape": np.array([3, 4], np.float32)}
    assert read_nodes(path, {}, lambda: feed).macs == 3 * 4 * 5


def test_a_node_outside_the_standard_domain_is_uncounted_not_free(tmp_path: Path) -> None:
    node = helper.make_node("Mystery", ["x"], ["y"], domain="com.microsoft")
    found = read_nodes(written(tmp_path, [node], {"x": [3]}), {})
    assert found.nodes[0].macs is None
    assert found.uncounted == {"com.microsoft.Mystery": "it is not of the standard domain"}


def test_products_inside_a_loop_are_uncounted(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "w"], ["b"]),
            helper.make_node("Identity", ["go"], ["on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [3, 3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, [3, 3]),
        ],
    )
    loop = helper.make_node("Loop", ["", "", "x"], ["y"], body=body)
    found = read_nodes(written(tmp_path, [loop], {"x": [3, 3]}, {"w": (3, 3)}), {})
    assert "MatMul inside run a number of times" in found.uncounted["Loop"]


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
def test_what_is_no_onnx_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"m\.onnx is no ONNX model"):
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
