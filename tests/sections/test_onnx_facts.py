"""Names, stored values and properties of an ONNX file, for the viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from reportgen.sections.graphs.complete.onnx import complete_onnx_graph
from reportgen.sections.graphs.complete.onnx_facts import onnx_facts
from reportgen.sections.graphs.complete.onnx_modules import module_classes

_WEIGHT = np.linspace(-1, 3, 8 * 4, dtype=np.float32).reshape(8, 4)


def _model(*extra: Any) -> onnx.ModelProto:
    """A Gemm, and an If whose branches negate or keep what it made."""
    value = helper.make_tensor_value_info
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(operator, ["y"], [name])], name, [],
            [value(name, TensorProto.FLOAT, ["batch", 8])],
        )
        for name, operator in (("then", "Neg"), ("else", "Identity"))
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1),
            helper.make_node("If", ["flag"], ["z"], **branches),
        ],
        "net",
        [value("x", TensorProto.FLOAT, ["batch", 4]), value("flag", TensorProto.BOOL, [])],
        [value("z", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(_WEIGHT, "w"), numpy_helper.from_array(np.zeros(8, "f4"), "b"),
         *extra],
        value_info=[value("y", TensorProto.FLOAT, ["batch", 8])],
    )  # fmt: skip
    model = helper.make_model(graph, producer_name="hand", producer_version="2",
                              opset_imports=[helper.make_opsetid("", 20)])  # fmt: skip
    helper.set_model_props(model, {"author": "someone"})
    return model


def test_names_of_values_belong_to_the_nodes_of_the_graph() -> None:
    model = _model()
    graph, facts = complete_onnx_graph(model), onnx_facts(model, Path())
    operators = [node.operator for node in graph.nodes]
    assert operators == ["input", "input", "Gemm", "If", "Identity", "Neg", "output"]
    assert facts.inputs[2] == ("x", "w", "b")
    assert facts.outputs == (("x",), ("flag",), ("y",), ("z",), ("else",), ("then",), ())
    assert facts.formal["Gemm"] == ("A", "B", "C")
    bodies = [node.body.name if node.body else "" for node in graph.nodes]
    assert bodies == ["", "", "", "", "else_branch", "then_branch", ""]


def test_properties_are_those_of_the_file() -> None:
    found = onnx_facts(_model(), Path()).properties
    assert found["Producer"] == "hand 2"
    assert found["Opset ai.onnx"] == "20"
    assert found["author"] == "someone"


def test_statistics_of_stored_tensors_are_numpys() -> None:
    weight, bias = onnx_facts(_model(), Path()).tensors
    least, most, mean, deviation = weight.statistics
    assert (least, most, mean) == (-1, 3, 1)
    assert deviation == float(f"{_WEIGHT.std():.4g}")
    assert (weight.shape, weight.dtype, weight.bytes) == ((8, 4), "float32", 128)
    counts, _ = np.histogram(_WEIGHT, bins=len(weight.bins))
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    heights = [digits.index(digit) / 61 for digit in weight.bins]
    np.testing.assert_allclose(heights, counts / counts.max(), atol=1 / 61)
    assert (bias.zeros, bias.bins) == (1.0, "")


def test_tensors_without_numbers_have_no_statistics() -> None:
    strings = helper.make_tensor("s", TensorProto.STRING, [1], [b"text"])
    nothing = helper.make_tensor("e", TensorProto.FLOAT, [0], [])
    broken = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4], raw_data=b"\0\0")
    nan = numpy_helper.from_array(np.full(3, np.nan, "f4"), "n")
    facts = onnx_facts(_model(strings, nothing, broken, nan), Path())
    assert [each.statistics for each in facts.tensors[2:]] == [(), (), (), ()]


def test_external_data_is_read_from_beside_the_file_and_from_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for folder in (tmp_path, tmp_path / "in"):
        (folder / "w.bin").write_bytes(np.arange(4, dtype=np.float32).tobytes())
    tensors = []
    for place in ("w.bin", "../w.bin"):
        tensor = TensorProto(name=place, data_type=TensorProto.FLOAT, dims=[4])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)
        tensors.append(tensor)
    inside, outside = onnx_facts(_model(*tensors), tmp_path / "in").tensors[2:]
    assert inside.statistics == (0, 3, 1.5, 1.118)
    assert (inside.external, outside.external) == ("w.bin", "../w.bin")
    assert outside.statistics == ()


def test_macs_and_parameters_of_nodes() -> None:
    graph = complete_onnx_graph(_model(), {"batch": 3})
    assert graph.figures["macs"][2] == 3 * 4 * 8
    assert graph.figures["parameters"][2] == 8 * 4 + 8
    assert "macs" not in complete_onnx_graph(_model()).figures  # the batch is unknown


def test_versions_metadata_and_classes_of_nodes() -> None:
    model = _model()
    node = model.graph.node[0]
    node.doc_string = "kept"
    trace = 'File "/home/me/lib/a.py", line 3, in b\n  File "/home/me/net.py", line 12, in forward'
    for key, value in {
        "pkg.torch.onnx.stack_trace": trace,
        "pkg.torch.onnx.name_scopes": "['', 'head', 'linear']",
        "pkg.torch.onnx.class_hierarchy": "['net.Net', 'torch.nn.Linear', 'aten.linear.default']",
        "pkg.torch.onnx.fx_node": "%linear",
        "group": "a",
    }.items():
        node.metadata_props.add(key=key, value=value)
    facts = onnx_facts(model, Path())
    index = facts.outputs.index(tuple(node.output))
    assert facts.metadata == (
        (index, "Description", "kept"),
        (index, "Source", "net.py:12"),
        (index, "group", "a"),
    )
    assert facts.versions[node.op_type] <= 20
    assert module_classes(model.graph) == {"head": "Linear"}
