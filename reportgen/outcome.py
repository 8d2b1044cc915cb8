"""The outcome of a section: done, skipped with a reason, or failed with an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

from reportgen.error_text import shown_text
from reportgen.errors import SectionError

R = TypeVar("R")


@dataclass(frozen=True, kw_only=True, slots=True)
class Done(Generic[R]):
    """The section ran; `result` is what it found."""

    result: R
    status: Literal["done"] = "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """The section does not apply to this model; `reason` is a sentence."""

    reason: str
    status: Literal["skipped"] = "skipped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """The section applies but failed; `error` says why, `hint` what to do.

    `details` lists every known cause, a line each.
    """

    error: str
    hint: str = ""
    details: tuple[str, ...] = ()
    status: Literal["failed"] = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class SectionOutcome:
    """The outcome of one section for one model."""

    name: str
    title: str
    outcome: Done[Any] | Skipped | Failed


def as_failed(error: SectionError) -> Failed:
    """The outcome of a section whose analysis raised `error`."""
    # the texts may quote the model's: folders, addresses, a lone surrogate
    return Failed(
        error=shown_text(error.error),
        hint=shown_text(error.hint),
        details=tuple(map(shown_text, error.details)),
    )
