"""Mixtures of experts: how many parameters one token passes through."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from layer_models import Examine, Function, tensor
from torch import Tensor, nn


def loop(self: Any, x: Tensor) -> Tensor:
    weight, index = self.gate(x).softmax(-1).topk(2, dim=-1)
    out = torch.zeros_like(x)
    for number, expert in enumerate(self.experts):
        rows, columns = torch.where(index == number)
        out[rows] += expert(x[rows]) * weight[rows, columns, None]
    return out


def listed() -> nn.Module:
    return Function(loop, gate=nn.Linear(4, 5),
                    experts=nn.ModuleList(nn.Linear(4, 4) for _ in range(5)))  # fmt: skip


def switched() -> nn.Module:
    """One expert a token, by argmax."""

    def forward(self: Any, x: Tensor) -> Tensor:
        chosen = self.gate(x).argmax(-1)
        out: Tensor = torch.einsum("bi,bio->bo", x, self.stack[chosen])
        return out

    return Function(forward, gate=nn.Linear(4, 6), stack=nn.Parameter(torch.zeros(6, 4, 3)))


def by_itself() -> nn.Module:
    """Router, stacked weights and stacked biases in one module: [5, 4], [5, 4, 4], [5, 4]."""

    def forward(self: Any, x: Tensor) -> Tensor:
        weight, index = (x @ self.router.T).softmax(-1).topk(2, dim=-1)
        rows = torch.einsum("td,tkdh->tkh", x, self.stack[index]) + self.bias[index]
        return (rows * weight[..., None]).sum(1)

    return Function(forward, router=nn.Parameter(torch.zeros(5, 4)),
                    stack=nn.Parameter(torch.zeros(5, 4, 4)),
                    bias=nn.Parameter(torch.zeros(5, 4)))  # fmt: skip


def by_name() -> nn.Module:
    """Every expert runs and the attribute alone tells how many would count."""

    def forward(self: Any, x: Tensor) -> Tensor:
        scores = self.gate(x).softmax(-1)
        return torch.stack([e(x) * scores[:, i, None] for i, e in enumerate(self.experts)]).sum(0)

    return Function(forward, gate=nn.Linear(4, 5), num_experts_per_tok=2,
                    experts=nn.ModuleList(nn.Linear(4, 4) for _ in range(5)))  # fmt: skip


@pytest.mark.parametrize(
    ("make", "active", "found"),
    [
        (listed, 25 + 2 * 20, "a top-k of 2 of 5 ran in the model"),
        (switched, 30 + 12, "a top-k of 1 of 6 ran in the model"),
        (by_itself, 20 + 2 * 20, "a top-k of 2 of 5 ran in the model"),
        (by_name, 25 + 2 * 20, "num_experts_per_tok of the model is 2"),
        (lambda: nn.Sequential(nn.Linear(4, 4), listed()), 20 + 25 + 2 * 20,
         "a top-k of 2 of 5 ran in 1"),
    ],
    ids=["in a loop", "stacked", "router beside", "by name", "further in"],
)  # fmt: skip
def test_active_parameters_follow_the_top_k(
    look: Examine, make: Callable[[], nn.Module], active: int, found: str
) -> None:
    result = look(make(), tensor(4), batch=3)
    assert result.active_parameters == active
    assert [experts.detected_by for experts in result.experts] == [found]


def ensemble() -> nn.Module:
    """Five heads that all count, and a top-k of the classes."""
    return Function(lambda self, x: torch.stack([h(x) for h in self.heads]).sum(0).topk(2).values,
                    heads=nn.ModuleList(nn.Linear(4, 7) for _ in range(5)))  # fmt: skip


def convolutions() -> nn.Module:
    """A classifier whose first layer happens to have as many filters as there are classes."""
    return Function(lambda self, x: self.f(x).mean((2, 3)).topk(2).values,
                    f=nn.Conv2d(3, 6, 3))  # fmt: skip


@pytest.mark.parametrize(
    ("make", "shape"),
    [(ensemble, (4,)), (convolutions, (3, 8, 8)), (lambda: nn.Linear(4, 4), (4,)),
     (lambda: nn.Sequential(*(nn.Linear(4, 4) for _ in range(5))), (4,))],
    ids=["an ensemble", "a convolution", "a layer", "a sequence"],
)  # fmt: skip
def test_a_model_without_experts_has_no_active_parameters(
    look: Examine, make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    result = look(make(), tensor(*shape), batch=3)
    assert (result.active_parameters, result.experts) == (None, ())


def test_stacked_experts_of_transformers_are_found(look: Examine) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.MixtralConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=64, num_local_experts=8, num_experts_per_tok=2,
        use_cache=False,
    )  # fmt: skip
    with torch.device("meta"):
        model = transformers.MixtralForCausalLM(config)
    ids = {"name": "input_ids", "shape": ["batch", 6], "dtype": "int64", "high": 60}
    result = look(model, ids | {"keyword": True}, batch=2)
    experts = 8 * 3 * 32 * 48
    assert [(each.experts, each.active, each.parameters) for each in result.experts] == [
        (8, 2, experts), (8, 2, experts)
    ]  # fmt: skip
    assert result.active_parameters == result.parameters - 2 * experts * 6 // 8
    tokens, attention = 12, 2 * 12 * 6 * 32  # two products of 6 by 6 positions a sequence
    dense = 32 * (32 + 16 + 16 + 32) + 32 * 8 + 2 * 3 * 32 * 48
    assert result.macs == 2 * (tokens * dense + attention) + tokens * 32 * 64
