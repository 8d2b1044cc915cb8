"""Models that Python allows and tools do not expect."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.counts_cases.case import Case, Lambda


class Base(nn.Module):
    """Linear(4, 2): 10 parameters and 8 multiply-adds, to which a subclass does something odd."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.linear(x)


class TrainReturnsNothing(Base):
    """Forgets to return itself, so that `.eval()` is None."""

    def train(self, mode: bool = True) -> Any:
        super().train(mode)


class StaysInTraining(Base):
    """Freezes its own mode, as backbones with frozen norms do."""

    def train(self, mode: bool = True) -> Any:
        return super().train(mode or True)


class HidesParameters(Base):
    def named_parameters(self, *_: Any, **__: Any) -> Iterator[Any]:
        return iter(())

    def parameters(self, *_: Any, **__: Any) -> Iterator[Any]:
        return iter(())


class OwnStateDict(Base):
    def state_dict(self, *_: Any, **__: Any) -> Any:
        return {"nothing": "here"}


class Delegates(Base):
    """Unknown attributes are those of the layer."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("linear"), name)


class OwnCall(Base):
    def __call__(self, x: Tensor) -> Any:
        return {"out": self.forward(x)}


class Empty(Base):
    """Has a length of zero, so that it is false."""

    def __len__(self) -> int:
        return 0


class ComparesByValue(Base):
    def __eq__(self, other: object) -> Any:
        raise RuntimeError("not to be compared")

    __hash__ = nn.Module.__hash__


class NotCopied(Base):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("this model cannot be copied")


class HoldsALock(Base):
    def __init__(self) -> None:
        super().__init__()
        import threading

        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Any:
        with self.lock:
            return self.linear(x)


class WordsThatRaise(Base):
    def extra_repr(self) -> str:
        raise RuntimeError("no words")

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    @property
    def broken(self) -> Any:
        raise RuntimeError("never look here")


class ForwardOnTheInstance(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.forward = lambda x: self.linear(x)


class ChangesTheWorld(Base):
    def forward(self, x: Tensor) -> Any:
        torch.manual_seed(1)
        random.seed(1)
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(True)
        os.environ["REPORTGEN_COUNTS_CASE"] = "was here"
        warnings.warn("a warning", stacklevel=1)
        out = self.linear(x) + torch.rand(()).float()
        torch.set_default_dtype(torch.float32)
        return out


class InPlace(Base):
    """Adds to its input, its parameter and its buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        x.add_(1)
        self.calls += 1
        with torch.no_grad():
            self.linear.weight.mul_(0.9)
        return self.linear(x)


class Alternates(Base):
    """Another course in every second call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.other = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.linear(x) if self.calls % 2 else self.other(x)


class RaisesInEval(Base):
    def forward(self, x: Tensor) -> Any:
        if not self.training:
            raise RuntimeError("this model can only be trained")
        return self.linear(x)


class Loops(Base):
    """Until a value is reached, seven times with these inputs."""

    def forward(self, x: Tensor) -> Any:
        total, out = x.new_zeros(()), self.linear(x)
        while total.item() < 6.5:
            out, total = out + self.linear(x), total + 1
        return out


class ThroughNumpy(Base):
    def forward(self, x: Tensor) -> Any:
        return self.linear(torch.from_numpy(x.numpy() * 2))


class Sampled(Base):
    """Keeps the rows where a coin says so, all of them with this one."""

    def forward(self, x: Tensor) -> Any:
        kept = torch.rand(x.shape[0]) >= 0
        return self.linear(x[kept])


def inference_weights() -> nn.Module:
    with torch.inference_mode():
        return Base()


def on_meta() -> nn.Module:
    return Base().to("meta")


def half_on_meta() -> nn.Module:
    model = Base()
    model.unused = nn.Linear(7, 7, device="meta")
    return model


@torch.library.custom_op("reportgen_counts::opaque", mutates_args=())
def opaque(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@torch.library.custom_op("reportgen_counts::faked", mutates_args=())
def faked(x: Tensor, weight: Tensor) -> Tensor:
    return x @ weight


@faked.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[1])


def _odd(name: str, model: Any, **more: Any) -> Case:
    expected: dict[str, Any] = {"inputs": ("batch,4",), "parameters": 10, "macs": 8, **more}
    return Case(name=name, model=model, **expected)


CASES = (
    _odd("train() returns nothing", TrainReturnsNothing),
    _odd("stays in training mode", StaysInTraining),
    _odd("parameters() and named_parameters() give nothing", HidesParameters),
    _odd("state_dict() is its own", OwnStateDict),
    _odd("__getattr__ goes to a layer", Delegates),
    _odd("__call__ is its own", OwnCall, outputs={"out": (1, 2)}),
    _odd("__len__ is zero", Empty),
    _odd("cannot be compared", ComparesByValue),
    _odd("__deepcopy__ raises", NotCopied),
    _odd("holds a lock", HoldsALock),
    _odd("repr and extra_repr raise", WordsThatRaise),
    _odd("forward stands on the instance", ForwardOnTheInstance),
    _odd("changes seeds, dtype, grad mode and environment", ChangesTheWorld),
    _odd("changes its input, its weight and a buffer", InPlace, buffers_bytes=4),
    _odd("another course in every second call", Alternates, parameters=25, unused_parameters=15),
    _odd("raises in evaluation mode", RaisesInEval, refused="can only be trained"),
    _odd("loops until a value is reached", Loops, macs=8 * 8),
    _odd("goes through NumPy", ThroughNumpy),
    _odd("keeps rows by a coin", Sampled, batch=5, macs=40),
    _odd("weights made in inference mode", inference_weights),
    _odd("weights on the meta device", on_meta),
    _odd("an unused layer on the meta device", half_on_meta, parameters=66, unused_parameters=56),
    _odd(
        "a custom operator without a fake form",
        lambda: Lambda(
            lambda self, x: opaque(x, self.weight), weight=nn.Parameter(torch.ones(4, 2))
        ),
        parameters=8,
        macs=0,
        uncounted=("reportgen_counts.opaque",),
    ),
    _odd(
        "a custom operator with a fake form",
        lambda: Lambda(
            lambda self, x: faked(x, self.weight), weight=nn.Parameter(torch.ones(4, 2))
        ),
        parameters=8,
        macs=0,
        uncounted=("reportgen_counts.faked",),
    ),
)
