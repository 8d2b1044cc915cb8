"""Values that a model reads from its tensors: recorded in a CPU run, replayed in a fake one.

A fake tensor has no values, so it cannot give a number of boxes or the sign of a sum. One CPU run
of a small batch records them; the step itself then runs on fake tensors, with the kernels of the
GPU.
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

from ..step import Step
from .fake_copy import MakeInputs, clone_inputs, real_copy, real_inputs, suppress_warnings
from .train_loop import make_target, run_inference, run_training, scalar_loss

Tensor = torch.Tensor
# what a fake tensor raises when an operator depends on values
NEEDS_VALUES = (DataDependentOutputException, DynamicOutputShapeException)

_TAGS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_OWN_NAMESPACES = ("aten", "prims", "prim")
# torch and this package: their frames differ between the CPU run and a fake run
_NOT_THE_MODELS = tuple(
    str(folder) + os.sep for folder in (Path(torch.__file__).parent, Path(__file__).parents[1])
)
_Site = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class _TensorMeta:
    """Shape and type of a tensor; `dtype` None is that of the operator's first tensor.

    The CPU run is in fp32 whatever the precision of the step.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype | None

    def empty(self, like: Tensor | None) -> Tensor:
        dtype = like.dtype if self.dtype is None and like is not None else self.dtype
        return torch.empty(self.shape, dtype=dtype)


class ValuesMismatchError(Exception):
    """A pass reads fewer values at some line than were recorded: it took another branch."""


class RecordedValues:
    """Results of the data-dependent operators in one pass, by line of the model's code.

    A later pass may skip a line if the model cached what it read there.
    """

    def __init__(self) -> None:
        self._recorded: dict[_Site, list[Any]] = {}
        self._calls: Counter[_Site] = Counter()

    def record(self, func: Any, args: Any, result: Any) -> None:
        """Keep a result: numbers as they are, of tensors shape and type."""
        if _may_depend_on_values(func):
            like = _first_tensor(args)
            kept = tree_map(lambda leaf: _without_values(leaf, like), result)
            self._recorded.setdefault(_site(func), []).append(kept)

    def rewound(self) -> RecordedValues:
        """The same values from the beginning, even after an interrupted pass."""
        rewound = RecordedValues()
        rewound._recorded = self._recorded
        return rewound

    def start_pass(self) -> None:
        """Start a new pass, which replays the recorded values.

        Raises:
            ValuesMismatchError: the pass that ends read fewer values at a line than were recorded.
        """
        for site, calls in self._calls.items():
            if calls < len(self._recorded[site]):
                raise ValuesMismatchError(
                    f"{site[0]} ran {calls} times, fewer than the recorded results"
                )
        self._calls.clear()

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """An operator's result: the recorded one if it depends on values.

        Raises the fake tensor's own exception for a call that was not recorded.
        """
        if not _may_depend_on_values(func):
            return func(*args, **kwargs)
        # counted even if the fake operator succeeds, because the CPU run recorded it all the same
        site = _site(func)
        recorded, call = self._recorded.get(site, []), self._calls[site]
        if recorded:
            self._calls[site] += 1
        try:
            return func(*args, **kwargs)
        except NEEDS_VALUES:
            if call >= len(recorded):
                raise
            like = _first_tensor(args)
            return tree_map(
                lambda leaf: leaf.empty(like) if isinstance(leaf, _TensorMeta) else leaf,
                recorded[call],
            )


def _may_depend_on_values(func: Any) -> bool:
    if isinstance(func, HigherOrderOperator):  # has no tags
        return False
    # operators of other libraries may lack the tags, as torchvision's nms does
    return not _TAGS.isdisjoint(func.tags) or func.namespace not in _OWN_NAMESPACES


def _site(func: Any) -> _Site:
    """The operator and the lines of the model's code that call it, innermost first."""
    lines: list[tuple[str, int]] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code not in _STARTS:
        name = frame.f_code.co_filename
        if not name.startswith(_NOT_THE_MODELS):
            lines.append((name, frame.f_lineno))
        frame = frame.f_back
    return (func, *lines)


class CpuValues:
    """The recorded values of one CPU run for each batch, mode and loss."""

    def __init__(self) -> None:
        self._runs: dict[Any, RecordedValues | None] = {}

    def at(
        self, model: nn.Module, make_inputs: MakeInputs, batch: int, step: Step
    ) -> RecordedValues | None:
        """What the model and its loss read at this batch; None if they raise."""
        key = (batch, step.trains, step.loss if step.trains else None)
        if key not in self._runs:
            try:
                self._runs[key] = _run_and_record(model, make_inputs, batch, step)
            except Exception:  # any exception of the model's code; the CPU trace reports it
                self._runs[key] = None
        return self._runs[key]


def _run_and_record(
    model: nn.Module, make_inputs: MakeInputs, batch: int, step: Step
) -> RecordedValues:
    values = RecordedValues()
    model = real_copy(model, "fp32").train(step.trains)
    args, kwargs = (clone_inputs(part, "fp32") for part in real_inputs(make_inputs, batch))
    with _seeded(), torch.set_grad_enabled(step.trains), _ValueRecorder(values), _ToListByItem():
        output = model(*args, **kwargs)
        if step.trains:
            scalar_loss(output, make_target(output, step.loss), step.loss)
    return values


@contextmanager
def _seeded() -> Iterator[None]:
    with suppress_warnings(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a model that draws numbers gets the same ones in every report
        yield


# the frames that call the model: what lies above them differs from run to run
_STARTS = {run_inference.__code__, run_training.__code__, _run_and_record.__code__}


class _ValueRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, values: RecordedValues) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._values = values

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self._values.record(func, args, result)
        return result


class _ToListByItem(TorchFunctionMode):
    """A real tensor's `tolist` bypasses dispatch; that of a fake one runs `item` per element."""

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


def _without_values(value: Any, like: Tensor | None) -> Any:
    if not isinstance(value, Tensor):
        return value
    same = like is not None and like.dtype == value.dtype
    return _TensorMeta(shape=tuple(value.shape), dtype=None if same else value.dtype)
