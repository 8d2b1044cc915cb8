"""Weights that have several names, several owners, or a share of one memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.counts_cases.case import Case, Lambda


class TiedAutoencoder(nn.Module):
    """The decoder reads the encoder's weight, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(12, 5)
        self.bias = nn.Parameter(torch.zeros(12))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.encoder(x), self.encoder.weight.t(), self.bias)


class MixtureOfGates(nn.Module):
    """Experts, and gates in a ParameterList that are multiplied by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(9, 4) for _ in range(6))
        self.w_gates = nn.ParameterList([torch.randn(9, 6) for _ in range(2)])

    def forward(self, x: Tensor) -> list[Tensor]:
        outputs = torch.stack([expert(x) for expert in self.experts])
        gates = [(x @ gate).softmax(-1) for gate in self.w_gates]
        return [torch.einsum("ebo,be->bo", outputs, gate) for gate in gates]


class NestedParameters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.ParameterDict(
            {
                "left": nn.Parameter(torch.randn(4, 3)),
                "rest": nn.ParameterList([torch.randn(3, 3), torch.randn(3, 2)]),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.table["left"]
        for matrix in self.table["rest"]:
            x = x @ matrix
        return x


class ReZero(nn.Sequential):
    """A Sequential with a parameter of its own."""

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.weights = nn.Parameter(torch.zeros(len(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self):
            x = x + self.weights[index] * block(x)
        return x


class OwnParameterBesideLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1024))
        self.conv = nn.Conv2d(3, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x) + self.w[:6, None, None]
        return out


class HoldsAnExpandedMask(nn.Module):
    """A buffer of which two elements are one place in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.register_buffer("mask", torch.ones(1, 4).expand(2, 4))

    def forward(self, x: Tensor) -> Any:
        return self.linear(x) * self.mask


class FlatWeights(nn.Module):
    """All parameters are views of one vector; one layer is not run, one only by its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.idle = (nn.Linear(4, 4) for _ in range(3))
        flat = nn.utils.parameters_to_vector(self.parameters()).detach()
        nn.utils.vector_to_parameters(flat, self.parameters())

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(self.a(x), self.b.weight, self.b.bias)


class ViewOfAParameter(nn.Module):
    """Rows of one embedding serve as a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4)

    def forward(self, ids: Tensor) -> Tensor:
        return self.embed(ids).mean(1) @ self.embed.weight[:3].T


def tied() -> nn.Module:
    embed, head = nn.Embedding(50, 8), nn.Linear(8, 50, bias=False)
    head.weight = embed.weight
    return nn.Sequential(embed, head)


def same_layer_twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def shared_block() -> nn.Module:
    block = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    return nn.Sequential(nn.ModuleDict({"a": block})["a"], nn.Sequential(block, block))


def two_names(self: Any, x: Tensor) -> Tensor:
    out: Tensor = self.first(x)
    return out


def aliased() -> nn.Module:
    layer = nn.Linear(4, 4)
    return Lambda(two_names, first=layer, second=layer)


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    return model


def shared_norm() -> nn.Module:
    norm = nn.BatchNorm1d(4)
    return nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 4), norm)


def half_of_a_parameter(self: Any, x: Tensor) -> Tensor:
    return x @ self.weight[:4]


def functional_call(self: Any, x: Tensor) -> Tensor:
    doubled = {name: 2 * p for name, p in self.layer.named_parameters()}
    out: Tensor = torch.func.functional_call(self.layer, doubled, (x,))
    return out


CASES = (
    Case(
        name="tied embedding and head",
        source="torchinfo#322",
        model=tied,
        inputs=("batch,6:int64<50",),
        parameters=400,
        macs=6 * 400,
    ),
    Case(
        name="autoencoder whose decoder is the encoder transposed",
        model=TiedAutoencoder,
        inputs=("batch,12",),
        batch=3,
        parameters=12 * 5 + 5 + 12,
        macs=3 * 2 * 12 * 5,
    ),
    Case(
        name="experts with gates in a ParameterList",
        source="torchinfo#190",
        model=MixtureOfGates,
        inputs=("batch,9",),
        batch=3,
        parameters=6 * 40 + 2 * 54,
        macs=3 * (6 * 36 + 2 * 54 + 2 * 6 * 4),
    ),
    Case(
        name="a ParameterList in a ParameterDict",
        source="torchinfo#54",
        model=NestedParameters,
        inputs=("batch,4",),
        parameters=12 + 9 + 6,
        macs=12 + 9 + 6,
    ),
    Case(
        name="a Sequential with parameters of its own",
        source="torchinfo#137",
        model=lambda: ReZero(nn.Linear(2, 2), nn.Linear(2, 2)),
        inputs=("batch,2",),
        parameters=14,
        trainable=14,
        macs=8,
    ),
    Case(
        name="a parameter beside a convolution",
        source="torchinfo#142",
        model=OwnParameterBesideLayers,
        inputs=("batch,3,8,8",),
        parameters=1024 + 168,
        macs=162 * 36,
    ),
    Case(
        name="one layer twice in a Sequential",
        model=same_layer_twice,
        inputs=("batch,4",),
        parameters=20,
        macs=32,
        calls=(("0", 1), ("2", 1)),
    ),
    Case(
        name="one block in three places",
        source="torchinfo#322",
        model=shared_block,
        inputs=("batch,4",),
        parameters=40,
        macs=96,
    ),
    Case(
        name="one layer under two names",
        model=aliased,
        inputs=("batch,4",),
        parameters=20,
        macs=16,
    ),
    Case(
        name="one BatchNorm in two places",
        model=shared_norm,
        inputs=("batch,4",),
        batch=2,
        parameters=48,
        buffers_bytes=4 * 8 + 8,
        macs=2 * 32,
    ),
    Case(
        name="a frozen layer",
        model=frozen,
        inputs=("batch,4",),
        parameters=40 + 18,
        trainable=18,
        macs=32 + 16,
    ),
    Case(
        name="half of a parameter is read",
        model=lambda: Lambda(half_of_a_parameter, weight=nn.Parameter(torch.ones(8, 3))),
        inputs=("batch,4",),
        parameters=24,
        macs=12,
    ),
    Case(
        name="rows of an embedding as a classifier",
        model=ViewOfAParameter,
        inputs=("batch,6:int64<10",),
        parameters=40,
        macs=12,
    ),
    Case(
        name="functional_call with other weights",
        model=lambda: Lambda(functional_call, layer=nn.Linear(4, 4)),
        inputs=("batch,4",),
        parameters=20,
        macs=16,
        calls=(("layer", 1),),
    ),
    Case(
        name="a buffer that is expanded",
        model=HoldsAnExpandedMask,
        inputs=("batch,4",),
        batch=2,
        parameters=20,
        macs=32,
    ),
    Case(
        name="a parameter that is expanded",
        model=lambda: Lambda(
            lambda self, x: x * self.scale, scale=nn.Parameter(torch.ones(1).expand(6))
        ),
        inputs=("batch,6",),
        parameters=6,
        macs=0,
    ),
    Case(
        name="parameters that are views of one vector, one layer idle",
        model=FlatWeights,
        inputs=("batch,4",),
        parameters=60,
        macs=32,
        unused_parameters=20,
    ),
)
