"""Why a forward pass failed: the module, what it expected, and whose fault it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reportgen.forward_failure import ForwardFailure, explain_failure


class Call(nn.Module):
    def __init__(self, function: Callable[..., Any], **children: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            self.add_module(name, child)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


def failure_of(model: nn.Module, *args: Any) -> ForwardFailure:
    with pytest.raises(Exception) as caught:
        model(*args)
    return explain_failure(caught.value)


LAYERS = {
    "linear": (nn.Linear(3, 2), (2, 4), "expected 3 input features, got 4"),
    "conv": (nn.Conv2d(3, 2, 1), (2, 1, 5, 5), "expected 3 input channels, got 1"),
    "conv of one picture": (nn.Conv2d(3, 2, 1), (4, 5, 5), "expected 3 input channels, got 4"),
    "batch norm": (nn.BatchNorm2d(3), (2, 4, 5, 5), "expected 3 channels, got 4"),
    "group norm": (nn.GroupNorm(1, 3), (2, 4, 5), "expected 3 channels, got 4"),
    "layer norm": (nn.LayerNorm(3), (2, 4), "expected last dimensions (3,), got (4,)"),
    "lstm": (nn.LSTM(3, 2), (2, 1, 4), "expected 3 input features, got 4"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_gets_another_size_says_both(name: str) -> None:
    layer, shape, reason = LAYERS[name]
    found = failure_of(nn.Sequential(nn.Identity(), layer), torch.randn(shape))
    assert (found.module, found.reason) == ("1", reason)
    assert found.hint.startswith("check the inputs of the model")


def test_a_size_that_the_model_made_is_its_own_fault() -> None:
    model = Call(
        lambda self, x: self.head(self.body(x)),
        body=nn.Sequential(nn.Linear(4, 6), nn.ReLU()), head=nn.Linear(5, 2),
    )  # fmt: skip
    found = failure_of(model, torch.randn(2, 4))
    assert str(found).startswith("head: expected 5 input features, got 6 (test_forward_failure.py:")
    assert found.hint.startswith("correct head, called at test_forward_failure.py:")


def test_an_error_of_the_code_names_its_line() -> None:
    found = failure_of(Call(lambda self, x: self.missing(x)), torch.randn(2))
    assert found.hint == f"correct the line {found.place}"


def test_an_input_that_forward_refuses_is_the_manifests() -> None:
    def forward(_: Any, x: Tensor) -> Tensor:
        raise ValueError("three channels, please")

    found = failure_of(Call(forward), torch.randn(2))
    assert found.reason == "ValueError: three channels, please"
    assert found.hint.startswith("check the inputs of the model")


def test_a_missing_argument_is_the_manifests() -> None:
    found = failure_of(nn.Sequential(nn.Bilinear(2, 2, 2))[0], torch.randn(2, 2))
    assert found.reason.startswith("TypeError")
    assert found.hint.startswith("check the inputs of the model")


def test_an_operator_that_fails_in_forward_may_be_either() -> None:
    found = failure_of(Call(lambda _, x: x.view(-1, 7)), torch.randn(2, 4))
    assert found.hint.startswith(f"correct the line {found.place}, or check the inputs")
