"""The search for the largest batch that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

SEARCH_LIMIT = 1 << 20  # far beyond any batch in use; it ends the search of a tiny model
_EXACT = 128  # every batch up to twice this is considered, then as many in each doubling


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    """`largest` fits (0: no batch does); `first_failing` does not (None: the limit fits)."""

    largest: int
    first_failing: int | None


def find_boundary(fits: Callable[[int], bool], *, limit: int, guess: int = 1) -> Boundary:
    """Find a batch up to `limit` that fits while the next one does not.

    Every batch up to 256 is considered, then steps of 0.4 to 0.8 %, which are multiples of a power
    of two: the estimates of two closer batches differ by less than their error. Steps of growing
    width lead away from the guess until both sides are known; then the gap is halved. The closer
    the guess, the fewer calls of `fits`.
    """
    end = _rank(limit)
    start = min(max(_rank(guess), 1), end)
    step = max(min(start, _EXACT) // 64, 1)  # a guess off by less than 1 % takes one more call

    def fits_at(rank: int) -> bool:
        return fits(_batch(rank))

    if fits_at(start):
        good, bad = start, None
        while bad is None and good < end:
            rank = min(good + step, end)
            if fits_at(rank):
                good, step = rank, step * 4
            else:
                bad = rank
        if bad is None:
            return Boundary(largest=_batch(good), first_failing=None)
    else:
        good, bad = 0, start
        while good == 0 and bad > 1:
            rank = max(bad - step, 1)
            if fits_at(rank):
                good = rank
            else:
                bad, step = rank, step * 4
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits_at(middle):
            good = middle
        else:
            bad = middle
    return Boundary(largest=_batch(good), first_failing=_batch(bad))


def find_solid_boundary(exceeds: Callable[[int], bool | None], *, limit: int, guess: int) -> int:
    """The largest batch up to `limit` that fits, as do those 1, 2, 4 and 8 steps below; else 0.

    `exceeds` is None for a batch that does not run, whatever the memory: that says nothing about
    the batches above it.
    """
    known = cache(exceeds)
    while limit:
        largest = find_boundary(
            lambda batch: known(batch) is False, limit=limit, guess=guess
        ).largest
        failing = next(filter(known, _below(largest)), None)
        if failing is None:
            return largest
        limit = guess = next(_below(failing), 0)
    return 0


def _below(batch: int) -> Iterator[int]:
    """The batches 1, 2, 4 and 8 steps below this one, as far as there are any."""
    rank = _rank(batch)
    return (_batch(rank - steps) for steps in (1, 2, 4, 8) if rank > steps)


def _batch(rank: int) -> int:
    """The batch of this rank among those that a search considers."""
    doublings = max(rank // _EXACT - 1, 0)
    return (rank - _EXACT * doublings) << doublings


def _rank(batch: int) -> int:
    """The rank of the largest considered batch up to this one."""
    doublings = max((batch // _EXACT).bit_length() - 1, 0)
    return _EXACT * doublings + (batch >> doublings)
