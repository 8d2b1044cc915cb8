"""Traces the passes of a model: on a fake copy if that works, else for real."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from reportgen.error_text import is_out_of_memory, user_frame
from reportgen.errors import SectionError
from reportgen.fake_model import (
    Arguments,
    ValuesNeededError,
    eval_mode,
    fake_copy,
    has_data,
    run_on_fake_copy,
    set_mode,
)
from reportgen.forward_failure import ForwardFailure, explain_failure
from reportgen.known_failures import failure_text
from reportgen.sections.layers.tracing.backward import ForwardBackward, run_forward_backward
from reportgen.sections.layers.tracing.forward import (
    ForwardTrace,
    trace,
    trace_fake,
    trace_up_to_failure,
)
from reportgen.torchinfo_summary import TorchinfoSummary, summarize_with_torchinfo

_MAX_FLOPS = 50 * 10**9  # of a real pass: a few seconds on one core
_MAX_BYTES = 2 * 2**30  # read and written by all operators of a real pass
_IN_THREADS = "the backward pass was not counted: modules run in threads of their own"
_FAKE_NOTE = "counted with fake tensors: from shapes alone, nothing was computed"
_BOTH_PASSES = 3  # forward and backward pass cost about three forward passes

MakeArguments = Callable[[int], Arguments]
"""Returns the arguments of one call for a batch size."""

SummarizeFake = Callable[[nn.Module], TorchinfoSummary]
"""Torchinfo's summary of a fake copy of a model at the manifest's batch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """A forward pass in evaluation mode, a forward and backward pass, and how they were run."""

    trace: ForwardTrace
    both: ForwardBackward | str  # the reason if it was not run
    torchinfo: TorchinfoSummary
    batch: int
    method: Literal["fake", "real"]
    note: str
    failure: ForwardFailure | None = None  # the pass failed: `trace` ends there


def measure_forward(
    model: nn.Module, make: MakeArguments, batch: int, summarize: SummarizeFake
) -> Measured:
    """A fake forward pass alone; `measure` if the model does not run with fake tensors.

    It takes a third of the time of `measure`.
    """
    try:
        found = trace_fake(model, make(batch))
    except Exception:  # whatever the model raises
        return measure(model, make, batch, summarize)
    return Measured(
        trace=found,
        both="not counted",
        torchinfo=TorchinfoSummary(error="not run"),
        batch=batch,
        method="fake",
        note=_FAKE_NOTE,
    )


def measure(
    model: nn.Module, make: MakeArguments, batch: int, summarize: SummarizeFake
) -> Measured:
    """Trace a forward pass of `batch` samples, and one with its backward pass.

    Both run on a fake copy if possible. A model that needs values runs with one sample first,
    then with `batch` if that is cheap.

    If every forward pass fails, the trace ends at the failure, which `Measured.failure` explains.

    Raises:
        SectionError: the model needs values, and its weights are on the meta device.
    """
    try:
        return run_on_fake_copy(partial(_measure_fake, model, make, batch, summarize))
    except Exception as error:  # data-dependent, not copyable, or broken: try a real run
        reason = error_text(error)
    if not has_data(model):
        raise SectionError(
            f"the model does not run with fake tensors, and its weights have no values: {reason}",
            hint="analyze a smaller configuration of the model, which can be given weights",
        )
    ran = _run_for_real(model, make, batch)
    if ran.error is not None and is_out_of_memory(ran.error):
        raise ran.error  # the memory limit is at fault, not the model
    if ran.error is not None:
        return Measured(
            trace=ran.trace,
            both="the forward pass fails",
            torchinfo=TorchinfoSummary(error="not run: the forward pass fails"),
            batch=ran.batch,
            method="real",
            note="the forward pass fails: shapes, MACs and FLOPs are those of the layers before",
            failure=explain_failure(ran.error),
        )
    with eval_mode(model, make(ran.batch)) as (evaluated, arguments):
        torchinfo = _unless_threaded(
            ran.trace, partial(summarize_with_torchinfo, evaluated, arguments)
        )
    smaller = f", with {ran.batch} instead of {batch} samples to keep it cheap"
    return Measured(
        trace=ran.trace,
        both=_both_for_real(model, make, ran.batch, ran.trace),
        torchinfo=torchinfo,
        batch=ran.batch,
        method="real",
        note=f"counted on a real run{smaller if ran.batch != batch else ''}, because the model "
        f"does not run with fake tensors: {reason}",
    )


def _measure_fake(
    model: nn.Module, make: MakeArguments, batch: int, summarize: SummarizeFake
) -> Measured:
    with fake_copy(model, make(batch)) as (copied_model, arguments):
        set_mode(copied_model, training=False)
        found = trace(copied_model, arguments)
    make_model = partial(fake_copy, model, make(batch))
    return Measured(
        trace=found,
        both=_IN_THREADS if found.threaded else run_forward_backward(make_model, error_text),
        torchinfo=_unless_threaded(found, partial(summarize, model)),
        batch=batch,
        method="fake",
        note=_FAKE_NOTE,
    )


def _unless_threaded(
    found: ForwardTrace, summarize: Callable[[], TorchinfoSummary]
) -> TorchinfoSummary:
    if found.threaded:  # torchinfo's hooks would race, with a different result each time
        return TorchinfoSummary(error="not run: modules run in threads of their own")
    return summarize()


def _both_for_real(
    model: nn.Module, make: MakeArguments, batch: int, forward: ForwardTrace
) -> ForwardBackward | str:
    if forward.threaded:
        return _IN_THREADS
    if not _is_affordable(forward, _BOTH_PASSES):
        return "the backward pass was not run: it would have to be computed for real"
    return run_forward_backward(lambda: eval_mode(model, make(batch)), error_text)


@dataclass(frozen=True, kw_only=True, slots=True)
class _RealRun:
    """A traced pass of the model itself, up to `error` if it fails."""

    trace: ForwardTrace
    batch: int
    error: Exception | None


def _run_for_real(model: nn.Module, make: MakeArguments, batch: int) -> _RealRun:
    single = _attempt(model, make, 1)
    if single.error is None and (batch == 1 or not _is_affordable(single.trace, batch)):
        return single
    # Some models have a fixed batch size: one sample fails, the manifest's batch works.
    whole = _attempt(model, make, batch)
    return single if single.error is None and whole.error is not None else whole


def _attempt(model: nn.Module, make: MakeArguments, batch: int) -> _RealRun:
    with eval_mode(model, make(batch)) as (evaluated, copied):
        found, error = trace_up_to_failure(evaluated, copied)
    return _RealRun(trace=found, batch=batch, error=error)


def _is_affordable(single: ForwardTrace, batch: int) -> bool:
    flops = sum(single.flops.values()) * batch
    return flops <= _MAX_FLOPS and single.operator_bytes * batch <= _MAX_BYTES


def error_text(error: BaseException) -> str:
    """Why a pass failed, with the line of the user's code if known."""
    location = user_frame(error)
    where = f" ({location})" if location else ""
    if isinstance(error, ValuesNeededError):
        return str(error)
    if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return f"data-dependent control flow through {error.func}{where}"
    return failure_text(error)
