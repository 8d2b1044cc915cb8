"""Products that no layer makes, and the ways in which torch calls functions for one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from benchmarks.counts_cases.case import Case, Lambda


def function(call: Any, **children: Any) -> Any:
    """A factory of a module that is one function."""
    return lambda: Lambda(call, **children)


class Ensemble(nn.Module):
    """Four linear layers at once by vmap, their weights stacked."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5, 3))
        self.bias = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.func.vmap(functional.linear, in_dims=(None, 0, 0))(
            x, self.weight, self.bias
        )
        return out


class Forces(nn.Module):
    """An energy and its gradient, as potentials of molecules have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            energy = self.second(torch.tanh(self.first(x)))
            (force,) = torch.autograd.grad(energy.sum(), x)
        return energy, -force


class TopOneExperts(nn.Module):
    """Each token goes to one of four experts; how many to which is known by running only."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 4)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        chosen = self.router(x).argmax(-1)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows = (chosen == index).nonzero().squeeze(-1)
            out[rows] = expert(x[rows])
        return out


class DenseExperts(nn.Module):
    """All experts in one product for every token."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(6, 4)
        self.up = nn.Parameter(torch.randn(4, 6, 8))
        self.down = nn.Parameter(torch.randn(4, 8, 6))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.bmm(x.expand(4, -1, -1), self.up).relu()
        out = torch.bmm(hidden, self.down)
        return torch.einsum("eto,te->to", out, self.router(x).softmax(-1))


class Square(torch.autograd.Function):
    """A product inside a function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x.mm(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        return gradients[0] @ weight.T, x.T @ gradients[0]


class BinaryDense(nn.Module):
    def __init__(self, *, sparse: str) -> None:
        super().__init__()
        dense = torch.zeros(6, 8)
        dense[:, :2] = 1.5  # twelve numbers that are not zero
        held = dense.to_sparse() if sparse == "coo" else dense.to_sparse_csr()
        self.register_buffer("weight", held)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.weight @ x.T).T
        return out


class ComplexDense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 8, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.to(torch.complex64) @ self.weight.T).abs()


class Recheck(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.block = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = checkpoint(self.block, x, use_reentrant=self.reentrant)
        return out


def wide_distance(_: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x, y, compute_mode="use_mm_for_euclid_dist")


def chunks(self: Any, x: Tensor) -> Tensor:
    out: Tensor = checkpoint_sequential(self.layers, 2, x, use_reentrant=False)
    return out


def per_sample(self: Any, x: Tensor) -> Tensor:
    out: Tensor = torch.func.vmap(self.linear)(x)
    return out


def tangent(self: Any, x: Tensor) -> Any:
    return torch.func.jvp(self.linear, (x,), (torch.ones_like(x),))


def jagged(self: Any, x: Tensor) -> Tensor:
    nested = torch.nested.nested_tensor([x[0, :3], x[1, :5]], layout=torch.jagged)
    out: Tensor = self.linear(nested).values()
    return out


def halves(self: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out: Tensor = self.linear(x)
    return out.float()


def bags(self: Any, ids: Tensor) -> Tensor:
    out: Tensor = self.bag(ids, torch.tensor([0, 4, 7]))
    return out


def scanned(self: Any, x: Tensor) -> Any:
    from torch._higher_order_ops import scan

    def step(state: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.tanh(state @ self.weight + item)
        return new, new.clone()

    return scan(step, x.new_zeros(x.shape[0], 4), x, dim=1)


def mapped(self: Any, x: Tensor) -> Any:
    from torch._higher_order_ops.map import map as each

    return each(self.linear, x)


def chosen(self: Any, x: Tensor) -> Any:
    return torch.cond(x.sum() > 0, self.one, self.other, (x,))


CASES = (
    Case(
        name="nn.Bilinear",
        model=lambda: nn.Bilinear(5, 6, 7),
        inputs=("batch,5", "batch,6"),
        batch=3,
        parameters=5 * 6 * 7 + 7,
        macs=3 * 7 * 6 * (5 + 1),
    ),
    Case(
        name="matmul, broadcast over both batches",
        model=function(lambda _, a, b: a @ b),
        inputs=("2,1,4,5", "3,5,6"),
        parameters=0,
        macs=2 * 3 * 4 * 5 * 6,
    ),
    Case(
        name="matrix times vector, vector times matrix, and two vectors",
        model=function(lambda _, m, a, b: (m @ a, b @ m, a @ a)),
        inputs=("4,5", "5", "4"),
        parameters=0,
        macs=20 + 20 + 5,
        outputs={"0": (4,), "1": (5,), "2": ()},
    ),
    Case(
        name="baddbmm, addbmm, addmm, addmv and addr",
        model=function(
            lambda _, a, b: (
                torch.baddbmm(torch.zeros(1), a, b),
                torch.addbmm(torch.zeros(3, 5), a, b),
                torch.addmm(torch.zeros(5), a[0], b[0]),
                torch.addmv(torch.zeros(3), a[0], b[0, :, 0]),
                torch.addr(torch.zeros(3, 5), a[0, :, 0], b[0, 0]),
            )
        ),
        inputs=("2,3,4", "2,4,5"),
        parameters=0,
        macs=120 + 120 + 60 + 12 + 15,
    ),
    Case(
        name="tensordot, inner, chain and power",
        model=function(
            lambda _, a, b: (
                torch.tensordot(a, b, dims=([0, 1], [1, 0])),
                torch.inner(a[0, :, :3], b[0, :2, :3]),
                torch.linalg.multi_dot([a[0, 0:1], a[0].T, a[0]]),
                torch.linalg.matrix_power(a[0, :, :3], 4),
            )
        ),
        inputs=("2,3,4", "3,2,5"),
        parameters=0,
        macs=4 * 6 * 5 + 3 * 2 * 3 + (1 * 4 * 3 + 1 * 3 * 4) + 2 * 27,
    ),
    Case(
        name="einsum of three operands",
        model=function(lambda _, a, b, c: torch.einsum("ij,jk,kl->il", a, b, c)),
        inputs=("2,3", "3,4", "4,5"),
        parameters=0,
        macs=2 * 3 * 4 + 2 * 4 * 5,
    ),
    Case(
        name="cdist by a product",
        model=function(wide_distance),
        inputs=("30,8", "40,8"),
        parameters=0,
        macs=None,
        uncounted=None,
    ),
    Case(
        name="embedding bags with offsets",
        source="pytorch-summary#42",
        model=function(bags, bag=nn.EmbeddingBag(50, 8, mode="mean")),
        inputs=("10:int64<50",),
        parameters=400,
        macs=0,
        outputs={"": (3, 8)},
    ),
    Case(
        name="embedding bag with weights of samples",
        model=function(
            lambda self, ids, w: self.bag(ids, per_sample_weights=w),
            bag=nn.EmbeddingBag(50, 8, mode="sum"),
        ),
        inputs=("batch,4:int64<50", "batch,4"),
        batch=3,
        parameters=400,
        macs=0,
    ),
    Case(
        name="top-one experts",
        model=TopOneExperts,
        inputs=("batch,6",),
        batch=16,
        parameters=28 + 4 * 42,
        macs=16 * (24 + 36),
        active=28 + 42,
        unused_parameters=None,
    ),
    Case(
        name="dense experts",
        model=DenseExperts,
        inputs=("batch,6",),
        batch=5,
        parameters=28 + 2 * 4 * 48,
        macs=5 * (24 + 2 * 4 * 48 + 4 * 6),
    ),
    Case(
        name="checkpointing, with reentry",
        model=lambda: Recheck(reentrant=True),
        inputs=("batch,4",),
        parameters=76,
        macs=64,
    ),
    Case(
        name="checkpointing, without reentry",
        model=lambda: Recheck(reentrant=False),
        inputs=("batch,4",),
        parameters=76,
        macs=64,
    ),
    Case(
        name="checkpoint_sequential",
        model=function(chunks, layers=nn.Sequential(*(nn.Linear(4, 4) for _ in range(4)))),
        inputs=("batch,4",),
        parameters=80,
        macs=64,
    ),
    Case(
        name="an ensemble by vmap",
        model=Ensemble,
        inputs=("batch,3",),
        batch=2,
        parameters=4 * 20,
        macs=4 * 2 * 15,
    ),
    Case(
        name="vmap over samples of a registered layer",
        model=function(per_sample, linear=nn.Linear(3, 5)),
        inputs=("batch,7,3",),
        batch=2,
        parameters=20,
        macs=2 * 7 * 15,
        calls=(("linear", 1),),
    ),
    Case(
        name="forward-mode derivative",
        model=function(tangent, linear=nn.Linear(3, 5)),
        inputs=("batch,3",),
        parameters=20,
        macs=2 * 15,  # the weight has no tangent, and torch does not multiply by that zero
    ),
    Case(
        name="energy and forces",
        model=Forces,
        inputs=("batch,3",),
        batch=4,
        parameters=32 + 9,
        macs=4 * 2 * (24 + 8),
    ),
    Case(
        name="a product in an autograd.Function",
        model=function(
            lambda self, x: Square.apply(x, self.weight), weight=nn.Parameter(torch.randn(4, 3))
        ),
        inputs=("batch,4",),
        parameters=12,
        macs=12,
    ),
    Case(
        name="a sparse weight by coordinates",
        model=lambda: BinaryDense(sparse="coo"),
        inputs=("batch,8",),
        batch=3,
        parameters=0,
        macs=12 * 3,
    ),
    Case(
        name="a sparse weight by rows",
        model=lambda: BinaryDense(sparse="csr"),
        inputs=("batch,8",),
        batch=3,
        parameters=0,
        macs=12 * 3,
    ),
    Case(
        name="a complex weight",
        model=ComplexDense,
        inputs=("batch,8",),
        parameters=32,
        parameter_bytes=32 * 8,
        macs=32,
    ),
    Case(
        name="a jagged batch of 3 and 5 rows",
        model=function(jagged, linear=nn.Linear(4, 6)),
        inputs=("batch,5,4",),
        batch=2,
        parameters=30,
        macs=8 * 24,
    ),
    Case(
        name="autocast to bfloat16 inside",
        model=function(halves, linear=nn.Linear(8, 4)),
        inputs=("batch,8",),
        parameters=36,
        macs=32,
    ),
    Case(
        name="a layer in half precision",
        model=lambda: nn.Linear(8, 4).half(),
        inputs=("batch,8:float16",),
        parameters=36,
        parameter_bytes=72,
        macs=32,
    ),
    Case(
        name="a layer in double precision",
        model=lambda: nn.Linear(8, 4).double(),
        inputs=("batch,8:float64",),
        parameters=36,
        parameter_bytes=288,
        macs=32,
    ),
    Case(
        name="a product of integers",
        model=function(lambda _, a: a @ a.T),
        inputs=("4,6:int64<9",),
        parameters=0,
        macs=96,
    ),
    Case(
        name="a product of no rows",
        model=function(lambda self, x: self.linear(x[:0]), linear=nn.Linear(8, 4)),
        inputs=("batch,8",),
        parameters=36,
        macs=0,
        unused_parameters=None,
        outputs={"": (0, 4)},
    ),
    Case(
        name="scan over five steps",
        model=function(scanned, weight=nn.Parameter(torch.randn(4, 4))),
        inputs=("batch,5,4",),
        batch=2,
        parameters=16,
        macs=2 * 5 * 16,
    ),
    Case(
        name="map over three rows",
        model=function(mapped, linear=nn.Linear(4, 4)),
        inputs=("3,2,4",),
        parameters=20,
        macs=3 * 2 * 16,
    ),
    Case(
        name="torch.cond counts its dearer branch",
        model=function(
            chosen, one=nn.Linear(4, 2), other=nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        ),
        inputs=("batch,4",),
        parameters=10 + 30,
        macs=16 + 8,
        unused_parameters=None,
    ),
    Case(
        name="spectra are counted or named",
        model=function(lambda _, x: torch.fft.irfft(torch.fft.rfft(x))),
        inputs=("batch,64",),
        parameters=0,
        macs=None,
        uncounted=None,
    ),
    Case(
        name="inverses and factors are counted or named",
        model=function(lambda _, x: (torch.linalg.inv(x), torch.linalg.qr(x), torch.svd(x))),
        inputs=("batch,5,5",),
        parameters=0,
        macs=None,
        uncounted=None,
    ),
)
