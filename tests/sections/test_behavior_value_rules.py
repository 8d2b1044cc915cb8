"""Rules on values inside a pass and on the backward pass: what they say, what they let pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from behavior_models import AnalyzeBehavior
from torch import Tensor, nn
from torch.nn import functional as F

from reportgen.sections.behavior import SECTION, Behavior


def codes(result: Behavior) -> list[str]:
    """Codes of the new rules' findings."""
    rules = [rule for rule in SECTION.rules if rule.code >= "BEH009"]
    return [found.code for rule in rules for found in rule.findings(result)]


class Calls(nn.Module):
    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.call = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def zero_head() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))
    nn.init.zeros_(model[2].weight)
    nn.init.zeros_(model[2].bias)
    return model


def causal(m: Any, x: Tensor) -> Tensor:
    x = m.layer(x)
    scores = x @ x.transpose(1, 2) / 4
    mask = torch.full(scores.shape[-2:], -torch.inf).triu(1)
    return torch.softmax(scores + mask, dim=-1) @ x


def residual(_: Any, x: Tensor) -> Tensor:
    return F.relu(x) + x


RIGHT: dict[str, tuple[nn.Module, str]] = {
    "a head that begins at zero": (zero_head(), "x=batch,4"),
    "an activation in place, whose input nobody needs": (
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2)),
        "x=batch,4",
    ),
    "batch norm of vectors": (nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8)), "x=batch,4"),
    "attention with a causal mask": (Calls(causal, layer=nn.Linear(16, 16)), "x=batch,12,16"),
    "a deep residual network with batch norm": (
        nn.Sequential(
            *(
                Calls(
                    lambda m, x: F.relu(m.norm(m.conv(x)) + x),
                    conv=nn.Conv2d(4, 4, 3, padding=1, bias=False),
                    norm=nn.BatchNorm2d(4),
                )
                for _ in range(16)
            )
        ),
        "x=batch,4,8,8",
    ),
    "a ReLU of zeros": (
        Calls(lambda m, x: m.relu(x * 0) + m.layer(x), relu=nn.ReLU(), layer=nn.Linear(4, 4)),
        "x=batch,4",
    ),
    "a layer inside vmap": (
        Calls(lambda m, x: torch.func.vmap(m.layer)(x), layer=nn.Linear(4, 4)),
        "x=batch,4",
    ),
    "a softmax over two classes": (
        Calls(lambda m, x: torch.softmax(m.layer(x) * 1e3, dim=1), layer=nn.Linear(4, 2)),
        "x=batch,4",
    ),
    "a mask of huge numbers": (
        Calls(lambda m, x: m.layer(x) + m.mask(x), layer=nn.Linear(4, 4),
              mask=Calls(lambda m, x: torch.full((4,), -1e9).where(x.sum() > 1e9, 0.0))),
        "x=batch,4",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "text"), RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_not_reported(
    model: nn.Module, text: str, analyze: AnalyzeBehavior
) -> None:
    assert codes(analyze(model, text)) == []


def test_values_of_trained_weights_are_not_judged(analyze: AnalyzeBehavior) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64), nn.Softmax(dim=1))
    nn.init.normal_(model[0].weight, std=1e5)
    result = analyze(model, "x=batch,16,64")
    assert result.random_weights
    assert codes(result) == ["BEH012", "BEH013"]
    assert codes(replace(result, random_weights=False)) == []


@pytest.mark.parametrize("in_place", [False, True])
def test_a_dead_relu_is_found_in_place_too(analyze: AnalyzeBehavior, in_place: bool) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=in_place), nn.Linear(8, 2))
    nn.init.constant_(model[0].bias, -1e3)
    result = analyze(model)
    assert result.activations is not None
    assert result.activations.dead == ("1",)


def test_the_backward_pass_fails_where_plain_torch_fails(analyze: AnalyzeBehavior) -> None:
    def forward(m: Any, x: Tensor) -> Tensor:
        y = torch.sigmoid(m.layer(x))
        y += 1
        return y

    model = Calls(forward, layer=nn.Linear(4, 4))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        model(torch.ones(2, 4)).sum().backward()
    result = analyze(model)
    assert codes(result) == ["BEH009"]
    assert "modified in place" in result.backward_error
