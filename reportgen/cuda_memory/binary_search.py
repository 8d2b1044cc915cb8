"""Find the boundary between what fits and what does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Boundary:
    """`largest` fits (0: nothing does); `first_failing` does not (None: beyond the limit)."""

    largest: int
    first_failing: int | None


def largest(fits: Callable[[int], bool], *, limit: int, guess: int = 1) -> Boundary:
    """The largest batch up to `limit` that fits such that the next one does not.

    Steps of growing width lead away from the guess until both sides are known; then the gap is
    halved. A good guess saves most of the questions.
    """
    guess = min(max(guess, 1), limit)
    step = max(guess // 64, 1)
    if fits(guess):
        good, bad = guess, None
        while bad is None and good < limit:
            batch = min(good + step, limit)
            if fits(batch):
                good, step = batch, step * 4
            else:
                bad = batch
        if bad is None:
            return Boundary(largest=good, first_failing=None)
    else:
        good, bad = 0, guess
        while good == 0 and bad > 1:
            batch = max(bad - step, 1)
            if fits(batch):
                good = batch
            else:
                bad, step = batch, step * 4
    while bad - good > 1:
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return Boundary(largest=good, first_failing=bad)
