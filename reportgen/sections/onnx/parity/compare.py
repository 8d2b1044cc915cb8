"""Compares one output of the file with one of PyTorch."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reportgen.pytree import buffers_of
from reportgen.sections.onnx.parity_result import OutputParity

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from reportgen.example_inputs import Examples
    from reportgen.manifest import Tolerance


# Allowed rounding errors by dtype: absolute (for values around one) and relative.
_DEFAULTS = {
    "float64": (1e-7, 1e-6),
    "float32": (1e-4, 1e-3),
    "float16": (1e-2, 1e-2),
    "bfloat16": (5e-2, 5e-2),
}
_FLOOR = 0.01  # of the absolute tolerance, however small the values are
_SAMPLE = 1 << 20  # elements that decide what magnitude is typical
_TINY = 1e-300  # replaces a tolerance of zero, which nothing can be divided by
_CHUNK = 1 << 22  # elements compared at a time, so that double precision costs no memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """A comparison, and the range of PyTorch's finite values; None where there is none."""

    parity: OutputParity
    lowest: float | None
    highest: float | None


def compare(
    name: str, reference: Tensor, found: Tensor, requested: Tolerance, computed: str = ""
) -> Compared:
    """Compare the file's output `found` with PyTorch's output `reference`.

    An element passes when `|found - reference| <= absolute + relative * |reference|`, as in
    `numpy.allclose`; integers and booleans must be equal, NaN and Inf must be at the same
    positions. `computed` is the dtype that the model computes in, which may be less exact than the
    output's. Without an absolute tolerance in the manifest, that of the dtype is scaled with the
    typical magnitude (the median of the nonzero values). Tiny differences where values around one
    cancel out pass with a wider tolerance, which is then the one reported.
    """
    reference, found = _real(reference.detach()), _real(found)
    absolute, relative = tolerances(reference, requested, computed)
    counts = (
        _count_errors(reference, found, absolute, relative) if _fits(reference, found) else None
    )
    least = _least_absolute(reference, requested, computed)
    if counts is not None and counts.beyond and absolute < least:
        wider = _count_errors(reference, found, least, relative)
        if not wider.beyond:
            counts, absolute = wider, least
    passed, note = _verdict(reference, found, counts)
    # an error of the finite elements alone would look small beside a misplaced NaN
    shown = counts if counts is not None and counts.misplaced == 0 else None
    largest = shown.max_difference if shown else None
    return Compared(
        parity=OutputParity(
            name=name,
            dtype=_dtype_name(reference.dtype),
            shape=tuple(reference.shape),
            max_absolute_error=largest,
            max_relative_error=_relative(largest, counts),
            absolute_tolerance=absolute,
            relative_tolerance=relative,
            passed=passed,
            vacuous=False,  # decided over all cases together
            note=note,
            nan_values=counts.nans if counts else 0,
        ),
        lowest=counts.lowest if counts else None,
        highest=counts.highest if counts else None,
    )


def tolerances(reference: Tensor, requested: Tolerance, computed: str = "") -> tuple[float, float]:
    """The absolute and the relative tolerance for `reference`; zero unless it is a float."""
    absolute, relative = _default(reference, computed)
    if absolute and requested.absolute is not None:
        absolute = requested.absolute
    elif absolute:
        # 1e-4 would pass every wrong softmax over 100,000 classes, and fail pixel coordinates
        absolute *= _typical_magnitude(reference)
    return absolute, requested.relative if relative and requested.relative is not None else relative


def is_beyond(reference: Tensor, other: Tensor, absolute: float, relative: float) -> bool:
    """Whether two tensors of PyTorch differ by more than a tolerance."""
    reference, other = _real(reference), _real(other)
    if not _fits(reference, other):
        return True
    counts = _count_errors(reference, other, absolute, relative)
    return bool(counts.beyond or counts.misplaced)


def is_close(a: Tensor, b: Tensor, absolute: float, relative: float) -> Tensor:
    """Where `b` is within a tolerance of `a`, both in double; NaN and Inf equal themselves."""
    same = (a == b) | (a.isnan() & b.isnan())
    finite = a.isfinite() & b.isfinite()
    return same | (finite & ((a - b).abs() <= absolute + relative * a.abs()))


def excess(reference: Tensor, found: Tensor, absolute: float, relative: float) -> float:
    """The largest error as a multiple of what the tolerance allows there; Inf where one is Inf."""
    if not _fits(reference, found):
        return math.inf
    worst = 0.0
    for wanted, given in _chunks(_real(reference), _real(found)):
        a, b = wanted.double(), given.double()
        allowed = (absolute + relative * a.abs()).clamp(min=_TINY)
        share = (a - b).abs() / allowed
        share = share.masked_fill((a == b) | (a.isnan() & b.isnan()), 0.0)
        worst = max(worst, float(share.nan_to_num(nan=math.inf).max()))
    return worst


def _default(reference: Tensor, computed: str) -> tuple[float, float]:
    if not reference.dtype.is_floating_point:
        return 0.0, 0.0
    own = _DEFAULTS.get(_dtype_name(reference.dtype), _DEFAULTS["float32"])
    # a float16 model that returns float32 logits rounds as float16 does
    return max(own, _DEFAULTS.get(computed, own))


def _least_absolute(reference: Tensor, requested: Tolerance, computed: str) -> float:
    if requested.absolute is not None:
        return requested.absolute
    return _FLOOR * _default(reference, computed)[0]


def _real(tensor: Tensor) -> Tensor:
    """Complex numbers as in the exporter's files: in pairs along a last axis."""
    import torch

    # view_as_real refuses a lazy conjugate
    return torch.view_as_real(tensor.resolve_conj()) if tensor.dtype.is_complex else tensor


def varies(lowest: float, highest: float, absolute: float, relative: float) -> bool:
    """Whether a range is too wide for a constant to pass for all its values."""
    return highest - lowest > absolute + relative * max(abs(lowest), abs(highest))


@dataclass(slots=True)
class _ErrorCounts:
    """Counts and extremes over the chunks of one comparison."""

    elements: int = 0
    finite: int = 0
    nans: int = 0
    infinities: int = 0
    misplaced: int = 0  # NaN or Inf on one side only, or Inf of opposite signs
    beyond: int = 0
    max_difference: float | None = None
    lowest: float | None = None
    highest: float | None = None


def _fits(reference: Tensor, found: Tensor) -> bool:
    return reference.shape == found.shape


def _count_errors(
    reference: Tensor, found: Tensor, absolute: float, relative: float
) -> _ErrorCounts:
    counts = _ErrorCounts(elements=reference.numel())
    if not counts.elements:
        counts.max_difference = 0.0
    is_exact = not (reference.dtype.is_floating_point or found.dtype.is_floating_point)
    for wanted, given in _chunks(reference, found):
        a, b = wanted.double(), given.double()
        finite = a.isfinite() & b.isfinite()
        odd_a, odd_b = a[~finite], b[~finite]  # NaN and Inf must stand at the same positions
        same = (odd_a == odd_b) | (odd_a.isnan() & odd_b.isnan())
        counts.nans += int(a.isnan().sum())
        counts.infinities += int(a.isinf().sum())
        counts.misplaced += int((~same).sum())
        counts.finite += int(finite.sum())
        _add_finite(counts, a[finite], b[finite], absolute, relative)
        if is_exact:  # doubles hold integers up to 2**53 only
            counts.beyond = max(counts.beyond, int((wanted != given).sum()))
    return counts


def _add_finite(
    counts: _ErrorCounts, a: Tensor, b: Tensor, absolute: float, relative: float
) -> None:
    if a.numel() == 0:
        return
    difference = (a - b).abs()
    counts.beyond += int((difference > absolute + relative * a.abs()).sum())
    counts.max_difference = max(counts.max_difference or 0.0, float(difference.max()))
    low, high = float(a.min()), float(a.max())
    counts.lowest = low if counts.lowest is None else min(counts.lowest, low)
    counts.highest = high if counts.highest is None else max(counts.highest, high)


def _chunks(reference: Tensor, found: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    a, b = reference.reshape(-1), found.reshape(-1)
    for start in range(0, a.numel(), _CHUNK):
        yield a[start : start + _CHUNK], b[start : start + _CHUNK]


def _verdict(reference: Tensor, found: Tensor, counts: _ErrorCounts | None) -> tuple[bool, str]:
    """Whether the output passes, and a note."""
    if counts is None:
        return False, f"PyTorch gives shape {list(reference.shape)}, the file {list(found.shape)}"
    if counts.elements == 0:
        return True, "0 elements"
    if counts.misplaced:
        return False, f"NaN or Inf at different places, {counts.misplaced} of {counts.elements}"
    if counts.nans == counts.elements:  # agrees, but any broken file would agree as well
        return False, "every value is NaN, in PyTorch and in the file"
    notes = []
    if counts.nans or counts.infinities:
        notes.append(
            f"{counts.nans} NaN and {counts.infinities} infinite values, at the same places in both"
        )
    if counts.beyond:
        notes.append(f"{counts.beyond} of {counts.elements} values beyond the tolerance")
    if reference.dtype != found.dtype:
        notes.append(f"the file gives {_dtype_name(found.dtype)}")
    return not counts.beyond, "; ".join(notes)


def _relative(largest: float | None, counts: _ErrorCounts | None) -> float | None:
    """The largest error over the largest magnitude; None if only the magnitude is zero."""
    if counts is not None and counts.elements == 0:
        return 0.0
    if largest is None or counts is None or counts.lowest is None or counts.highest is None:
        return None
    if largest == 0:
        return 0.0
    magnitude = max(abs(counts.lowest), abs(counts.highest))
    share = largest / magnitude if magnitude else math.inf
    return share if math.isfinite(share) else None


def _typical_magnitude(reference: Tensor) -> float:
    flat = reference.reshape(-1)
    sample = flat[:: max(1, flat.numel() // _SAMPLE)].double().abs()
    # after a ReLU most values are zero and would make the tolerance zero
    sample = sample[sample.isfinite() & (sample > 0)]
    return float(sample.median()) if sample.numel() else 0.0


def _dtype_name(dtype: torch.dtype | Any) -> str:
    return str(dtype).removeprefix("torch.")


_LEAST_EXACT_FIRST = ("bfloat16", "float16", "float32", "float64")


def computing_dtype(model: nn.Module, examples: Examples) -> str:
    """The dtype of most of a model's numbers, or of its least exact input if it has none.

    "" if there are no floating-point numbers.
    """
    own = [n for n, _ in elements_by_dtype(model).most_common() if n in _LEAST_EXACT_FIRST]
    if own:
        return own[0]
    given = {_dtype_name(tensor.dtype) for tensor in examples.tensors().values()}
    return next((name for name in _LEAST_EXACT_FIRST if name in given), "")


def elements_by_dtype(model: nn.Module) -> Counter[str]:
    """The number of elements in parameters and buffers, by dtype."""
    elements: Counter[str] = Counter()
    for tensor in (*model.parameters(), *buffers_of(model)):
        elements[_dtype_name(tensor.dtype)] += tensor.numel()
    return elements
