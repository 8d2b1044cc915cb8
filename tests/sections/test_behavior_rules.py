"""Every rule of the behavior section: the smallest model that breaks it, and one that must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from factories import make_study
from torch import Tensor, nn

from reportgen.findings import Finding, Severity
from reportgen.model_state import preserve_model_state
from reportgen.sections.behavior import SECTION, Behavior, analyze

FindingsOf = Callable[[nn.Module], list[Finding]]


@pytest.fixture
def findings_of(tmp_path: Path) -> FindingsOf:
    def findings_of(model: nn.Module) -> list[Finding]:
        context = make_study(model, "x=batch,4", folder=tmp_path)
        with preserve_model_state(context.model):
            result = analyze(context)
        assert isinstance(result, Behavior)
        return [finding for rule in SECTION.rules for finding in rule.findings(result)]

    return findings_of


class Step(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor], **held: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in held.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def between(*steps: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), *steps, nn.Linear(8, 2))


def remember(self: Any, x: Tensor) -> Tensor:
    self.last = self.last + x.sum().detach()
    return x


def hide(_: Any, x: Tensor) -> Tensor:
    return torch.where(x * 0 > 0, 1 / (x * 0), x)


BAD: dict[str, tuple[str, nn.Module, str]] = {
    "functional dropout": ("BEH001", Step(lambda _, x: F.dropout(x)), "1"),
    "softmax over the batch": ("BEH002", nn.Softmax(0), "1"),
    "no running statistics": ("BEH002", nn.BatchNorm1d(8, track_running_stats=False), "1"),
    "memory": ("BEH003", Step(remember, last=torch.zeros(())), "1.last"),
    "detach": ("BEH004", Step(lambda _, x: x.detach()), "0.weight"),
    "logarithm": ("BEH005", Step(lambda _, x: x.log()), "1"),
    "hidden division": ("BEH007", Step(hide), "0.weight"),
}
GOOD: dict[str, nn.Module] = {
    "dropout": nn.Dropout(),
    "functional dropout that asks for the mode": Step(
        lambda self, x: F.dropout(x, training=self.training)
    ),
    "softmax over features": nn.Softmax(1),
    "batch norm": nn.BatchNorm1d(8),
    "detached copy beside": Step(lambda _, x: x + x.detach()),
    "guarded logarithm": Step(lambda _, x: x.abs().clamp(min=1e-6).log()),
    "in place, but on its own": nn.ReLU(inplace=True),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_model_has_this_one_finding(findings_of: FindingsOf, name: str) -> None:
    code, step, where = BAD[name]
    (finding,) = findings_of(between(step))
    assert (finding.code, finding.where) == (code, where)
    assert finding.severity == Severity.WARNING


@pytest.mark.parametrize("name", GOOD)
def test_a_good_model_has_none(findings_of: FindingsOf, name: str) -> None:
    assert findings_of(between(GOOD[name])) == []


def test_an_input_changed_in_place_is_a_warning(findings_of: FindingsOf) -> None:
    (finding,) = findings_of(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)))
    assert (finding.code, finding.where) == ("BEH006", "x")


def test_parameters_that_never_run_are_left_to_the_layers(findings_of: FindingsOf) -> None:
    idle = Step(lambda self, x: self.used(x), used=nn.Linear(8, 8), idle=nn.Linear(8, 8))
    assert findings_of(between(idle)) == []


def test_gradients_of_a_model_that_wants_targets_are_not_judged(findings_of: FindingsOf) -> None:
    def propose(self: Any, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("targets should not be none")
        return x.detach()

    assert findings_of(between(Step(propose))) == []
