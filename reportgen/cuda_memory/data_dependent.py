"""Values that a model reads from its tensors: heard in a real pass, told to a fake one.

A fake tensor cannot say how many boxes are left or whether a sum is positive. A single real pass
of a small batch can; the step itself then runs fake, on the kernels of the card.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch._ops import HigherOrderOperator
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from .fake_copy import MakeInputs, cloned, quiet, real_copy, real_inputs
from .losses import make_target, scalar_loss
from .step import Step
from .train_loop import run_inference, run_training

Tensor = torch.Tensor
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)
"""What a fake tensor raises where only a value could tell."""

_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_OWN_NAMESPACES = ("aten", "prims", "prim")
_NOT_THE_MODELS = tuple(str(Path(file).parent) + os.sep for file in (torch.__file__, __file__))
_Site = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    """A tensor without its numbers; `dtype` None is that of the operator's first tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype | None

    def made(self, like: Tensor | None) -> Tensor:
        dtype = like.dtype if self.dtype is None and like is not None else self.dtype
        return torch.empty(self.shape, dtype=dtype)


class UntoldError(Exception):
    """A pass reads less at some line than the pass that was heard: it took another course."""


class Answers:
    """What the operators that depend on values gave in one pass, line by line of the model's code.

    A later pass may leave out a line, where the model kept what it read there.
    """

    def __init__(self) -> None:
        self._heard: dict[_Site, list[Any]] = {}
        self._calls: Counter[_Site] = Counter()

    def note(self, func: Any, args: Any, result: Any) -> None:
        """Keep a result: numbers as they are, tensors by their form."""
        if _may_depend_on_values(func):
            like = _first_tensor(args)
            form = tree_map(lambda it: _form(it, like), result)
            self._heard.setdefault(_site(func), []).append(form)

    def from_the_start(self) -> Answers:
        """The same answers for another step, whatever became of the last one."""
        fresh = Answers()
        fresh._heard = self._heard
        return fresh

    def restart(self) -> None:
        """A new pass begins, which reads what the first one read.

        Raises:
            UntoldError: the pass that ends read only a part of what was heard at a line.
        """
        for site, calls in self._calls.items():
            if calls < len(self._heard[site]):
                raise UntoldError(
                    f"{site[0]} was asked {calls} times, not as often as it was heard"
                )
        self._calls.clear()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operator's result, as it was heard where fake tensors do not know.

        Raises the fake tensor's own exception for a call that was not heard.
        """
        if not _may_depend_on_values(func):
            return func(*args, **kwargs)
        site = _site(func)
        heard, call = self._heard.get(site, []), self._calls[site]
        if heard:
            self._calls[site] += 1
        try:
            return func(*args, **kwargs)
        except NEEDS_VALUES:
            if call >= len(heard):
                raise
            like = _first_tensor(args)
            return tree_map(lambda it: it.made(like) if isinstance(it, _Form) else it, heard[call])


def _may_depend_on_values(func: Any) -> bool:
    if isinstance(func, HigherOrderOperator):
        return False
    return not _TAGS.isdisjoint(func.tags) or func.namespace not in _OWN_NAMESPACES


def _site(func: Any) -> _Site:
    """The operator and the lines of the model's own code that lead to it, innermost first."""
    lines: list[tuple[str, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in _STARTS:
        name = frame.f_code.co_filename
        if not name.startswith(_NOT_THE_MODELS):
            lines.append((name, frame.f_lineno))
        frame = frame.f_back
    return (func, *lines)


class RealPasses:
    """One real pass of a model for every batch and mode that asks, shared by its steps."""

    def __init__(self) -> None:
        self._answers: dict[Any, Answers | None] = {}

    def answers(
        self, model: nn.Module, make_inputs: MakeInputs, batch: int, step: Step
    ) -> Answers | None:
        """What the model and its loss read at this batch; None where they do not run."""
        key = (batch, step.trains, step.loss if step.trains else None)
        if key not in self._answers:
            try:
                self._answers[key] = _heard(model, make_inputs, batch, step)
            except Exception:  # the model's own; a real trace says it in words
                self._answers[key] = None
        return self._answers[key]


def _heard(model: nn.Module, make_inputs: MakeInputs, batch: int, step: Step) -> Answers:
    answers = Answers()
    double = real_copy(model, "fp32").train(step.trains)
    args, kwargs = (cloned(part, "fp32") for part in real_inputs(make_inputs, batch))
    with _seeded(), torch.set_grad_enabled(step.trains), _Listener(answers), _ItemByItem():
        output = double(*args, **kwargs)
        if step.trains:
            scalar_loss(output, make_target(output, step.loss), step.loss)
    return answers


@contextmanager
def _seeded() -> Iterator[None]:
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


_STARTS = {run_inference.__code__, run_training.__code__, _heard.__code__}
"""Where the model's own code ends, from inside."""


class _Listener(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hears every operator of a real pass."""

    def __init__(self, answers: Answers) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._answers = answers

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._answers.note(func, args, result)
        return result


class _ItemByItem(TorchFunctionMode):
    """A real tensor's `tolist` reads its memory unheard; a fake one's asks item by item."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.tolist:
            return _items(args[0])
        return func(*args, **(kwargs or {}))


def _items(tensor: Tensor) -> Any:
    return [_items(part) for part in tensor] if tensor.dim() else tensor.item()


def _first_tensor(args: Any) -> Tensor | None:
    return next((leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)), None)


def _form(value: Any, like: Tensor | None) -> Any:
    if not isinstance(value, Tensor):
        return value
    same = like is not None and like.dtype == value.dtype
    return _Form(shape=tuple(value.shape), dtype=None if same else value.dtype)
