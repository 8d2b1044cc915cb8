"""Whether the parameters of a model are in its file, on files written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from reportgen.sections.onnx.stored_parameters import find_parameters


def file_with(folder: Path, tensors: dict[str, np.ndarray]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "graph",
        [value],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph)


def test_a_parameter_is_found_by_name_or_transposed_under_another_name(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 5, bias=False), nn.Linear(5, 2, bias=False))
    path = file_with(
        tmp_path,
        {
            "0.weight": model[0].weight.detach().numpy(),
            "val_7": np.ascontiguousarray(model[1].weight.detach().numpy().T),
        },
    )
    found = find_parameters(model, path)
    assert (found.found, found.merged, found.zero, found.absent) == (25, 0, 0, ())


def test_other_numbers_under_another_name_are_not_the_parameter(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 5, bias=False))
    path = file_with(tmp_path, {"val_0": model[0].weight.detach().numpy() + 1})
    found = find_parameters(model, path)
    assert (found.found, found.absent, found.absent_elements) == (0, ("0.weight",), 15)


def test_equal_tensors_are_stored_once_and_found_twice(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4))
    path = file_with(tmp_path, {"0.weight": np.ones(4, np.float32)})
    found = find_parameters(model, path)
    assert (found.found, found.zero) == (8, 8)


def test_a_batch_norm_merged_into_a_convolution_is_told_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2))
    nn.init.normal_(model[1].weight)
    path = file_with(tmp_path, {"0.weight": np.zeros((2, 1, 3, 3), np.float32)})
    found = find_parameters(model, path)
    assert (found.found, found.merged, found.absent) == (18, 4, ())


def test_a_tied_parameter_counts_once_whichever_name_the_file_has(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    path = file_with(tmp_path, {"b.weight": model["a"].weight.detach().numpy()})
    assert find_parameters(model, path).found == 9


def test_bfloat16_parameters_are_compared_by_their_bits(tmp_path: Path) -> None:
    import ml_dtypes

    model = nn.Linear(3, 2, bias=False).bfloat16()
    array = model.weight.detach().float().numpy().astype(ml_dtypes.bfloat16)
    path = file_with(tmp_path, {"other": np.ascontiguousarray(array.T)})
    assert find_parameters(model, path).found == 6


def test_a_model_without_data_has_nothing_to_be_found_by_contents(tmp_path: Path) -> None:
    model = nn.Linear(3, 2, bias=False, device="meta")
    found = find_parameters(model, file_with(tmp_path, {"other": np.ones((3, 2), np.float32)}))
    assert (found.found, found.absent) == (0, ("weight",))
