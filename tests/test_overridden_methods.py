"""Models whose classes replace methods of `nn.Module`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from reportgen.errors import ModelError
from reportgen.sources.overridden_methods import restore_module_methods


class OwnTrain(nn.Module):
    """The training loop is a method called train."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.drop = nn.Dropout(0.5)

    def train(self, loader: Any, epochs: int = 1) -> None:  # type: ignore[override]
        for _ in range(epochs):
            for x, _y in loader:
                self(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.fc(x))


class Groups(nn.Module):
    """parameters() gives groups for the optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 2)

    def parameters(self) -> Any:  # type: ignore[override]
        return [{"params": self.body.parameters()}, {"params": self.head.parameters()}]


class FrozenNorm(nn.Module):
    """train() extends PyTorch's, and forgets to return the model."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def train(self, mode: bool = True) -> None:  # type: ignore[override]
        super().train(mode)
        self.norm.eval()


@dataclass
class Unhashable(nn.Module):
    width: int = 4

    def __post_init__(self) -> None:
        super().__init__()


def test_a_training_loop_called_train_is_replaced_and_named() -> None:
    model = nn.Sequential(OwnTrain(), nn.ReLU())
    (note,) = restore_module_methods(model)
    assert note.startswith("OwnTrain.train(loader, epochs) replaces nn.Module.train")
    model.eval()
    assert not any(module.training for module in model.modules())
    assert type(model[0]).__name__ == "OwnTrain"
    assert isinstance(model[0], OwnTrain)
    assert OwnTrain.train is not nn.Module.train  # the user's class is unchanged


def test_parameter_groups_are_counted_as_parameters() -> None:
    model = Groups()
    assert len(restore_module_methods(model)) == 1
    assert sum(p.numel() for p in model.parameters()) == 4 * 4 + 4 + 4 * 2 + 2


@pytest.mark.parametrize("model", [FrozenNorm(), nn.LSTM(2, 2), nn.Sequential(nn.Linear(1, 1))])
def test_methods_that_extend_pytorchs_stay(model: nn.Module) -> None:
    before = type(model)
    assert restore_module_methods(model) == ()
    assert type(model) is before


def test_a_module_that_cannot_be_hashed_has_its_remedy() -> None:
    with pytest.raises(ModelError, match="Unhashable cannot be hashed: @dataclass") as caught:
        restore_module_methods(Unhashable())
    assert "@dataclass(eq=False)" in caught.value.hint
