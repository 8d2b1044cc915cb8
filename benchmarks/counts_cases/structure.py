"""What goes in and comes out, how modules are nested, named and hooked."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from benchmarks.counts_cases.case import Case, Lambda


@dataclass
class Output:
    logits: Tensor
    hidden: list[Tensor] | None = None
    loss: Tensor | None = None


class Scores(NamedTuple):
    mean: Tensor
    rest: dict[int, Tensor]


class Batch:
    """Somebody's own input class: no dataclass, no mapping."""

    def __init__(self, pixels: Tensor, size: int) -> None:
        self.pixels = pixels
        self.size = size


class TakesABatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, batch: Batch, scale: Tensor | None = None) -> Output:
        assert scale is None
        return Output(logits=self.linear(batch.pixels), hidden=[batch.pixels, batch.pixels])


class Wrapping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = TakesABatch()

    def forward(self, x: Tensor) -> Any:
        return self.inner(Batch(x, 3), scale=None)


class Nested(nn.Module):
    """So many levels of one module in another."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.m: nn.Module = Nested(levels - 1) if levels else nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.m(x)
        return out


class Anything(nn.Module):
    """Its forward says nothing of what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        out: Tensor = self.linear(args[0] + kwargs["y"])
        return out if kwargs.get("flag") is None else None


class Hooked(nn.Module):
    """A hook before takes keywords, a hook after makes another product of the output."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Anything()
        self.extra = nn.Parameter(torch.randn(2, 5))
        self.inner.register_forward_pre_hook(self._double, with_kwargs=True)
        self.inner.register_forward_hook(self._project)

    @staticmethod
    def _double(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return tuple(2 * arg for arg in args), {**kwargs, "y": -kwargs["y"]}

    def _project(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        return output @ self.extra

    def forward(self, x: Tensor) -> Any:
        return self.inner(x, y=x)


class OddNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.add_module("<b>bold</b>", nn.Linear(4, 4))
        self.add_module("층 하나", nn.Linear(4, 4))
        self.add_module("=1+1", nn.Linear(4, 4))
        self.add_module("parameters()", nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


class DottedName(nn.Module):
    """A name with a dot in it, past the check of add_module, beside the path it looks like."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Sequential(OrderedDict(b=nn.Linear(4, 4)))
        self._modules["a.b"] = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self._modules["a.b"](self.a(x))  # type: ignore[misc]
        return out


class Branches(nn.Module):
    """A module that is None, one that is the identity, one that only training runs."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut = None
        self.register_module("down", None)
        self.same = nn.Identity()
        self.linear = nn.Linear(4, 4)
        self.auxiliary = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.same(self.linear(x))
        return (x, self.auxiliary(x)) if self.training else x


def forced(self: Any, x: Tensor, mode: str, flag: bool, nothing: None) -> Any:
    assert mode == "mean"
    assert flag is True
    assert nothing is None
    return self.linear(x)


def by_number(self: Any, x: Tensor) -> Any:
    return {0: self.linear(x), 1: None, "name": "text", "deep": [(x, 3.0), {"k": x.sum()}]}


CASES = (
    Case(
        name="lazy norms, whose buffers are lazy too",
        model=lambda: nn.Sequential(
            nn.LazyConv1d(4, 3), nn.LazyBatchNorm1d(), nn.LazyInstanceNorm1d(affine=True)
        ),
        inputs=("batch,2,8",),
        batch=2,
        parameters=28 + 8 + 8,
        macs=2 * 6 * 24,
        training_macs=2 * 2 * 6 * 24,
        buffers_bytes=2 * (2 * 16 + 8),
    ),
    Case(
        name="an input class and an output dataclass with None",
        source="torchinfo#44",
        model=Wrapping,
        inputs=("batch,4",),
        parameters=10,
        macs=8,
        outputs={"logits": (1, 2), "hidden.0": (1, 4), "hidden.1": (1, 4)},
    ),
    Case(
        name="a NamedTuple with a dict by numbers",
        model=lambda: Lambda(
            lambda self, x: Scores(self.linear(x), {0: x, 7: x[:, :1]}), linear=nn.Linear(4, 2)
        ),
        inputs=("batch,4",),
        parameters=10,
        macs=8,
        outputs={"mean": (1, 2), "rest.0": (1, 4), "rest.7": (1, 1)},
    ),
    Case(
        name="a dict by numbers with None, text and a nested scalar",
        source="pytorch-summary#185, #200",
        model=lambda: Lambda(by_number, linear=nn.Linear(4, 2)),
        inputs=("batch,4",),
        parameters=10,
        macs=8,
        outputs={"0": (1, 2), "deep.0.0": (1, 4), "deep.1.k": ()},
    ),
    Case(
        name="keys that read alike",
        model=lambda: Lambda(
            lambda self, x: {1: self.linear(x), "1": x, "a.b": x[:, :1], "a": {"b": x[:, :3]}},
            linear=nn.Linear(4, 2),
        ),
        inputs=("batch,4",),
        parameters=10,
        macs=8,
        leaves=4,
    ),
    Case(
        name="a distribution",
        model=lambda: Lambda(
            lambda self, x: Normal(self.mean(x), self.scale(x).exp()),
            mean=nn.Linear(4, 2),
            scale=nn.Linear(4, 2),
        ),
        inputs=("batch,4",),
        parameters=20,
        macs=16,
        outputs={"loc": (1, 2), "scale": (1, 2)},
    ),
    Case(
        name="an object with tensors as attributes",
        model=lambda: Lambda(
            lambda self, x: SimpleNamespace(score=self.linear(x), count=3), linear=nn.Linear(4, 2)
        ),
        inputs=("batch,4",),
        parameters=10,
        macs=8,
        outputs={"score": (1, 2)},
    ),
    Case(
        name="nothing comes out",
        model=lambda: Lambda(lambda self, x: (self.linear(x), None)[1], linear=nn.Linear(4, 2)),
        inputs=("batch,4",),
        parameters=10,
        macs=8,
        outputs={},
    ),
    Case(
        name="an array of NumPy comes out",
        source="torchinfo#152",
        model=lambda: Lambda(lambda self, x: self.linear(x).numpy(), linear=nn.Linear(4, 2)),
        inputs=("batch,4",),
        parameters=10,
        macs=8,
        outputs=None,
    ),
    Case(
        name="text, a flag and None go in",
        model=lambda: Lambda(forced, linear=nn.Linear(4, 2)),
        inputs=(
            "batch,4",
            {"value": {"value": "mean"}},
            {"value": {"value": True}},
            {"value": {"value": None}},
        ),
        parameters=10,
        macs=8,
    ),
    Case(
        name="*args and **kwargs",
        model=Anything,
        inputs=("batch,4", {"name": "y", "keyword": True, "shape": ["batch", 4]}),
        parameters=10,
        macs=8,
    ),
    Case(
        name="no inputs",
        model=lambda: Lambda(
            lambda self: self.linear.weight @ self.linear.bias, linear=nn.Linear(3, 3)
        ),
        inputs=(),
        parameters=12,
        macs=9,
    ),
    Case(
        name="a scalar goes in",
        model=lambda: Lambda(lambda self, t: self.linear(t[None]), linear=nn.Linear(1, 4)),
        inputs=({"shape": []},),
        parameters=8,
        macs=4,
    ),
    Case(
        name="no parameters",
        model=lambda: Lambda(lambda _, x: x @ x.mT),
        inputs=("batch,3,5",),
        parameters=0,
        macs=45,
    ),
    Case(
        name="integers only",
        model=lambda: Lambda(lambda _, x: x.bincount(minlength=4)),
        inputs=("9:int64<4",),
        parameters=0,
        macs=0,
    ),
    Case(
        name="300 levels of nesting",
        model=lambda: Nested(300),
        inputs=("batch,4",),
        parameters=20,
        macs=16,
    ),
    Case(
        name="2,000 layers",
        model=lambda: nn.Sequential(*(nn.Linear(4, 4) for _ in range(2_000))),
        inputs=("batch,4",),
        parameters=40_000,
        macs=32_000,
    ),
    Case(
        name="one layer called 1,000 times",
        model=lambda: nn.Sequential(*[nn.Linear(4, 4)] * 1_000),
        inputs=("batch,4",),
        parameters=20,
        macs=16_000,
    ),
    Case(
        name="names in HTML and Korean, a formula, a method",
        model=OddNames,
        inputs=("batch,4",),
        parameters=80,
        macs=64,
    ),
    Case(
        name="a name with a dot in it",
        model=DottedName,
        inputs=("batch,4",),
        parameters=30,
        macs=24,
    ),
    Case(
        name="None, the identity, and a head for training",
        model=Branches,
        inputs=("batch,4",),
        parameters=35,
        macs=16,
        unused_parameters=15,
    ),
    Case(
        name="hooks that change keywords and multiply the output",
        model=Hooked,
        inputs=("batch,4",),
        batch=3,
        parameters=10 + 10,
        macs=3 * (8 + 10),
        outputs={"": (3, 5)},
    ),
)
