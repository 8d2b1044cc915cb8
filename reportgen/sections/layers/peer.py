"""torchinfo's own figures, beside ours: people know them."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import nn

from reportgen.loan import undisturbed
from reportgen.plain_words import one_line
from reportgen.sections.layers.trace import Arguments, countable, twin


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """What torchinfo says; only `error` where it fails."""

    parameters: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None
    table: str = ""
    error: str | None = None


def ask_torchinfo(model: nn.Module, arguments: Arguments, *, fake: bool) -> Peer:
    """The summary torchinfo makes of a twin without data, or of the lent model itself."""
    try:
        with ExitStack() as stack:
            if fake:
                model, arguments = stack.enter_context(twin(model, arguments))
            else:
                stack.enter_context(undisturbed(model))
                arguments = copy.deepcopy(arguments)
            stack.enter_context(torch.no_grad())
            stack.enter_context(countable(model))
            return _summary(model, arguments)
    except Exception as error:  # the peer's misfortune is a line of the report, not ours
        cause = error.__cause__ or error
        return Peer(error=f"{type(cause).__name__}: {one_line(cause)}")


def _summary(model: nn.Module, arguments: Arguments) -> Peer:
    import torchinfo

    args, kwargs = arguments
    data = list(args) if args else kwargs
    found = torchinfo.summary(
        model, input_data=data, mode="eval", verbose=0, **(kwargs if args else {})
    )
    return Peer(
        parameters=found.total_params,
        macs=found.total_mult_adds,
        activation_bytes=found.total_output_bytes,
        table=str(found),
    )
