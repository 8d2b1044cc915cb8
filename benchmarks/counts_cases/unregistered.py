"""Weights that the model does not know of, or not yet."""

from __future__ import annotations

import copy
import functools
from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.counts_cases.case import Case, Lambda


class Pair(NamedTuple):
    first: nn.Module
    second: nn.Module


class Holder:
    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self.module(x)
        return out


class Everywhere(nn.Module):
    """Layers of 20 parameters in every place that torch does not look into."""

    def __init__(self) -> None:
        super().__init__()
        self.in_tuple = (nn.Linear(4, 4),)
        self.in_dict = {"a": {1: nn.Linear(4, 4)}}
        self.in_named_tuple = Pair(nn.Linear(4, 4), nn.Linear(4, 4))
        self.in_namespace = SimpleNamespace(layer=nn.Linear(4, 4))
        self.in_deque = deque([nn.Linear(4, 4)])
        self.in_partial = functools.partial(nn.Linear(4, 4))
        self.in_callable = Holder(nn.Linear(4, 4))
        inner = nn.Linear(4, 4)
        self.in_closure = lambda x: inner(x)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        layers = [self.in_tuple[0], self.in_dict["a"][1], *self.in_named_tuple]
        layers += [self.in_namespace.layer, *self.in_deque, self.in_partial, self.in_callable]
        for layer in [*layers, self.in_closure]:
            x = layer(x)
        out: Tensor = self.head(x)
        return out


class NamedAsAMethod(nn.Module):
    """Names that hide two of `nn.Module`'s own methods."""

    def __init__(self) -> None:
        super().__init__()
        self.modules = [nn.Conv2d(3, 4, 3)]  # type: ignore[method-assign, assignment]
        self.buffers: list[Tensor] = []  # type: ignore[method-assign, assignment]
        self.register_buffer("scale", torch.ones(4, 1, 1))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head((self.modules[0](x) * self.scale).mean((2, 3)))
        return out


class OnTheClass(nn.Module):
    shared = nn.Linear(4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.shared(x))
        return out


class MadeInForward(nn.Module):
    """A new layer in every pass: nothing to train."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(nn.Linear(4, 4)(x))
        return out


class BuiltByTheFirstPass(nn.Module):
    """What people wrote before there were lazy layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head: nn.Module | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).flatten(1)
        if self.head is None:
            self.head = nn.Linear(x.shape[1], 10)
        out: Tensor = self.head(x)
        return out


class GrowsInForward(nn.Module):
    """Registers one more layer in every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        self.layers.append(nn.Linear(4, 4))
        for layer in self.layers:
            x = layer(x)
        return x


class PlainTensorWeight(nn.Module):
    """A weight that is neither parameter nor buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.randn(4, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x @ self.weight)
        return out


def copied_layer(self: Any, x: Tensor) -> Tensor:
    out: Tensor = copy.deepcopy(self.layer)(x)
    return out


CASES = (
    Case(
        name="layers in nine places torch does not look into",
        source="torchview#99",
        model=Everywhere,
        inputs=("batch,4",),
        parameters=10,
        macs=9 * 16 + 8,
        unregistered=9 * 20,
    ),
    Case(
        name="a list called modules, another called buffers",
        source="torchview#99",
        model=NamedAsAMethod,
        inputs=("batch,3,10,10",),
        parameters=10,
        macs=8 * 8 * 4 * 27 + 8,
        unregistered=3 * 4 * 9 + 4,
        buffers_bytes=16,
    ),
    Case(
        name="a layer as an attribute of the class",
        model=OnTheClass,
        inputs=("batch,4",),
        parameters=10,
        macs=24,
        unregistered=20,
    ),
    Case(
        name="a layer made anew in every pass",
        model=MadeInForward,
        inputs=("batch,4",),
        parameters=10,
        macs=24,
        unregistered=20,
    ),
    Case(
        name="a layer built by the first pass",
        model=BuiltByTheFirstPass,
        inputs=("batch,3,8,8",),
        parameters=224 + 2_890,
        macs=36 * 216 + 2_880,
    ),
    Case(
        name="a weight that is a plain tensor",
        model=PlainTensorWeight,
        inputs=("batch,4",),
        parameters=10,
        macs=24,
        unregistered=None,
    ),
    Case(
        name="a copy of a layer is run",
        model=lambda: Lambda(copied_layer, layer=nn.Linear(4, 4)),
        inputs=("batch,4",),
        parameters=20,
        macs=16,
    ),
    Case(
        name="a layer more in every pass",
        model=GrowsInForward,
        inputs=("batch,4",),
        parameters=None,
        macs=48,
    ),
)
