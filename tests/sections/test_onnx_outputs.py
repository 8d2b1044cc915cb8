"""Outputs that are no tensors: sizes, and what else a reader would not look into."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from factories import make_study
from torch import Tensor, nn

from reportgen.sections.onnx_export import OnnxExport
from reportgen.sections.onnx_export.examination import examine_file

pytestmark = pytest.mark.slow  # every one of them exports and runs a file


class Returning(nn.Module):
    """A layer, and whatever else is made of its result."""

    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self._answer = answer

    def forward(self, x: Tensor) -> Any:
        return self._answer(self.layer(x))


def examined(
    answer: Callable[[Tensor], Any], folder: Path, edit: Callable[[Any], None] | None = None
) -> OnnxExport:
    study = make_study(Returning(answer), "batch,4", folder=folder, timings=False)
    file = study.onnx_file()
    if edit is not None:
        proto = onnx.load(file.path)
        edit(proto)
        onnx.save(proto, file.path)
    return examine_file(study, file)


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
        assert [output.name for output in case.outputs] == [port.name for port in result.outputs]


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
    assert [port.name for port in result.outputs] == ["output.0", "output.4.y"]
    assert result.parity.passed
    assert any("dtype" in warning for warning in result.warnings)


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
        f"{little}, so all was compared again with perturbed parameters; with these, too, {little}"
    )
