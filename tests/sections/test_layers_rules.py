"""Every rule of the layers section: the smallest model that breaks it, and one that must not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_study
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from reportgen.findings import Finding, Severity
from reportgen.sections.layers import SECTION, analyze

Judge = Callable[..., list[Finding]]


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    def judge(model: nn.Module, *shape: int) -> list[Finding]:
        context = make_study(model, {"shape": ["batch", *shape]}, folder=tmp_path, batch=2)
        result = analyze(context)
        return [finding for rule in SECTION.rules for finding in rule.findings(result)]

    return judge


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any], **children: Any) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


def test_a_plain_model_has_no_findings(judge: Judge) -> None:
    plain = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 4))
    assert judge(plain, 4) == []


def test_a_layer_with_most_parameters_is_a_note(judge: Judge) -> None:
    big = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 4), nn.Linear(4, 4))
    (finding,) = judge(big, 100)
    assert (finding.code, finding.severity, finding.where) == ("LAY001", Severity.NOTE, "0")
    assert "10,100 of 10,524" in finding.message


def test_tied_layers_with_most_parameters_are_one_note(judge: Judge) -> None:
    table, middle, head = nn.Embedding(50, 8), nn.Linear(8, 8), nn.Linear(8, 50, bias=False)
    head.weight = table.weight
    model = Function(
        lambda self, x: self.head(self.middle(self.table(x.long()))),
        table=table, middle=middle, head=head,
    )  # fmt: skip
    (finding,) = judge(model, 4)
    assert (finding.code, finding.where) == ("LAY001", "table")
    assert "Embedding(50, 8), tied with head, holds" in finding.message
    assert "400 of 472" in finding.message


def test_the_larger_of_two_layers_is_no_finding(judge: Judge) -> None:
    assert judge(nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 4)), 100) == []


def test_unused_parameters_are_grouped_by_module(judge: Judge) -> None:
    unused = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model = Function(lambda self, x: self.f(x), f=nn.Linear(4, 4), unused=unused)
    (finding,) = judge(model, 4)
    assert (finding.code, finding.severity) == ("LAY002", Severity.WARNING)
    assert finding.where == "unused"
    assert finding.message == "all 40 parameters are not used in the forward pass"


def test_a_single_unused_parameter_is_named(judge: Judge) -> None:
    model = Function(lambda self, x: x @ self.f.weight, f=nn.Linear(4, 4))
    (finding,) = judge(model, 4)
    assert (finding.code, finding.where) == ("LAY002", "f")
    assert finding.message.startswith("f.bias")


def test_a_model_without_any_used_parameter_is_one_finding(judge: Judge) -> None:
    model = Function(lambda self, x: x, f=nn.Linear(4, 4), g=nn.Linear(4, 4))
    assert [(f.code, f.where) for f in judge(model, 4)] == [("LAY002", "")]


def test_unregistered_parameters_are_an_error(judge: Judge) -> None:
    model = Function(lambda self, x: self.extra[0](x), extra=[nn.Linear(4, 4)])
    (finding,) = judge(model, 4)
    assert (finding.code, finding.severity) == ("LAY003", Severity.ERROR)
    assert finding.where == "extra[0]"
    assert "20 parameters of Linear are not registered" in finding.message


def test_registered_parameters_are_no_finding(judge: Judge) -> None:
    model = Function(lambda self, x: self.f[0](x), f=nn.ModuleList([nn.Linear(4, 4)]))
    assert judge(model, 4) == []


def test_a_substantial_uncounted_operator_is_a_note(judge: Judge) -> None:
    model = Function(lambda self, x: torch.linalg.matrix_exp(self.f(x)), f=nn.Linear(4, 4))
    assert codes(judge(model, 4, 4)) == ["LAY004"]


def test_a_negligible_uncounted_operator_is_no_finding(judge: Judge) -> None:
    model = Function(
        lambda self, x: self.f(x) + torch.linalg.det(x[0, :2, :2]), f=nn.Linear(99, 99)
    )
    assert judge(model, 500, 99) == []


def test_a_training_head_is_a_note(judge: Judge) -> None:
    model = Function(lambda self, x: self.f(x) if not self.training else (self.f(x), self.aux(x)),
                     f=nn.Linear(4, 9), aux=nn.Linear(4, 4))  # fmt: skip
    assert [(f.code, f.where) for f in judge(model, 4)] == [("LAY005", "aux")]


def test_a_direct_forward_is_a_note(judge: Judge) -> None:
    model = Function(lambda self, x: self.f.forward(x), f=nn.Linear(4, 4))
    assert [(f.code, f.where) for f in judge(model, 4)] == [("LAY006", "f")]


def test_double_precision_is_a_warning(judge: Judge) -> None:
    model = Function(lambda self, x: self.f(x.double()), f=nn.Linear(4, 4).double())
    assert [(f.code, f.where) for f in judge(model, 4)] == [("LAY007", "f")]


def test_a_frozen_teacher_in_a_tuple_is_a_note(judge: Judge) -> None:
    teacher = nn.Linear(4, 4).requires_grad_(False)
    model = Function(lambda self, x: self.f(x) + self.teacher[0](x), f=nn.Linear(4, 4))
    model.teacher = (teacher,)
    (finding,) = judge(model, 4)
    assert (finding.code, finding.severity) == ("LAY008", Severity.NOTE)
    assert finding.where == "teacher[0]"


def test_trainable_layers_in_a_tuple_are_an_error(judge: Judge) -> None:
    model = Function(lambda self, x: self.f(self.steps[1](self.steps[0](x))), f=nn.Linear(4, 4))
    model.steps = (nn.Linear(4, 4), nn.Linear(4, 4))
    assert [(f.code, f.where) for f in judge(model, 4)] == [
        ("LAY003", "steps[0]"), ("LAY003", "steps[1]")
    ]  # fmt: skip


@pytest.mark.parametrize("keep", [tuple, list, nn.ModuleList])
def test_a_placeholder_on_meta_is_no_finding(judge: Judge, keep: Callable[..., Any]) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        def member(weights: Any) -> Any:
            return functional_call(self.skeleton[0], weights, (x,))

        return torch.vmap(member)(dict(self.stacked)).mean(0)

    members = [nn.Linear(4, 4) for _ in range(3)]
    weights, _ = stack_module_state(members)  # type: ignore[arg-type]
    model = Function(forward, stacked=nn.ParameterDict(weights))
    model.skeleton = keep([nn.Linear(4, 4, device="meta")])
    assert judge(model, 4) == []
