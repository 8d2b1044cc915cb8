"""Error histograms: by units in the last place, and relative."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from reportgen.sections.onnx.parity_result import ErrorBin, ErrorHistogram

if TYPE_CHECKING:
    from torch import Tensor

_CHUNK = 1 << 22  # elements at a time, so that 64-bit integers cost no memory

# where each bin begins; it ends where the next one begins
_ULPS = (0, 1, 2, 4, 16, 64, 256, 4096, 65_536)
_DECADES = (-8, -7, -6, -5, -4, -3, -2, -1, 0)


def error_histogram(
    name: str, reference: Tensor, found: Tensor, *, batch: int, seed: int
) -> ErrorHistogram | None:
    """The histograms of one output; None unless both are floats of one dtype and one shape.

    Elements that are not finite on either side are left out.
    """
    comparable = (
        reference.dtype == found.dtype
        and reference.shape == found.shape
        and reference.dtype.is_floating_point
        and reference.numel() > 0
    )
    if not comparable:
        return None
    ulps, relative = [0] * len(_ULPS), [0] * (len(_DECADES) + 2)
    largest = elements = 0
    for wanted, given in _finite_chunks(reference, found):
        distance = ulp_distance(wanted, given)
        elements += wanted.numel()
        largest = max(largest, int(distance.max()))
        _count(ulps, distance, _ULPS[1:])
        _count(relative, _relative(wanted, given), [-math.inf, *_DECADES])
    return ErrorHistogram(
        output=name,
        dtype=str(reference.dtype).removeprefix("torch."),
        batch=batch,
        seed=seed,
        elements=elements,
        max_ulp=largest,
        ulps=_bins(_ulp_labels(), ulps),
        relative=_bins(_relative_labels(), relative),
    )


def ulp_distance(a: Tensor, b: Tensor) -> Tensor:
    """The distance of two finite tensors in numbers of their dtype, as int64, at most 2**63 - 1."""
    import torch

    width = {2: torch.int16, 4: torch.int32, 8: torch.int64}[a.element_size()]
    lowest = torch.iinfo(width).min
    # floats of one sign are ordered as their bits are; mirroring negative ones makes -0 equal to 0
    places = [tensor.contiguous().view(width).long() for tensor in (a, b)]
    first, second = (torch.where(place < 0, lowest - place, place) for place in places)
    distance = first - second
    # in float64 the difference of numbers of opposite signs may wrap around
    opposite = (first < 0) != (second < 0)
    overflown = opposite & ((distance < 0) != (first < 0))
    return torch.where(overflown, torch.iinfo(torch.int64).max, distance.abs())


def _finite_chunks(reference: Tensor, found: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    a, b = reference.detach().reshape(-1), found.reshape(-1)
    for start in range(0, a.numel(), _CHUNK):
        wanted, given = a[start : start + _CHUNK], b[start : start + _CHUNK]
        finite = wanted.isfinite() & given.isfinite()
        if bool(finite.any()):
            yield wanted[finite], given[finite]


def _relative(wanted: Tensor, given: Tensor) -> Tensor:
    """The decimal logarithm of the relative error; -Inf for equal elements."""
    a, b = wanted.double(), given.double()
    difference = (a - b).abs()
    share = (difference / a.abs()).log10()
    return share.masked_fill(difference == 0, -math.inf)  # also where both are zero, which is NaN


def _count(bins: list[int], values: Tensor, begins: Sequence[float]) -> None:
    """Add to bin `i` the values from `begins[i - 1]` on, up to but without `begins[i]`."""
    import torch

    if begins[0] == -math.inf:  # the first bin is for that value alone
        equal = values == -math.inf
        bins[0] += int(equal.sum())
        values, begins, first = values[~equal], begins[1:], 1
    else:
        first = 0
    edges = torch.tensor(begins, dtype=values.dtype)
    counts = torch.bucketize(values, edges, right=True).bincount(minlength=len(begins) + 1)
    for place, count in enumerate(counts.tolist()):
        bins[first + place] += count


def _bins(labels: list[str], counts: list[int]) -> tuple[ErrorBin, ...]:
    return tuple(
        ErrorBin(label=label, elements=count) for label, count in zip(labels, counts, strict=True)
    )


def _ulp_labels() -> list[str]:
    between = pairwise(_ULPS)
    labels = [f"{low:,}" if high == low + 1 else f"{low:,} – {high - 1:,}" for low, high in between]
    return [*labels, f"{_ULPS[-1]:,} and more"]


def _relative_labels() -> list[str]:
    between = pairwise(_DECADES)
    return [
        "equal",
        f"below 1e{_DECADES[0]}",
        *(f"1e{low} – {f'1e{high}' if high else 1}" for low, high in between),
        "1 and more",
    ]
