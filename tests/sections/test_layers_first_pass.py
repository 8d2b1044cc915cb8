"""Models that are complete only once they have seen an input: lazy ones, and those that build."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from layer_models import Examine, Function, row, tensor
from torch import Tensor, nn

from reportgen.fake_model import materialize_lazy
from reportgen.sections.layers import Layers


class Built(nn.Module):
    """What people wrote before there were lazy layers."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.head: nn.Module | None = None

    def forward(self, x: Tensor) -> Any:
        x = self.linear(x)
        if self.head is None:
            self.head = nn.Sequential(nn.Linear(x.shape[-1], 3), nn.ReLU())
        return self.head(x)


def notes_starting_with(result: Layers, start: str) -> list[str]:
    return [note for note in result.notes if note.startswith(start)]


def test_a_layer_created_by_the_first_pass_is_counted_and_noted(look: Examine) -> None:
    model = Built()
    result = look(model, tensor(4), batch=3)
    assert (result.parameters, result.macs) == (20 + 15, 3 * (16 + 12))
    assert result.forward_backward.macs == 3 * (16 + 12) * 2 + 3 * 12
    assert (row(result, "head.0").own_parameters, row(result, "head.0").own_macs) == (15, 36)
    assert (result.unused_parameters, result.unregistered, result.torchinfo.parameters) == (
        (),
        (),
        35,
    )
    (note,) = notes_starting_with(result, "the first forward pass creates parameters")
    assert (
        "head.0.weight (12), head.0.bias (3); optimizers and checkpoints miss them before that pass"
        in note
    )
    assert model.head is None


def test_a_layer_replaced_by_the_first_pass_counts_as_replaced(look: Examine) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        if self.head.in_features != x.shape[-1]:
            self.head = nn.Linear(x.shape[-1], 3)
        return self.head(x)

    model = Function(forward, head=nn.Linear(7, 3))
    result = look(model, tensor(4))
    assert (result.parameters, result.macs, result.unused_parameters) == (15, 12, ())
    (note,) = notes_starting_with(result, "the first forward pass creates parameters")
    assert "head.weight (12)" in note
    assert model.head.in_features == 7


def test_a_model_that_runs_only_once_is_counted_in_its_first_pass(look: Examine) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        if hasattr(self, "head"):
            raise RuntimeError("one pass is enough")
        self.head = nn.Linear(4, 3)
        return self.head(x)

    result = look(Function(forward), tensor(4))
    assert (result.parameters, result.macs) == (0, 12)
    assert notes_starting_with(result, "every forward pass adds parameters, which are not counted")


@pytest.mark.parametrize(
    ("layer", "shape", "parameters"),
    [(nn.LazyBatchNorm1d(), (4,), 8), (nn.LazyInstanceNorm1d(affine=True), (2, 4), 4)],
    ids=["batch norm", "instance norm"],
)
def test_lazy_layers_with_lazy_buffers_are_materialized(
    look: Examine, layer: nn.Module, shape: tuple[int, ...], parameters: int
) -> None:
    result = look(nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(2)), tensor(*shape), batch=2)
    width = int(torch.tensor(shape).prod())
    assert result.parameters == parameters + 2 * width + 2
    assert result.macs == 2 * 2 * width


def test_materializing_keeps_buffer_dtypes_and_modes() -> None:
    model = nn.Sequential(nn.LazyBatchNorm1d(dtype=torch.float64), nn.Dropout().eval())
    double = materialize_lazy(model, lambda: ((torch.ones(2, 4, dtype=torch.float64),), {}))
    assert double[0].running_mean.dtype == torch.float64  # type: ignore[index]
    assert [module.training for module in double.modules()] == [True, True, False]
    assert type(model[0]) is nn.LazyBatchNorm1d
