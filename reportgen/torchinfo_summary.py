"""torchinfo's own figures, shown beside ours because people know them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from reportgen.error_text import one_line
from reportgen.fake_model import (
    Arguments,
    ReachedOriginalError,
    fake_copy,
    run_on_fake_copy,
    unfused_kernels,
)

# torchinfo formats `Units`, a str enum, in an f-string; since Python 3.11 that prints its name.
_UNIT = re.compile(r"Units\.(TERABYTES|GIGABYTES|MEGABYTES|NONE)")
_LETTERS = {"TERABYTES": "T", "GIGABYTES": "G", "MEGABYTES": "M", "NONE": ""}
_MAX_DEPTH = 18  # torchinfo's time doubles per level: measured 1 s at 18 levels, 5 s at 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchinfoSummary:
    """torchinfo's totals and table; only `error` if it fails."""

    parameters: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None
    total_bytes: int | None = None  # its "estimated total size"
    table: str = ""
    error: str | None = None


def summarize_fake_copy(model: nn.Module, make: Callable[[], Arguments]) -> TorchinfoSummary:
    """Torchinfo's summary of a fake copy; only `error` if the model does not run on one."""
    try:
        return run_on_fake_copy(lambda: _summarize_fake_copy(model, make()))
    except Exception as error:  # the model cannot be copied, or needs values
        return TorchinfoSummary(error=f"{type(error).__name__}: {one_line(error)}")


def _summarize_fake_copy(model: nn.Module, arguments: Arguments) -> TorchinfoSummary:
    with fake_copy(model, arguments) as (copied, copied_arguments):
        return summarize_with_torchinfo(copied, copied_arguments)


def summarize_with_torchinfo(model: nn.Module, arguments: Arguments) -> TorchinfoSummary:
    """Torchinfo's summary of `model`, whose state it changes: pass a fake copy or preserve it.

    Raises:
        ReachedOriginalError: `model` is a fake copy, and its pass reached the original.
    """
    depth = max(name.count(".") + 1 for name, _ in model.named_modules())
    if depth > _MAX_DEPTH:
        return TorchinfoSummary(
            error=f"not run: its time doubles with each level of nesting, here {depth}"
        )
    try:
        with torch.no_grad(), unfused_kernels(model):
            return _summary(model, arguments)
    except Exception as error:  # from the model or torchinfo; reported in place of its figures
        cause = error.__cause__ or error  # torchinfo wraps the model's error in a RuntimeError
        if isinstance(cause, ReachedOriginalError):
            raise cause from error
        return TorchinfoSummary(error=f"{type(cause).__name__}: {one_line(cause)}")


def _summary(model: nn.Module, arguments: Arguments) -> TorchinfoSummary:
    import torchinfo

    args, kwargs = arguments
    data = list(args) if args else kwargs  # a dict of inputs is passed as keywords
    found = torchinfo.summary(
        model, input_data=data, mode="eval", verbose=0, **(kwargs if args else {})
    )
    return TorchinfoSummary(
        parameters=found.total_params,
        macs=found.total_mult_adds,
        activation_bytes=found.total_output_bytes,
        total_bytes=(found.total_input or 0) + found.total_output_bytes + found.total_param_bytes,
        table=_UNIT.sub(lambda match: _LETTERS[match[1]], str(found)),
    )
