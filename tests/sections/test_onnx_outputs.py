"""Outputs that are no tensors: sizes, and what else a reader would not look into."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from factories import make_study
from layer_models import Returning
from torch import Tensor, nn

from reportgen.sections.onnx import OnnxResult
from reportgen.sections.onnx.analysis import analyze_exported

pytestmark = pytest.mark.slow  # every one of them exports and runs a file


def examined(
    answer: Callable[[Tensor], Any], folder: Path, edit: Callable[[Any], None] | None = None
) -> OnnxResult:
    context = make_study(Returning(answer), "batch,4", folder=folder, timings=False)
    file = context.onnx_file()
    if edit is not None:
        proto = onnx.load(file.path)
        edit(proto)
        onnx.save(proto, file.path)
    return analyze_exported(context, file)


SIZES: dict[str, Callable[[Tensor], Any]] = {
    "a size beside a tensor": lambda y: (y, y.shape[0]),
    "sizes before a tensor": lambda y: {"size": y.shape, "y": y},
    "a number, a fraction and a truth made of a size": lambda y: {
        "y": y,
        "twice": y.shape[0] * 2,
        "half": y.shape[0] / 2,
        "many": y.shape[0] > 100,
    },
}


@pytest.mark.parametrize("answer", SIZES.values(), ids=SIZES)
def test_sizes_that_the_file_gives_are_compared_with_the_models(
    answer: Callable[[Tensor], Any], tmp_path: Path
) -> None:
    result = examined(answer, tmp_path)
    assert result.parity.passed, result.parity.failure
    assert result.parity.note == ""
    for case in result.parity.cases:
        assert [output.name for output in case.outputs] == [
            port.name for port in result.file.outputs
        ]


def test_a_size_that_is_wrong_in_the_file_fails_by_its_name(tmp_path: Path) -> None:
    def one_too_large(model: onnx.ModelProto) -> None:
        size = next(
            value.name for value in model.graph.output if not value.type.tensor_type.shape.dim
        )
        maker = next(node for node in model.graph.node if size in node.output)
        maker.output[:] = ["right"]
        one = onnx.helper.make_node("Constant", [], ["one"], value_int=1)
        model.graph.node.extend([one, onnx.helper.make_node("Add", ["right", "one"], [size])])

    result = examined(lambda y: (y, y.shape[0]), tmp_path, one_too_large)
    assert not result.parity.passed
    assert "output.1" in result.parity.failure


def test_what_traces_a_size_is_no_part_of_the_output(tmp_path: Path) -> None:
    result = examined(lambda y: (y, y.shape, y.shape[0], torch.float32, {"y": y + 1}), tmp_path)
    assert [port.name for port in result.file.outputs] == ["output.0", "output.4.y"]
    assert result.parity.passed
    assert any("dtype" in warning for warning in result.export.warnings)


def test_outputs_that_prove_little_are_told_each_with_its_reason(tmp_path: Path) -> None:
    def answer(y: Tensor) -> Any:
        return {
            "y": y,
            "zeros": y.detach() * 0,
            "anchors": torch.eye(3) + 1,
            "grid": torch.arange(y.shape[1]),
        }

    little = "zeros does not vary, anchors and grid do not depend on the input"
    assert examined(answer, tmp_path).parity.note == (
        f"{little}, so the comparison was repeated with perturbed parameters; "
        f"with these, still {little}"
    )


class Widened(nn.Module):
    """Computes in one precision, and gives what comes out in another."""

    def __init__(self, computed: torch.dtype, given: torch.dtype) -> None:
        super().__init__()
        layers = [m for _ in range(6) for m in (nn.Linear(128, 128), nn.Tanh())]
        self.body = nn.Sequential(*layers).to(computed)
        self.computed, self.given = computed, given

    def forward(self, x: Tensor) -> Any:
        return self.body(x.to(self.computed)).to(self.given)


@pytest.mark.parametrize(
    ("computed", "given"),
    [(torch.float32, torch.float64), (torch.float16, torch.float32)],
    ids=str,
)
def test_a_wider_output_is_held_to_what_it_was_computed_in(
    computed: torch.dtype, given: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    context = make_study(Widened(computed, given), "batch,128", folder=tmp_path, timings=False)
    parity = analyze_exported(context, context.onnx_file()).parity
    assert parity.passed, parity.failure
    assert not parity.vacuous


def test_a_wrong_weight_before_a_wider_output_still_fails(tmp_path: Path) -> None:
    context = make_study(
        Widened(torch.float32, torch.float64), "batch,128", folder=tmp_path, timings=False
    )
    file = context.onnx_file()
    proto = onnx.load(file.path)
    stored = next(t for t in proto.graph.initializer if t.name == "body.0.weight")
    array = onnx.numpy_helper.to_array(stored) * 1.05
    stored.CopyFrom(onnx.numpy_helper.from_array(array.astype("float32"), stored.name))
    onnx.save(proto, file.path)
    assert analyze_exported(context, file).parity.passed is False


class Gated(nn.Module):
    """Residual branches that gates of zeros switch off, as an adapter's are at first."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(4, 4) for _ in range(branches))
        self.gates = nn.ParameterList(torch.zeros(4, 4) for _ in range(branches))

    def forward(self, x: Tensor) -> Any:
        for branch, gate in zip(self.branches, self.gates, strict=True):
            x = x + branch(x).relu() @ gate
        return x


@pytest.mark.parametrize("branches", [1, 2])  # two gates of one shape are one tensor in the file
def test_what_gates_of_zeros_hide_is_compared_too(branches: int, tmp_path: Path) -> None:
    context = make_study(Gated(branches), "batch,4", folder=tmp_path, timings=False)
    parity = analyze_exported(context, context.onnx_file()).parity
    assert parity.passed, parity.failure
    assert [case.perturbed for case in parity.cases] == [False] * 6 + [True] * 6
    assert parity.note.startswith("gates.0")
    assert "only zeros" in parity.note


def test_a_fault_behind_a_gate_of_zeros_is_found(tmp_path: Path) -> None:
    context = make_study(Gated(1), "batch,4", folder=tmp_path, timings=False)
    file = context.onnx_file()
    proto = onnx.load(file.path)
    next(node for node in proto.graph.node if node.op_type == "Relu").op_type = "Abs"
    onnx.save(proto, file.path)
    parity = analyze_exported(context, file).parity
    assert all(case.passed for case in parity.cases if not case.perturbed)
    assert parity.passed is False


def test_biases_of_zeros_hide_nothing(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    nn.init.zeros_(model[0].bias)
    context = make_study(model, "batch,4", folder=tmp_path, timings=False)
    parity = analyze_exported(context, context.onnx_file()).parity
    assert not any(case.perturbed for case in parity.cases)


def test_inputs_from_a_file_are_the_same_for_every_seed_and_that_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.float32).reshape(3, 4))
    given = {"name": "x", "file": str(tmp_path / "x.npy")}
    context = make_study(nn.Linear(4, 3), given, folder=tmp_path, timings=False)
    parity = analyze_exported(context, context.onnx_file()).parity
    assert parity.passed
    assert parity.note == "every seed gives the same inputs"
    assert not any(case.perturbed for case in parity.cases)


DRAWING = """
import sys
from pathlib import Path
import numpy as np
from reportgen.onnx.runtime import Runtime
runtime = Runtime(Path(sys.argv[1]))
print([runtime.run({"x": np.zeros(3, np.float32)})[0].tolist() for _ in range(2)])
"""


def test_a_file_that_draws_gives_the_same_in_every_process(tmp_path: Path) -> None:
    def port(name: str) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3])

    node = onnx.helper.make_node("RandomNormalLike", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "graph", [port("x")], [port("y")])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx"
    )
    command = [sys.executable, "-c", DRAWING, str(tmp_path / "m.onnx")]
    first, again = (subprocess.check_output(command, text=True) for _ in range(2))
    assert first == again
    one, two = ast.literal_eval(first)
    assert one != two
