"""Weights that are made from others, and weights that are held as integers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from benchmarks.counts_cases.case import Case, Lambda


class LowRank(nn.Module):
    """LoRA as a parametrization: W + B A."""

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(rank, inputs))
        self.b = nn.Parameter(torch.zeros(outputs, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.b @ self.a


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


class AdaptedLinear(nn.Module):
    """LoRA beside a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(8, 6).requires_grad_(False)
        self.a = nn.Linear(8, 2, bias=False)
        self.b = nn.Linear(2, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + self.b(self.a(x))
        return out


def lora() -> nn.Module:
    linear = nn.Linear(8, 6)
    linear.weight.requires_grad_(False)
    parametrize.register_parametrization(linear, "weight", LowRank(6, 8, 2))
    return linear


def stacked() -> nn.Module:
    linear = nn.Linear(8, 8)
    parametrize.register_parametrization(linear, "weight", Symmetric())
    parametrize.register_parametrization(linear, "weight", LowRank(8, 8, 2))
    return linear


def cached(self: Any, x: Tensor) -> Tensor:
    with parametrize.cached():
        for _ in range(3):
            x = self.layer(x)
    return x


def pruned() -> nn.Module:
    linear = nn.Linear(8, 4)
    prune.random_unstructured(linear, "weight", 0.5)
    return nn.Sequential(linear)


def static_int8() -> nn.Module:
    """Eager-mode static quantization of a convolution, a ReLU fused to it, and a head."""
    ao = torch.ao.quantization
    model = nn.Sequential(
        ao.QuantStub(),
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 10),
        ao.DeQuantStub(),
    ).eval()
    model.qconfig = ao.get_default_qconfig(torch.backends.quantized.engine)
    fused = ao.fuse_modules(model, [["1", "2"]])
    prepared = ao.prepare(fused)
    prepared(torch.randn(2, 3, 8, 8))
    converted: nn.Module = ao.convert(prepared)
    return converted


def observed() -> nn.Module:
    """Prepared for quantization-aware training: fake quantization beside float weights."""
    ao = torch.ao.quantization
    model = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
    model.qconfig = ao.get_default_qat_qconfig(torch.backends.quantized.engine)
    prepared: nn.Module = ao.prepare_qat(model.train())
    return prepared


def dynamic(model: nn.Module) -> nn.Module:
    quantized: nn.Module = torch.ao.quantization.quantize_dynamic(
        model.eval(), {nn.Linear}, dtype=torch.qint8
    )
    return quantized


class IntegerWeight(nn.Module):
    """Weights as int8 parameters with a scale, cast for the product."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randint(-127, 127, (4, 8), dtype=torch.int8), requires_grad=False
        )
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.weight.float().T) * self.scale


class IntegerProduct(nn.Module):
    """int8 times int8 into int32, as LLM.int8() does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 127, (32, 16), dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x * 10).to(torch.int8)
        return torch._int_mm(rounded, self.weight).float() / 100


class Weight8Only(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randint(-127, 127, (16, 32), dtype=torch.int8))
        self.register_buffer("scales", torch.ones(16, dtype=torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.aten._weight_int8pack_mm(x, self.weight, self.scales)


class EightBitFloats(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(16, 32).to(torch.float8_e4m3fn)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.to(x.dtype).T


def old_weight_norm() -> nn.Module:
    return nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 4)))


def old_spectral_norm() -> nn.Module:
    return nn.Sequential(nn.utils.spectral_norm(nn.Linear(8, 4)))


def _layer(call: Any, layer: nn.Module) -> nn.Module:
    return Lambda(call, layer=layer)


CASES = (
    Case(
        name="weight_norm, the old one",
        model=old_weight_norm,
        inputs=("batch,8",),
        parameters=32 + 4 + 4,
        macs=32,
    ),
    Case(
        name="weight_norm, the parametrization",
        model=lambda: parametrizations.weight_norm(nn.Linear(8, 4)),
        inputs=("batch,8",),
        parameters=32 + 4 + 4,
        macs=32,
    ),
    Case(
        name="weight_norm of a transposed convolution",
        model=lambda: parametrizations.weight_norm(nn.ConvTranspose1d(8, 4, 3, stride=2), dim=1),
        inputs=("batch,8,10",),
        parameters=8 * 4 * 3 + 4 + 4,
        macs=10 * 8 * 4 * 3,
    ),
    Case(
        name="spectral_norm, the old one, with u W v",
        model=old_spectral_norm,
        inputs=("batch,8",),
        parameters=36,
        buffers_bytes=4 * (4 + 8),
        macs=32 + (32 + 4),
    ),
    Case(
        name="spectral_norm, the parametrization, with u W v",
        model=lambda: parametrizations.spectral_norm(nn.Linear(8, 4)),
        inputs=("batch,8",),
        parameters=36,
        macs=32 + (32 + 4),
    ),
    Case(
        name="orthogonal weight by Householder reflections",
        model=lambda: parametrizations.orthogonal(nn.Linear(8, 4), orthogonal_map="householder"),
        inputs=("batch,8",),
        parameters=36,
        macs=None,
        uncounted=None,
    ),
    Case(
        name="LoRA as a parametrization",
        model=lora,
        inputs=("batch,8",),
        batch=3,
        parameters=48 + 6 + 2 * (8 + 6),
        trainable=6 + 2 * (8 + 6),
        macs=3 * 48 + 6 * 2 * 8,
    ),
    Case(
        name="LoRA beside a frozen layer",
        model=AdaptedLinear,
        inputs=("batch,8",),
        batch=3,
        parameters=54 + 28,
        trainable=28,
        macs=3 * (48 + 16 + 12),
    ),
    Case(
        name="two parametrizations on one weight",
        model=stacked,
        inputs=("batch,8",),
        parameters=72 + 32,
        macs=64 + 8 * 2 * 8,
    ),
    Case(
        name="a cached parametrization, the layer applied three times",
        model=lambda: _layer(cached, stacked()),
        inputs=("batch,8",),
        parameters=72 + 32,
        macs=3 * 64 + 8 * 2 * 8,
        calls=(("layer", 3),),
    ),
    Case(
        name="a pruned layer keeps its weight and a mask",
        source="parameters of pruned models",
        model=pruned,
        inputs=("batch,8",),
        parameters=36,
        buffers_bytes=4 * 32,
        macs=32,
    ),
    Case(
        name="static int8: convolution with ReLU, and a head",
        source="torchinfo#29",
        model=static_int8,
        inputs=("batch,3,8,8",),
        batch=2,
        parameters=224 + 2_890,
        macs=2 * (36 * 216 + 2_880),
    ),
    Case(
        name="prepared for quantization-aware training",
        model=observed,
        inputs=("batch,8",),
        parameters=36,
        macs=32,
    ),
    Case(
        name="dynamic int8 in a model that also holds floats",
        model=lambda: dynamic(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))),
        inputs=("batch,1,8,8",),
        parameters=20 + 219,
        macs=36 * 18 + 216,
    ),
    Case(
        name="dynamic int8, one layer idle",
        model=lambda: dynamic(
            Lambda(lambda self, x: self.used(x), used=nn.Linear(4, 4), idle=nn.Linear(4, 3))
        ),
        inputs=("batch,4",),
        parameters=35,
        macs=16,
        unused_parameters=15,
    ),
    Case(
        name="int8 parameters that are cast",
        model=IntegerWeight,
        inputs=("batch,8",),
        parameters=32 + 4,
        trainable=4,
        parameter_bytes=32 + 16,
        macs=32,
    ),
    Case(
        name="a product of int8 matrices",
        model=IntegerProduct,
        inputs=("32,32",),
        parameters=0,
        buffers_bytes=512,
        macs=32 * 32 * 16,
    ),
    Case(
        name="int8 weights under bfloat16 activations",
        model=Weight8Only,
        inputs=("batch,32:bfloat16",),
        batch=3,
        parameters=0,
        buffers_bytes=512 + 32,
        macs=3 * 32 * 16,
    ),
    Case(
        name="float8 parameters that are cast",
        model=EightBitFloats,
        inputs=("batch,32",),
        parameters=512,
        parameter_bytes=512,
        macs=512,
    ),
)
