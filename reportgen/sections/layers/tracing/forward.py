"""One traced forward pass: module calls, shapes and cost.

The pass runs on a fake copy of the model, whose tensors have a shape, a dtype and no data. A model
with data-dependent control flow, or that torch cannot copy, runs for real.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from reportgen.fake_model import Arguments, fake_copy, set_mode, unfused_kernels
from reportgen.pytree import named_tensors
from reportgen.sections.layers.modules import parameters_by_name, walk
from reportgen.sections.layers.result import Shape, Uncounted, Unregistered
from reportgen.sections.layers.tracing.module_tracker import (
    FailedCall,
    LayerCall,
    ModuleTracker,
    shapes_of,
)
from reportgen.sections.layers.tracing.op_counter import (
    FirstRead,
    OpCounter,
    OpWork,
    TopKChoice,
    total_bytes,
)
from reportgen.tracing.tensors import shape_of, tensor_bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardTrace:
    """One forward pass."""

    calls: tuple[LayerCall, ...]  # in the order in which they ended
    flops: dict[str, int]  # by path, without those of the children
    used: frozenset[str]  # names of the parameters that operators read or the model returns
    uncounted: tuple[Uncounted, ...]
    uncounted_in: frozenset[str]  # paths of the modules that ran them
    unregistered_calls: tuple[Unregistered, ...]  # called, but not reachable from the model
    outputs: dict[str, Shape]
    output_bytes: int
    complex_products: int
    conventional: tuple[str, ...]  # operators counted by the steps of a classic algorithm
    work: Counter[OpWork]  # calls by cost
    choices: frozenset[TopKChoice]
    first_read: dict[str, int]  # by parameter: how many operators ran before it was read
    added: tuple[str, ...]  # parameters that the pass creates or reshapes, with their sizes
    threaded: bool  # a module ran in one of the model's own threads
    to_numpy: tuple[str, ...]  # paths of modules that convert tensors to NumPy arrays
    failed: FailedCall | None  # the innermost call that raised; None if the pass succeeded
    seen: dict[str, FirstRead]  # by path: the first operator that read a module's own parameters
    called_at: dict[str, tuple[str, int]]  # file and line of the first call, by path

    @property
    def operator_bytes(self) -> int:
        """Read and written by all operators."""
        return total_bytes(self.work)


def trace_fake(model: nn.Module, arguments: Arguments, *, training: bool = False) -> ForwardTrace:
    """Trace a pass of a fake copy without data; raises whatever the fake copy raises."""
    with fake_copy(model, arguments) as (double, copied):
        set_mode(double, training=training)
        return trace(double, copied)


def trace(model: nn.Module, arguments: Arguments) -> ForwardTrace:
    """Trace one forward pass of a model in evaluation mode; raises whatever the model raises."""
    found, error = trace_up_to_failure(model, arguments)
    if error is not None:
        raise error
    return found


def trace_up_to_failure(
    model: nn.Module, arguments: Arguments
) -> tuple[ForwardTrace, Exception | None]:
    """Trace one forward pass in evaluation mode, and what it raised."""
    args, kwargs = arguments
    before = parameters_by_name(walk(model))
    shapes = {name: shape_of(parameter) for name, parameter in before.items()}
    tracker = ModuleTracker(model)
    counter = tracker.counter = OpCounter(before, tracker.place)
    output, failure = None, None
    try:
        with torch.no_grad(), unfused_kernels(model, counter.note), tracker.tracking(), counter:
            output = model(*args, **kwargs)
    except Exception as error:  # from the model; the caller decides
        failure = error
    leaves = named_tensors(output)
    counter.note_used(list(leaves.values()))  # a parameter that is only returned is used as well
    after = parameters_by_name(walk(model))
    found = ForwardTrace(
        calls=tuple(tracker.calls_in_order()),
        flops=dict(counter.flops),
        used=frozenset(counter.used),
        uncounted=counter.uncounted,
        uncounted_in=frozenset(counter.uncounted_in),
        unregistered_calls=tracker.unregistered_calls(),
        outputs=shapes_of(leaves),
        output_bytes=sum(map(tensor_bytes, leaves.values())),
        complex_products=counter.complex_products,
        conventional=tuple(sorted(counter.conventional)),
        work=counter.work,
        choices=counter.choices,
        seen=counter.seen,
        called_at=dict(tracker.called_at),
        first_read=counter.first_read,
        added=tuple(
            f"{name} ({parameter.numel():,})"
            for name, parameter in after.items()
            if name not in before or shape_of(parameter) != shapes[name]
        ),
        threaded=bool(tracker.elsewhere),
        to_numpy=tuple(sorted(tracker.to_numpy)),
        failed=None if failure is None else tracker.failed or FailedCall(path="", inputs={}),
    )
    return found, failure
