"""The copy of a file whose weights are mapped into memory: the same model, whatever it holds."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reportgen.onnx import mapped_weights as module
from reportgen.onnx.mapped_weights import mapped_weights
from reportgen.onnx.runtime import Runtime

FLOAT = TensorProto.FLOAT
DRAWS = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """`reshape(x @ w1 @ w2, shape) + c`, of which the weights take more than 32 MiB."""
    weights = {
        "w1": DRAWS.standard_normal((1024, 4096), np.float32),
        "w2": DRAWS.standard_normal((4096, 1500), np.float32),
        "shape": np.array([2, 10, 75], np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["b"]),
        helper.make_node("Reshape", ["b", "shape"], ["d"]),
        helper.make_node("Add", ["d", "c"], ["y"]),
    ]
    typed = helper.make_tensor("c", FLOAT, [75], DRAWS.standard_normal(75).tolist())  # not raw
    graph = helper.make_graph(
        nodes,
        "main",
        [helper.make_tensor_value_info("x", FLOAT, [1, 1024])],
        [helper.make_tensor_value_info("y", FLOAT, [2, 10, 75])],
        [*(numpy_helper.from_array(value, name) for name, value in weights.items()), typed],
        doc_string="a graph",
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"author": "someone"})
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def run(path: Path) -> Any:
    (found,) = Runtime(path).run({"x": np.ones((1, 1024), np.float32)})
    return found


def test_the_copy_is_the_same_model_with_its_large_weights_apart(path: Path) -> None:
    model, before = onnx.load(path), path.read_bytes()
    with mapped_weights(model, path) as copy:
        assert copy.name == path.name
        assert copy.stat().st_size < 10_000
        restored = onnx.load(copy)
        for tensor in restored.graph.initializer:
            tensor.ClearField("data_location")
        assert restored == model
        assert np.array_equal(run(copy), run(path))
    assert not copy.exists()
    assert model.SerializeToString() == before
    assert list(path.parent.iterdir()) == [path]


def test_weights_start_at_pages(path: Path) -> None:
    with mapped_weights(onnx.load(path), path) as copy:
        apart = onnx.load(copy, load_external_data=False).graph.initializer
        starts = [
            int(entry.value) for t in apart for entry in t.external_data if entry.key == "offset"
        ]
    assert len(starts) == 2
    assert not any(start % 4096 for start in starts)


def test_a_small_file_is_read_itself(path: Path) -> None:
    model = onnx.load(path)
    del model.graph.initializer[0]
    onnx.save(model, path)
    with mapped_weights(model, path) as same:
        assert same == path


def test_weights_that_are_apart_already_stay_where_they_are(path: Path) -> None:
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.data")
    with mapped_weights(onnx.load(path, load_external_data=False), path) as same:
        assert same == path


def test_on_a_full_disk_the_file_itself_is_read(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write_apart", full)
    with mapped_weights(onnx.load(path), path) as same:
        assert same == path
