"""A failure of the exporter in words, and what may help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["own", "output", "attention", "experts", "dims", "memory", "unknown", "final"]
"""What may help: see `strategy`. `final` when nothing can."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """A failure in words.

    Attributes:
        error: the cause and the place, a sentence.
        hint: what the user can do.
        kind: what may help without the user.
        details: the road-map: everything that stands in the way, a line each.
    """

    error: str
    hint: str
    kind: Kind
    details: tuple[str, ...] = ()
