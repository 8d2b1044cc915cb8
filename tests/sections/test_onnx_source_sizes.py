"""A file that declares any batch is run at a second one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reportgen.onnx.runtime import Runtime
from reportgen.sections.onnx.source_sizes import batch_failure


def failure_of(
    folder: Path, nodes: list[Any], output: list[Any], batch: int, declared: Any = "batch"
) -> tuple[int, str] | None:
    """`batch_failure` of a file from x, [declared, 4], to y; `one` and `w` are stored in it."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [declared, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [
            numpy_helper.from_array(np.array([1, -1], np.int64), "one_row"),
            numpy_helper.from_array(np.array([2, 4], np.int64), "two_rows"),
            numpy_helper.from_array(np.ones((4, 3), np.float32), "w"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)

    def feed(size: int) -> Any:
        rows = declared if isinstance(declared, int) else size
        return {"x": np.ones((rows, 4), np.float32)}

    return batch_failure(Runtime(path), onnx.load(path), feed, batch)


PRODUCT = [helper.make_node("MatMul", ["x", "w"], ["y"])]
FLATTENED = [helper.make_node("Reshape", ["x", "one_row"], ["y"])]
PAIRS = [helper.make_node("Reshape", ["x", "two_rows"], ["y"])]


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_file_that_keeps_its_promise_has_no_failure(tmp_path: Path, batch: int) -> None:
    assert failure_of(tmp_path, PRODUCT, ["batch", 3], batch) is None


def test_a_fixed_batch_is_not_tried_at_another_size(tmp_path: Path) -> None:
    assert failure_of(tmp_path, PAIRS, [2, 4], 2, declared=2) is None


def test_an_output_that_loses_the_batch_is_a_failure(tmp_path: Path) -> None:
    assert failure_of(tmp_path, FLATTENED, ["batch", None], 1) == (
        2, "its output y has size 1 in axis 0",
    )  # fmt: skip
    # an output of which nothing is promised may have any size
    assert failure_of(tmp_path, FLATTENED, [None, None], 1) is None


def test_a_file_that_runs_at_one_size_only_fails_at_the_other(tmp_path: Path) -> None:
    flat = [helper.make_node("Reshape", ["x", "one_row"], ["flat"])]
    baked = [*flat, helper.make_node("MatMul", ["flat", "w"], ["y"])]
    size, why = failure_of(tmp_path, baked, [None, 3], 4) or (None, "")
    assert size == 4
    assert "MatMul" in why


def test_a_file_that_runs_at_neither_size_says_nothing_of_its_batch(tmp_path: Path) -> None:
    assert failure_of(tmp_path, PAIRS, [None, None], 5) is None
