"""Findings, their severities, and the rules that produce them.

A rule is a pure function of the result of one section. `reportgen rules CODE` prints its docstring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

R = TypeVar("R")  # the result of a section


class Severity(StrEnum):
    """An error makes the verdict fail, a warning makes it warn, a note does not change it."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A problem in one model.

    Attributes:
        code: of the rule.
        severity: of the rule.
        where: the place: a module path, a node or a file; "" for the whole model.
        message: one sentence with the values.
        advice: what to do.
        ignored: the reason in the manifest for accepting it; None if it is not accepted.
        note: that a waiver for it has expired; "" otherwise.
    """

    code: str
    severity: Severity
    where: str
    message: str
    advice: str
    ignored: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Hit:
    """A place where a rule applies, and one sentence about it with the values.

    `advice` replaces the rule's where the cause is known better.
    """

    where: str
    message: str
    advice: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule(Generic[R]):
    """A documented check; `check` yields one hit for each problem in a result."""

    code: str
    name: str
    severity: Severity
    advice: str
    documentation: str
    check: Callable[[R], Iterator[Hit]]

    def findings(self, result: R) -> tuple[Finding, ...]:
        """All findings of this rule in `result`."""
        return tuple(
            Finding(
                code=self.code,
                severity=self.severity,
                where=hit.where,
                message=hit.message,
                advice=hit.advice or self.advice,
            )
            for hit in self.check(result)
        )


def rule(
    code: str, severity: Severity, *, advice: str
) -> Callable[[Callable[[R], Iterator[Hit]]], Rule[R]]:
    """Turn a function into a `Rule` with the name and docstring of the function."""

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
