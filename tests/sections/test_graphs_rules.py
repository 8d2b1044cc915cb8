"""Models that look like a mistake and are none: the rules on the module graph pass them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_study
from torch import Tensor, nn
from torch.nn import functional as F

from reportgen.findings import Finding
from reportgen.manifest import Loss
from reportgen.sections.graphs import SECTION
from reportgen.sections.graphs.analysis import analyze_structure


class Calls(nn.Module):
    """Modules `a`, `b`, … called by a function."""

    def __init__(self, forward: Callable[..., Any], **modules: nn.Module) -> None:
        super().__init__()
        self.call = forward
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


def findings(model: nn.Module, text: str, folder: Path, loss: str = "sum") -> list[Finding]:
    kind: Any = loss
    context = make_study(model, text, folder=folder, batch=2, loss=Loss(kind=kind, text=loss))
    result = analyze_structure(context)
    return [found for rule in SECTION.rules for found in rule.findings(result)]


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


IMAGE, VECTOR = "x=batch,3,8,8", "x=batch,8"
RIGHT: dict[str, tuple[nn.Module, str]] = {
    "a low-rank pair, as in LoRA": (
        nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)),
        VECTOR,
    ),
    "a bottleneck before a large head": (
        nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 64)),
        VECTOR,
    ),
    "a frozen projection": (nn.Sequential(frozen(nn.Linear(8, 16)), nn.Linear(16, 4)), VECTOR),
    "a norm between two linear layers": (
        nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)),
        VECTOR,
    ),
    "heads split between two linear layers": (
        Calls(lambda m, x: m.b(m.a(x).view(-1, 4, 4)), a=nn.Linear(8, 16), b=nn.Linear(4, 4)),
        VECTOR,
    ),
    "a residual around the second linear layer": (
        Calls(
            lambda m, x: (y := m.a(x)) + m.b(y),
            a=nn.Linear(8, 8),
            b=nn.Linear(8, 8),
        ),
        VECTOR,
    ),
    "a bias whose layer also feeds a skip connection": (
        Calls(lambda m, x: m.n(y := m.c(x)) + y, c=nn.Conv2d(3, 4, 3), n=nn.BatchNorm2d(4)),
        IMAGE,
    ),
    "a bias before layer norm": (nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)), VECTOR),
    "a bias before group norm": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
        IMAGE,
    ),
    "a frozen bias before batch norm": (
        nn.Sequential(frozen(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)),
        IMAGE,
    ),
    "an activation between layer and batch norm": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        IMAGE,
    ),
    "a layer called twice, once before batch norm": (
        Calls(
            lambda m, x: m.n(m.c(x)) + m.c(x + 1).relu(),
            c=nn.Conv2d(3, 4, 3),
            n=nn.BatchNorm2d(4),
        ),
        IMAGE,
    ),
    "a dropout that is off": (
        nn.Sequential(nn.Linear(8, 8, bias=False), nn.Dropout(0.0), nn.BatchNorm1d(8)),
        VECTOR,
    ),
    "a dropout with a layer before the batch norm": (
        nn.Sequential(nn.Dropout(0.5), nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8)),
        VECTOR,
    ),
    "one ReLU that two layers share": (
        Calls(
            lambda m, x: m.b(m.r(m.b(m.r(m.a(x))))),
            a=nn.Linear(8, 8),
            b=nn.Linear(8, 8),
            r=nn.ReLU(),
        ),
        VECTOR,
    ),
    "a ReLU whose result is added before the next": (
        Calls(lambda m, x: F.relu(F.relu(m.a(x)) + x), a=nn.Linear(8, 8)),
        VECTOR,
    ),
    "attention, whose softmax weights values": (
        nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        "x=batch,5,8",
    ),
    "a gate by a sigmoid of a ReLU": (
        Calls(lambda m, x: torch.sigmoid(F.relu(m.a(x))) * x, a=nn.Linear(8, 8)),
        VECTOR,
    ),
    "two norms with different tasks": (
        nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.GroupNorm(2, 4)),
        IMAGE,
    ),
    "a result that is one of several outputs": (
        Calls(
            lambda m, x: {"y": m.b(x), "features": [m.a(x)]}, a=nn.Linear(8, 8), b=nn.Linear(8, 8)
        ),
        VECTOR,
    ),
}


@pytest.mark.parametrize(("model", "text"), RIGHT.values(), ids=RIGHT)
def test_what_is_right_is_not_reported(model: nn.Module, text: str, tmp_path: Path) -> None:
    assert findings(model, text, tmp_path) == []


WRONG: dict[str, tuple[nn.Module, str, str, str]] = {
    "a bias before batch norm, past an identity and a permutation": (
        Calls(
            lambda m, x: m.n(m.i(m.a(x)).transpose(1, 2)),
            a=nn.Linear(8, 6), i=nn.Identity(), n=nn.BatchNorm1d(6),
        ), "x=batch,5,8", "GRA001", "a",
    ),
    "a bias before functional batch norm": (
        Calls(
            lambda m, x: F.batch_norm(m.c(x), m.n.running_mean, m.n.running_var),
            c=nn.Conv2d(3, 4, 3), n=nn.BatchNorm2d(4),
        ), IMAGE, "", "",
    ),
    "stacked linear layers past a dropout": (
        nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.1), nn.Linear(8, 8)), VECTOR, "GRA004", "2",
    ),
    "a softmax of a sigmoid": (
        nn.Sequential(nn.Linear(8, 8), nn.Sigmoid(), nn.Softmax(dim=1)), VECTOR, "GRA003", "2",
    ),
    "a functional ReLU after a module": (
        Calls(lambda m, x: m.b(F.relu(m.r(m.a(x)))), a=nn.Linear(8, 8), r=nn.ReLU(),
              b=nn.Linear(8, 8)), VECTOR, "GRA003", "",
    ),
    "a dropout and a ReLU before batch norm": (
        nn.Sequential(nn.Linear(8, 8, bias=False), nn.Dropout(0.2), nn.ReLU(), nn.BatchNorm1d(8)),
        VECTOR, "GRA002", "1",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("model", "text", "code", "where"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_reported_at_its_place(
    model: nn.Module, text: str, code: str, where: str, tmp_path: Path
) -> None:
    found = [(each.code, each.where) for each in findings(model, text, tmp_path)]
    # a batch norm without module is of unknown width, and left alone
    assert found == ([(code, where)] if code else [])


@pytest.mark.parametrize(
    ("last", "wrong"),
    [
        (nn.Softmax(dim=1), True),
        (nn.Sigmoid(), True),
        (nn.ReLU(), True),
        (nn.LogSoftmax(dim=1), False),
        (nn.Identity(), False),
    ],
)
def test_only_logits_may_go_into_cross_entropy(
    last: nn.Module, wrong: bool, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Linear(8, 4), last)
    found = findings(model, VECTOR, tmp_path, loss="cross_entropy")
    assert [each.code for each in found] == ["GRA005"] * wrong
    assert findings(model, VECTOR, tmp_path) == []
