"""torchinfo's own figures, beside ours: people know them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from reportgen.error_text import one_line
from reportgen.fake_model import Arguments, countable

_DEEPEST = 18  # measured: a second at 18 levels, five at 20


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchinfoSummary:
    """What torchinfo says; only `error` where it fails."""

    parameters: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None
    total_bytes: int | None = None  # its "estimated total size"
    table: str = ""
    error: str | None = None


def summarize_with_torchinfo(model: nn.Module, arguments: Arguments) -> TorchinfoSummary:
    """The summary torchinfo makes of a twin or a lent model: it does not give back what it got."""
    depth = max(name.count(".") + 1 for name, _ in model.named_modules())
    if depth > _DEEPEST:
        return TorchinfoSummary(
            error=f"not asked: its time doubles with each level of nesting, here {depth}"
        )
    try:
        with torch.no_grad(), countable(model):
            return _summary(model, arguments)
    except Exception as error:  # the torchinfo's misfortune is a line of the report, not ours
        cause = error.__cause__ or error
        return TorchinfoSummary(error=f"{type(cause).__name__}: {one_line(cause)}")


def _summary(model: nn.Module, arguments: Arguments) -> TorchinfoSummary:
    import torchinfo

    args, kwargs = arguments
    data = list(args) if args else kwargs
    found = torchinfo.summary(
        model, input_data=data, mode="eval", verbose=0, **(kwargs if args else {})
    )
    return TorchinfoSummary(
        parameters=found.total_params,
        macs=found.total_mult_adds,
        activation_bytes=found.total_output_bytes,
        total_bytes=(found.total_input or 0) + found.total_output_bytes + found.total_param_bytes,
        table=str(found),
    )
