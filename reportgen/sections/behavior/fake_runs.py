"""Recorded passes for shapes and operators: with fake tensors if possible, else on the model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
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
from reportgen.known_failures import known_failure
from reportgen.pytree import buffers_of, modules_of, named_tensors
from reportgen.sections.behavior.op_record import OpRecord
from reportgen.sections.behavior.result import OutputForm
from reportgen.sources.weightless import seed_everything
from reportgen.tracing.autocast import AutocastRegion, recording_autocast
from reportgen.tracing.leaf_gradients import gradients_of
from reportgen.tracing.running_modules import RunningModules
from reportgen.tracing.tensors import dtype_name, storage_of, tensor_bytes, version_of
from reportgen.units import format_shape

_NEEDS_VALUES = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    # an operator without fake kernel; if the model itself raises it, the real pass fails too
    NotImplementedError,
    UnsupportedFakeTensorException,
    UnsupportedOperatorException,
    ValuesNeededError,
)
_BATCH_NORM = nn.modules.batchnorm._BatchNorm  # without InstanceNorm
_TORCH = f"{Path(torch.__file__).parent}{os.sep}"
_OWN = f"{Path(__file__).parents[2]}{os.sep}"

_WORK_PER_FAKE_OPERATOR = 50 * 10**6
"""FLOPs of one core in the time of one fake operator, about a millisecond."""

Kind = Literal["evaluation", "training", "backward"]
"""`backward` is a pass in training mode followed by a backward pass."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PassRequest:
    """The inputs and the mode of one pass.

    If not `count_operators`, only success and output shapes are recorded. Counting disables fused
    kernels, so that a recurrent network runs step by step.
    """

    examples: Examples
    kind: Kind = "evaluation"
    count_operators: bool = True


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class RecordedPass:
    """Shapes, operators and module calls of one pass, without values."""

    outputs: tuple[OutputForm, ...]
    record: OpRecord
    calls: Mapping[str, int]  # by module path
    normalized: Mapping[str, int]  # by batch norm: the fewest values that it had per channel
    saved_bytes: int
    read: frozenset[str] = frozenset()  # names of parameters; empty if nothing was counted
    autocast: tuple[AutocastRegion, ...] = ()
    reached: frozenset[str] | None = None  # parameters with a gradient; None without backward pass
    real: bool = False


class FailedPassError(Exception):
    """A forward or backward pass failed.

    Attributes:
        reason: the error in one line, with module, file and line.
        needs_values: whether it failed because fake tensors have no values.
    """

    def __init__(self, error: BaseException, path: str) -> None:
        self.needs_values = isinstance(error, _NEEDS_VALUES)
        known = known_failure(error)
        place = place_in_code(error)
        inside = f"in {path}" if path else "in the model's own forward"
        self.reason = (
            known.text
            if known
            else f"{type(error).__name__}: {one_line(error, 160)} ({inside}{place})"
        )
        super().__init__(self.reason)
        self.__cause__ = error


PassOutcome = RecordedPass | FailedPassError


def run_all_fake(model: nn.Module, requests: Mapping[str, PassRequest]) -> dict[str, PassOutcome]:
    """Run every request on one fake copy, in order; {} if copying or the first request fails.

    A request without operator counts runs on the model itself if that is faster.
    """
    calls = tuple((request.examples.args, request.examples.kwargs) for request in requests.values())
    found: dict[str, PassOutcome] = {}
    repeat: list[str] = []
    cheap: list[str] = []
    usual = next(iter(requests.values()))
    try:
        with fake_copy(model, (calls, {})) as (fake, (copies, _)):
            fresh = _attribute_marks(fake)
            for (name, request), (args, kwargs) in zip(requests.items(), copies, strict=True):
                if not request.count_operators and _is_cheap(found, usual, request):
                    cheap.append(name)
                    continue
                has_changed = _attribute_marks(fake) != fresh
                found[name] = run_once(fake, args, kwargs, request)
                failed = isinstance(found[name], FailedPassError)
                if len(found) == 1 and failed:
                    return {}
                # An earlier pass may have cached something, such as a position table, that makes
                # this one fail, or makes training mode look different: repeat on a new copy.
                if has_changed and (failed or request.kind != "evaluation"):
                    repeat.append(name)
    except Exception:  # from copying: the model has no fake copy
        return {}
    found |= {name: run_fake(model, requests[name]) for name in repeat}
    return found | {name: run_real(model, requests[name]) for name in cheap}


def _is_cheap(found: Mapping[str, PassOutcome], usual: PassRequest, request: PassRequest) -> bool:
    """Whether the real pass is faster than the fake one, whose time is independent of sizes."""
    first = next(iter(found.values()))
    if isinstance(first, FailedPassError):
        return False
    growth = _numbers(request.examples) / max(1, _numbers(usual.examples))
    fake_work = _WORK_PER_FAKE_OPERATOR * first.record.operators.total()
    return first.record.work * growth < fake_work


def _numbers(examples: Examples) -> int:
    return sum(tensor.numel() for tensor in examples.tensors().values())


def _attribute_marks(model: nn.Module) -> list[tuple[str, int, int]]:
    """Name, id and length of every plain attribute of the modules."""
    return [
        (name, id(value), len(value) if isinstance(value, list | dict) else 0)
        for module in modules_of(model)
        for name, value in vars(module).items()
        if name != "training"
    ]


def run_fake(model: nn.Module, request: PassRequest) -> PassOutcome:
    """Run one request on a new fake copy."""
    arguments = request.examples.args, request.examples.kwargs
    with fake_copy(model, arguments) as (fake, (args, kwargs)):
        return run_once(fake, args, kwargs, request)


def run_real(model: nn.Module, request: PassRequest) -> PassOutcome:
    """Run one request on the model itself; its state is restored."""
    arguments = request.examples.args, request.examples.kwargs
    with eval_mode(model, arguments) as (preserved, (args, kwargs)):
        return run_once(preserved, args, kwargs, request, real=True)


def run_once(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    request: PassRequest,
    *,
    real: bool = False,
) -> PassOutcome:
    """One recorded pass of a fake copy or, if `real`, of the model."""
    set_mode(model, training=request.kind != "evaluation")
    normalized: dict[str, int] = {}
    running = RunningModules(model, partial(_note_normalized, normalized))
    saved = SavedTensors(model)
    running.in_other_threads.append(saved.watching)
    record = OpRecord(running)
    seed_everything(0)  # equal random numbers in both modes
    try:
        with (
            torch.set_grad_enabled(request.kind == "backward"),
            running.watching(),
            saved.watching(),
            recording_autocast(lambda: running.path) as autocast,
        ):
            with ExitStack() as counting:
                if request.count_operators:
                    counting.enter_context(unfused_kernels(model))
                    counting.enter_context(record.recorder())
                output = model(*args, **kwargs)
            leaves = named_tensors(output)
            reached = _reached(model, leaves) if request.kind == "backward" else None
    except Exception as error:  # any error of the model is a result
        return FailedPassError(error, running.path)
    return RecordedPass(
        outputs=forms_of(leaves),
        record=record,
        calls=running.calls,
        normalized=normalized,
        saved_bytes=saved.bytes,
        read=frozenset(
            name for name, p in model.named_parameters() if storage_of(p) in record.read
        ),
        autocast=tuple(autocast),
        reached=reached,
        real=real,
    )


def _note_normalized(
    normalized: dict[str, int], path: str, module: nn.Module, args: tuple[Any, ...]
) -> None:
    if isinstance(module, _BATCH_NORM) and args and isinstance(args[0], Tensor):
        values = args[0].numel() // max(1, module.num_features)  # per channel
        normalized[path] = min(values, normalized.get(path, values))


def _reached(model: nn.Module, leaves: Mapping[str, Tensor]) -> frozenset[str] | None:
    """Names of parameters with a gradient from any output; None if the backward pass fails."""
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    ends = [tensor for tensor in leaves.values() if tensor.requires_grad]
    if not ends or not trainable:
        return frozenset()
    try:
        found = gradients_of(ends, list(map(torch.ones_like, ends)), list(trainable.values()))
    except Exception:  # from the model's backward; `saved_bytes` is valid regardless
        return None
    pairs = zip(trainable, found, strict=True)
    return frozenset(name for name, gradient in pairs if gradient is not None)


def forms_of(leaves: Mapping[str, Tensor]) -> tuple[OutputForm, ...]:
    """Key, dtype and shape of every output."""
    return tuple(
        OutputForm(
            key=key,
            dtype=dtype_name(tensor),
            shape=tuple(map(int, tensor.shape)),
        )
        for key, tensor in leaves.items()
    )


def place_in_code(error: BaseException) -> str:
    """`, file.py:12` of the innermost frame outside torch and reportgen; "" for none."""
    for frame in reversed(extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", _TORCH, _OWN)):
            return f", {Path(frame.filename).name}:{frame.lineno}"
    return ""


class SavedTensors:
    """Sums the bytes that autograd saves: each storage once, without parameters and buffers."""

    def __init__(self, model: nn.Module) -> None:
        self.bytes = 0
        self._lock = Lock()
        self._seen = {storage_of(t) for t in (*model.parameters(), *buffers_of(model))}
        self._alive: list[Tensor] = []  # otherwise a freed storage's address is reused

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count tensors that autograd saves inside the context."""
        with torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack):
            yield

    def _pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        storage = storage_of(tensor)
        with self._lock:
            if storage not in self._seen:
                self._seen.add(storage)
                self._alive.append(tensor)
                self.bytes += tensor_bytes(tensor)
        return tensor, version_of(tensor)


def _unpack(saved: tuple[Tensor, int]) -> Tensor:
    # with hooks, autograd leaves this check to them
    tensor, version = saved
    if version_of(tensor) != version:
        shape = format_shape(tuple(tensor.shape))
        raise RuntimeError(
            f"a tensor of shape {shape} that the backward pass needs was modified in place"
        )
    return tensor
