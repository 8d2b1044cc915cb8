"""Inputs as people give them, against the specs that a manifest would have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reportgen.errors import ModelError
from reportgen.example_inputs import make_examples
from reportgen.manifest import ModelSpec
from reportgen.python_api.inputs import read_inputs


class Two(nn.Module):
    def forward(self, image: Any, mask: Any = None, *, scale: float = 1.0) -> Any:
        return image


def shapes(inputs: Any) -> tuple[list[Any], int]:
    read = read_inputs(inputs, Two())
    return [(spec.name, spec.shape, spec.dtype) for spec in read.specs], read.batch


@pytest.mark.parametrize(
    ("inputs", "specs", "batch"),
    [
        ((8, 3, 4, 4), [("image", ("batch", 3, 4, 4), "float32")], 8),
        (torch.Size([8, 3]), [("image", ("batch", 3), "float32")], 8),
        (torch.zeros(2, 3), [("image", ("batch", 3), "float32")], 2),
        (np.zeros((2, 3), np.int32), [("image", ("batch", 3), "int32")], 2),
        (torch.zeros(5, 3, device="meta"), [("image", ("batch", 3), "float32")], 5),
        ([(4, 3), (4, 7)],
         [("image", ("batch", 3), "float32"), ("mask", ("batch", 7), "float32")], 4),
        ((torch.zeros(4, 3), torch.zeros(9, 2)),  # anchors do not grow with the batch
         [("image", ("batch", 3), "float32"), ("mask", (9, 2), "float32")], 4),
        ("ids=batch,7:int64<9", [("ids", ("batch", 7), "int64")], 1),
        (None, [], 1),
    ],
)  # fmt: skip
def test_the_first_size_is_the_batch(inputs: Any, specs: Any, batch: int) -> None:
    assert shapes(inputs) == (specs, batch)


def test_a_dict_is_passed_by_keyword() -> None:
    read = read_inputs({"image": (2, 3), "scale": 0.5}, Two())
    assert [(s.name, s.keyword) for s in read.specs] == [("image", True), ("scale", True)]
    assert read.specs[1].value is not None
    assert read.specs[1].value.value == 0.5


def test_structures_are_kept() -> None:
    state = (torch.zeros(2, 3), torch.zeros(2, 3))
    [spec] = read_inputs(({"state": state, "cached": True},), Two()).specs
    assert isinstance(spec.fields, Mapping)
    assert spec.fields["state"].as_tuple
    assert [part.shape for part in spec.fields["state"].parts] == [("batch", 3)] * 2
    assert spec.fields["cached"].kind == "constant"


def test_a_list_of_tensors_has_one_for_each_sample() -> None:
    images = [torch.rand(3, 8, 8), torch.rand(3, 8, 8)]
    read = read_inputs((images,), Two())
    assert (read.specs[0].per_sample, read.batch) == (True, 2)
    spec = ModelSpec(name="m", inputs=read.specs)
    [made] = make_examples(spec, 5, 0).args
    assert [tuple(image.shape) for image in made] == [(3, 8, 8)] * 5


@pytest.mark.parametrize(
    ("tensor", "low", "high"),
    [
        (torch.tensor([[3, 9], [5, 4]]), 3, 10),
        (torch.ones(2, 2, dtype=torch.int64), 1, 2),  # a mask of ones stays one
        (torch.tensor([[0, 255]], dtype=torch.uint8), 0, 256),
        (torch.tensor([[0.0, 0.5]]), 0.0, 0.5),
        (torch.tensor([[-1.0, 0.5]]), None, None),
        (torch.ones(2, 2), None, None),
        (torch.ones(2, 2, dtype=torch.bool), None, None),
    ],
)
def test_the_range_of_values_is_kept(tensor: torch.Tensor, low: Any, high: Any) -> None:
    [spec] = read_inputs(tensor, Two()).specs
    assert (spec.low, spec.high) == (low, high)
    [made] = make_examples(ModelSpec(name="m", inputs=(spec,)), 4, 0).args
    assert made.dtype == tensor.dtype
    if low is not None:
        assert low <= float(made.min()) <= float(made.max()) < high


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        (object(), "input 'image' is a object"),
        (torch.zeros(2, 3).to_sparse(), "input 'image' is a torch.sparse_coo tensor"),
        ({"mask": {1, 2}}, "input 'mask' is a set"),
        (("3,4:int65",), "int65"),
    ],
)
def test_an_input_that_cannot_be_described_is_named(inputs: Any, problem: str) -> None:
    with pytest.raises((ModelError, Exception), match=problem):
        read_inputs(inputs, Two())
