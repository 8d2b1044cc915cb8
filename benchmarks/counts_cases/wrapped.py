"""Models that something else runs: threads, TorchScript, dynamo, fx, an exported program."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.counts_cases.case import Case, Lambda


class Threads(nn.Module):
    """Branches run in threads of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as pool:
            return torch.stack(list(pool.map(lambda branch: branch(x), self.branches)))


def scripted() -> nn.Module:
    return torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))


class CallsTwice(nn.Module):
    """TorchScript's optimizer would call the first layer once."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)) + self.first(x)


def traced() -> nn.Module:
    model: nn.Module = torch.jit.trace(
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval(), torch.randn(2, 3, 5, 5)
    )
    return model


def scripted_inside() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.Linear(4, 2)))


def compiled(**options: Any) -> nn.Module:
    model: Any = torch.compile(
        nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), **options
    )
    return model


def symbolic() -> nn.Module:
    return torch.fx.symbolic_trace(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))


def exported() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    program = torch.export.export(model, (torch.randn(1, 4),))
    unlifted: nn.Module = program.module()
    return unlifted


def forks(self: Any, x: Tensor) -> Tensor:
    futures = [torch.jit.fork(branch, x) for branch in self.branches]
    return torch.stack([torch.jit.wait(future) for future in futures])


def functional_compile(self: Any, x: Tensor) -> Tensor:
    out: Tensor = torch.compile(lambda y: y @ self.weight, backend="eager")(x)
    return out


def no_grad_inside(self: Any, x: Tensor) -> Any:
    with torch.no_grad():
        frozen = self.backbone(x)
    with torch.inference_mode():
        still = self.backbone(frozen)
    return self.head(frozen + still.clone())


_PERCEPTRON = (40 + 18, 32 + 16)

CASES = (
    Case(
        name="branches in threads",
        model=Threads,
        inputs=("batch,4",),
        parameters=60,
        macs=48,
        calls=(("branches.0", 1), ("branches.2", 1)),
    ),
    Case(
        name="torch.jit.fork",
        model=lambda: Lambda(forks, branches=nn.ModuleList(nn.Linear(4, 4) for _ in range(3))),
        inputs=("batch,4",),
        parameters=60,
        macs=48,
    ),
    Case(
        name="DataParallel without a GPU",
        model=lambda: nn.DataParallel(nn.Linear(4, 2)),
        inputs=("batch,4",),
        parameters=10,
        macs=8,
    ),
    Case(
        name="a scripted model",
        model=scripted,
        inputs=("batch,4",),
        parameters=_PERCEPTRON[0],
        macs=_PERCEPTRON[1],
    ),
    Case(
        name="a scripted model that says the same twice",
        model=lambda: torch.jit.script(CallsTwice()),
        inputs=("batch,4",),
        parameters=40,
        macs=48,
    ),
    Case(
        name="a traced model",
        model=traced,
        inputs=("batch,3,5,5",),
        batch=2,
        parameters=112,
        macs=2 * 9 * 108,
    ),
    Case(
        name="a scripted layer in a model",
        model=scripted_inside,
        inputs=("batch,4",),
        parameters=30,
        macs=24,
    ),
    Case(
        name="a compiled model",
        model=compiled,
        inputs=("batch,4",),
        parameters=_PERCEPTRON[0],
        macs=_PERCEPTRON[1],
    ),
    Case(
        name="a model compiled as one graph, eager backend",
        model=lambda: compiled(fullgraph=True, backend="eager"),
        inputs=("batch,4",),
        parameters=_PERCEPTRON[0],
        macs=_PERCEPTRON[1],
    ),
    Case(
        name="a compiled function in a forward",
        model=lambda: Lambda(functional_compile, weight=nn.Parameter(torch.randn(4, 3))),
        inputs=("batch,4",),
        parameters=12,
        macs=12,
    ),
    Case(
        name="a model traced symbolically",
        model=symbolic,
        inputs=("batch,4",),
        parameters=_PERCEPTRON[0],
        macs=_PERCEPTRON[1],
    ),
    Case(
        name="the module of an exported program",
        model=exported,
        inputs=("batch,4",),
        parameters=_PERCEPTRON[0],
        macs=_PERCEPTRON[1],
    ),
    Case(
        name="no_grad and inference_mode inside",
        model=lambda: Lambda(no_grad_inside, backbone=nn.Linear(4, 4), head=nn.Linear(4, 2)),
        inputs=("batch,4",),
        parameters=30,
        macs=40,
        calls=(("backbone", 2),),
    ),
)
