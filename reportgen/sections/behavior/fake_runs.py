"""Passes for questions about shapes and operators: on a fake copy without data where that works."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from traceback import extract_tb
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from reportgen.error_text import one_line
from reportgen.example_inputs import Examples
from reportgen.fake_model import ValuesNeededError, eval_mode, fake_copy, set_mode, unfused_kernels
from reportgen.pytree import buffers_of, modules_of, named_tensors
from reportgen.sections.behavior.op_recorder import Recorder, Running, bytes_of, storage_of
from reportgen.sections.behavior.result import OutputForm
from reportgen.sources.weightless import seed_everything

_NEEDS_VALUES = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    NotImplementedError,  # torch has no fake form of something; the model's own is found again
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
    ValuesNeededError,
)
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"
_OWN = f"{Path(__file__).parents[2]}{os.sep}"

_WORK_OF_A_DRY_OPERATOR = 50 * 10**6
"""What a core computes while an operator's shapes are worked out: about a millisecond's worth."""

Kind = Literal["evaluation", "training", "backward"]
"""How to run: in evaluation mode, in training mode, or there and with a graph for a backward."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Wish:
    """A pass that is wanted; one that is not counted only answers whether and with what shapes.

    Counting switches fused kernels off, so that a recurrent network runs step by step.
    """

    examples: Examples
    kind: Kind = "evaluation"
    counted: bool = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FakeRun:
    """What a pass showed, without its values."""

    outputs: tuple[OutputForm, ...]
    recorder: Recorder
    running: Running
    saved_bytes: int
    read: frozenset[str] = frozenset()  # parameters, by name; none where nothing was counted
    reached: frozenset[str] | None = None  # those with a gradient; None without a backward pass
    real: bool = False


class CannotRunError(Exception):
    """A pass that failed.

    Attributes:
        reason: why, in one line, with the place in the code where it is known.
        path: the module that was running; "" for the model's own forward.
        needs_values: whether it failed only because there was no data.
    """

    def __init__(self, error: BaseException, path: str) -> None:
        self.path = path
        self.needs_values = isinstance(error, _NEEDS_VALUES)
        place = place_in_code(error)
        inside = f"in {path}" if path else "in the model's own forward"
        self.reason = f"{type(error).__name__}: {one_line(error, 160)} ({inside}{place})"
        super().__init__(self.reason)
        self.__cause__ = error


Outcome = FakeRun | CannotRunError


def run_all_fake(model: nn.Module, wishes: Mapping[str, Wish]) -> dict[str, Outcome]:
    """Every wish on one fake_copy, in order; empty where there is no twin or the first wish fails.

    Shapes cost as much for every size. A wish that is not counted runs on the lent model where
    arithmetic is cheaper than that.
    A model may keep something of one pass for the next, a table of positions for example. Where
    it did, a pass that failed, or that is to be compared with the first, has a fresh twin.
    """
    calls = tuple((wish.examples.args, wish.examples.kwargs) for wish in wishes.values())
    found: dict[str, Outcome] = {}
    doubtful: list[str] = []
    cheap: list[str] = []
    usual = next(iter(wishes.values()))
    try:
        with fake_copy(model, (calls, {})) as (double, (copies, _)):
            fresh = _held(double)
            for (name, wish), (args, kwargs) in zip(wishes.items(), copies, strict=True):
                if not wish.counted and _is_cheap(found, usual, wish):
                    cheap.append(name)
                    continue
                used = _held(double) != fresh
                found[name] = run_once(double, args, kwargs, wish)
                failed = isinstance(found[name], CannotRunError)
                if len(found) == 1 and failed:
                    return {}
                if used and (failed or wish.kind != "evaluation"):
                    doubtful.append(name)
    except Exception:  # a model that cannot be copied: there is no fake_copy
        return {}
    found |= {name: run_fake(model, wishes[name]) for name in doubtful}
    return found | {name: run_real(model, wishes[name]) for name in cheap}


def _is_cheap(found: Mapping[str, Outcome], usual: Wish, wish: Wish) -> bool:
    """Whether the real pass takes less time than the same pass on shapes."""
    first = next(iter(found.values()))
    if isinstance(first, CannotRunError):
        return False
    growth = _numbers(wish.examples) / max(1, _numbers(usual.examples))
    dry = _WORK_OF_A_DRY_OPERATOR * first.recorder.operators.total()
    return first.recorder.work * growth < dry


def _numbers(examples: Examples) -> int:
    return sum(tensor.numel() for tensor in examples.tensors().values())


def _held(model: nn.Module) -> list[tuple[str, int, int]]:
    """What the modules hold beside their registered tensors: names, identities and lengths."""
    return [
        (name, id(value), len(value) if isinstance(value, list | dict) else 0)
        for module in modules_of(model)
        for name, value in vars(module).items()
        if name != "training"
    ]


def run_fake(model: nn.Module, wish: Wish) -> Outcome:
    """One wish on a fake copy of its own."""
    arguments = wish.examples.args, wish.examples.kwargs
    with fake_copy(model, arguments) as (double, (args, kwargs)):
        return run_once(double, args, kwargs, wish)


def run_real(model: nn.Module, wish: Wish) -> Outcome:
    """One wish on the model itself, which is given back as it was."""
    with eval_mode(model, (wish.examples.args, wish.examples.kwargs)) as (borrowed, (args, kwargs)):
        outcome = run_once(borrowed, args, kwargs, wish)
    return replace(outcome, real=True) if isinstance(outcome, FakeRun) else outcome


def run_once(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], wish: Wish
) -> Outcome:
    """One watched pass of a fake copy or of a lent model."""
    set_mode(model, training=wish.kind != "evaluation")
    running, saved = Running(model), Saved(model)
    running.watchers.append(saved)
    recorder = Recorder(running)
    seed_everything(0)  # else the numbers that a model draws differ between its modes
    try:
        with torch.set_grad_enabled(wish.kind == "backward"), running.watching(), saved.watching():
            with ExitStack() as counting:
                if wish.counted:
                    counting.enter_context(unfused_kernels(model))
                    counting.enter_context(recorder)
                output = model(*args, **kwargs)
            leaves = named_tensors(output)
            reached = _reached(model, leaves) if wish.kind == "backward" else None
    except Exception as error:  # the model's own; it becomes an answer
        return CannotRunError(error, running.path)
    return FakeRun(
        outputs=forms_of(leaves),
        recorder=recorder,
        running=running,
        saved_bytes=saved.bytes,
        read=frozenset(
            name for name, p in model.named_parameters() if storage_of(p) in recorder.read
        ),
        reached=reached,
    )


def _reached(model: nn.Module, leaves: Mapping[str, Tensor]) -> frozenset[str] | None:
    """Parameters to which a backward pass from all outputs comes; None where it fails."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ends = [tensor for tensor in leaves.values() if tensor.requires_grad]
    if not ends or not trainable:
        return frozenset()
    try:
        found = torch.autograd.grad(
            ends, list(trainable.values()), list(map(torch.ones_like, ends)), allow_unused=True
        )
    except Exception:  # the model's own; what autograd keeps is known all the same
        return None
    pairs = zip(trainable, found, strict=True)
    return frozenset(name for name, gradient in pairs if gradient is not None)


def forms_of(leaves: Mapping[str, Tensor]) -> tuple[OutputForm, ...]:
    """Key, dtype and shape of every output."""
    return tuple(
        OutputForm(
            key=key,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(map(int, tensor.shape)),
        )
        for key, tensor in leaves.items()
    )


def place_in_code(error: BaseException) -> str:
    """`, file.py:12` of the innermost frame that is neither torch's nor ours; "" for none."""
    for frame in reversed(extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", _TORCH, _OWN)):
            return f", {Path(frame.filename).name}:{frame.lineno}"
    return ""


class Saved:
    """Adds up what autograd keeps, each storage once, without parameters and buffers."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        self._lock = Lock()
        self._seen = {storage_of(t) for t in (*model.parameters(), *buffers_of(model))}
        self._alive: list[Tensor] = []  # a storage's address must not be given away meanwhile

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Add up whatever is kept meanwhile."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, _same):
            yield

    def elsewhere(self) -> AbstractContextManager[None]:
        """The same in another thread."""
        return self.watching()

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = storage_of(tensor)
        with self._lock:
            if storage not in self._seen:
                self._seen.add(storage)
                self._alive.append(tensor)
                self.bytes += bytes_of(tensor)
        return tensor


def _same(tensor: Tensor) -> Tensor:
    return tensor
