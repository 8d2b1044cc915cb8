"""Pruned models: stored parameters, those that masks remove, and zeros of given weights."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from layer_models import Examine, tensor
from torch import Tensor, nn
from torch.nn.utils import prune

from reportgen.sections.layers.pruning import count_masked, zero_share


class LeNet(nn.Module):
    """The model of torchinfo's test of pruning."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2)).flatten(1)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


def pruned() -> LeNet:
    model = LeNet()
    for layer in model.children():
        prune.l1_unstructured(layer, "weight", 0.5)
    return model


def test_masked_parameters_are_stored(look: Examine) -> None:
    result = look(pruned(), tensor(1, 28, 28))
    assert (result.parameters, result.masked_parameters) == (21_840, 10_875)
    assert (result.unused_parameters, result.unregistered) == ((), ())
    assert {row.path: row.masked_parameters for row in result.layers if row.leaf} == {
        "conv1": 125, "conv2": 2500, "fc1": 8000, "fc2": 250
    }  # fmt: skip
    assert [row.zero_share for row in result.layers] == [None] * 5


def test_a_mask_that_two_layers_share_counts_once() -> None:
    layer = prune.l1_unstructured(nn.Linear(4, 4), "weight", 0.5)
    assert count_masked([layer, layer]) == 8


def test_zeros_include_masked_parameters() -> None:
    layer = nn.Linear(4, 4, bias=False)
    assert zero_share(layer) == 0
    assert zero_share(prune.l1_unstructured(layer, "weight", 0.5)) == 0.5
    assert zero_share(nn.ReLU()) is None


def test_zeros_of_given_weights_are_a_share_per_layer(look: Examine, tmp_path: Path) -> None:
    model = pruned()
    for layer in model.children():
        prune.remove(layer, "weight")
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    result = look(model, tensor(1, 28, 28), weights=tmp_path / "weights.pth")
    assert result.masked_parameters == 0
    found = {row.path: row.zero_share for row in result.layers}
    assert found["fc1"] == pytest.approx(8000 / 16_050)
    assert found[""] is None
    with (tmp_path / result.table_file).open(newline="") as file:
        rows = {row["path"]: row["zero_share"] for row in csv.DictReader(file)}
    assert (rows["fc1"], rows[""]) == ("0.498442", "")
    (note,) = [line for line in result.notes if "exactly 0" in line]
    assert note.startswith("49.8 % of the given weights")
