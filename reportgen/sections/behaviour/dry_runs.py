"""Passes for questions about shapes and operators: on a twin without data where that works."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
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

from reportgen.inputs import Examples
from reportgen.leaves import tensor_leaves
from reportgen.plain_words import one_line
from reportgen.sections.behaviour.recording import Recorder, Running, bytes_of, storage_of
from reportgen.sections.behaviour.result import OutputForm
from reportgen.twin import ValuesNeededError, countable, lent, twin

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
class DryRun:
    """What a pass showed, without its values."""

    outputs: tuple[OutputForm, ...]
    recorder: Recorder
    running: Running
    saved_bytes: int


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


Outcome = DryRun | CannotRunError


def run_all_dry(model: nn.Module, wishes: Mapping[str, Wish]) -> dict[str, Outcome]:
    """Every wish on one twin, in order; empty where there is no twin or the first wish fails.

    A model may keep something of one pass for the next, a table of positions for example. Where
    it did, a pass that failed, or that is to be compared with the first, has a fresh twin.
    """
    calls = tuple((wish.examples.args, wish.examples.kwargs) for wish in wishes.values())
    found: dict[str, Outcome] = {}
    doubtful: list[str] = []
    try:
        with _silent(), twin(model, (calls, {})) as (double, (copies, _)):
            fresh = _held(double)
            for (name, wish), (args, kwargs) in zip(wishes.items(), copies, strict=True):
                used = _held(double) != fresh
                found[name] = run_once(double, args, kwargs, wish)
                failed = isinstance(found[name], CannotRunError)
                if failed and len(found) == 1:
                    return {}
                if used and (failed or wish.kind != "evaluation"):
                    doubtful.append(name)
    except Exception:  # a model that cannot be copied: there is no twin
        return {}
    return found | {name: run_dry(model, wishes[name]) for name in doubtful}


def _held(model: nn.Module) -> list[tuple[str, int, int]]:
    """What the modules hold beside their registered tensors: names, identities and lengths."""
    return [
        (name, id(value), len(value) if isinstance(value, list | dict) else 0)
        for module in model.modules()
        for name, value in vars(module).items()
        if name != "training"
    ]


def run_dry(model: nn.Module, wish: Wish) -> Outcome:
    """One wish on a twin of its own."""
    arguments = wish.examples.args, wish.examples.kwargs
    with _silent(), twin(model, arguments) as (double, (args, kwargs)):
        return run_once(double, args, kwargs, wish)


@contextmanager
def _silent() -> Iterator[None]:
    """A pass that fails is an answer here; torch would print its whole stack."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


def run_real(model: nn.Module, wish: Wish) -> Outcome:
    """One wish on the model itself, which is given back as it was."""
    with lent(model, (wish.examples.args, wish.examples.kwargs)) as (borrowed, (args, kwargs)):
        return run_once(borrowed, args, kwargs, wish)


def run_once(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], wish: Wish
) -> Outcome:
    """One watched pass of a twin or of a lent model."""
    model.train(wish.kind != "evaluation")
    running, saved = Running(model), Saved(model)
    recorder = Recorder(running)
    try:
        with torch.set_grad_enabled(wish.kind == "backward"), running.watching(), saved.watching():
            with ExitStack() as counting:
                if wish.counted:
                    counting.enter_context(countable(model))
                    counting.enter_context(recorder)
                output = model(*args, **kwargs)
            leaves = tensor_leaves(output)
    except Exception as error:  # the model's own; it becomes an answer
        return CannotRunError(error, running.path)
    return DryRun(
        outputs=forms_of(leaves),
        recorder=recorder,
        running=running,
        saved_bytes=saved.bytes,
    )


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
        self._seen = {storage_of(t) for t in (*model.parameters(), *model.buffers())}
        self._alive: list[Tensor] = []  # a storage's address must not be given away meanwhile

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Add up whatever is kept meanwhile."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, _same):
            yield

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = storage_of(tensor)
        if storage not in self._seen:
            self._seen.add(storage)
            self._alive.append(tensor)
            self.bytes += bytes_of(tensor)
        return tensor


def _same(tensor: Tensor) -> Tensor:
    return tensor
