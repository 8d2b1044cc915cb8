"""Forward and backward, and experts of which a token sees a few.

Backward costs a layer one product more for its weight, if that is trained, and one for its input,
if anything before it is trained.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from benchmarks.counts_cases.case import Case, Lambda


class Experts(nn.Module):
    """Of six experts every token takes the best two; a shared one sees all of them."""

    def __init__(self, *, loop: bool) -> None:
        super().__init__()
        self.loop = loop
        self.router = nn.Linear(8, 6, bias=False)
        self.experts = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(6))
        self.shared = nn.Linear(8, 8, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        out: Tensor = self.shared(x)
        for index, expert in enumerate(self.experts):
            if self.loop:  # only the rows that chose it
                row, rank = (chosen == index).nonzero(as_tuple=True)
                out = out.index_add(0, row, expert(x[row]) * weights[row, rank, None])
            else:  # all rows, most of them times zero
                share = (weights * (chosen == index)).sum(-1, keepdim=True)
                out = out + expert(x) * share
        return out


class GroupedExperts(nn.Module):
    """Weights of all experts in one tensor, rows sorted by expert, one grouped product."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(16, 4, bias=False)
        self.weight = nn.Parameter(torch.randn(4, 16, 32))

    def forward(self, x: Tensor) -> Tensor:
        weights, chosen = self.router(x).softmax(-1).topk(2)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        ends = torch.stack([(flat == index).sum() for index in range(4)]).cumsum(0)
        rows = x.repeat_interleave(2, 0)[order]
        out = functional.grouped_mm(
            rows.bfloat16(), self.weight.bfloat16(), offs=ends.to(torch.int32)
        )
        mixed = torch.zeros_like(out).index_copy(0, order, out).view(-1, 2, 32)
        return (mixed * weights[..., None]).sum(1)


class TwoBlocksTwoClasses(nn.Module):
    """As many blocks as classes, and the best class by argmax: no experts anywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        for block in self.blocks:
            x = block(x).relu()
        logits = self.head(x)
        return logits, logits.argmax(-1)


class FourTasks(nn.Module):
    """Four heads of which every sample sees all, and the best two of four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(8, 8)
        self.heads = nn.ModuleList(nn.Linear(8, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Any:
        x = self.body(x)
        found = torch.stack([head(x) for head in self.heads])
        return found, found[0].topk(2)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def frozen_body() -> nn.Module:
    model = perceptron()
    model[0].requires_grad_(False)  # type: ignore[index]
    return model


def frozen_head() -> nn.Module:
    model = perceptron()
    model[2].requires_grad_(False)  # type: ignore[index]
    return model


def four_times(self: Any, x: Tensor) -> Tensor:
    for _ in range(4):
        x = self.linear(x)
    return x


def rechecked(self: Any, x: Tensor) -> Any:
    return checkpoint(self.block, x, use_reentrant=False)


def tied() -> nn.Module:
    embed, head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
    head.weight = embed.weight
    return nn.Sequential(embed, head)


def stopped(self: Any, x: Tensor) -> Any:
    with torch.no_grad():
        x = self.first(x)
    return self.second(x)


CASES = (
    Case(
        name="training one layer: the weight's gradient only",
        model=lambda: nn.Linear(8, 4),
        inputs=("batch,8",),
        batch=3,
        parameters=36,
        macs=96,
        training_macs=2 * 96,
    ),
    Case(
        name="training two layers",
        model=perceptron,
        inputs=("batch,4",),
        batch=3,
        parameters=58,
        macs=3 * (32 + 16),
        training_macs=3 * (2 * 32 + 3 * 16),
    ),
    Case(
        name="training a head on a frozen layer",
        model=frozen_body,
        inputs=("batch,4",),
        parameters=58,
        trainable=18,
        macs=32 + 16,
        training_macs=32 + 2 * 16,
    ),
    Case(
        name="training a layer under a frozen head",
        model=frozen_head,
        inputs=("batch,4",),
        parameters=58,
        trainable=40,
        macs=32 + 16,
        training_macs=2 * 32 + 2 * 16,
    ),
    Case(
        name="training with everything frozen",
        model=lambda: nn.Linear(8, 4).requires_grad_(False),
        inputs=("batch,8",),
        parameters=36,
        trainable=0,
        macs=32,
    ),
    Case(
        name="training a convolution and a head",
        model=lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
        ),
        inputs=("batch,3,8,8",),
        batch=2,
        parameters=112 + 8 + 725,
        macs=2 * (36 * 108 + 720),
        training_macs=2 * (2 * 36 * 108 + 3 * 720),
    ),
    Case(
        name="training a transposed and a depthwise convolution",
        model=lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 6, 2, stride=2), nn.Conv2d(6, 6, 3, groups=6)
        ),
        inputs=("batch,3,4,4",),
        parameters=78 + 60,
        macs=16 * 72 + 36 * 54,
        training_macs=2 * 16 * 72 + 3 * 36 * 54,
    ),
    Case(
        name="training one layer applied four times",
        model=lambda: Lambda(four_times, linear=nn.Linear(5, 5)),
        inputs=("batch,5",),
        batch=6,
        parameters=30,
        macs=600,
        training_macs=150 * (4 + 4 + 3),
    ),
    Case(
        name="training with checkpointing",
        model=lambda: Lambda(rechecked, block=perceptron()),
        inputs=("batch,4",),
        parameters=58,
        macs=48,
        training_macs=48 + 32 + 32 + 2 * 16,  # recomputed as far as something is needed: the first
    ),
    Case(
        name="training tied weights",
        model=tied,
        inputs=("batch,6:int64<50",),
        parameters=400,
        macs=2_400,
        training_macs=3 * 2_400,
    ),
    Case(
        name="training behind no_grad",
        model=lambda: Lambda(stopped, first=nn.Linear(4, 4), second=nn.Linear(4, 2)),
        inputs=("batch,4",),
        parameters=30,
        macs=24,
        training_macs=16 + 2 * 8,
    ),
    *(
        Case(
            name=f"two of six experts, {words}",
            model=lambda loop=loop: Experts(loop=loop),
            inputs=("batch,8",),
            batch=10,
            parameters=48 + 7 * 64,
            macs=10 * (48 + 64 + (2 if loop else 6) * 64),
            active=48 + 3 * 64,
            unused_parameters=None,
        )
        for loop, words in ((True, "by rows"), (False, "all computed"))
    ),
    Case(
        name="two of four experts in one grouped product",
        model=GroupedExperts,
        inputs=("batch,16",),
        batch=6,
        parameters=64 + 4 * 512,
        macs=6 * (64 + 2 * 512),
        active=64 + 2 * 512,
    ),
    Case(
        name="as many blocks as classes: no experts",
        model=TwoBlocksTwoClasses,
        inputs=("batch,8",),
        parameters=2 * 72 + 18,
        macs=2 * 64 + 16,
    ),
    Case(
        name="as many tasks as classes: no experts",
        model=FourTasks,
        inputs=("batch,8",),
        parameters=72 + 4 * 36,
        macs=64 + 4 * 32,
    ),
)
