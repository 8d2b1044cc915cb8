"""Find the boundary between what fits and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    """`largest` fits (0: nothing does); `first_failing` does not (None: beyond the limit)."""

    largest: int
    first_failing: int | None


def largest(fits: Callable[[int], bool], *, limit: int) -> Boundary:
    """The largest batch up to `limit` that fits such that the next one does not.

    Doubles until something fails, then halves the gap.
    """
    good, bad = 0, None
    batch = 1
    while bad is None and batch <= limit:
        if fits(batch):
            good, batch = batch, batch * 2
        else:
            bad = batch
    if bad is None:
        return Boundary(largest=good, first_failing=None)
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return Boundary(largest=good, first_failing=bad)
