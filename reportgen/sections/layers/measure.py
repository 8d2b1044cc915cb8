"""How the figures come about: a fake pass where that works, a real one where it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
)

from reportgen.chapter import Unable
from reportgen.plain_words import one_line, place_in_user_code
from reportgen.sections.layers.modules import walk
from reportgen.sections.layers.trace import Arguments, Trace, trace_fake, trace_real

_AFFORDABLE_FLOPS = 50 * 10**9  # a few seconds on one core
_AFFORDABLE_BYTES = 2 * 2**30

MakeArguments = Callable[[int], Arguments]
"""Arguments of one call for a batch of so many samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One forward pass in evaluation mode, and how it was run."""

    trace: Trace
    batch: int
    method: Literal["fake", "real"]
    note: str


def measure(model: nn.Module, make: MakeArguments, batch: int) -> Measured:
    """Trace one forward pass of `batch` samples, without computing anything where possible.

    A model that must run for real runs with one sample first, then with `batch` if that is cheap.

    Raises:
        Unable: no forward pass ends; the reason is the model's own.
    """
    _refuse_sleeping_layers(model)
    try:
        return Measured(
            trace=trace_fake(model, make(batch)),
            batch=batch,
            method="fake",
            note="counted on shapes alone: the pass was run with fake tensors, nothing computed",
        )
    except Exception as error:  # data-dependent, not copyable, or simply broken: a real run tells
        reason = in_words(error)
    trace, ran = _run_for_real(model, make, batch)
    smaller = "" if ran == batch else f", with {ran} instead of {batch} samples to keep it cheap"
    return Measured(
        trace=trace,
        batch=ran,
        method="real",
        note=f"counted on a real run{smaller}, because the model does not run on shapes alone: "
        f"{reason}",
    )


def _refuse_sleeping_layers(model: nn.Module) -> None:
    for node in walk(model):
        held = [*node.module._parameters.values(), *node.module._buffers.values()]
        if any(nn.parameter.is_lazy(tensor) for tensor in held if tensor is not None):
            raise Unable(
                f"{node.path or 'the model'} is a lazy layer that has not seen an input yet",
                hint="run the model once on an example input before handing it over",
            )


def _run_for_real(model: nn.Module, make: MakeArguments, batch: int) -> tuple[Trace, int]:
    failure: Exception | None = None
    trace: Trace | None = None
    try:
        trace = trace_real(model, make(1))
    except Exception as error:  # some models have their batch built in: the manifest's may work
        failure = error
    if batch == 1 and trace is not None:
        return trace, 1
    if trace is None or _is_affordable(trace, batch):
        try:
            return trace_real(model, make(batch)), batch
        except Exception as error:
            failure = error
    if trace is not None:
        return trace, 1
    assert failure is not None
    raise Unable(
        f"the model's forward pass fails: {in_words(failure)}",
        hint="check the model's `inputs` in the manifest: order, names, shapes and dtypes",
    ) from failure


def _is_affordable(single: Trace, batch: int) -> bool:
    flops = sum(single.flops.values()) * batch
    return flops <= _AFFORDABLE_FLOPS and single.operator_bytes * batch <= _AFFORDABLE_BYTES


def in_words(error: BaseException) -> str:
    """Why a pass ended, with the line of the user's code where that is known."""
    place = place_in_user_code(error)
    where = f" ({place})" if place else ""
    if isinstance(error, DataDependentOutputException | DynamicOutputShapeException):
        return f"its course depends on the values that it computes, through {error.func}{where}"
    return f"{type(error).__name__}: {one_line(error)}{where}"
