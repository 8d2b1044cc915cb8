"""What we judge: severities, findings, and the rules that make findings of results.

A rule is a documented pure function of one section's result. Its name completes the sentence
"allow …", its docstring is its page in `reportgen rules CODE`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

R = TypeVar("R")


class Severity(StrEnum):
    """How much a finding matters: an error fails the model, a warning only warns."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing found in one model; `ignored` is the manifest's reason for letting it pass."""

    code: str
    severity: Severity
    where: str
    message: str
    advice: str
    ignored: str | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a rule found something, and what, in one sentence with its figures."""

    where: str
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule(Generic[R]):
    """A judgment: `check` yields a hit for every place in a result that breaks it."""

    code: str
    name: str
    severity: Severity
    advice: str
    documentation: str
    check: Callable[[R], Iterator[Hit]]

    def findings(self, result: R) -> tuple[Finding, ...]:
        """Every finding of this rule in `result`."""
        return tuple(
            Finding(
                code=self.code,
                severity=self.severity,
                where=hit.where,
                message=hit.message,
                advice=self.advice,
            )
            for hit in self.check(result)
        )


def rule(
    code: str, severity: Severity, *, advice: str
) -> Callable[[Callable[[R], Iterator[Hit]]], Rule[R]]:
    """Make a rule of a function: its name is the function's, its documentation the docstring."""

    def make(check: Callable[[R], Iterator[Hit]]) -> Rule[R]:
        return Rule(
            code=code,
            name=check.__name__.replace("_", "-"),
            severity=severity,
            advice=advice,
            documentation=inspect.cleandoc(check.__doc__ or ""),
            check=check,
        )

    return make
