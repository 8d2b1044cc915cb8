"""Whole numbers that look something up: lower ones, and fewer, where a table was too small."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from reportgen.dummy_inputs.nested_specs import Inputs, every_part, parts_of
from reportgen.manifest import InputSpec


def says_too_small(error: Exception) -> bool:
    """Whether an index lay beyond the end of what it looks up."""
    return "out of range" in str(error) or "out of bounds" in str(error)


def lowered(inputs: Inputs, tables: list[int]) -> Iterator[Inputs]:
    """Whole numbers below the next smaller of `tables`; fewer of them, as they are positions."""
    highs = {int(part.high) for _, part in parts_of(inputs) if part.high and part.high > 1}
    for high in sorted(highs, reverse=True):
        smaller = max((size for size in tables if size < high), default=1)
        yield every_part(inputs, partial(_lower, high=high, smaller=smaller))
    if highs:
        yield every_part(inputs, _halved)


def _lower(part: InputSpec, *, high: int, smaller: int) -> InputSpec:
    is_of_it = part.high == high and smaller > (part.low or 0)
    return part.model_copy(update={"high": smaller}) if is_of_it else part


def _halved(part: InputSpec) -> InputSpec:
    if part.shape is None or part.dtype != "int64":
        return part
    shape = tuple(dim // 2 if isinstance(dim, int) and dim > 1 else dim for dim in part.shape)
    return part.model_copy(update={"shape": shape})
